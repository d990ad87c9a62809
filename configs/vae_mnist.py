"""H1 and B1: a VAE on MNIST.

    python -m gm_jax.main --config=configs/vae_mnist.py            # H1: two latents; about 20 minutes on two CPU cores
    launch/sweep.sh --config=configs/vae_mnist.py --sweep model.latent_dim=2,4,8,16,32,64    # B1
    python -m gm_jax.main --config=configs/vae_mnist.py:modern     # the best bound; about 25 minutes on two CPU cores

H1 (002) gives two convolutions of stride 2, two dense layers, a decoder from 7x7x64, Adam, 30 epochs, batches of 128
and pixels in [0, 1]; the sizes are those of Keras's example, which it follows (69,076 and 65,089 parameters). B1 (001)
names neither networks nor epochs. Aims: test ELBO -155 nats with 2 latents, -104 with 16 (grey pixels as Bernoulli
means). `modern` is made for two CPU cores: residual dense blocks, where a weight costs one multiplication an image, on
dynamically binarised digits; aim: -86 nats by 500 importance samples (a VAE of Burda et al. 2016: -86.76).
"""

from gm_jax.defaults import check_variant, set_epochs, vae_config

VARIANTS = ("modern",)


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = vae_config()
    config.dataset.name = "mnist"
    config.model.name = "conv"
    config.model.features = (32, 64)
    config.model.dense = 16
    config.model.latent_dim = 2
    config.batch_size = 128
    config.steps_per_call = 7
    config.optim.learning_rate = 1e-3
    set_epochs(config, epochs=30, examples=60_000, checkpoint_epochs=5)
    config.if_embedded = {"steps": 2345}
    if variant == "modern":
        modernise(config)
    return config


def modernise(config):
    config.model = {"name": "residual", "latent_dim": 40, "width": 512, "blocks": 2}
    config.vae.binarise = "dynamic"
    config.optim.decay = "cosine"
    config.optim.ema_decay = 0.999
    set_epochs(config, epochs=115, examples=60_000, checkpoint_epochs=5)
    config.optim.warmup_steps = 500
    config.vae.warmup_steps = config.steps // 20
    config.if_embedded = {"steps": 2345, "optim": {"decay_steps": 2345}, "vae": {"warmup_steps": 200}}
