"""H0: naive Bayes on MNIST, one of the two baselines that the report names: every pixel by itself, given the class.

    python -m gm_jax.main --config=configs/naive_bayes_mnist.py    # seconds

The report (002) gives no numbers. On binarised pixels it reaches -168.9 nats per test image, which compares with a
VAE's bound under vae.binarise=threshold, and classifies 84.27 % of the test images; its samples are clouds of dots.
"""

from gm_jax.defaults import baseline_config


def get_config():
    config = baseline_config("naive_bayes")
    config.rows = ("H0",)
    config.minutes = 1
    config.dataset.name = "mnist"
    config.model.smoothing = 1.0  # white and black pixels counted in each class before the data are seen
    return config
