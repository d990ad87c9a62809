"""T1: an autoencoder with a bottleneck, on MNIST.

    python -m gm_jax.main --config=configs/autoencoder_mnist.py    # 37 seconds on one CPU core

The report (003, section 2.2) names the idea alone: fewer units in the hidden layer, and a reconstruction loss. The
layers, 784-128-64-32 and back, are those of the Keras blog's deep autoencoder (Chollet 2016).
"""

from gm_jax.defaults import autoencoder_config, set_epochs


def get_config():
    config = autoencoder_config()
    config.rows = ("T1",)
    config.minutes = 1
    config.dataset.name = "mnist"
    config.model.name = "mlp"
    config.model.hidden = (128, 64)
    config.model.slope = 0.0
    config.model.latent_dim = 32
    config.batch_size = 128
    config.steps_per_call = 7
    config.optim.learning_rate = 2e-3
    config.optim.decay = "cosine"
    set_epochs(config, epochs=50, checkpoint_epochs=5)
    config.if_embedded = {"steps": 4690, "optim": {"decay_steps": 4690}}
    return config
