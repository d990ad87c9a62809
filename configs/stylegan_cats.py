"""T9: StyleGAN on cat faces, growing from 8x8 to 64x64: stylegan_faces64 on the data of dcgan_cats.

python -m gm_jax.main --config=configs/stylegan_cats.py --config.dataset.folder=DIR    # for a GPU; not run
"""

from gm_jax.defaults import SMALL_STYLEGAN, stylegan_config


def get_config():
    config = stylegan_config()
    config.rows = ("T9",)
    config.dataset.name = "cats"
    config.dataset.image_size = 64
    config.dataset.split = config.evaluation.split = "all"  # of a folder without train and test
    config.dataset.validation = 0
    config.model.update(SMALL_STYLEGAN)
    config.gan.r1 = 1.0
    config.gan.r1_every = 16
    config.gan.augment = ("colour", "translation", "cutout")
    config.growth.stable = config.growth.fade = 300_000
    config.growth.batch_sizes = (64, 64, 32, 32)
    config.growth.rates = ()
    config.optim.learning_rate = 2e-3
    config.batch_size = 32
    config.steps_per_call = 10
    config.steps = 80_000  # 64x64 are stable from step 42,210
    config.evaluate_every = config.checkpoint_every = 4000
    return config
