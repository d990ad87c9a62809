"""W8: a VAE on faces, CelebA at 64x64.

    python -m gm_jax.main --config=configs/vae_celeba.py    # for a GPU: about 15 minutes an epoch on two CPU cores
      ... --config.dataset.folder=DIR    # the images in a folder: the download of TFDS is often over its quota

Three convolutions and a dense layer, a dense layer and four transposed convolutions, 250 epochs are the report's (000,
section 6.9), which shows reconstructions and samples. Channels, 128 latents and batches of 128 are common ones; pixels
are Gaussian with one learned standard deviation (Rybkin et al. 2021), which spares choosing a weight of the KL term.
"""

from gm_jax.defaults import set_epochs, vae_config


def get_config():
    config = vae_config()
    config.rows = ("W8",)
    config.minutes = 3750
    config.dataset.name = "celeb_a"
    config.dataset.image_size = 64
    config.model = {"name": "conv", "latent_dim": 128, "features": (32, 64, 128), "dense": 0}
    config.vae.likelihood = "gaussian"
    config.batch_size = 128
    config.optim.learning_rate = 1e-3
    config.optim.decay = "cosine"
    set_epochs(config, epochs=250, checkpoint_epochs=5)
    config.evaluation.n = 1000
    config.evaluation.batch_size = 50
    return config
