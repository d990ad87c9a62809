"""The table of tasks: the only way from a config to a model. `gm_jax/defaults/<task>.py` has the keys of each."""

import importlib

from ml_collections import ConfigDict

from gm_jax.defaults.table import check_choice, check_config, ranges
from gm_jax.errors import UserError
from gm_jax.metrics.evaluators import check_evaluators
from gm_jax.tasks.task import DataSpec, Task

TASKS = {  # name: where its Task is; another project can add its own
    "autoencoder": "gm_jax.tasks.autoencoder:Autoencoder",
    "classifier": "gm_jax.tasks.classifier:Classifier",
    "cyclegan": "gm_jax.tasks.cyclegan:CycleGAN",
    "diffusion": "gm_jax.tasks.diffusion:Diffusion",
    "gan": "gm_jax.tasks.gan:GAN",
    "gaussian_mixture": "gm_jax.tasks.gaussian_mixture:GaussianMixture",
    "naive_bayes": "gm_jax.tasks.naive_bayes:NaiveBayes",
    "stylegan": "gm_jax.tasks.stylegan:StyleGAN",
    "vae": "gm_jax.tasks.vae:VAE",
}


def make_task(config: ConfigDict, spec: DataSpec) -> Task:
    """Build the task that `config.task` names, for data of the given kind.

    Raises:
        UserError: no such task, a key out of its range, or a config that does not fit the data or itself.
    """
    check_choice("config.task", config.task, TASKS)
    check_config(config, ranges(config.task))
    check_evaluators("evaluation.metrics", config.evaluation.metrics)
    check_evaluators("evaluation.during", config.evaluation.during)
    if (config.evaluation.metrics or config.evaluation.during) and not config.evaluation.extractors:
        raise UserError("evaluation.extractors is empty, but metrics are asked for: name one, such as pixels")
    module, _, name = TASKS[config.task].partition(":")
    return getattr(importlib.import_module(module), name)(config, spec)
