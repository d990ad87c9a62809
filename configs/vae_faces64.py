"""W8's networks on faces64, 12,374 photographs of faces at 64x64 in a TFDS directory.

    python -m gm_jax.main --config=configs/vae_faces64.py --config.dataset.data_dir=DIR    # an hour on two CPU cores

The networks and the likelihood of `vae_celeba`; fewer epochs, so that two CPU cores will do.
"""

from gm_jax.defaults import set_epochs, vae_config


def get_config():
    config = vae_config()
    config.rows = ("W8",)
    config.minutes = 60
    config.dataset.name = "faces64"
    config.model = {"name": "conv", "latent_dim": 128, "features": (32, 64, 128), "dense": 0}
    config.vae.likelihood = "gaussian"
    config.batch_size = 64
    config.optim.learning_rate = 1e-3
    config.optim.decay = "cosine"
    set_epochs(config, epochs=40, checkpoint_epochs=5)
    config.evaluation.n = 1000
    config.evaluation.batch_size = 50
    config.evaluation.samples = 0  # the labels are emotions: near neighbours share none
    return config
