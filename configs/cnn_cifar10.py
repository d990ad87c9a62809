"""W3: a convolutional network on CIFAR-10.

python -m gm_jax.main --config=configs/cnn_cifar10.py          # 71.3 % in the report; 42 minutes on one CPU core
python -m gm_jax.main --config=configs/cnn_cifar10.py:modern   # 90.1 % here; 73 minutes on one CPU core

Three convolutions, two dense layers, 100 epochs and batches of 20 are the report's (000, section 6.4). It says no more,
so the sizes and Adam are those of TensorFlow's CIFAR-10 tutorial, with a cosine decay; dropout, which it does not name,
is a key: `--config.model.dropout=0.3` reaches 73.9 %. `modern` is the plain network of the CIFAR-10 speed records with
their recipe: flips and shifts, label smoothing, one-cycle SGD, a moving average, both mirror images when testing.
"""

from gm_jax.defaults import CIFAR10, check_variant, classifier_config, set_epochs

VARIANTS = ("modern",)


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = classifier_config()
    config.rows = ("W3",)
    config.minutes = {"": 25, "modern": 45}[variant]
    config.dataset.name = "cifar10"
    config.classifier.update(CIFAR10)
    config.model.name = "cnn"
    config.model.features = (32, 64, 64)
    config.model.dense = 64
    config.model.dropout = 0.0
    config.batch_size = 20
    config.steps_per_call = 50
    config.optim.learning_rate = 1e-3
    config.optim.decay = "cosine"
    set_epochs(config, epochs=100, checkpoint_epochs=5)
    if variant == "modern":
        modernise(config)
    return config


def modernise(config):
    config.model = {"name": "speednet", "widths": (64, 256, 256), "depth": 2}
    config.augment.flip = True
    config.augment.crop = 2
    config.classifier.label_smoothing = 0.2
    config.classifier.flip_at_test = True
    config.batch_size = 500
    config.steps_per_call = 5
    config.optim.name = "sgd"
    config.optim.nesterov = True
    config.optim.learning_rate = 0.4
    config.optim.weight_decay = 1e-3
    config.optim.decay = "linear"
    config.optim.ema_decay = 0.99
    set_epochs(config, epochs=12, checkpoint_epochs=2)
    config.epochs.optim.warmup_steps = 2.4
