"""Every network computes what an independent implementation does, and begins as it should.

The independent one is in PyTorch. What it computes is stored, since not every machine has it; where it is installed it
computes anew.
"""

import importlib.util
import json
import math
import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from gm_jax.layers.dropout import Dropout
from gm_jax.layers.norm import BatchNorm, GroupNorm
from gm_jax.layers.spectral_norm import SpectralNorm
from gm_jax.models.classifiers import CLASSIFIERS
from gm_jax.models.cnn import cosines, identity
from gm_jax.models.coders import CODERS
from gm_jax.models.gans import GANS
from gm_jax.models.keywords import accepted
from gm_jax.models.unet import UNet
from gm_jax.random import example_keys
from tests.network_cases import (
    CASES,
    TRANSLATORS,
    computed,
    fingerprint,
    network_of,
    noted_initialisers,
    opened,
    uniform,
)
from tests.store_networks import FILE

STORED = json.loads(FILE.read_text())
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


def assert_same(ours, expected, name):
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-5 * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_a_network_computes_what_pytorch_computed(name):
    """Its outputs, and what a call in training keeps. New cases want `python -m tests.store_networks`."""
    values, averaged = computed(name)
    assert_same([fingerprint(value) for value in values], STORED[name], name)
    norms = sum(path[-1].key == "mean" for path, _ in jax.tree.leaves_with_path(opened(name).variables))
    assert averaged == ["batch"] * (norms if CASES[name].train else 0)  # statistics are those of all devices


@needs_torch
def test_networks_compute_what_pytorch_computes():
    from tests.network_twins import peer_values

    for name in CASES:
        assert_same(computed(name).values, peer_values(name), name)


def test_every_network_is_compared_with_every_keyword_that_it_has():
    generators, discriminators = ({name: pair[i : i + 1] for name, pair in GANS.items()} for i in range(2))
    classifiers = {name: [module] for name, module in CLASSIFIERS.items()}
    tables = {"classifier": classifiers, "generator": generators, "discriminator": discriminators}
    tables |= {"autoencoder vae": CODERS, "unet": {"": [UNet]}}
    tables |= {"translator": {name: [module] for name, module in TRANSLATORS.items()}}
    for kinds, table in tables.items():
        for name, modules in table.items():
            cases = [case for case in CASES.values() if case.kind in kinds and case.name == name]
            keywords = accepted(modules, ("classes", "outputs", "image_shape", "axis_name", "dtype"))
            assert set(keywords) <= set().union(*(case.keywords for case in cases)), name


SMALL, HE, LECUN = "N(0, 0.02^2)", "He", "LeCun"
SPREADS = {  # mean and standard deviation where the fan-in is 144
    "0": (0.0, 0.0),
    "1": (1.0, 0.0),
    SMALL: (0.0, 0.02),
    "N(1, 0.02^2)": (1.0, 0.02),
    LECUN: (0.0, math.sqrt(1 / 144)),
    HE: (0.0, math.sqrt(2 / 144)),
    "log 0.1": (math.log(0.1), 0.0),
}
EVERYWHERE = {r".*/kernel": LECUN, r".*/bias": "0", r".*/scale": "1", r".*/embedding": None, "log_scale": "log 0.1"}
DCGAN = {r".*/kernel": SMALL, r".*/scale": "N(1, 0.02^2)"}  # Radford et al. 2016
RESIDUAL = {r".*/kernel": HE, r".*norm3/scale": "0", "head/kernel": LECUN}  # He et al. 2015; Goyal et al. 2017
UNET = {r"(.*conv2|.*attention/out|middle_dense/(out.|widen)|leave)/kernel": "0"}  # DDPM: blocks begin as the identity
INITIAL = {  # what differs, by the beginning of a case's name; later ones go before earlier ones
    "alexnet": {r"(stem|conv.)/kernel": HE},
    "speednet": {r"(stem|block.*)/kernel": None},  # tested below
    "resnet": RESIDUAL,
    "dcgan": DCGAN,
    "residual generator": {r".*/kernel": SMALL},
    "patchgan": {r".*/kernel": SMALL},
    "dcgan discriminator, dense": {r".*/kernel": HE},  # without norms
    "sngan": DCGAN,
    "autoencoder residual": {r".*/out./kernel": "0"},
    "vae residual": {r".*/out./kernel": "0"},
    "unet": UNET,
}


@pytest.mark.parametrize("name", CASES)
def test_parameters_begin_as_published(name):
    """Biases at 0, scales at 1, kernels as in LeCun et al. 1998, unless something else is said."""
    rules = {**EVERYWHERE}
    for beginning in INITIAL:
        rules |= INITIAL[beginning] if name.startswith(beginning) else {}
    for path, init in opened(name).initial.items():
        *_, expected = (spread for pattern, spread in rules.items() if re.fullmatch(pattern, path))
        if expected is not None:
            values = np.asarray(init(jax.random.key(0), (3, 3, 16, 64)))
            measured = (values.mean(), values.std())
            np.testing.assert_allclose(measured, SPREADS[expected], rtol=0.05, atol=2e-3, err_msg=path)


