"""T2 and T3: a sparse autoencoder without a bottleneck, on MNIST.

    python -m gm_jax.main --config=configs/sparse_autoencoder_mnist.py       # T2: L1 penalty (003, eq. 1)
    python -m gm_jax.main --config=configs/sparse_autoencoder_mnist.py:kl    # T3: KL penalty of the mean activities

Two minutes each on one CPU core. 784 pixels, 1024 units, 784 pixels; the decoder is linear up to the last
sigmoid, so that each unit draws one feature. The report says no more; the KL penalty and its target of 0.05 are those
of Ng's lecture notes (2011).
"""

from gm_jax.defaults import autoencoder_config, check_variant, set_epochs

VARIANTS = ("kl",)


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = autoencoder_config()
    config.rows = ("T3",) if variant == "kl" else ("T2",)
    config.minutes = 2
    config.dataset.name = "mnist"
    config.autoencoder.penalty = "l1"
    config.autoencoder.penalty_weight = 0.1
    config.model.name = "mlp"
    config.model.hidden = ()
    config.model.slope = 0.0
    config.model.latent_dim = 1024
    config.model.activation = "relu"
    config.batch_size = 128
    config.steps_per_call = 7
    config.optim.learning_rate = 1e-3
    config.optim.decay = "cosine"
    set_epochs(config, epochs=30, checkpoint_epochs=5)
    config.if_embedded = {"steps": 1407, "optim": {"decay_steps": 1407}}
    if variant == "kl":
        config.autoencoder.update(penalty="kl", penalty_weight=0.1, target_activity=0.05)
        config.model.activation = "sigmoid"
    return config
