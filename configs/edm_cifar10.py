"""EDM (Karras et al. 2022) on CIFAR-10: the same U-Net as `ddpm_cifar10`, preconditioned, and Heun's 18 steps.

    python -m gm_jax.main --config=configs/edm_cifar10.py    # for GPUs; a step takes minutes on two CPU cores

Preconditioning, weights and noise levels are the paper's (table 1), and so is the sampler: 35 evaluations. The paper
reached FID 1.97 without and 1.79 with classes, with a U-Net of 55.7M parameters ("DDPM++"), augmentation that the
network is told of, and 200 million images in batches of 512; this is the recipe without these.
"""

from gm_jax.defaults import ddpm_config, follow_edm


def get_config():
    config = ddpm_config()
    config.rows = ("D2",)
    config.dataset.name = "cifar10"
    config.model.dropout = 0.13
    config.steps = 400_000
    follow_edm(config)
    return config