def test_a_vae_learns_the_scale_of_pixels_if_asked_to():
    learned = [name for name in CASES if name.startswith("vae") and "log_scale" in opened(name).initial]
    assert learned == ["vae mlp"]


def test_speednet_begins_with_cosines_and_identities():
    """DCT-II along rows, columns and channels; then a convolution that repeats its inputs, and random ones."""
    basis = [
        np.array([[math.cos(math.pi * (2 * i + 1) * k / (2 * n)) for k in range(n)] for i in range(n)])
        for n in (2, 2, 3)
    ]
    basis = [each / np.linalg.norm(each, axis=0) for each in basis]
    expected = np.einsum("ia,jb,kc->ijkabc", *basis).reshape(2, 2, 3, 12)
    np.testing.assert_allclose(cosines(None, (2, 2, 3, 12)), expected, atol=1e-6)

    begin = jax.jit(identity, static_argnums=1)
    wide, narrow = (np.asarray(begin(jax.random.key(0), (3, 3, 16, outputs))) for outputs in (64, 4))
    dirac = np.zeros((3, 3, 16, 16))
    dirac[1, 1] = np.eye(16)
    np.testing.assert_array_equal(wide[..., :16], dirac)
    np.testing.assert_array_equal(narrow, dirac[..., :4])
    assert wide[..., 16:].std() == pytest.approx(1 / 12, rel=0.05)
    for path, init in opened("speednet").initial.items():
        if path.endswith("kernel") and path != "head/kernel":
            assert init is (cosines if path == "stem/kernel" else identity)


CIFAR, DIGIT, FACE = (32, 32, 3), (28, 28, 1), (64, 64, 3)
# The first layer's patches, kernels, a shift for every channel, the head: "1.97M" in Jordan 2024 (airbench94).
SPEEDNET = 12 * 12 + 9 * (24 * 64 + 64**2 + 64 * 256 + 3 * 256**2) + (12 + 2 * 64 + 4 * 256) + 256 * 10
ALEXNET = 9 * (3 * 64 + 64 * 192 + 192 * 384 + 384 * 256 + 256**2) + (64 + 192 + 384 + 2 * 256) + (4 * 256 + 1) * 10


@pytest.mark.parametrize(
    ("network", "shape", "parameters"),
    [
        (CLASSIFIERS["mlp"](10), DIGIT, 784 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10),
        (CLASSIFIERS["cnn"](10), CIFAR, 122_570),  # as TensorFlow's tutorial prints it
        (CLASSIFIERS["lenet"](10), DIGIT, 25 * 32 + 32 + 25 * 32 * 64 + 64 + 49 * 64 * 128 + 128 + 128 * 10 + 10),
        (CLASSIFIERS["speednet"](10), CIFAR, SPEEDNET),
        (CLASSIFIERS["alexnet"](10), CIFAR, ALEXNET),
        (CLASSIFIERS["resnet"](10), CIFAR, 23_520_842),  # as of PyTorch's ResNet-50 with this stem
        (CLASSIFIERS["resnet"](10, imagenet_stem=True), CIFAR, 23_528_522),  # torchvision
        (CLASSIFIERS["resnet9"](10), CIFAR, 6_573_120),  # "6.5M" in Page 2018
        (GANS["dcgan"][0](FACE), (100,), 3_576_704),  # as PyTorch's tutorial counts
        (GANS["dcgan"][1](bias=False), FACE, 2_765_568),  # likewise
        (GANS["dense"][0](DIGIT), (64,), 1_503_632),
        (GANS["dense"][1](), DIGIT, 533_505),
        (CODERS["conv"][0](4, dense=16), DIGIT, 69_076),  # as Keras's tutorial on VAEs prints it
        (CODERS["conv"][1](DIGIT), (2,), 65_089),  # likewise
        (CODERS["mlp"][0](4), DIGIT, 785 * 512 + 513 * 512 + 513 * 4),
        (CODERS["mlp"][1](DIGIT), (2,), 3 * 512 + 513 * 512 + 513 * 784),
        (CODERS["residual"][0](4), DIGIT, 785 * 512 + 2 * (2 * 513 * 512 + 1024) + 1024 + 513 * 4),
        (CODERS["residual"][1](DIGIT), (2,), 3 * 512 + 2 * (2 * 513 * 512 + 1024) + 1024 + 513 * 784),
    ],
)
def test_defaults_have_the_published_numbers_of_parameters(network, shape, parameters):
    with noted_initialisers({}):
        shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *shape)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == parameters


