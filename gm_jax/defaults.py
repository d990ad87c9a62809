"""The keys that every config has, with their defaults; a file in `configs/` lists only what differs."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def base_config(task: str) -> ConfigDict:
    """Return the config that every experiment starts from, for a task of `gm_jax.tasks`."""
    config = ConfigDict()
    config.task = task
    config.seed = 0
    config.steps = 10_000  # train up to this step
    config.batch_size = 128  # global: divided over all devices
    config.steps_per_call = 1  # steps scanned inside one call of the compiled function

    config.dataset = ConfigDict()
    config.dataset.name = "mnist"
    config.dataset.data_dir = placeholder(str)  # a TFDS directory; None: $TFDS_DATA_DIR, then ~/tensorflow_datasets
    config.dataset.folder = placeholder(str)  # a folder of images, instead of TFDS
    config.dataset.embedded = True  # False: never let the embedded digits stand in for a missing data set
    config.dataset.image_size = placeholder(int)  # crop and resize to this many pixels

    config.model = ConfigDict()

    config.optim = ConfigDict()
    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 0
    config.optim.decay = "constant"  # or cosine, linear: from the peak to 0 at decay_steps
    config.optim.decay_steps = placeholder(int)
    config.optim.beta1 = 0.9
    config.optim.beta2 = 0.999
    config.optim.epsilon = 1e-8
    config.optim.weight_decay = 0.0
    config.optim.clip_norm = placeholder(float)  # clip gradients to this global norm
    config.optim.ema_decay = placeholder(float)  # keep an exponential moving average of the parameters

    config.log_every = 100
    config.evaluate_every = 1000  # validation loss and a sample grid
    config.checkpoint_every = 1000
    config.keep_checkpoints = 2  # the last so many, and the best one

    config.evaluation = ConfigDict()
    config.evaluation.split = "test"
    config.evaluation.n = placeholder(int)  # examples; None: the whole split
    config.evaluation.batch_size = 250
    config.evaluation.samples = 200  # compared with their nearest training images, where data have labels

    config.sampling = ConfigDict()
    config.sampling.n = 64
    config.sampling.seed = 0
    config.sampling.batch_size = 256
    return config
