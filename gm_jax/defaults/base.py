"""The keys that every config has, with their defaults and ranges."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from gm_jax.errors import UserError, nearest

RANGES = {  # intervals, or the values to choose from; the keys of `optim` hold for those of each network, too
    "seed": "[0, inf)",
    "steps": "[1, inf)",
    "batch_size": "[1, inf)",
    "minutes": "(0, inf)",
    "steps_per_call": "[1, inf)",
    "dataset.validation": "[0, inf)",
    "dataset.image_size": "[1, inf)",
    "optim.name": ("adam", "adamw", "sgd", "rmsprop", "none"),
    "optim.learning_rate": "[0, inf)",
    "optim.warmup_steps": "[0, inf)",
    "optim.decay": ("constant", "cosine", "linear"),
    "optim.decay_steps": "[1, inf)",
    "optim.hold_steps": "[0, inf)",
    "optim.beta1": "[0, 1)",
    "optim.beta2": "[0, 1)",
    "optim.epsilon": "[0, inf)",
    "optim.weight_decay": "[0, inf)",
    "optim.clip_norm": "(0, inf)",
    "optim.ema_decay": "[0, 1)",
    "log_every": "[1, inf)",
    "evaluate_every": "[1, inf)",
    "checkpoint_every": "[1, inf)",
    "keep_checkpoints": "[1, inf)",
    "rollbacks": "[0, inf)",
    "evaluation.n": "[1, inf)",
    "evaluation.batch_size": "[1, inf)",
    "evaluation.samples": "[0, inf)",
    "evaluation.convention": ("tf", "pytorch", "clean"),
    "evaluation.during_n": "[2, inf)",
    "evaluation.seed": "[0, inf)",
    "sampling.n": "[1, inf)",
    "sampling.seed": "[0, inf)",
    "sampling.batch_size": "[1, inf)",
}

# Keys of `sampling` by which sample i of a seed stays what it is: how many, which, and those of figures alone.
NOT_OF_A_SAMPLE = ("n", "seed", "batch_size", "inversions", "arithmetic", "between")


def base_config(task: str) -> ConfigDict:
    """Return the config that every experiment starts from, for a task of `gm_jax.tasks`."""
    config = ConfigDict()
    config.task = task
    config.seed = 0
    config.steps = 10_000  # train up to this step
    config.batch_size = 128  # global: divided over all devices
    config.steps_per_call = 1  # steps scanned inside one call of the compiled function
    config.epochs = ConfigDict()  # keys that are counted in epochs of the data (`set_epochs`), such as steps: 10
    config.rows = ()  # of the reports (docs/reports.md) that this reproduces
    config.minutes = placeholder(float)  # that training should take on two CPU cores; None: unknown, it wants a GPU

    config.dataset = ConfigDict()
    config.dataset.name = "mnist"
    config.dataset.split = "train"  # the one trained on; of a folder that is not divided, "all" takes every image
    config.dataset.validation = 1000  # of its examples, a tenth at most, choose the best checkpoint and train nothing
    config.dataset.data_dir = placeholder(str)  # a TFDS directory; None: $TFDS_DATA_DIR, then ~/tensorflow_datasets
    config.dataset.folder = placeholder(str)  # a folder of images, instead of TFDS
    config.dataset.skip_corrupt = False  # of a folder: leave out images that cannot be read, instead of refusing it
    config.dataset.embedded = True  # False: never let the embedded digits stand in for a missing data set
    config.dataset.image_size = placeholder(int)  # crop and resize to this many pixels

    config.if_embedded = ConfigDict()  # what differs when the data are an embedded set, such as a shorter run

    config.model = ConfigDict()

    config.optim = ConfigDict()
    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 0
    config.optim.decay = "constant"  # or cosine, linear: from the peak to 0 at decay_steps
    config.optim.decay_steps = placeholder(int)
    config.optim.hold_steps = 0  # before which the decay does not begin
    config.optim.beta1 = 0.9  # of sgd: the momentum
    config.optim.beta2 = 0.999
    config.optim.epsilon = 1e-8
    config.optim.nesterov = False  # of sgd: the gradient counts as if the momentum had moved on already
    config.optim.weight_decay = 0.0  # of kernels; for adamw and sgd
    config.optim.clip_norm = placeholder(float)  # clip gradients to this global norm
    config.optim.ema_decay = placeholder(float)  # keep an exponential moving average of the parameters
    config.optim.lazy_correction = False  # of a network with lazy phases: rate and betas as in StyleGAN2

    config.log_every = 100
    config.evaluate_every = 1000  # scores of the examples held out for validation, and a sample grid
    config.checkpoint_every = 1000
    config.keep_checkpoints = 2  # the last so many, and the best one
    config.rollbacks = 0  # how often a run that diverges goes back to its last checkpoint, each time to half the rates

    config.evaluation = ConfigDict()
    config.evaluation.split = "test"  # of mode evaluate, and shown in figures
    config.evaluation.n = placeholder(int)  # examples, always the same; None: the whole split
    config.evaluation.batch_size = 250
    config.evaluation.samples = 200  # compared with each other and, where data have labels, with training images
    config.evaluation.metrics = ()  # of samples against real images: frechet, kernel, inception_score, ...
    config.evaluation.extractors = ("pixels",)  # whose features they compare: pixels, inception, a classifier's workdir
    config.evaluation.convention = "pytorch"  # of resizing for inception: or tf, clean
    config.evaluation.inception = placeholder(str)  # the file of its published weights; None: cached or downloaded
    config.evaluation.during = ()  # metrics that are logged in training; the first chooses the best checkpoint
    config.evaluation.during_n = 1000  # samples for that, compared with the examples held out for validation
    config.evaluation.seed = 0  # of random subsets
    config.evaluation.judge = placeholder(str)  # workdir of a trained classifier that says what samples show; or shapes

    config.sampling = ConfigDict()
    config.sampling.n = 64
    config.sampling.seed = 0
    config.sampling.batch_size = 256
    return config


def set_epochs(config: ConfigDict, epochs: float, checkpoint_epochs: float, evaluate_epochs: float = 1) -> None:
    """Count time in epochs: the run and its decay, and what happens on the way; every epoch is logged.

    They become steps once the data are found (`count_epochs`). Other keys can be counted likewise, such as
    `config.epochs.optim.warmup_steps`.
    """
    config.epochs = {
        "steps": epochs,
        "optim": {"decay_steps": epochs},
        "log_every": 1,
        "evaluate_every": evaluate_epochs,
        "checkpoint_every": checkpoint_epochs,
    }


def check_variant(variant: str, *known: str) -> None:
    """Raise UserError unless `variant` is "" or one of those that a config knows."""
    if variant not in ("", *known):
        raise UserError(f"the config has no variant ':{variant}'{nearest(variant, known)}: it has {', '.join(known)}")
