"""W4: AlexNet on CIFAR-10.

python -m gm_jax.main --config=configs/alexnet_cifar10.py          # 82.24 % in the report; 1.5 hours on two CPU cores
python -m gm_jax.main --config=configs/alexnet_cifar10.py:modern   # aim: 90 %; about two hours on two CPU cores

Five convolutions, one dense layer, 100 epochs and batches of 50 are the report's (000, section 6.5); the channels, the
dropout, SGD with plain momentum and weight decay 5e-4, flips and shifts are those of Krizhevsky et al. (2012, 2014);
the cosine decay stands for their division by ten whenever the error stopped falling. `modern` keeps the layers and adds
batch norm and the recipe of the CIFAR-10 speed records: label smoothing, one-cycle SGD with Nesterov's momentum, a
moving average, both mirror images when testing.
"""

from gm_jax.defaults import CIFAR10, check_variant, classifier_config, set_epochs

VARIANTS = ("modern",)


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = classifier_config()
    config.rows = ("W4",)
    config.minutes = {"": 90, "modern": 120}[variant]
    config.dataset.name = "cifar10"
    config.classifier.update(CIFAR10)
    config.model.name = "alexnet"
    config.model.features = (64, 192, 384, 256, 256)
    config.model.stem_stride = 2
    config.model.batch_norm = False
    config.model.dropout = 0.5
    config.augment.flip = True
    config.augment.crop = 4
    config.batch_size = 50
    config.steps_per_call = 10
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.01
    config.optim.weight_decay = 5e-4
    config.optim.decay = "cosine"
    set_epochs(config, epochs=100, checkpoint_epochs=5)
    config.epochs.optim.warmup_steps = 1
    if variant == "modern":
        modernise(config)
    return config


def modernise(config):
    config.model.stem_stride = 1
    config.model.batch_norm = True
    config.model.dropout = 0.2
    config.augment.crop = 2
    config.classifier.label_smoothing = 0.1
    config.classifier.flip_at_test = True
    config.batch_size = 500
    config.steps_per_call = 5
    config.optim.nesterov = True
    config.optim.learning_rate = 0.2
    config.optim.decay = "linear"
    config.optim.ema_decay = 0.99
    set_epochs(config, epochs=15, checkpoint_epochs=3)
    config.epochs.optim.warmup_steps = 3
