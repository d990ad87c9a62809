"""H0: a Gaussian mixture on MNIST, one of the two baselines that the report names.

    python -m gm_jax.main --config=configs/gmm_mnist.py    # about a minute on two CPU cores

The report (002) gives no numbers. 100 full covariances on 50 principal components, noise around them. Seed 0 reaches
6.966 bits per 8-bit pixel (-3785.6 nats per test image), and most samples are readable.
"""

from gm_jax.defaults import baseline_config


def get_config():
    config = baseline_config("gaussian_mixture")
    config.rows = ("H0",)
    config.minutes = 2
    config.dataset.name = "mnist"
    config.model.components = 100
    config.model.dimensions = 50  # principal components that the mixture describes; the rest is noise
    config.model.iterations = 100  # of EM at most
    config.model.tolerance = 0.01  # nats an image: EM ends when an iteration gains less
    config.if_embedded = {"model": {"components": 10}}  # 1,500 digits do not determine 100 covariances
    return config
