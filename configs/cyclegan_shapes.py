"""B5 where the truth is known: circles to squares and back, drawn shapes at 32x32.

    python -m gm_jax.main --config=configs/cyclegan_shapes.py
      ... --mode=evaluate --config.evaluation.judge=shapes

Both domains have the same colours, sizes and places, so that a translation should change the shape and nothing else;
the exact reader says in how many of 500 test images a direction it does. Nothing but the identity loss keeps a CycleGAN
from permuting colours. Seeds 0, 1 and 2 after 4,000 of the 8,000 steps, five minutes of two cores: all 500 show
the other shape, in both directions, and keep colour, size and place.
"""

from gm_jax.defaults import cyclegan_config


def get_config():
    config = cyclegan_config()
    config.rows = ("B5", "T7")
    config.minutes = 15
    config.dataset.name = "shapes"
    for name, value in (("a", "circle"), ("b", "square")):
        config.domains[name].attribute, config.domains[name].value = "shape", value
    config.model.generator = {"width": 16, "blocks": 2}
    config.model.discriminator = {"width": 32, "layers": 2}
    config.batch_size = 4
    config.steps_per_call = 10
    config.steps = config.optim.decay_steps = 8000
    config.optim.hold_steps = 4000
    config.optim.learning_rate = 5e-4
    config.evaluate_every = config.checkpoint_every = 1000
    return config
