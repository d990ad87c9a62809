"""H3 and T8: a conditional GAN on MNIST that draws the digit it is asked for.

    python -m gm_jax.main --config=configs/cgan_mnist.py             # H3; for a GPU: five hours on two CPU cores
    python -m gm_jax.main --config=configs/cgan_mnist.py:matching    # T8; likewise
    python -m gm_jax.main --config=configs/cgan_mnist.py:modern      # seven minutes on two CPU cores
      ... --mode=evaluate --config.evaluation.judge=runs/lenet_mnist    # judged by that classifier, once it is trained
      ... --mode=sample --config.sampling.label=7

The networks of `dcgan_mnist`, 50 epochs, one-hot labels joined to noise and image are H3's (002); `matching` is T8's
(003): the discriminator also rejects real digits under a wrong label. Both show digits only. `modern` does so, too,
with small networks with InfoGAN's dense layers (Chen et al. 2016), batch norm in place of dropout, and a moving
average: all of 1,000 samples show the digit asked for (`judged_accuracy`).
"""

from gm_jax.defaults import SMALL_DCGAN, TUTORIAL_DCGAN, check_variant, gan_config, set_epochs

VARIANTS = ("matching", "modern")


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = gan_config()
    config.rows = {"": ("H3",), "matching": ("T8",), "modern": ("H3", "T8")}[variant]
    config.minutes = {"": 300, "matching": 300, "modern": 7}[variant]
    config.dataset.name = "mnist"
    config.gan.conditional = True
    config.gan.wrong_labels = variant in ("matching", "modern")
    config.model = TUTORIAL_DCGAN
    config.batch_size = 256
    set_epochs(config, epochs=50, checkpoint_epochs=5)
    config.if_embedded = {"steps": 1200}
    if variant == "modern":
        modernise(config)
    return config


def modernise(config):
    config.model = SMALL_DCGAN
    config.batch_size = 128
    config.optim.generator.ema_decay = 0.999
    set_epochs(config, epochs=7, checkpoint_epochs=1)
