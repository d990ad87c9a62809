"""T6: a Wasserstein GAN with gradient penalty on CIFAR-10.

    python -m gm_jax.main --config=configs/wgan_gp_cifar10.py    # a GPU; aim: FID below 40 (chainer-gan-lib: 28.2)

The loss is the report's (003, eq. (2)); the penalty of 10, five critic updates a step, batches of 64, Adam at 1e-4 with
betas 0 and 0.9 and a learning rate that falls to 0 within 100,000 steps are the paper's (Gulrajani et al. 2017). The
networks are DCGAN's for 32x32, without batch norm in the critic. An epoch is one of the critic's data.
"""

from gm_jax.defaults import gan_config, set_epochs


def get_config():
    config = gan_config()
    config.rows = ("T6",)
    config.dataset.name = "cifar10"
    config.model.latent_dim = 128
    config.model.generator = {"width": 64, "multipliers": (8, 4, 2), "strides": (2, 2, 2), "kernels": (4, 4, 4)}
    config.model.discriminator = {
        "width": 64,
        "multipliers": (2, 4, 8),
        "strides": (2, 2, 2),
        "kernels": (4, 4, 4),
        "batch_norm": False,
    }
    config.gan.loss = "wasserstein"
    config.gan.critic_steps = 5
    config.gan.gradient_penalty = 10.0
    config.batch_size = 64
    config.steps_per_call = 5
    config.optim.learning_rate = 1e-4
    config.optim.beta1 = 0.0
    config.optim.beta2 = 0.9
    config.optim.decay = "linear"
    set_epochs(config, epochs=625, checkpoint_epochs=5, evaluate_epochs=5)
    return config
