"""T4: an autoencoder that removes noise, on MNIST.

    python -m gm_jax.main --config=configs/denoising_autoencoder_mnist.py    # three minutes on two CPU cores

Gaussian noise of standard deviation 0.5 on pixels in [0, 1], clipped to [0, 1] again; `evaluate` gives the peak
signal-to-noise ratio before and after: 9.38 and 20.26 dB (after twelve epochs 20.71). The report (003, section 2.4)
names the idea alone.
"""

from gm_jax.defaults import autoencoder_config, set_epochs


def get_config():
    config = autoencoder_config()
    config.rows = ("T4",)
    config.minutes = 3
    config.dataset.name = "mnist"
    config.autoencoder.noise = 0.5
    config.model.name = "conv"
    config.model.features = (32, 64)
    config.model.dense = 0
    config.model.latent_dim = 128
    config.batch_size = 128
    config.steps_per_call = 7
    config.optim.learning_rate = 2e-3
    config.optim.decay = "cosine"
    set_epochs(config, epochs=5, checkpoint_epochs=1)
    config.if_embedded = {"steps": 938, "optim": {"decay_steps": 938}}
    return config
