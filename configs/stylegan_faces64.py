"""T9: StyleGAN on faces64, 12,374 photographs of faces in a TFDS directory, growing from 8x8 to 64x64.

    python -m gm_jax.main --config=configs/stylegan_faces64.py    # --config.dataset.data_dir=DIR; not measured yet

The networks are small, the schedule is a quarter of Karras et al. 2019, and since the images are few, what the
discriminator sees is augmented.
"""

from gm_jax.defaults import SMALL_STYLEGAN, stylegan_config


def get_config():
    config = stylegan_config()
    config.rows = ("T9",)
    config.dataset.name = "faces64"
    config.model.update(SMALL_STYLEGAN)
    config.gan.r1 = 1.0
    config.gan.r1_every = 16
    config.gan.augment = ("colour", "translation", "cutout")
    config.growth.stable = config.growth.fade = 150_000
    config.growth.batch_sizes = (64, 64, 32, 32)
    config.growth.rates = ()
    config.optim.learning_rate = 2e-3
    config.batch_size = 32
    config.steps_per_call = 10
    config.steps = 40_000  # 64x64 are stable from step 21,120
    config.evaluate_every = config.checkpoint_every = 2000
    return config
