"""T9: StyleGAN on CelebA, growing from 8x8 to 128x128 with the settings of Karras et al. 2019.

    python -m gm_jax.main --config=configs/stylegan_celeba.py    # for a GPU; not run

Batches and learning rates are those of their single GPU. R1 is weaker than theirs for 1024x1024, but not
as weak as by the rule of Karras et al. 2020, 0.0002 side^2 / batch_size, which gives 0.2.
"""

from gm_jax.defaults import stylegan_config


def get_config():
    config = stylegan_config()
    config.rows = ("T9",)
    config.dataset.name = "celeb_a"
    config.dataset.image_size = 128
    config.gan.r1 = 1.0
    config.batch_size = 16
    config.steps = 160_000  # the last border is at 107,814
    config.evaluate_every = config.checkpoint_every = 5000
    return config
