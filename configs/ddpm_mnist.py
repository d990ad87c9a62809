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

from ml_collections.config_dict import placeholder

from gm_jax.defaults import base_config, check_variant

VARIANTS = ("paper",)


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = base_config("diffusion")
    config.dataset.name = "mnist"
    config.batch_size = 128
    config.steps_per_call = 5

    config.model.width = 64
    config.model.multipliers = (1,)
    config.model.blocks = 1
    config.model.attention = ()  # grids at which every block attends; the middle always does
    config.model.heads = 1
    config.model.dropout = 0.0
    config.model.dense = 1024
    config.model.space_to_depth = 4

    config.diffusion = {}
    config.diffusion.timesteps = 1000
    config.diffusion.schedule = "cosine"  # or linear, exploding: betas that grow in equal steps ...
    config.diffusion.beta_start = placeholder(float)  # ... from here (None: 1e-4) ...
    config.diffusion.beta_end = placeholder(float)  # ... to here (None: 0.02; exploding: 0.04)
    config.diffusion.prediction = "image"  # what the network says, and ...
    config.diffusion.objective = "image"  # ... whose squared error is minimised: noise (eq. (4)), velocity or image
    config.diffusion.conditional = True  # if the data have labels
    config.diffusion.label_dropout = 0.1

    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 100
    config.optim.decay = "cosine"
    config.optim.beta2 = 0.99
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.998

    config.steps = config.optim.decay_steps = 1800
    config.log_every = 100
    config.evaluate_every = 900
    config.checkpoint_every = 450
    config.evaluation.n = 1000
    config.if_embedded = {"steps": 900, "optim": {"decay_steps": 900}}

    config.sampling.sampler = "ddim"  # or ancestral
    config.sampling.steps = placeholder(int)  # None: 50 for ddim, all for ancestral
    config.sampling.eta = 0.0  # of ddim: 0 adds no noise, 1 is ancestral sampling in few steps
    config.sampling.guidance = 2.0  # 1: the plain conditional model, 0: the unconditional one
    config.sampling.label = placeholder(int)  # None: all classes in turn
    if variant == "paper":
        follow_paper(config)
    return config


def follow_paper(config):
    """Ho et al. (2020), with a U-Net that fits 28x28 pixels."""
    config.model.update(width=64, multipliers=(1, 2, 2), blocks=2, attention=(14,), dropout=0.1, dense=0)
    config.model.space_to_depth = 1
    config.diffusion.update(schedule="linear", prediction="noise", objective="noise", conditional=False)
    config.optim.update(learning_rate=2e-4, decay="constant", beta2=0.999, ema_decay=0.9999)
    config.steps = 50_000
    config.evaluate_every = config.checkpoint_every = 5000
    config.if_embedded = {}
    config.sampling.sampler = "ancestral"
