"""Rectified flow (Liu et al. 2023) on MNIST: straight lines from noise to images, velocity e - x_0, Euler's method.

    python -m gm_jax.main --config=configs/flow_mnist.py

The network is `ddpm_mnist`'s without labels, the loss the squared error of the velocity at times uniform in [0, 1]. It
weighs little noise more than `ddpm_mnist` does, and wants more steps for as clear digits.
"""

from gm_jax.defaults import diffusion_config


def get_config():
    config = diffusion_config()
    config.rows = ("D1",)
    config.dataset.name = "mnist"
    config.batch_size = 64
    config.steps_per_call = 5
    config.model.width = 64
    config.model.multipliers = (1,)
    config.model.blocks = 1
    config.model.dense = 1024
    config.model.space_to_depth = 4
    config.diffusion.schedule = config.diffusion.prediction = config.diffusion.objective = "flow"
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 100
    config.optim.decay = "cosine"
    config.optim.beta2 = 0.99
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.999
    config.steps = config.optim.decay_steps = 10_000
    config.evaluate_every = config.checkpoint_every = 1000
    config.evaluation.n = 1000
    config.if_embedded = {"steps": 2000, "optim": {"decay_steps": 2000}}
    return config
