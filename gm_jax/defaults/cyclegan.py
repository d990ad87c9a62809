"""What every CycleGAN starts from, its mode, and the ranges of its keys."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from gm_jax.defaults.base import base_config, set_epochs

MODES = ("translate",)
RANGES = {
    "cyclegan.loss": ("least_squares", "non_saturating"),
    "cyclegan.cycle": "[0, inf)",
    "cyclegan.identity": "[0, inf)",
    "cyclegan.pool": "[0, inf)",
    "cyclegan.crop": "[8, inf)",
    "translate.direction": ("ab", "ba"),
}


def cyclegan_config() -> ConfigDict:
    """Return what every CycleGAN starts from: the paper's networks and settings (Zhu et al. 2017)."""
    config = base_config("cyclegan")
    config.batch_size = 1
    config.domains = ConfigDict()
    for name in "ab":
        config.domains[name] = ConfigDict()
        config.domains[name].split = "train"  # that is trained on ...
        config.domains[name].test = "test"  # ... and that is translated in evaluations and figures
        config.domains[name].attribute = placeholder(str)  # only examples with this attribute (or "label") ...
        config.domains[name].value = placeholder(str)  # ... of this value; None: all

    config.model.generator = ConfigDict({"width": 64, "blocks": 9})
    config.model.discriminator = ConfigDict({"width": 64, "layers": 3})
    config.cyclegan = ConfigDict()
    config.cyclegan.loss = "least_squares"  # or non_saturating: cross-entropy
    config.cyclegan.cycle = 10.0  # weight lambda of what does not come back
    config.cyclegan.identity = 0.5  # of lambda: weight of what changes in images that are of the domain already
    config.cyclegan.pool = 50  # past translations of a domain that its discriminator is shown
    config.cyclegan.crop = placeholder(int)  # pixels a side of a random part that is trained on; None: all
    config.cyclegan.flip = True  # mirror at random

    config.optim.learning_rate = 2e-4
    config.optim.beta1 = 0.5
    config.optim.decay = "linear"
    for network in ("ab", "ba", "a", "b"):
        config.optim[network] = ConfigDict()
        config.optim[network].learning_rate = placeholder(float)  # None: optim.learning_rate
        config.optim[network].ema_decay = placeholder(float)
    config.evaluation.n = 500
    config.evaluation.samples = 0
    config.sampling.n = 8  # images of each domain in figures

    config.translate = ConfigDict()
    config.translate.input = placeholder(str)  # a folder of images, for mode translate
    config.translate.output = placeholder(str)  # None: `translated` in the workdir
    config.translate.direction = "ab"
    return config


def photographs_config(name: str) -> ConfigDict:
    """Return what the authors train on one of TFDS's `cycle_gan` sets: 286 pixels, of which 256, for 200 epochs."""
    config = cyclegan_config()
    config.rows = ("B5", "T7")
    config.dataset.name = f"cycle_gan/{name}"
    config.dataset.image_size = 286
    config.dataset.validation = 50
    for domain in "ab":
        config.domains[domain].split = f"train{domain.upper()}"
        config.domains[domain].test = f"test{domain.upper()}"
    config.cyclegan.crop = 256
    set_epochs(config, epochs=200, checkpoint_epochs=5, evaluate_epochs=5)
    config.epochs.optim.hold_steps = 100
    return config
