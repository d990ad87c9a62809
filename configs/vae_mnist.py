"""H1 and B1: a VAE on MNIST.

    python -m gm_jax.main --config=configs/vae_mnist.py            # H1: two latents; twelve minutes on two CPU cores
    python -m gm_jax.main --config=configs/vae_mnist.py:keras      # the same with 16 hidden units; ten minutes
    launch/sweep.sh --config=configs/vae_mnist.py --sweep model.latent_dim=2,4,8,16,32,64 --config.steps=2345    # B1
    python -m gm_jax.main --config=configs/vae_mnist.py:modern     # the best bound; 48 minutes on one CPU core

H1 (002) gives two convolutions of stride 2, two dense layers, a decoder from 7x7x64, Adam, 30 epochs, batches of 128
and pixels in [0, 1]. Sizes are those of Keras's example, which it follows; `keras` has the 16 units of its encoder's
hidden dense layer, too. 3 to 5 of them survive the training, so that more than 8 latents are useless, which is what
B1 (001) reports of networks that it does not name; by default there are 256. Test ELBO after 10 epochs, grey pixels as
Bernoulli means: -149.5 nats with 2 latents, -101.8 with 16.

`modern` is made for two CPU cores: residual dense blocks, where a weight costs one multiplication an image, on
dynamically binarised digits, and an importance-weighted bound of five samples (Burda et al. 2016: -85.54 with it,
-86.76 without). It reaches -83.59 by 500 importance samples.
"""

from gm_jax.defaults import check_variant, set_epochs, vae_config

VARIANTS = ("keras", "modern")


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = vae_config()
    config.rows = ("H1", "B1")
    config.minutes = {"": 12, "keras": 10, "modern": 30}[variant]
    config.dataset.name = "mnist"
    config.model.name = "conv"
    config.model.features = (32, 64)
    config.model.dense = 16 if variant == "keras" else 256
    config.model.latent_dim = 2
    config.batch_size = 128
    config.steps_per_call = 7
    config.optim.learning_rate = 1e-3
    set_epochs(config, epochs=30, checkpoint_epochs=5)
    config.if_embedded = {"steps": 2345}
    if variant == "modern":
        modernise(config)
    return config


def modernise(config):
    config.model = {"name": "residual", "latent_dim": 40, "width": 512, "blocks": 2}
    config.vae.binarise = "dynamic"
    config.vae.train_samples = 5
    config.optim.learning_rate = 2e-3
    config.optim.decay = "cosine"
    config.optim.ema_decay = 0.999
    set_epochs(config, epochs=115, checkpoint_epochs=5)
    config.optim.warmup_steps = 500
    config.epochs.vae = {"warmup_steps": 5.75}
    config.if_embedded = {"steps": 2345, "optim": {"decay_steps": 2345}, "vae": {"warmup_steps": 200}}
