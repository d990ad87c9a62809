"""What every baseline starts from."""

from ml_collections import ConfigDict

from gm_jax.defaults.base import base_config


def baseline_config(task: str) -> ConfigDict:
    """Return what every baseline starts from: it is fitted before step 1, which trains nothing and is saved."""
    config = base_config(task)
    config.steps = config.log_every = config.evaluate_every = config.checkpoint_every = 1
    config.optim.name = "none"
    return config
