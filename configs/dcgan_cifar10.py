"""W7: a DCGAN on CIFAR-10.

    python -m gm_jax.main --config=configs/dcgan_cifar10.py    # for a GPU: half a day on two CPU cores

The networks are `dcgan_mnist`'s, for 32x32x3: one dense and three transposed convolutions up, two convolutions and a
dense layer down, 100 epochs, batches of 256 (000, section 6.8). The report's smallest losses are 0.965 (generator) and
0.584 (discriminator): compare `figures/losses.md`, though neither says how good the samples are. `sngan_cifar10` is
what to use today.
"""

from gm_jax.defaults import TUTORIAL_DCGAN, gan_config, set_epochs


def get_config():
    config = gan_config()
    config.rows = ("W7", "T5")
    config.minutes = 720
    config.dataset.name = "cifar10"
    config.model = TUTORIAL_DCGAN
    config.batch_size = 256
    set_epochs(config, epochs=100, checkpoint_epochs=5)
    return config
