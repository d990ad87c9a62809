"""What every StyleGAN starts from, and the ranges of its keys."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from gm_jax.defaults.base import base_config

MODES = ("project",)
RANGES = {
    "model.latent_dim": "[1, inf)",
    "model.mapping_layers": "[0, inf)",
    "model.mapping_rate": "(0, 1]",
    "gan.r1": "[0, inf)",
    "gan.r1_every": "[1, inf)",
    "gan.mixing": "[0, 1]",
    "gan.collapse_alarm": "[0, 1]",
    "growth.stable": "[1, inf)",
    "growth.fade": "[1, inf)",
    "growth.batch_sizes": "[1, inf)",
    "growth.rates": "(0, inf)",
    "optim.generator.ema_half_life": "(0, inf)",
    "project.steps": "[1, inf)",
    "project.learning_rate": "(0, inf)",
    "project.candidates": "[1, inf)",
}

# Values of `config.model` of networks for 64 pixels that fit a CPU.
SMALL_STYLEGAN = {"latent_dim": 128, "mapping_layers": 4, "channels": (128, 128, 64, 32, 16)}


def stylegan_config() -> ConfigDict:
    """Return what every StyleGAN starts from: the settings of Karras et al. 2019, for small images those of one GPU."""
    config = base_config("stylegan")
    config.model.latent_dim = 512  # of z and of w
    config.model.mapping_layers = 8
    config.model.mapping_rate = 0.01  # its learning rate, in that of all else
    config.model.channels = (512, 512, 512, 512, 256, 128, 64, 32, 16)  # on grids of 4, 8, ... pixels
    config.gan = ConfigDict()
    config.gan.r1 = 10.0  # weight gamma of gamma / 2 ||slope||^2 at real images of each resolution
    config.gan.r1_every = 1  # every so many steps, so many times stronger, as an update of its own; 1: with the loss
    config.gan.mixing = 0.9  # share of samples in training that have two latents' styles
    config.gan.augment = ()  # of what the discriminator sees: colour, translation, cutout
    config.gan.collapse_alarm = 0.3  # warn above this share of the way from real images' mean similarity to 1
    config.growth = ConfigDict()
    config.growth.first = 8  # pixels to begin with; or 4
    config.growth.stable = 600_000  # images at a resolution, after ...
    config.growth.fade = 600_000  # ... so many over which it fades in; the largest is trained up to `steps`
    config.growth.batch_sizes = (128, 128, 64, 32, 16, 8, 4, 4)  # by resolution, from the first; then `batch_size`
    config.growth.rates = (1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 3.0, 3.0)  # of learning, likewise, in the config's; then 1
    config.optim.learning_rate = 1e-3
    config.optim.beta1 = 0.0
    config.optim.beta2 = 0.99
    config.optim.lazy_correction = True
    config.optim.generator = ConfigDict()
    config.optim.generator.ema_half_life = 10_000.0  # images after which the moving average has forgotten a half
    config.evaluation.n = 1000
    config.evaluation.samples = 1000
    config.sampling.truncation = 1.0  # w is moved towards its mean to this share of the way; the paper's figures: 0.7
    config.sampling.arithmetic = placeholder(str)  # such as "red circle - circle + square" or "3,17 - me.npz + 9"
    config.sampling.between = ()  # files of latents that mode project wrote: the figure `between` walks through them
    config.project = ConfigDict()  # of mode project:
    config.project.input = placeholder(str)  # an image or a folder of images
    config.project.layers = False  # find a w for every layer
    config.project.steps = 300
    config.project.learning_rate = 0.05
    config.project.candidates = 1000  # random latents, of which the nearest is the start
    return config