@pytest.mark.parametrize("norm", [GroupNorm, partial(BatchNorm, False)])
def test_norms_keep_a_type_unless_told_another(norm):
    x = jax.ShapeDtypeStruct((2, 3, 3, 4), jnp.bfloat16)
    types = [jax.eval_shape(norm(dtype=d).init_with_output, jax.random.key(0), x)[0].dtype for d in (None, jnp.float32)]
    assert types == [jnp.bfloat16, jnp.float32]


TYPED = ("mlp, trained", "cnn", "lenet", "speednet", "alexnet, modern", "resnet", "resnet9", "unet", "unet, dense")


@pytest.mark.parametrize("name", TYPED)
def test_every_layer_computes_in_the_type_asked_for(name):
    """The output, which a loss takes, is single precision, and so are parameters."""
    case, (_, _, inputs, variables, _) = CASES[name], opened(name)
    network = network_of(case._replace(keywords={**case.keywords, "dtype": "bfloat16"}))
    with noted_initialisers({}):
        apply = partial(network.apply, capture_intermediates=True, mutable=["intermediates"])
        output, kept = jax.eval_shape(apply, variables, **inputs)
    types = {"/".join(path): leaf.dtype for path, (leaf,) in flatten_dict(kept["intermediates"]).items()}
    assert types.pop("__call__") == output.dtype == jnp.float32
    assert types == dict.fromkeys(types, jnp.bfloat16)


def test_batch_norm_keeps_small_variances_apart_from_zero():
    """(x - mean) / sqrt(variance + 1e-5), where the variance is as small; Ioffe & Szegedy 2015."""
    x = 0.003 * uniform("x", (7, 4), -1, 1).astype(np.float64) + 0.01
    expected = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    network = BatchNorm(train=True)
    variables = {"params": {"scale": np.ones(4), "bias": np.zeros(4)}}
    variables["batch_stats"] = {"mean": np.zeros(4), "var": np.ones(4)}
    y, _ = jax.jit(partial(network.apply, mutable=["batch_stats"]))(variables, x.astype(np.float32))
    np.testing.assert_allclose(y, expected, atol=1e-3)


class Dropping(nn.Module):
    """Two layers of dropout."""

    rate: float

    @nn.compact
    def __call__(self, x, keys):
        return Dropout(self.rate, name="first")(x, keys), Dropout(self.rate, name="second")(x, keys)


def test_dropout_zeroes_a_share_and_scales_up_the_rest():
    """By masks that differ between layers and examples, and follow from the keys."""
    x, keys = np.full((4, 2000), 3.0, np.float32), example_keys(jax.random.key(0), jnp.arange(4))
    apply = jax.jit(lambda x, keys: Dropping(0.25).apply({}, x, keys))
    first, second = map(np.asarray, apply(x, keys))
    assert set(np.unique(first)) == {0.0, 4.0}
    np.testing.assert_allclose((first == 0).mean(1), 0.25, atol=0.04)
    zeros = np.concatenate([first, second]) == 0
    together = np.mean(zeros[:, None] & zeros, -1)[~np.eye(8, dtype=bool)]
    np.testing.assert_allclose(together, 0.25**2, atol=0.03)  # independent
    np.testing.assert_array_equal(apply(x[::-1], keys[::-1])[0], first[::-1])
    for rate, given in ((0.25, None), (0.0, keys)):
        np.testing.assert_array_equal(Dropping(rate).apply({}, x, given)[0], x)


def test_spectral_norm_has_the_papers_gradient():
    """d (sum of G * W / sigma) / dW = (G - <G, W / sigma> u v^T) / sigma, Miyato et al. 2018, equation (12)."""
    network, x = SpectralNorm(nn.Dense(4, use_bias=False)), np.eye(5, dtype=np.float32)
    kernel, weights = uniform("kernel", (5, 4), -1, 1), uniform("weights", (5, 4), -1, 1)
    begun = jax.jit(network.init, static_argnums=2)(jax.random.key(0), x, False)
    u = np.asarray(begun["spectral"]["u"])
    np.testing.assert_allclose(np.linalg.norm(u), 1.0, atol=1e-6)

    def value(kernel):
        return jnp.sum(weights * network.apply({**begun, "params": {"layer": {"kernel": kernel}}}, x, False))

    v = kernel @ u / np.linalg.norm(kernel @ u)
    u = v @ kernel / np.linalg.norm(v @ kernel)
    sigma = v @ kernel @ u
    expected = (weights - np.sum(weights * kernel / sigma) * np.outer(v, u)) / sigma
    np.testing.assert_allclose(jax.jit(jax.grad(value))(kernel), expected, atol=1e-5)
