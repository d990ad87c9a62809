"""CycleGAN where the truth is known: drawn circles <-> squares, 32x32.

python -m gm_jax.main --config=configs/cyclegan_shapes.py
"""

from gm_jax.defaults import cyclegan_config


def get_config():
    config = cyclegan_config()
    config.rows = ("B5",)
    config.dataset.name = "shapes"
    config.cyclegan.classes = ("circle", "square")
    config.model.generator = {"width": 32, "halvings": 2, "blocks": 2}
    config.model.discriminator = {"width": 32, "halvings": 2}
    config.augment.flip = False
    config.batch_size = 8
    config.optim.decay = "linear"
    config.optim.hold_steps = 5000
    config.optim.decay_steps = 10_000
    config.steps = 10_000
    config.evaluation.judge = "shapes"
    config.evaluation.n = 500
    return config
