"""D3: a DDPM of cats, a folder of 64x64 images (P1's data).

    python -m gm_jax.main --config=configs/ddpm_cats.py    # for GPUs; a step takes minutes on two CPU cores
      ... --config.dataset.folder=DIR    # where the images are

The U-Net has the levels that Song et al. (2021) use at 64x64, 78.7M parameters, trained as Ho et al. (2020) do; DDIM's
paper reports FID 3.26 on CelebA after 500,000 steps with 1,000 steps of sampling, and 6.53 with 50.
"""

from gm_jax.defaults import ddpm_config


def get_config():
    config = ddpm_config()
    config.rows = ("D3",)
    config.dataset.name = "cats"
    config.dataset.image_size = 64
    config.model.multipliers = (1, 2, 2, 2, 4)
    config.steps = 200_000
    return config
