"""Rectified flow (Liu et al. 2023) on MNIST: straight lines from noise to images, velocity e - x_0, Euler's method.

    python -m gm_jax.main --config=configs/flow_mnist.py

The network is `ddpm_mnist`'s without labels, the loss the squared error of the velocity at times uniform in [0, 1]. It
weighs little noise more than `ddpm_mnist` does, and wants more steps for as clear digits.
"""

from gm_jax.defaults import small_diffusion_config


def get_config():
    config = small_diffusion_config()
    config.rows = ("D1",)
    config.minutes = 12
    config.dataset.name = "mnist"
    config.diffusion.update(schedule="flow", prediction="flow", objective="flow")
    config.optim.learning_rate = 1e-3
    config.optim.ema_decay = 0.999
    config.steps = config.optim.decay_steps = 10_000
    config.evaluate_every = config.checkpoint_every = 1000
    config.sampling.update(sampler="ddim", spacing="time", steps=50)
    return config
