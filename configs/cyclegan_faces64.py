"""B5 on faces: neutral to happy and back, faces64 in a TFDS directory.

    python -m gm_jax.main --config=configs/cyclegan_faces64.py    # --config.dataset.data_dir=DIR; for a GPU
    python -m gm_jax.main --config=configs/cnn_cifar10.py --config.dataset.name=faces64 --workdir=runs/emotions \\
        --config.batch_size=64 --config.steps=3000 --config.evaluate_every=500 --config.checkpoint_every=500
      ... --mode=evaluate --config.evaluation.judge=runs/emotions    # what a classifier says before and after

The paper's losses on 64x64 pixels: networks half as wide, 6 blocks, and a PatchGAN that sees 34 pixels, more than a
mouth; a generator that is averaged, and batches of 4, for which the learning rate is doubled.
"""

from gm_jax.defaults import cyclegan_config


def get_config():
    config = cyclegan_config()
    config.rows = ("B5",)
    config.dataset.name = "faces64"
    for name, value in (("a", "neutral"), ("b", "happiness")):
        config.domains[name].attribute, config.domains[name].value = "label", value
    config.model.generator = {"width": 32, "blocks": 6}
    config.model.discriminator = {"width": 64, "layers": 2}
    config.batch_size = 4
    config.steps_per_call = 5
    config.optim.learning_rate = 4e-4
    for network in ("ab", "ba"):
        config.optim[network].ema_decay = 0.999
    config.steps = config.optim.decay_steps = 40_000
    config.optim.hold_steps = 20_000
    config.evaluate_every = config.checkpoint_every = 1000
    return config
