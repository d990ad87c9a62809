"""D1: a denoising diffusion model (DDPM) of MNIST digits.

    python -m gm_jax.main --config=configs/ddpm_mnist.py           # the main job
    python -m gm_jax.main --config=configs/ddpm_mnist.py:paper     # as Ho et al. (2020): eq. (4), no labels

T = 1000 in both. The main job is made for two CPU cores and less than ten minutes, compilation included; RESULTS.md
says what it reached. What makes it fast, each measured at equal time: 4x4 pixels folded into channels; fully-connected
blocks in the middle of the U-Net, where a weight costs one multiplication an image; the squared error of x_0 instead of
eq. (4), which weighs the noisy steps that decide a digit's shape; labels with classifier-free guidance, which pick the
digit (10 % of them are hidden, so that guidance 0 samples p(x)). `paper` is the unconditional model of eq. (4), for a
GPU or a night.
"""

from gm_jax.defaults import check_variant, small_diffusion_config

VARIANTS = ("paper",)


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = small_diffusion_config()
    config.rows = ("D1",)
    config.minutes = {"": 6, "paper": 600}[variant]
    config.dataset.name = "mnist"
    config.diffusion.conditional = True
    config.sampling.guidance = 1.7
    if variant == "paper":
        follow_paper(config)
    return config


def follow_paper(config):
    """Ho et al. (2020), with a U-Net that fits 28x28 pixels."""
    config.batch_size = 128
    config.model.update(width=64, multipliers=(1, 2, 2), blocks=2, attention=(14,), dropout=0.1, dense=0)
    config.model.space_to_depth = 1
    config.diffusion.update(schedule="linear", prediction="noise", objective="noise", conditional=False)
    config.optim.update(learning_rate=2e-4, decay="constant", beta2=0.999, ema_decay=0.9999)
    config.steps = 50_000
    config.evaluate_every = config.checkpoint_every = 5000
    config.if_embedded = {}
    config.sampling.update(sampler="ancestral", spacing="time", steps=None)
