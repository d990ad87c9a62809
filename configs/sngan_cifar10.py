"""A GAN with spectral normalisation on CIFAR-10, which two of the reports name as a remedy (W, T).

    python -m gm_jax.main --config=configs/sngan_cifar10.py    # a GPU; aim: FID below 30 (chainer-gan-lib: 23.6)

The standard CNN of Miyato et al. (2018, table 3) with the hinge loss, 128 latents, batches of 64, Adam at 2e-4 with
beta1 0.5 (their setting C) and 100,000 steps; besides, a moving average.
"""

from gm_jax.defaults import gan_config, set_epochs


def get_config():
    config = gan_config()
    config.rows = ("T5",)
    config.dataset.name = "cifar10"
    config.model.latent_dim = 128
    config.model.generator = {
        "width": 64,
        "multipliers": (8, 4, 2, 1),
        "strides": (2, 2, 2, 1),
        "kernels": (4, 4, 4, 3),
    }
    config.model.discriminator = {
        "width": 64,
        "multipliers": (1, 1, 2, 2, 4, 4, 8),
        "strides": (1, 2, 1, 2, 1, 2, 1),
        "kernels": (3, 4, 3, 4, 3, 4, 3),
        "dense": True,
        "slope": 0.1,
        "batch_norm": False,
        "spectral_norm": True,
    }
    config.gan.loss = "hinge"
    config.batch_size = 64
    config.steps_per_call = 2
    config.optim.generator.ema_decay = 0.999
    set_epochs(config, epochs=128, checkpoint_epochs=5)
    return config
