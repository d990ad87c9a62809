"""What every diffusion model starts from, and the ranges of its keys."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from gm_jax.defaults.base import base_config

MODES = ("inpaint", "vary")
RANGES = {
    "model.dtype": ("bfloat16", "float32"),
    "diffusion.timesteps": "[1, inf)",
    "diffusion.schedule": ("cosine", "linear", "sigmoid", "exploding", "edm", "flow"),
    "diffusion.beta_start": "(0, inf)",
    "diffusion.beta_end": "(0, inf)",
    "diffusion.prediction": ("noise", "velocity", "image", "edm", "flow"),
    "diffusion.objective": ("noise", "velocity", "image", "edm", "flow", "min_snr"),
    "diffusion.variance": ("fixed", "learned"),
    "diffusion.label_dropout": "[0, 1]",
    "sampling.sampler": ("ddim", "ancestral", "dpm_solver", "heun"),
    "sampling.steps": "[1, inf)",
    "sampling.spacing": ("time", "karras"),
    "sampling.rho": "[1, inf)",
    "sampling.eta": "[0, 1]",
    "sampling.churn": "[0, inf)",
    "sampling.inversions": "[0, inf)",
    "evaluation.ode_steps": "[0, inf)",
    "inpaint.n": "[1, inf)",
    "vary.n": "[1, inf)",
    "vary.strength": "(0, 1]",
}


def diffusion_config() -> ConfigDict:
    """Return what every diffusion model starts from: eq. (4) of the report without labels, DDIM in 50 steps."""
    config = base_config("diffusion")
    config.model.width = 64
    config.model.multipliers = (1, 2, 2)
    config.model.blocks = 2
    config.model.attention = ()  # grids at which every block attends; the middle always does
    config.model.heads = 1
    config.model.dropout = 0.0
    config.model.dense = 0
    config.model.space_to_depth = 1
    config.model.dtype = placeholder(str)  # bfloat16: of the computation, which a GPU or TPU then does faster

    config.diffusion = ConfigDict()
    config.diffusion.timesteps = 1000
    config.diffusion.schedule = "linear"  # or cosine, sigmoid, exploding, edm, flow; of linear betas grow evenly ...
    config.diffusion.beta_start = placeholder(float)  # ... from here (None: 1e-4) ...
    config.diffusion.beta_end = placeholder(float)  # ... to here (None: 0.02; exploding: 0.04)
    config.diffusion.prediction = "noise"  # what the network says: noise, velocity, image, edm, flow, and ...
    config.diffusion.objective = "noise"  # ... whose squared error is minimised (noise: eq. (4)), or min_snr
    config.diffusion.variance = "fixed"  # of an ancestral step: the posterior's, or learned, up to beta_t
    config.diffusion.conditional = False  # True: see labels, if the data have any
    config.diffusion.attributes = ()  # of the data: their combinations are the classes, in the labels' place
    config.diffusion.label_dropout = 0.1  # share of labels that training hides, for guidance

    config.sampling.sampler = "ddim"  # or ancestral, dpm_solver, heun
    config.sampling.steps = placeholder(int)  # None: all of a chain for ancestral, 50 for the others
    config.sampling.spacing = "time"  # steps even in the network's time, or karras: in a root of the noise's ratio
    config.sampling.rho = 7.0  # which root
    config.sampling.eta = 0.0  # of ddim: 0 adds no noise, 1 is ancestral sampling in few steps
    config.sampling.churn = 0.0  # of heun: noise that is added on the way
    config.sampling.guidance = 1.0  # 1: the plain conditional model, 0: the unconditional one
    config.sampling.guidance_interval = ()  # ratios of noise to signal between which it guides; (): at all
    config.sampling.label = placeholder(int)  # None: all classes in turn
    config.sampling.inversions = 6  # pairs of test images between which the figure `interpolation` walks; 0: no figure
    config.sampling.words = placeholder(str)  # the class by its name, such as "small red circle"

    config.evaluation.ode_steps = 0  # of the probability-flow equation, whose likelihood mode evaluate adds then
    config.inpaint = ConfigDict()
    config.inpaint.input = placeholder(str)  # an image or a folder of images, for mode inpaint
    config.inpaint.mask = placeholder(str)  # an image that is white where to paint anew, or one for each
    config.inpaint.n = 6  # fillings of each
    config.vary = ConfigDict()
    config.vary.input = placeholder(str)  # an image or a folder of images, for mode vary
    config.vary.strength = 0.6  # share of noise in the mixture that it is denoised from
    config.vary.n = 7  # variations of each
    return config


def small_diffusion_config() -> ConfigDict:
    """Return what diffusion of images of about 32 pixels starts from on two CPU cores: six minutes, ten evaluations."""
    config = diffusion_config()
    config.batch_size = 64
    config.steps_per_call = 5
    config.model.update(width=64, multipliers=(1,), blocks=1, dense=1024, space_to_depth=4)
    config.diffusion.update(schedule="cosine", prediction="image", objective="image")
    config.optim.update(learning_rate=2e-3, warmup_steps=100, decay="cosine", decay_steps=4500)
    config.optim.update(beta2=0.99, clip_norm=1.0, ema_decay=0.998)
    config.steps = 4500
    config.evaluate_every = 1500
    config.checkpoint_every = 500
    config.evaluation.n = 1000
    config.if_embedded = {"steps": 2000, "optim": {"decay_steps": 2000}}
    config.sampling.update(sampler="dpm_solver", spacing="karras", steps=10)
    return config


def ddpm_config() -> ConfigDict:
    """Return what Ho et al. (2020) train on CIFAR-10: a U-Net of 35.7M parameters, eq. (14), T = 1000, linear betas."""
    config = diffusion_config()
    config.batch_size = 128
    config.model.update(width=128, multipliers=(1, 2, 2, 2), attention=(16,), dropout=0.1)
    config.optim.update(learning_rate=2e-4, warmup_steps=5000, clip_norm=1.0, ema_decay=0.9999)
    config.evaluate_every = config.checkpoint_every = 10_000
    config.evaluation.n = 1000
    return config


def follow_edm(config: ConfigDict) -> None:
    """Use the preconditioning, weights, levels and 18 steps of Heun's method of Karras et al. (2022)."""
    config.diffusion.update(schedule="edm", prediction="edm", objective="edm")
    config.sampling.update(sampler="heun", spacing="karras", steps=18)
