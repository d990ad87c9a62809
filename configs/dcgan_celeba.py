"""B4: a DCGAN on faces, CelebA at 64x64, with latent arithmetic.

    python -m gm_jax.main --config=configs/dcgan_celeba.py    # for a GPU: a day on two CPU cores
      ... --config.dataset.folder=DIR    # the images in a folder: the download of TFDS is often over its quota

The networks and settings are the DCGAN paper's, trained for 25 epochs (5 in PyTorch's tutorial); the report (001,
part B-I) names none. It draws: smiling men + hat - hat + moustache - no moustache; men without glasses + people with
glasses - people without; men with glasses - men without + women without. Find samples of each kind by eye, number them
from 0 along the rows of 16 in samples.png, and average some three for each term:
    ... --mode=sample --config.sampling.n=256
    ... --mode=figures --config.sampling.arithmetic="3,17,42 - 5,80,91 + 11,120,130"
The mean of some latents lies far inside the shell where the generator's noise does, and draws a pale average: means and
answers are scaled to the length sqrt(100) before they are drawn, which the paper does not say (its latents were
uniform).
"""

from gm_jax.defaults import gan_config, set_epochs


def get_config():
    config = gan_config()
    config.rows = ("B4",)
    config.minutes = 1440
    config.dataset.name = "celeb_a"
    config.dataset.image_size = 64
    config.model.generator.width = 64  # multipliers, strides and kernels are the networks' defaults
    config.model.discriminator = {"width": 64, "bias": False}
    config.batch_size = 128
    set_epochs(config, epochs=25, checkpoint_epochs=1)
    return config
