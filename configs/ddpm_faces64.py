"""Diffusion on faces64, 12,374 photographs of faces at 64x64 in a TFDS directory: EDM's recipe with a narrow U-Net.

    python -m gm_jax.main --config=configs/ddpm_faces64.py    # --config.dataset.data_dir=DIR; for a GPU

2x2 pixels are folded into channels, so that the finest grid is 32x32; preconditioning, weights and levels are those of
Karras et al. (2022), and samples take Heun's 18 steps. `--config.model.dtype=bfloat16` computes in half precision.
"""

from gm_jax.defaults import diffusion_config


def get_config():
    config = diffusion_config()
    config.rows = ("D3",)
    config.dataset.name = "faces64"
    config.batch_size = 128
    config.model.width = 64
    config.model.multipliers = (1, 2, 3)
    config.model.attention = (8,)
    config.model.dropout = 0.1
    config.model.space_to_depth = 2
    config.diffusion.schedule = config.diffusion.prediction = config.diffusion.objective = "edm"
    config.optim.learning_rate = 5e-4
    config.optim.warmup_steps = 500
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.999
    config.steps = 40_000
    config.evaluate_every = config.checkpoint_every = 1000
    config.evaluation.n = 1000
    config.sampling.sampler = "heun"
    config.sampling.spacing = "karras"
    config.sampling.steps = 18
    return config
