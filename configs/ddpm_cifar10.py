"""D2: the DDPM of Ho et al. (2020) on CIFAR-10, as the paper has it.

    python -m gm_jax.main --config=configs/ddpm_cifar10.py    # for GPUs; a step takes minutes on two CPU cores

The paper's U-Net of 35,746,307 parameters, eq. (14), T = 1000, linear betas, dropout 0.1, Adam at 2e-4, batches of
128, an average over 10,000 steps. It reached FID 3.17 (50,000 samples against the training images, 1,000 steps) after
800,000 steps, 10.6 hours on eight TPU v3 chips. There images are mirrored at random; here they are not.
`--config.sampling.sampler=dpm_solver --config.sampling.steps=20` draws fifty times faster than the thousand steps.
"""

from gm_jax.defaults import ddpm_config


def get_config():
    config = ddpm_config()
    config.rows = ("D2",)
    config.dataset.name = "cifar10"
    config.steps = 800_000
    config.sampling.sampler = "ancestral"
    return config
