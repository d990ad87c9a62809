"""B5 on digits: zeros to sixes and back, MNIST at 32x32.

    python -m gm_jax.main --config=configs/cyclegan_mnist.py
      ... --mode=evaluate --config.evaluation.judge=WORKDIR    # a lenet_mnist at --config.dataset.image_size=32

A zero and a six share slant and stroke, which a translation should keep.
"""

from gm_jax.defaults import cyclegan_config


def get_config():
    config = cyclegan_config()
    config.rows = ("B5",)
    config.minutes = 6
    config.dataset.name = "mnist"
    config.dataset.image_size = 32
    for name, value in (("a", "0"), ("b", "6")):
        config.domains[name].attribute, config.domains[name].value = "label", value
    config.model.generator = {"width": 16, "blocks": 3}
    config.model.discriminator = {"width": 32, "layers": 2}
    config.cyclegan.flip = False
    config.batch_size = 8
    config.steps_per_call = 5
    config.optim.learning_rate = 4e-4
    config.steps = config.optim.decay_steps = 3000
    config.optim.hold_steps = 1500
    config.evaluate_every = config.checkpoint_every = 500
    return config
