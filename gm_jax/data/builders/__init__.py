"""TFDS builders of gm_jax that need no TensorFlow: they yield encoded images.

Their names, versions and features are those of TFDS's own builders, so that either prepares the same directory.
"""

BUILDERS = {"mnist": "Mnist", "fashion_mnist": "FashionMnist", "kmnist": "Kmnist"}  # name -> class in `mnist`


def builder_class(name: str) -> type:
    """Return the builder class of a name in `BUILDERS`; imports TFDS."""
    from gm_jax.data.builders import mnist

    return getattr(mnist, BUILDERS[name])
