"""What every classifier starts from, and the ranges of its keys."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from gm_jax.defaults.base import base_config

MNIST = {"mean": (0.1307,), "std": (0.3081,)}  # of the training pixels
CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}

RANGES = {
    "classifier.classes": "[2, inf)",
    "classifier.label_smoothing": "[0, 1)",
    "augment.crop": "[0, inf)",
    "augment.cutout": "[0, inf)",
}


def classifier_config() -> ConfigDict:
    """Return what every classifier starts from: no augmentation, no smoothing."""
    config = base_config("classifier")
    config.classifier = ConfigDict()
    config.classifier.classes = placeholder(int)  # None: as many as the data have
    config.classifier.mean = (0.5,)  # of the pixels, from 0 to 1: one value, or one for each channel
    config.classifier.std = (0.5,)  # with the mean it makes the pixels' average 0 and variance 1
    config.classifier.label_smoothing = 0.0  # share of the target that all classes get alike
    config.classifier.flip_at_test = False  # average the logits over the image and its mirror image
    config.augment = ConfigDict()
    config.augment.flip = False  # left and right, half the time
    config.augment.crop = 0  # pixels: shift by up to so many
    config.augment.cutout = 0  # pixels: blank a square of this side
    config.evaluation.batch_size = 500
    return config
