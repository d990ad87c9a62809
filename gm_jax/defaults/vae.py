"""What every VAE starts from, and the ranges of its keys."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from gm_jax.defaults.base import base_config

RANGES = {
    "model.latent_dim": "[1, inf)",
    "vae.likelihood": ("bernoulli", "gaussian"),
    "vae.scale": "(0, inf)",
    "vae.binarise": ("none", "dynamic", "threshold"),
    "vae.beta": "[0, inf)",
    "vae.warmup_steps": "[0, inf)",
    "vae.free_bits": "[0, inf)",
    "vae.train_samples": "[1, inf)",
    "evaluation.importance_samples": "[1, inf)",
}


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
