"""W2: a feed-forward network on CIFAR-10.

python -m gm_jax.main --config=configs/fnn_cifar10.py          # 51.87 % in the report; four minutes on one CPU core
python -m gm_jax.main --config=configs/fnn_cifar10.py:modern   # 66.8 %; nine to twelve minutes on one busy CPU

Layers [3072, 128, 64, 10], 100 epochs and batches of 64 are the report's (000, section 6.3), which wrote the network
"from scratch" and names neither dropout nor an optimiser: plain gradient descent here, at a rate so low that 100 epochs
do not yet learn the training images by heart. It reaches 50.8 %; at ten times the rate, or with Adam, 48 %, and with
Adam and dropout of 0.2 54 % (docs/findings.md). `modern` is still a feed-forward network: wider, with batch norm,
dropout, flips and shifts and a one-cycle schedule.
"""

from gm_jax.defaults import CIFAR10, check_variant, classifier_config, set_epochs

VARIANTS = ("modern",)


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = classifier_config()
    config.rows = ("W2",)
    config.minutes = {"": 4, "modern": 10}[variant]
    config.dataset.name = "cifar10"
    config.classifier.update(CIFAR10)
    config.model.name = "mlp"
    config.model.hidden = (128, 64)
    config.model.batch_norm = False
    config.model.dropout = 0.0
    config.batch_size = 64
    config.steps_per_call = 391  # half an epoch
    config.optim.name = "sgd"
    config.optim.beta1 = 0.0
    config.optim.learning_rate = 0.001
    set_epochs(config, epochs=100, checkpoint_epochs=5)
    if variant == "modern":
        modernise(config)
    return config


def modernise(config):
    config.model.hidden = (1024, 1024, 512)
    config.model.batch_norm = True
    config.model.dropout = 0.2
    config.augment.flip = True
    config.augment.crop = 2
    config.classifier.label_smoothing = 0.1
    config.classifier.flip_at_test = True
    config.batch_size = 500
    config.steps_per_call = 20
    config.optim.name = "adamw"
    config.optim.beta1 = 0.9
    config.optim.learning_rate = 3e-3
    config.optim.weight_decay = 0.05
    config.optim.decay = "linear"
    config.optim.ema_decay = 0.99
    set_epochs(config, epochs=50, checkpoint_epochs=5)
    config.epochs.optim.warmup_steps = 10
