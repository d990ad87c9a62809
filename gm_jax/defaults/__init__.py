"""Where a config starts: the keys of every task with their defaults; files in `configs/` list only what differs."""

from gm_jax.defaults.autoencoder import autoencoder_config
from gm_jax.defaults.base import base_config, check_variant, set_epochs
from gm_jax.defaults.baseline import baseline_config
from gm_jax.defaults.classifier import CIFAR10, MNIST, classifier_config
from gm_jax.defaults.cyclegan import cyclegan_config, photographs_config
from gm_jax.defaults.diffusion import ddpm_config, diffusion_config, follow_edm, small_diffusion_config
from gm_jax.defaults.gan import SMALL_DCGAN, TUTORIAL_DCGAN, gan_config
from gm_jax.defaults.stylegan import SMALL_STYLEGAN, stylegan_config
from gm_jax.defaults.vae import vae_config

__all__ = [
    "CIFAR10",
    "MNIST",
    "SMALL_DCGAN",
    "SMALL_STYLEGAN",
    "TUTORIAL_DCGAN",
    "autoencoder_config",
    "base_config",
    "baseline_config",
    "check_variant",
    "classifier_config",
    "cyclegan_config",
    "ddpm_config",
    "diffusion_config",
    "follow_edm",
    "gan_config",
    "photographs_config",
    "set_epochs",
    "small_diffusion_config",
    "stylegan_config",
    "vae_config",
]
