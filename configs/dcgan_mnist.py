"""W6 and H2: a DCGAN on MNIST, with the networks of TensorFlow's tutorial.

    python -m gm_jax.main --config=configs/dcgan_mnist.py          # four hours on two CPU cores, digits in ten minutes
    python -m gm_jax.main --config=configs/dcgan_mnist.py:report   # W6; for a GPU: as long on the cores, digits later
    python -m gm_jax.main --config=configs/dcgan_mnist.py:h2       # H2: 50 epochs
    python -m gm_jax.main --config=configs/dcgan_mnist.py:modern   # six minutes on two CPU cores

One dense and three transposed convolutions up (7x7 -> 7x7x128 -> 14x14x64 -> 28x28x1), two convolutions and a dense
layer down, and 100 epochs are W6's (000, section 6.7); batch norm, leaky ReLU, dropout, 100 noise values and two
optimisers are H2's (002), which `h2` trains for its 50 epochs, a picture after each. Both show samples only and name no
learning rate. It is DCGAN's, 2e-4 with beta1 0.5: with the tutorial's 1e-4 and 0.9 all samples were blobs after six
epochs. `report` has W6's batches of 256, and `h2`, which names none, the tutorial's, the same. By default batches are
of 64, in which the same images make four times the updates: after three epochs, ten minutes of one core, two thirds of
the digits could be read, not half after four.

`modern` has fewer channels and InfoGAN's dense layers (Chen et al. 2016), by which both networks see a digit as a
whole, batch norm in place of dropout, and a moving average: of 10,000 samples a classifier takes 882 to 1,267 for each
digit (RESULTS.md has its distances).
"""

from gm_jax.defaults import SMALL_DCGAN, TUTORIAL_DCGAN, check_variant, gan_config, set_epochs

VARIANTS = ("report", "h2", "modern")


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = gan_config()
    config.rows = {"h2": ("H2",), "modern": ("W6", "H2", "T5")}.get(variant, ("W6", "T5"))
    config.minutes = {"": 240, "report": 240, "h2": 120, "modern": 6}[variant]
    config.dataset.name = "mnist"
    config.model = TUTORIAL_DCGAN
    config.batch_size = 256 if variant in ("report", "h2") else 64
    set_epochs(config, epochs=50 if variant == "h2" else 100, checkpoint_epochs=1)
    config.if_embedded = {"steps": 1200 if variant in ("report", "h2") else 4800}
    if variant == "modern":
        modernise(config)
    return config


def modernise(config):
    config.model = SMALL_DCGAN
    config.batch_size = 128
    config.optim.generator.ema_decay = 0.999
    set_epochs(config, epochs=9, checkpoint_epochs=1)
