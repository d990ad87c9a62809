"""T9: StyleGAN on drawn shapes, growing from 8x8 to 32x32.

    python -m gm_jax.main --config=configs/stylegan_shapes.py    # meant for half an hour of two CPU cores
      ... --mode=figures --config.evaluation.judge=shapes    # mixing.png then says what coarse and fine styles carry
      ... --mode=project --config.project.input=IMAGE

A step of 32 images takes 77 ms of one core at 16x16 and 149 ms at 32x32 (Zen 5). Weights ~ N(0, 1) that are scaled when
used hardly move in so few steps at the paper's rate of 1e-3: at twice that blobs of 16 pixels were of several colours
each after 2,000 steps, at twelve times of one. For the same reason the mapping learns at 0.3 of the rate in place of a
hundredth. At the high rate an R1 weight of 1 keeps all places in use, which at the low one took 10; 0.3 tied places to
colours. One run each; what the reader of shapes accepts of the samples is told in docs/findings.md.
"""

from gm_jax.defaults import stylegan_config


def get_config():
    config = stylegan_config()
    config.rows = ("T9",)
    config.minutes = 30
    config.dataset.name = "shapes"
    config.model.latent_dim = 64
    config.model.mapping_layers = 4
    config.model.mapping_rate = 0.3
    config.model.channels = (64, 64, 32, 16)  # on grids of 4, 8, 16, 32 pixels
    config.gan.r1 = 1.0
    config.gan.r1_every = 16
    config.growth.stable = 80_000
    config.growth.fade = 16_000
    config.growth.batch_sizes = config.growth.rates = ()
    config.optim.learning_rate = 1.2e-2
    config.optim.decay = "linear"
    config.optim.hold_steps = 7000
    config.optim.decay_steps = config.steps = 10_500  # 32x32 are stable from step 6,000
    config.batch_size = 32
    config.steps_per_call = 10
    config.evaluate_every = config.checkpoint_every = 1000
    return config
