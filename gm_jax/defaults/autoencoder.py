"""What every autoencoder starts from, and the ranges of its keys."""

from ml_collections import ConfigDict

from gm_jax.defaults.base import base_config

RANGES = {
    "model.latent_dim": "[1, inf)",
    "autoencoder.noise": "[0, inf)",
    "autoencoder.penalty": ("none", "l1", "kl"),
    "autoencoder.penalty_weight": "[0, inf)",
    "autoencoder.target_activity": "(0, 1)",
}


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
