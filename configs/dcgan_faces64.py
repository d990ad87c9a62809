"""P1's networks on faces64, 12,374 photographs of faces at 64x64 in a TFDS directory.

    python -m gm_jax.main --config=configs/dcgan_faces64.py           # --config.dataset.data_dir=DIR; for a GPU: four
    python -m gm_jax.main --config=configs/dcgan_faces64.py:modern    # hours on two CPU cores, `modern` about as long

`modern` narrows the networks to half and spends the time on steps: an R1 penalty in place of the discriminator's batch
norm, differentiable augmentation, since the images are few, and a moving average. It draws faces after 600 steps, seven
minutes of one core. Latent arithmetic (B4), judged by a classifier of the emotions, right on 77 % of the test images:
    python -m gm_jax.main --config=configs/cnn_cifar10.py --config.dataset.name=faces64 --workdir=runs/emotions \\
        --config.batch_size=64 --config.steps=3000 --config.evaluate_every=500 --config.checkpoint_every=500
    python -m gm_jax.main --config=configs/dcgan_faces64.py --mode=figures --config.evaluation.judge=runs/emotions \\
        --config.sampling.arithmetic="happiness - neutral + 3,17,42"    # samples by number, 8 a row in samples.png
"""

from gm_jax.defaults import check_variant, gan_config, set_epochs

VARIANTS = ("modern",)


def get_config(variant=""):
    check_variant(variant, *VARIANTS)
    config = gan_config()
    config.rows = ("P1", "B4")
    config.minutes = 240
    config.dataset.name = "faces64"
    config.model.generator.width = 64  # multipliers, strides and kernels are the networks' defaults
    config.model.discriminator = {"width": 64, "bias": False}
    config.batch_size = 128
    set_epochs(config, epochs=50, checkpoint_epochs=5)
    if variant == "modern":
        modernise(config)
    return config


def modernise(config):
    config.model.generator.width = 32
    config.model.discriminator = {"width": 32, "batch_norm": False}
    config.gan.r1 = 0.5
    config.gan.augment = ("colour", "translation", "cutout")
    config.optim.generator.ema_decay = 0.999
    set_epochs(config, epochs=200, checkpoint_epochs=5, evaluate_epochs=5)
