"""The table of networks that map images to logits, and how a config becomes one of them."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.errors import UserError, nearest
from gm_jax.models.alexnet import AlexNet
from gm_jax.models.cnn import CNN, LeNet, SpeedNet
from gm_jax.models.keywords import accepted, check_keywords
from gm_jax.models.mlp import MLP
from gm_jax.models.resnet import ResNet, ResNet9

CLASSIFIERS = {
    "mlp": MLP,
    "cnn": CNN,
    "lenet": LeNet,
    "speednet": SpeedNet,
    "alexnet": AlexNet,
    "resnet": ResNet,
    "resnet9": ResNet9,
}


def make_classifier(
    name: str, image_shape: Sequence[int], classes: int, axis_name: str | None = None, **keywords: Any
) -> nn.Module:
    """Build the network called `name` for images of shape (height, width, channels).

    It maps (x [B, H, W, C] in [-1, 1], train, dropout keys [B] or None) to logits [B, classes]. `axis_name` is the
    device axis over which batch statistics are taken.

    Raises:
        UserError: no such network, a keyword or a type it does not know, or images too small for it.
    """
    if name not in CLASSIFIERS:
        raise UserError(f"model.name={name!r} is not one of {', '.join(CLASSIFIERS)}{nearest(name, CLASSIFIERS)}")
    check_keywords(name, keywords, accepted([CLASSIFIERS[name]], given=("classes", "axis_name")))
    dtype = keywords.get("dtype")
    try:
        floating = dtype is None or jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise UserError(f"model.dtype={dtype!r} is not a floating type: use float32 or bfloat16")
    network = CLASSIFIERS[name](classes=classes, axis_name=axis_name, **keywords)
    height, width, _ = image_shape
    if min(height, width) < network.smallest:
        raise UserError(
            f"model {name} takes images of {network.smallest}x{network.smallest} pixels or more, not {height}x{width}: "
            "set dataset.image_size, or choose another model.name"
        )
    return network
