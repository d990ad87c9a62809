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
    config.dataset.split = "train"  # the one trained on; of a folder that is not divided, "all" takes every image
    config.dataset.validation = 1000  # of its examples, a tenth at most, choose the best checkpoint and train nothing
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
    config.optim.beta1 = 0.9  # of sgd: the momentum
    config.optim.beta2 = 0.999
    config.optim.epsilon = 1e-8
    config.optim.nesterov = False  # of sgd: the gradient counts as if the momentum had moved on already
    config.optim.weight_decay = 0.0  # of kernels; for adamw and sgd
    config.optim.clip_norm = placeholder(float)  # clip gradients to this global norm
    config.optim.ema_decay = placeholder(float)  # keep an exponential moving average of the parameters

    config.log_every = 100
    config.evaluate_every = 1000  # scores of the examples held out for validation, and a sample grid
    config.checkpoint_every = 1000
    config.keep_checkpoints = 2  # the last so many, and the best one

    config.evaluation = ConfigDict()
    config.evaluation.split = "test"  # of mode evaluate, and shown in figures
    config.evaluation.n = placeholder(int)  # examples, always the same; None: the whole split
    config.evaluation.batch_size = 250
    config.evaluation.samples = 200  # compared with each other and, where data have labels, with training images
    config.evaluation.judge = placeholder(str)  # workdir of a trained classifier that says what samples show; or shapes

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


def baseline_config(task: str) -> ConfigDict:
    """Return what every baseline starts from: it is fitted before step 1, which trains nothing and is saved."""
    config = base_config(task)
    config.steps = config.log_every = config.evaluate_every = config.checkpoint_every = 1
    config.optim.name = "none"
    return config


def autoencoder_config() -> ConfigDict:
    """Return what every autoencoder starts from: no noise, no penalty."""
    config = base_config("autoencoder")
    config.model.latent_dim = 32  # units of the code
    config.model.activation = "linear"  # of the code: or relu, sigmoid
    config.autoencoder = ConfigDict()
    config.autoencoder.noise = 0.0  # standard deviation, on pixels in [0, 1], of what is to be removed
    config.autoencoder.penalty = "none"  # or l1, kl: makes the code sparse
    config.autoencoder.penalty_weight = 0.0  # beside the squared error summed over the pixels
    config.autoencoder.target_activity = 0.05  # of each unit, for kl
    return config


def vae_config() -> ConfigDict:
    """Return what every VAE starts from: the plain ELBO, grey pixels, 500 importance samples to evaluate."""
    config = base_config("vae")
    config.model.latent_dim = 2
    config.vae = ConfigDict()
    config.vae.likelihood = "bernoulli"  # or gaussian
    config.vae.scale = placeholder(float)  # standard deviation of the gaussian, on pixels in [0, 1]; None: learned
    config.vae.binarise = "none"  # dynamic: drawn anew in every step; threshold: at 0.5
    config.vae.beta = 1.0  # weight of the KL term
    config.vae.warmup_steps = 0  # in which that weight rises from 0
    config.vae.free_bits = 0.0  # nats that each latent may use at no cost
    config.vae.train_samples = 1  # more: maximise the importance-weighted bound
    config.evaluation.importance_samples = 500
    return config


def gan_config() -> ConfigDict:
    """Return what every GAN starts from: the non-saturating loss, Adam as in DCGAN, nothing else."""
    config = base_config("gan")
    config.model.name = "dcgan"
    config.model.latent_dim = 100
    config.model.generator = ConfigDict()
    config.model.discriminator = ConfigDict()
    config.gan = ConfigDict()
    config.gan.loss = "non_saturating"  # or minimax, wasserstein, hinge, least_squares
    config.gan.critic_steps = 1  # updates of the discriminator in a step, each on a fresh batch
    config.gan.label_smoothing = 0.0  # of real images alone: their target is 1 minus this
    config.gan.gradient_penalty = 0.0  # weight of WGAN-GP's penalty
    config.gan.r1 = 0.0  # weight gamma of the penalty gamma / 2 ||slope||^2 at real images, at every ...
    config.gan.r1_every = 16  # ... so many steps, so many times stronger
    config.gan.conditional = False  # both networks see labels
    config.gan.wrong_labels = False  # the discriminator learns to reject real images under a wrong label, too
    config.gan.augment = ()  # of what the discriminator sees: colour, translation, cutout
    config.gan.collapse_alarm = 0.3  # warn above this share of the way from real images' mean similarity to 1
    config.optim.learning_rate = 2e-4
    config.optim.beta1 = 0.5
    for network in ("generator", "discriminator"):
        config.optim[network] = ConfigDict()
        config.optim[network].learning_rate = placeholder(float)  # None: optim.learning_rate
    config.optim.generator.ema_decay = placeholder(float)
    config.optim.discriminator.clip_weights = placeholder(float)  # keep every weight within plus and minus this
    config.evaluation.n = 1000
    config.evaluation.samples = 1000
    config.sampling.label = placeholder(int)  # None: all classes in turn
    config.sampling.arithmetic = placeholder(str)  # such as "red circle - circle + square" or "3,17 - 5,8 + 9"
    return config


MNIST = {"mean": (0.1307,), "std": (0.3081,)}  # of the training pixels
CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}

# Values of `config.model` of GANs: the networks of TensorFlow's DCGAN tutorial, and small ones that do on MNIST.
TUTORIAL_DCGAN = {
    "name": "dcgan",
    "latent_dim": 100,
    "generator": {
        "width": 64,
        "multipliers": (4, 2, 1),
        "strides": (1, 2, 2),
        "kernels": (5, 5, 5),
        "dense": True,
        "slope": 0.3,
    },
    "discriminator": {
        "width": 64,
        "multipliers": (1, 2),
        "strides": (2, 2),
        "kernels": (5, 5),
        "dense": True,
        "slope": 0.3,
        "batch_norm": False,
        "dropout": 0.3,
    },
}
SMALL_DCGAN = {
    "name": "dcgan",
    "latent_dim": 64,
    "generator": {"width": 32, "multipliers": (4, 2), "strides": (2, 2), "kernels": (4, 4), "hidden": 256},
    "discriminator": {"width": 32, "multipliers": (1, 4), "strides": (2, 2), "kernels": (4, 4), "hidden": 256},
}


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
