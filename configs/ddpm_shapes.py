"""Diffusion where the truth is known: drawn shapes, 32x32, and with `conditional` on demand.

    python -m gm_jax.main --config=configs/ddpm_shapes.py
    python -m gm_jax.main --config=configs/ddpm_shapes.py:conditional
      ... --mode=sample --config.sampling.words="small green square"
      ... --mode=evaluate --config.evaluation.judge=shapes --config.evaluation.samples=1000

`conditional` sees size, colour and shape together, 36 classes: `judged_accuracy` is the share of samples that show
what was asked for, by the exact reader: after 3,000 of the 6,000 steps (seven minutes of two busy cores) 85.8 % of
1,000, and 98.9 % are accepted as one shape; small circles and squares are taken for each other. The network is
`ddpm_mnist`'s.
"""

from gm_jax.defaults import check_variant, diffusion_config

VARIANTS = ("conditional",)


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = diffusion_config()
    config.rows = ("D1",)
    config.dataset.name = "shapes"
    config.batch_size = 64
    config.steps_per_call = 5

    config.model.width = 64
    config.model.multipliers = (1,)
    config.model.blocks = 1
    config.model.dense = 1024
    config.model.space_to_depth = 4

    config.diffusion.schedule = "cosine"
    config.diffusion.prediction = config.diffusion.objective = "image"
    if variant == "conditional":
        config.diffusion.conditional = True
        config.diffusion.attributes = ("size", "colour", "shape")
        config.sampling.guidance = 2.0

    config.optim.learning_rate = 2e-3
    config.optim.warmup_steps = 100
    config.optim.decay = "cosine"
    config.optim.beta2 = 0.99
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.998
    config.steps = config.optim.decay_steps = 6000
    config.evaluate_every = config.checkpoint_every = 500
    config.evaluation.n = 1000
    config.sampling.sampler = "dpm_solver"
    config.sampling.spacing = "karras"
    config.sampling.steps = 10
    return config
