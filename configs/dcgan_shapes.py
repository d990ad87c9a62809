"""B4 where the truth is known: latent arithmetic with drawn shapes, 32x32.

    python -m gm_jax.main --config=configs/dcgan_shapes.py    # 21 minutes on one CPU core
      ... --mode=figures --config.evaluation.judge=shapes --config.sampling.arithmetic="red circle - circle + square"

Every attribute of the data set `shapes` can be read off an image exactly, so the figure's caption counts in how many
rows the answer is a red square: in four of four; "large green - large + small" is right in all, too, "blue square -
square + triangle" in none. The networks are DCGAN's for 32 pixels, narrow, with an R1 penalty in place of the
discriminator's batch norm, and a moving average.
"""

from gm_jax.defaults import gan_config


def get_config():
    config = gan_config()
    config.rows = ("B4",)
    config.minutes = 20
    config.dataset.name = "shapes"
    config.model.latent_dim = 32
    config.model.generator = {"width": 32, "multipliers": (4, 2, 1), "strides": (2, 2, 2), "kernels": (4, 4, 4)}
    config.model.discriminator = {
        "width": 32,
        "multipliers": (1, 2, 4),
        "strides": (2, 2, 2),
        "kernels": (4, 4, 4),
        "batch_norm": False,
    }
    config.gan.r1 = 1.0
    config.batch_size = 64
    config.steps_per_call = 10
    config.optim.generator.ema_decay = 0.999
    config.steps = 20_000
    config.evaluate_every = config.checkpoint_every = 1000
    return config
