"""What every GAN starts from, and the ranges of its keys."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from gm_jax.defaults.base import base_config

RANGES = {
    "model.latent_dim": "[1, inf)",
    "gan.loss": ("non_saturating", "minimax", "wasserstein", "hinge", "least_squares"),
    "gan.critic_steps": "[1, inf)",
    "gan.label_smoothing": "[0, 1)",
    "gan.gradient_penalty": "[0, inf)",
    "gan.r1": "[0, inf)",
    "gan.r1_every": "[1, inf)",
    "gan.collapse_alarm": "[0, 1]",
    "optim.discriminator.clip_weights": "(0, inf)",
}

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
