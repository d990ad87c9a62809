"""D2: the DDPM of Ho et al. (2020) on CIFAR-10, as the paper has it.

    python -m gm_jax.main --config=configs/ddpm_cifar10.py    # for GPUs; a step takes minutes on two CPU cores

The paper's U-Net of 35,746,307 parameters, eq. (14), T = 1000, linear betas, dropout 0.1, Adam at 2e-4, batches of
128, an average over 10,000 steps. It reached FID 3.17 (50,000 samples against the training images, 1,000 steps) after
800,000 steps, 10.6 hours on eight TPU v3 chips. There images are mirrored at random; here they are not.
`--config.sampling.sampler=dpm_solver --config.sampling.steps=20` draws fifty times faster than the thousand steps.
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
    config.model.dropout = 0.1
    config.optim.learning_rate = 2e-4
    config.optim.warmup_steps = 5000
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.9999
    config.steps = 800_000
    config.evaluate_every = config.checkpoint_every = 10_000
    config.evaluation.n = 1000
    config.sampling.sampler = "ancestral"
    return config
