"""P2: a VAE of dense layers on cat faces.

    python -m gm_jax.main --config=configs/vae_cats.py --config.dataset.folder=DIR    # half an hour on two CPU cores

The encoder 12288-512-512-16, the decoder 16-512-512-12288, leaky ReLU of slope 0.2, Adam, 50 epochs and 29,843 images
of 64x64 are the report's (004). Its loss a picture, 7686.8 after the first epoch and 7036.5 after the last, has the
size of the cross-entropy of grey values as Bernoulli means, so that is the likelihood here: compare minus the ELBO in
`figures/curves.md`, a row an epoch. Batches of 128 are those of its DCGAN; the learning rate is Adam's usual one. All
images of the folder train and are evaluated, as in `dcgan_cats`.
"""

from gm_jax.defaults import set_epochs, vae_config


def get_config():
    config = vae_config()
    config.rows = ("P2",)
    config.minutes = 30
    config.dataset.name = "cats"
    config.dataset.image_size = 64
    config.dataset.split = config.evaluation.split = "all"  # of a folder without train and test
    config.dataset.validation = 0
    config.model = {"name": "mlp", "latent_dim": 16, "hidden": (512, 512), "slope": 0.2}
    config.batch_size = 128
    config.optim.learning_rate = 1e-3
    set_epochs(config, epochs=50, checkpoint_epochs=5)
    config.evaluation.n = 1000
    config.evaluation.batch_size = 50
    config.evaluation.samples = 0  # cats have no classes
    return config
