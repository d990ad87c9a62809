"""B2: a GAN of dense layers on MNIST, swept over the size of its latent.

    python -m gm_jax.main --config=configs/gan_mnist.py    # about ten minutes on two CPU cores
    launch/sweep.sh --config=configs/gan_mnist.py --sweep model.latent_dim=2,4,8,16,32,64    # an hour

The report (001, part A-II) shows samples for each size and finds that more dimensions draw better digits; it names no
layers. These are the most copied ones (PyTorch-GAN's gan.py): 128-256-512-1024 up with batch norm, 512-256 down, leaky
ReLU, Adam at 2e-4. With `--config.model.discriminator.dropout=0.3` and 12 epochs each all ten digits occur with every
size; more than 4 latents do not lower the energy score, more than 16 do not make samples less alike (docs/findings.md).
"""

from gm_jax.defaults import gan_config, set_epochs


def get_config():
    config = gan_config()
    config.rows = ("B2",)
    config.minutes = 10
    config.dataset.name = "mnist"
    config.model.name = "dense"
    config.model.latent_dim = 64
    config.model.generator.hidden = (128, 256, 512, 1024)
    config.model.discriminator.hidden = (512, 256)
    config.model.discriminator.dropout = 0.0
    config.batch_size = 128
    config.steps_per_call = 10
    set_epochs(config, epochs=50, checkpoint_epochs=5)
    config.if_embedded = {"steps": 4700}
    return config
