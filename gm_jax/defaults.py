"""The keys that every config has, with their defaults; a file in `configs/` lists only what differs."""

import math

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from gm_jax.errors import UserError, nearest


def base_config(task: str) -> ConfigDict:
    """Return the config that every experiment starts from, for a task of `gm_jax.tasks`."""
    config = ConfigDict()
    config.task = task
    config.seed = 0
    config.steps = 10_000  # train up to this step
    config.batch_size = 128  # global: divided over all devices
    config.steps_per_call = 1  # steps scanned inside one call of the compiled function

    config.dataset = ConfigDict()
    config.dataset.name = "mnist"
    config.dataset.data_dir = placeholder(str)  # a TFDS directory; None: $TFDS_DATA_DIR, then ~/tensorflow_datasets
    config.dataset.folder = placeholder(str)  # a folder of images, instead of TFDS
    config.dataset.embedded = True  # False: never let the embedded digits stand in for a missing data set
    config.dataset.image_size = placeholder(int)  # crop and resize to this many pixels

    config.if_embedded = ConfigDict()  # what differs when the data are an embedded set, such as a shorter run

    config.model = ConfigDict()

    config.optim = ConfigDict()
    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 0
    config.optim.decay = "constant"  # or cosine, linear: from the peak to 0 at decay_steps
    config.optim.decay_steps = placeholder(int)
    config.optim.beta1 = 0.9
    config.optim.beta2 = 0.999
    config.optim.epsilon = 1e-8
    config.optim.weight_decay = 0.0  # of kernels; for adamw and sgd
    config.optim.clip_norm = placeholder(float)  # clip gradients to this global norm
    config.optim.ema_decay = placeholder(float)  # keep an exponential moving average of the parameters

    config.log_every = 100
    config.evaluate_every = 1000  # validation loss and a sample grid
    config.checkpoint_every = 1000
    config.keep_checkpoints = 2  # the last so many, and the best one

    config.evaluation = ConfigDict()
    config.evaluation.split = "test"
    config.evaluation.n = placeholder(int)  # examples; None: the whole split
    config.evaluation.batch_size = 250
    config.evaluation.samples = 200  # compared with their nearest training images, where data have labels

    config.sampling = ConfigDict()
    config.sampling.n = 64
    config.sampling.seed = 0
    config.sampling.batch_size = 256
    return config


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


MNIST = {"mean": (0.1307,), "std": (0.3081,)}  # of the training pixels
CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}


def set_epochs(
    config: ConfigDict, epochs: int, examples: int, checkpoint_epochs: int, evaluate_epochs: int = 1
) -> None:
    """Count time in epochs of a training set of so many examples: the run, its decay, and what happens on the way.

    An epoch is rounded up to a multiple of `steps_per_call`; every one is logged.
    """
    k = config.steps_per_call
    epoch = math.ceil(examples / config.batch_size / k) * k
    config.steps = config.optim.decay_steps = epochs * epoch
    config.log_every = epoch
    config.evaluate_every = evaluate_epochs * epoch
    config.checkpoint_every = checkpoint_epochs * epoch


def check_variant(variant: str, *known: str) -> None:
    """Raise UserError unless `variant` is "" or one of those that a config knows."""
    if variant not in ("", *known):
        raise UserError(f"the config has no variant ':{variant}'{nearest(variant, known)}: it has {', '.join(known)}")
