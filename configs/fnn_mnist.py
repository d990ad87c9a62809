"""W1: a feed-forward network on MNIST.

python -m gm_jax.main --config=configs/fnn_mnist.py          # 97.34 % in the report, 98.0 % here in 35 s
python -m gm_jax.main --config=configs/fnn_mnist.py:modern   # 99.3 %; five to eleven minutes on one busy CPU

Layers [784, 64, 32, 10], 100 epochs and batches of 20 are the report's (000, section 6.2); Adam with a cosine decay is
the common choice. `modern` is still a feed-forward network: wider, with batch norm, dropout, shifted digits and a
one-cycle schedule.
"""

from gm_jax.defaults import MNIST, check_variant, classifier_config, set_epochs

VARIANTS = ("modern",)


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = classifier_config()
    config.rows = ("W1",)
    config.minutes = {"": 1, "modern": 5}[variant]
    config.dataset.name = "mnist"
    config.classifier.update(MNIST)
    config.model.name = "mlp"
    config.model.hidden = (64, 32)
    config.model.batch_norm = False
    config.model.dropout = 0.0
    config.batch_size = 20
    config.steps_per_call = 500
    config.optim.learning_rate = 1e-3
    config.optim.decay = "cosine"
    set_epochs(config, epochs=100, checkpoint_epochs=5)
    config.if_embedded = {"steps": 15_000, "optim": {"decay_steps": 15_000}}
    if variant == "modern":
        modernise(config)
    return config


def modernise(config):
    config.model.hidden = (1024, 1024)
    config.model.batch_norm = True
    config.model.dropout = 0.2
    config.augment.crop = 2
    config.classifier.label_smoothing = 0.1
    config.batch_size = 500
    config.steps_per_call = 20
    config.optim.name = "adamw"
    config.optim.learning_rate = 4e-3
    config.optim.weight_decay = 0.05
    config.optim.decay = "linear"
    config.optim.ema_decay = 0.99
    set_epochs(config, epochs=30, checkpoint_epochs=5)
    config.epochs.optim.warmup_steps = 6
    config.if_embedded = {"steps": 600, "optim": {"decay_steps": 600, "warmup_steps": 120}}
