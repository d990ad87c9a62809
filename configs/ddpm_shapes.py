"""Diffusion where the truth is known: drawn shapes, 32x32, and with `conditional` on demand.

    python -m gm_jax.main --config=configs/ddpm_shapes.py
    python -m gm_jax.main --config=configs/ddpm_shapes.py:conditional
      ... --mode=sample --config.sampling.words="small green square"
      ... --mode=evaluate --config.evaluation.judge=shapes --config.evaluation.samples=1000

`conditional` sees size, colour and shape together, 36 classes: `judged_accuracy` is the share of samples that show
what was asked for, by the exact reader: 99.9 % of 1,000, and 99.3 % are accepted as one shape of one colour (85.8 and
98.9 % after half of the steps, when small circles and squares are taken for each other). The network is `ddpm_mnist`'s.
"""

from gm_jax.defaults import check_variant, small_diffusion_config

VARIANTS = ("conditional",)


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = small_diffusion_config()
    config.rows = ("D1",)
    config.minutes = 10
    config.dataset.name = "shapes"
    config.steps = config.optim.decay_steps = 6000
    config.if_embedded = {}  # these data are never anything else
    if variant == "conditional":
        config.diffusion.conditional = True
        config.diffusion.attributes = ("size", "colour", "shape")
        config.sampling.guidance = 2.0
    return config
