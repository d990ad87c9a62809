"""T9: StyleGAN on drawn shapes, growing from 8x8 to 32x32.

    python -m gm_jax.main --config=configs/stylegan_shapes.py    # meant for half an hour of two CPU cores
      ... --mode=figures --config.evaluation.judge=shapes    # mixing.png then says what coarse and fine styles carry
      ... --mode=project --config.project.input=IMAGE

A step of 32 images takes 77 ms of one core at 16x16 and 149 ms at 32x32 (Zen 5). The strong R1 penalty keeps all places
in use: at 8x8, with a weight of 0.1, 90 % of 1,000 samples lay in one quarter of the image after 1,000 steps, of 10, 23
to 27 % in each after 1,600; one run each. A weight of 1 lost most places on the way to 16x16. In so few steps the
paper's mapping, whose rate is a hundredth, hardly moves, and colours, which are discrete, stay blends; with 0.3, 50 %
of 1,000 samples are one shape of one clear colour in the end. Places, sizes and colours vary; the shapes themselves do
not, corners are round (docs/findings.md).
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
