"""The table of generators and discriminators, and how a config becomes a pair of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from gm_jax.errors import UserError, nearest
from gm_jax.models.dcgan import Discriminator, Generator
from gm_jax.models.dense_gan import DenseDiscriminator, DenseGenerator
from gm_jax.models.keywords import accepted, check_keywords

GANS = {"dcgan": (Generator, Discriminator), "dense": (DenseGenerator, DenseDiscriminator)}
GIVEN = ("image_shape", "classes", "axis_name")  # fields that no config sets


def make_gan(
    name: str,
    image_shape: Sequence[int],
    latent_dim: int,
    generator: Mapping[str, Any],
    discriminator: Mapping[str, Any],
    classes: int = 0,
    axis_name: str | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Build the generator and the discriminator called `name`, each with its keywords.

    The generator maps (z [B, latent_dim], labels, train) to images of `image_shape` in [-1, 1], the discriminator
    (images, labels, train, dropout keys) to logits [B]; labels are int32 [B] if there are `classes`, else None.

    Raises:
        UserError: no such networks, a keyword they do not know, or no latents.
    """
    if name not in GANS:
        raise UserError(f"model.name={name!r} is not one of {', '.join(GANS)}{nearest(name, GANS)}")
    if latent_dim < 1:
        raise UserError(f"model.latent_dim={latent_dim} must be at least 1")
    networks = {"generator": generator, "discriminator": discriminator}
    known = {net: accepted([module], GIVEN) for net, module in zip(networks, GANS[name], strict=True)}
    for net, keywords in networks.items():
        check_keywords(name, keywords, known[net], group=f"{net}.")
    given = {"classes": classes, "image_shape": tuple(image_shape), "axis_name": axis_name}
    return tuple(
        module(**{key: given[key] for key in GIVEN if key in accepted([module], ())}, **networks[net])
        for net, module in zip(networks, GANS[name], strict=True)
    )
