"""EDM (Karras et al. 2022) on CIFAR-10: the same U-Net as `ddpm_cifar10`, preconditioned, and Heun's 18 steps.

    python -m gm_jax.main --config=configs/edm_cifar10.py    # for GPUs; a step takes minutes on two CPU cores

Preconditioning, weights and noise levels are the paper's (table 1), and so is the sampler: 35 evaluations. The paper
reached FID 1.97 without and 1.79 with classes, with a U-Net of 55.7M parameters ("DDPM++"), augmentation that the
network is told of, and 200 million images in batches of 512; this is the recipe without these.
"""

from gm_jax.defaults import diffusion_config


def get_config():
    config = diffusion_config()
    config.rows = ("D2",)
    config.dataset.name = "cifar10"
    config.batch_size = 128
    config.model.width = 128
    config.model.multipliers = (1, 2, 2, 2)
    config.model.attention = (16,)
    config.model.dropout = 0.13
    config.diffusion.schedule = config.diffusion.prediction = config.diffusion.objective = "edm"
    config.optim.learning_rate = 2e-4
    config.optim.warmup_steps = 5000
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.9999
    config.steps = 400_000
    config.evaluate_every = config.checkpoint_every = 10_000
    config.evaluation.n = 1000
    config.sampling.sampler = "heun"
    config.sampling.spacing = "karras"
    config.sampling.steps = 18
    return config
