"""The table of tasks: the only way from a config to a model."""

import importlib

from ml_collections import ConfigDict

from gm_jax.errors import UserError, nearest
from gm_jax.tasks.task import DataSpec, Task

TASKS = {  # module in this package: its Task
    "autoencoder": "Autoencoder",
    "classifier": "Classifier",
    "diffusion": "Diffusion",
    "gan": "GAN",
    "gaussian_mixture": "GaussianMixture",
    "naive_bayes": "NaiveBayes",
    "vae": "VAE",
}


def make_task(config: ConfigDict, spec: DataSpec) -> Task:
    """Build the task that `config.task` names, for data of the given kind.

    Raises:
        UserError: no such task, or the config does not fit it.
    """
    if config.task not in TASKS:
        raise UserError(f"config.task={config.task!r} is not one of {', '.join(TASKS)}{nearest(config.task, TASKS)}")
    module = importlib.import_module(f"gm_jax.tasks.{config.task}")
    return getattr(module, TASKS[config.task])(config, spec)
