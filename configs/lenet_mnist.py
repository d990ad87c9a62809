"""LeNet on MNIST, 99.2 % or better: the extractor of features by which small images are scored.

python -m gm_jax.main --config=configs/lenet_mnist.py        # about four minutes on two CPU cores
  ... --config.dataset.name=digits    # the embedded digits
  ... --config.dataset.name=shapes    # the label is the shape
"""

from gm_jax.defaults import MNIST, classifier_config, set_epochs


def get_config():
    config = classifier_config()
    config.minutes = 4
    config.dataset.name = "mnist"
    config.classifier.update(MNIST)
    config.model.name = "lenet"
    config.model.features = (32, 64)
    config.model.dense = 128
    config.model.dropout = 0.5
    config.augment.crop = 2
    config.batch_size = 100
    config.steps_per_call = 10
    config.optim.learning_rate = 2e-3
    config.optim.warmup_steps = 600
    config.optim.decay = "linear"
    config.optim.ema_decay = 0.995
    set_epochs(config, epochs=6, checkpoint_epochs=1)
    config.if_embedded = {"steps": 1200, "optim": {"decay_steps": 1200, "warmup_steps": 240}}
    return config
