"""Small networks of every kind and with every keyword; their weights and inputs are the same on every machine.

Those come from `RandomState`, whose streams NumPy has promised never to change. Nothing is zero, weights have both
signs, and activations stay near one, so that each layer, norm and activation shows in the output.
"""

import contextlib
import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from gm_jax.models.autoencoder import make_autoencoder
from gm_jax.models.classifiers import make_classifier
from gm_jax.models.cyclegan import PatchGAN, ResidualGenerator
from gm_jax.models.gans import make_gan
from gm_jax.models.unet import UNet
from gm_jax.models.vae import make_vae

BATCH, CLASSES, LATENTS = 3, 5, 6
STATE = ("batch_stats", "spectral")  # what training calls change
STRIDED = {"width": 3, "multipliers": (2, 1), "strides": (2, 2), "kernels": (3, 4)}
SPECTRAL = {**STRIDED, "strides": (1, 2), "slope": 0.1, "batch_norm": False, "spectral_norm": True}


TRANSLATORS = {"residual generator": ResidualGenerator, "patchgan": PatchGAN}


class Case(NamedTuple):
    """A network: what it is, its `model.name`, keywords, and whether it is called as in training."""

    kind: str
    name: str
    keywords: dict[str, Any]
    shape: tuple[int, int, int] = (8, 12, 3)
    train: bool = False
    classes: int = 0  # of labels that it sees beside images or latents


CASES = {
    "mlp": Case("classifier", "mlp", {"hidden": (6, 5)}),
    "mlp, trained": Case("classifier", "mlp", {"hidden": (6,), "batch_norm": True, "dropout": 0.3}, train=True),
    "mlp, default dropout": Case("classifier", "mlp", {"hidden": (6,)}, train=True),
    "residual generator": Case("translator", "residual generator", {"width": 2, "blocks": 2, "channels": 3}),
    "patchgan": Case("translator", "patchgan", {"width": 2, "layers": 3}, (32, 40, 3)),
    "patchgan, shallow": Case("translator", "patchgan", {"width": 3, "layers": 1}, (16, 16, 1)),
    "cnn": Case("classifier", "cnn", {"features": (4, 5), "dense": 6}, (9, 12, 3), train=True),
    "cnn, dropout": Case("classifier", "cnn", {"features": (4,), "dense": 6, "dropout": 0.3}, train=True),
    "lenet": Case("classifier", "lenet", {"features": (4, 5), "dense": 6}, train=True),
    "lenet, dropout": Case("classifier", "lenet", {"features": (4,), "dense": 6, "dropout": 0.2}, (9, 12, 3), True),
    "speednet": Case("classifier", "speednet", {"widths": (4, 5)}, (9, 12, 3)),
    "speednet, trained": Case("classifier", "speednet", {"widths": (4,), "depth": 1, "scale": 0.5}, train=True),
    "alexnet": Case("classifier", "alexnet", {"features": (3, 4, 5, 6, 7)}, (16, 32, 3), train=True),
    "alexnet, modern": Case(
        "classifier",
        "alexnet",
        {"features": (3, 4, 5, 6), "stem_stride": 1, "batch_norm": True, "dropout": 0.2},
        train=True,
    ),
    "resnet": Case("classifier", "resnet", {"stages": (2, 1), "width": 2}),
    "resnet, trained": Case("classifier", "resnet", {"stages": (1, 2), "width": 3}, train=True),
    "resnet, stem": Case("classifier", "resnet", {"stages": (1, 1), "width": 3, "imagenet_stem": True}, (15, 32, 3)),
    "resnet9": Case("classifier", "resnet9", {"widths": (3, 4, 5, 6)}),
    "resnet9, trained": Case("classifier", "resnet9", {"widths": (3, 4), "residual": (1,), "scale": 0.5}, train=True),
    "dcgan generator": Case("generator", "dcgan", {"width": 2}, (16, 32, 3)),
    "dcgan generator, dense": Case(
        "generator",
        "dcgan",
        {"width": 2, "multipliers": (3, 2, 1), "strides": (1, 2, 2), "kernels": (5, 5, 5), "dense": True, "slope": 0.3},
        train=True,
    ),
    "dcgan generator, conditional": Case("generator", "dcgan", {**STRIDED, "hidden": 7}, train=True, classes=3),
    "dcgan discriminator": Case("discriminator", "dcgan", {"width": 2}, (16, 32, 3), train=True),
    "dcgan discriminator, dense": Case(
        "discriminator",
        "dcgan",
        {**STRIDED, "kernels": (5, 5), "dense": True, "slope": 0.3, "batch_norm": False, "dropout": 0.3},
        train=True,
    ),
    "dcgan discriminator, conditional": Case(
        "discriminator", "dcgan", {**STRIDED, "hidden": 7, "bias": False, "dropout": 0.2}, train=True, classes=3
    ),
    "dcgan discriminator, hidden": Case("discriminator", "dcgan", {**STRIDED, "hidden": 7}),
    "sngan discriminator": Case("discriminator", "dcgan", {**SPECTRAL, "dense": True}, train=True),
    "sngan discriminator, projection": Case("discriminator", "dcgan", {**SPECTRAL, "projection": True}, classes=3),
    "sngan discriminator, both": Case(
        "discriminator", "dcgan", {**SPECTRAL, "projection": True, "hidden": 7}, train=True, classes=3
    ),
    "dense generator": Case("generator", "dense", {"hidden": (6, 5, 4), "slope": 0.1}),
    "dense generator, trained": Case("generator", "dense", {"hidden": (6, 5)}, train=True, classes=3),
    "dense discriminator": Case("discriminator", "dense", {"hidden": (6, 5)}, train=True, classes=3),
    "dense discriminator, dropout": Case(
        "discriminator", "dense", {"hidden": (6,), "slope": 0.1, "dropout": 0.3}, train=True
    ),
    "autoencoder conv": Case("autoencoder", "conv", {"features": (4, 5)}),
    "autoencoder mlp": Case("autoencoder", "mlp", {"hidden": (6, 5), "activation": "relu"}),
    "autoencoder residual": Case("autoencoder", "residual", {"width": 6, "activation": "sigmoid"}),
    "vae conv": Case("vae", "conv", {"features": (4,), "dense": 7}),
    "vae mlp": Case("vae", "mlp", {"hidden": (6, 5), "slope": 0.2, "learned_scale": True}),
    "vae residual": Case("vae", "residual", {"width": 6, "blocks": 1}),
    "unet": Case(
        "unet",
        "",
        {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "heads": 2},
        (8, 8, 3),
        classes=3,
    ),
    "unet, dense": Case(  # it is given no labels
        "unet", "", {"width": 8, "multipliers": (1,), "dense": 6, "space_to_depth": 2, "classes": 3}, (8, 8, 1)
    ),
    "unet, dropout": Case(
        "unet", "", {"width": 4, "multipliers": (1,), "blocks": 1, "dropout": 0.1}, (4, 4, 1), train=True
    ),
}  # fmt: skip


def uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Numbers between two bounds that follow from a name."""
    return np.random.RandomState(zlib.crc32(name.encode())).uniform(low, high, shape).astype(np.float32)


def filled(shapes: dict) -> dict:
    """Variables of these shapes, none of them zero, of varied sizes and, but for variances, of both signs."""

    def fill(path: tuple[str, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = "/".join(path)
        sizes = {"var": (0.2, 2.0), "scale": (0.4, 1.6)}
        low, high = sizes.get(path[-1], (0.3, 1.5))
        values = uniform(name, leaf.shape, low, high)
        if path[-1] == "var":
            return values
        if leaf.ndim > 1:
            values /= np.float32(np.sqrt(np.prod(leaf.shape[:-1])))
        elif path[-1] in ("bias", "mean"):
            values /= np.float32(3.0)
        return values * np.where(uniform(f"sign of {name}", leaf.shape, -1, 1) < 0, -1, 1).astype(np.float32)

    return unflatten_dict({path: fill(path, leaf) for path, leaf in flatten_dict(shapes).items()})


def dropout_noise(shape: tuple[int, ...]) -> np.ndarray:
    """What decides, in place of random numbers, which values [B, ...] dropout keeps."""
    return uniform("dropout", shape, 0, 1)


def fingerprint(x: np.ndarray) -> list[float]:
    """The first values of an array and, so that none is unseen, its products with three fixed vectors."""
    x = np.asarray(x, np.float64).ravel()
    vectors = np.random.RandomState(1).uniform(-1.0, 1.0, (3, x.size))
    return [*x[:5], *(vectors @ x / np.sqrt(x.size))]


def network_of(case: Case) -> nn.Module:
    """Build our network."""
    keywords = case.keywords
    match case.kind:
        case "classifier":
            return make_classifier(case.name, case.shape, CLASSES, axis_name="batch", **keywords)
        case "generator" | "discriminator":
            pair = {"generator": {}, "discriminator": {}, case.kind: keywords}
            networks = make_gan(case.name, case.shape, LATENTS, **pair, classes=case.classes, axis_name="batch")
            return networks[case.kind == "discriminator"]
        case "autoencoder":
            return make_autoencoder(case.name, case.shape, LATENTS, **keywords)
        case "vae":
            return make_vae(case.name, case.shape, LATENTS, **keywords)
        case "translator":
            return TRANSLATORS[case.name](**keywords)
    return UNet(**{"classes": case.classes, **keywords})


def inputs_of(case: Case) -> dict[str, np.ndarray]:
    """The inputs of a network by name: images in [-1, 1] or, for coders, in [0, 1]; labels, one of them the last."""
    inputs, coder = {}, case.kind in ("autoencoder", "vae")
    if case.kind != "generator":
        inputs["x"] = uniform("images", (BATCH, *case.shape), 0 if coder else -1, 1)
    if case.kind in ("generator", "vae"):
        inputs["z"] = uniform("latents", (BATCH, *((2, LATENTS) if case.kind == "vae" else (LATENTS,))), -2, 2)
    if case.kind == "unet":
        inputs["t"] = np.array([3.0, 250.0, 999.0], np.float32)
    if case.classes:
        last = case.classes if case.kind == "unet" else case.classes - 1  # of a U-Net: any class
        inputs["label"] = np.array([0, last, 1], np.int32)
    return inputs


def code_and_images(network: nn.Module, x: jax.Array, z: jax.Array) -> tuple[jax.Array, ...]:
    """All that a VAE computes: mean and log-variance, images of given latents, the reconstruction."""
    return *network.encode(x), network.decode(z), network(x)


def noted_initialisers(noted: dict[str, Callable]) -> contextlib.AbstractContextManager:
    """Note how parameters begin, and have them begin as zeros: what Flax traces in each call is then traced fast."""
    own_param = nn.Module.param

    def param(module: nn.Module, name: str, init: Callable, *arguments: Any, **keywords: Any) -> Any:
        noted["/".join((*module.path, name))] = init
        return own_param(module, name, lambda key, shape, *_: np.zeros(shape, np.float32), *arguments, **keywords)

    return mock.patch.object(nn.Module, "param", param)


class Opened(NamedTuple):
    """Our network, its inputs, its variables, and the function by which each of its parameters begins, by path."""

    network: nn.Module
    method: Callable | None
    inputs: dict[str, np.ndarray]
    variables: dict
    initial: dict[str, Callable]


@functools.cache
def opened(name: str) -> Opened:
    """Build the network of a case and fill it."""
    case, initial = CASES[name], {}
    network, inputs = network_of(case), inputs_of(case)
    method = code_and_images if case.kind == "vae" else None
    with noted_initialisers(initial):
        shapes = jax.eval_shape(functools.partial(network.init, method=method), jax.random.key(0), **inputs)
    return Opened(network, method, inputs, filled(shapes), initial)


class Computed(NamedTuple):
    """What a call of our network gives: outputs and, joined, what it keeps; the axes that batch norms averaged over."""

    values: tuple[np.ndarray, ...]
    averaged: list[str]


@functools.cache
def computed(name: str) -> Computed:
    """Call our network. In training there is one device, and dropout keeps what `dropout_noise` says."""
    case, (network, method, inputs, variables, _) = CASES[name], opened(name)
    flags, averaged = {}, []
    if case.train and case.kind != "unet":
        flags["train"] = True
    if case.train and case.kind != "generator":
        flags["keys"] = np.zeros(BATCH)

    def pmean(x: jax.Array, axis_name: str) -> jax.Array:
        averaged.append(axis_name)
        return x

    def apply(variables: dict, inputs: dict) -> tuple:
        outputs, state = network.apply(variables, **inputs, **flags, method=method, mutable=STATE)
        return outputs if isinstance(outputs, tuple) else (outputs,), state

    with (
        noted_initialisers({}),
        mock.patch("gm_jax.random.fold_in", lambda keys, data: keys),
        mock.patch("gm_jax.random.uniform", lambda keys, shape: dropout_noise((len(keys), *shape))),
        mock.patch("jax.lax.pmean", pmean),
    ):
        outputs, state = jax.device_get(jax.jit(apply)(variables, inputs))
    return Computed((*outputs, *state_vector(state)), averaged)


def state_vector(state: dict) -> list[np.ndarray]:
    """Join running statistics and spectral vectors, sorted by path, if there are any."""
    leaves = [np.ravel(leaf) for _, leaf in sorted(flatten_dict(state).items())]
    return [np.concatenate(leaves)] if leaves else []
