"""StyleGAN on drawn shapes, growing from 8x8 to 32x32."""

from gm_jax.defaults import stylegan_config


def get_config():
    config = stylegan_config()
    config.rows = ("T9",)
    config.dataset.name = "shapes"
    config.model.latent_dim = 64
    config.model.mapping_layers = 4
    config.model.channels = (64, 64, 32, 16)  # on grids of 4, 8, 16, 32 pixels
    config.gan.r1 = 10.0
    config.gan.r1_every = 16
    config.growth.stable = config.growth.fade = 64_000
    config.growth.batch_sizes = config.growth.rates = ()
    config.batch_size = 32
    config.steps_per_call = 10
    config.steps = 12_000
    config.optim.learning_rate = 2e-3
    config.evaluate_every = config.checkpoint_every = 1000
    return config
