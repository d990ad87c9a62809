"""The U-Net's size, and its layers, in NumPy. What it computes as a whole: test_networks.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from gm_jax.errors import UserError
from gm_jax.layers.attention import SelfAttention
from gm_jax.layers.embedding import sinusoidal
from gm_jax.layers.norm import GroupNorm
from gm_jax.models.unet import UNet, depth_to_space, enlarge, space_to_depth
from tests.network_cases import noted_initialisers


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_the_papers_cifar10_network_has_its_number_of_parameters():
    """Which are the defaults: "35.7 million" in Ho et al. 2020, appendix B."""
    with noted_initialisers({}):
        variables = jax.eval_shape(UNet().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 35_746_307


@pytest.mark.parametrize("shape", [(1, 30, 30, 1), (1, 28, 26, 1), (28, 28, 1)])
def test_images_that_do_not_divide_are_refused(shape):
    with pytest.raises(UserError, match="divide by 4"):
        UNet(8, (1, 2), space_to_depth=2).init(jax.random.key(0), jnp.zeros(shape), jnp.zeros(1))


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="3 heads"):
        SelfAttention(heads=3).init(jax.random.key(0), jnp.zeros((1, 2, 2, 8)))


def test_space_to_depth_keeps_pixels_in_order_and_comes_back():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    folded = space_to_depth(x, 2)
    assert folded.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(folded[0, 1, 2], np.concatenate([x[0, 2, 4], x[0, 2, 5], x[0, 3, 4], x[0, 3, 5]]))
    np.testing.assert_array_equal(depth_to_space(folded, 2), x)
    np.testing.assert_array_equal(enlarge(x), np.repeat(np.repeat(x, 2, 1), 2, 2))


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (96, 8), (3, 1)])
def test_group_norm_equals_numpy(channels, groups):
    """Wu & He 2018, equations (1) to (3): also far from 0, and where a variance is as small as what is added to it."""
    x = np.stack([3 * normal(5, 4, channels) + 1, 0.003 * normal(5, 4, channels), normal(5, 4, channels) + 100])
    scale, bias = normal(channels, seed=1), normal(channels, seed=2)
    apart = x.reshape(3, 20, groups, -1)
    mean, variance = (statistic(apart, axis=(1, 3), keepdims=True) for statistic in (np.mean, np.var))
    expected = ((apart - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * scale + bias
    y = jax.jit(GroupNorm().apply)({"params": {"scale": scale, "bias": bias}}, x.astype(np.float32))
    np.testing.assert_allclose(y[:2], expected[:2], atol=1e-4)
    np.testing.assert_allclose(y[2], expected[2], atol=1e-2)  # single precision


def test_attention_is_softmax_attention_around_a_skip():
    """softmax(Q K^T / sqrt(d)) V for each head, Vaswani et al. 2017, equation (1), of normalised positions."""
    layer, x = SelfAttention(heads=2), normal(2, 3, 3, 8)
    kernels = {"qkv": normal(8, 24, seed=3) / 3, "out": normal(8, 8, seed=4)}
    biases = {"qkv": normal(24, seed=5), "out": normal(8, seed=6)}
    scale, bias = normal(8, seed=7), normal(8, seed=8)
    params = {name: {"kernel": kernels[name], "bias": biases[name]} for name in kernels}
    params["norm"] = {"scale": scale, "bias": bias}

    groups = x.reshape(2, 9, 2, 4)
    mean, variance = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    tokens = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(2, 9, 8) * scale + bias
    qkv = (tokens @ kernels["qkv"] + biases["qkv"]).reshape(2, 9, 3, 2, 4)
    query, key, value = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))  # [B, heads, tokens, 4]
    mixed = scipy.special.softmax(query @ key.swapaxes(2, 3) / 2.0, -1) @ value
    mixed = mixed.transpose(0, 2, 1, 3).reshape(2, 9, 8)
    expected = x + (mixed @ kernels["out"] + biases["out"]).reshape(x.shape)
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": params}, x), expected, atol=1e-4)


def test_time_embedding_is_that_of_the_paper():
    t, features = np.array([0, 1, 500]), 8
    frequencies = 10_000.0 ** (-np.arange(4) / 3)
    expected = np.concatenate([np.sin(t[:, None] * frequencies), np.cos(t[:, None] * frequencies)], 1)
    np.testing.assert_allclose(jax.jit(sinusoidal, static_argnums=1)(t, features), expected, atol=1e-4)
