"""Diffusion on faces64, 12,374 photographs of faces at 64x64 in a TFDS directory: EDM's recipe with a narrow U-Net.

    python -m gm_jax.main --config=configs/ddpm_faces64.py    # --config.dataset.data_dir=DIR; for a GPU

2x2 pixels are folded into channels, so that the finest grid is 32x32; preconditioning, weights and levels are those of
Karras et al. (2022), and samples take Heun's 18 steps. `--config.model.dtype=bfloat16` computes in half precision.
"""

from gm_jax.defaults import ddpm_config, follow_edm


def get_config():
    config = ddpm_config()
    config.rows = ("D3",)
    config.dataset.name = "faces64"
    config.model.update(width=64, multipliers=(1, 2, 3), attention=(8,), space_to_depth=2)
    config.optim.update(learning_rate=5e-4, warmup_steps=500, ema_decay=0.999)
    config.steps = 40_000
    config.evaluate_every = config.checkpoint_every = 1000
    follow_edm(config)
    return config
