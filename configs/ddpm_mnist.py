"""D1: DDPM on MNIST.

python -m gm_jax.main --config=configs/ddpm_mnist.py
"""

from ml_collections.config_dict import placeholder

from gm_jax.defaults import base_config


def get_config():
    config = base_config("diffusion")
    config.dataset.name = "mnist"
    config.steps = 3000
    config.batch_size = 128

    config.model.width = 32
    config.model.multipliers = (1, 2)
    config.model.blocks = 1
    config.model.attention = (7,)
    config.model.heads = 1
    config.model.dropout = 0.0
    config.model.space_to_depth = 2

    config.diffusion = {}
    config.diffusion.timesteps = 1000
    config.diffusion.schedule = "cosine"
    config.diffusion.objective = "noise"

    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 100
    config.optim.decay = "cosine"
    config.optim.decay_steps = 3000
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.995

    config.evaluation.n = 1000

    config.sampling.sampler = "ddim"
    config.sampling.steps = placeholder(int)  # None: 50 for ddim, all for ancestral
    config.sampling.eta = 0.0
    return config
