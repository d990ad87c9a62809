"""What every CycleGAN starts from, the ranges of its keys, and its further mode."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from gm_jax.defaults.base import base_config

MODES = ("translate",)
RANGES = {
    "model.name": ("cyclegan",),
    "cyclegan.loss": ("least_squares", "cross_entropy"),
    "cyclegan.cycle_weight": "[0, inf)",
    "cyclegan.identity_weight": "[0, inf)",
    "cyclegan.pool": "[1, inf)",
    "augment.enlarge": "[1, inf)",
    "translate.direction": ("ab", "ba"),
}


def cyclegan_config() -> ConfigDict:
    """Return what every CycleGAN starts from: the paper's networks, losses and optimisers."""
    config = base_config("cyclegan")
    config.model.name = "cyclegan"
    config.model.generator = ConfigDict()
    config.model.discriminator = ConfigDict()
    config.cyclegan = ConfigDict()
    config.cyclegan.classes = ()  # the classes that are a and b; (): the splits trainA and trainB, testA and testB
    config.cyclegan.loss = "least_squares"  # or cross_entropy
    config.cyclegan.cycle_weight = 10.0  # lambda, both ways
    config.cyclegan.identity_weight = 0.5  # of the identity loss, in units of cycle_weight
    config.cyclegan.pool = 50  # translated images of each kind from which the discriminators are shown some
    config.augment = ConfigDict()
    config.augment.flip = True
    config.augment.enlarge = placeholder(int)  # resize to so many pixels, then crop at random to what it was
    config.batch_size = 1
    config.optim.learning_rate = 2e-4
    config.optim.beta1 = 0.5
    config.dataset.validation = 100
    config.sampling.n = 8  # test images in figures
    config.translate = ConfigDict()
    config.translate.input = placeholder(str)  # a folder of images
    config.translate.direction = "ab"  # or ba
    config.translate.output = placeholder(str)  # None: a folder in the workdir
    return config
