"""The U-Net: shapes, sizes, and parity of its layers with Flax's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.layers.attention import SelfAttention
from gm_jax.layers.embedding import sinusoidal
from gm_jax.layers.norm import GroupNorm
from gm_jax.models.unet import UNet, depth_to_space, enlarge, space_to_depth
from gm_jax.random import example_keys


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def parameters(net: UNet, shape: tuple[int, ...]) -> int:
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(shape[:1]))
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


def test_the_papers_cifar10_network_has_its_number_of_parameters():
    net = UNet(128, (1, 2, 2, 2), blocks=2, attention=(16,), dropout=0.1)
    assert parameters(net, (1, 32, 32, 3)) == 35_746_307  # "35.7 million" in Ho et al., appendix B


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (7,), "space_to_depth": 2}, (2, 28, 28, 1)),
        ({"width": 8, "multipliers": (1,), "blocks": 2, "attention": (), "space_to_depth": 4}, (3, 28, 28, 1)),
        (
            {"width": 8, "multipliers": (1, 2, 3), "blocks": 1, "attention": (4,), "heads": 2, "dropout": 0.5},
            (1, 16, 16, 3),
        ),
    ],
)
def test_the_output_has_the_shape_of_the_input_and_starts_at_zero(fields, shape):
    net, x = UNet(**fields), normal(*shape)
    t = jnp.arange(1, shape[0] + 1)
    variables = jax.jit(net.init)(jax.random.key(0), x, t)
    out = jax.jit(net.apply)(variables, x, t)
    assert out.shape == shape and out.dtype == jnp.float32
    np.testing.assert_array_equal(out, 0.0)


def trained(net: UNet, x: jax.Array, t: jax.Array) -> dict:
    """Parameters with nothing at zero, so that every path through the network counts."""
    variables = jax.jit(net.init)(jax.random.key(0), x, t)
    leaves, tree = jax.tree.flatten(variables)
    return tree.unflatten([leaf + 0.1 * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])


def test_examples_do_not_see_each_other_and_time_matters():
    net = UNet(8, (1, 2), blocks=1, attention=(7,), space_to_depth=2)
    x, t = normal(3, 28, 28, 1), jnp.array([1.0, 500.0, 1000.0])
    variables, apply = trained(net, x, t), jax.jit(net.apply)
    whole = apply(variables, x, t)
    np.testing.assert_allclose(apply(variables, x[::-1], t[::-1])[::-1], whole, atol=1e-4)
    assert float(jnp.abs(whole - apply(variables, x, t[::-1])).max(axis=(1, 2, 3))[0]) > 1e-2


def test_dropout_acts_in_training_only():
    net = UNet(8, (1,), blocks=1, attention=(), dropout=0.5, space_to_depth=4)
    x, t = normal(2, 28, 28, 1), jnp.array([1, 2])
    variables = trained(net, x, t)
    train = jax.jit(lambda keys: net.apply(variables, x, t, keys))
    runs = [train(example_keys(jax.random.key(seed), jnp.arange(2))) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert float(jnp.abs(runs[0] - runs[2]).max()) > 1e-3
    assert float(jnp.abs(runs[0] - jax.jit(net.apply)(variables, x, t)).max()) > 1e-3


def test_half_precision_keeps_parameters_and_output_single():
    fields = {"width": 8, "multipliers": (1,), "blocks": 1, "attention": (), "space_to_depth": 4}
    net = UNet(**fields, dtype=jnp.bfloat16)
    x, t = normal(2, 28, 28, 1), jnp.array([1, 2])
    variables = trained(net, x, t)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    out = jax.jit(net.apply)(variables, x, t)
    single = jax.jit(UNet(**fields).apply)(variables, x, t)
    assert out.dtype == jnp.float32
    assert float(jnp.abs(out - single).mean()) < 0.05 * float(jnp.abs(single).mean())


@pytest.mark.parametrize("shape", [(1, 30, 30, 1), (1, 28, 26, 1), (28, 28, 1)])
def test_images_that_do_not_divide_are_refused(shape):
    with pytest.raises(UserError, match="divide by 4"):
        UNet(8, (1, 2), space_to_depth=2).init(jax.random.key(0), jnp.zeros(shape), jnp.zeros(1))


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="3 heads"):
        SelfAttention(heads=3).init(jax.random.key(0), jnp.zeros((1, 2, 2, 8)))


def test_space_to_depth_keeps_pixels_in_order_and_comes_back():
    x = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    folded = space_to_depth(x, 2)
    assert folded.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(folded[0, 1, 2], np.concatenate([x[0, 2, 4], x[0, 2, 5], x[0, 3, 4], x[0, 3, 5]]))
    np.testing.assert_array_equal(depth_to_space(folded, 2), x)
    np.testing.assert_array_equal(enlarge(x), np.repeat(np.repeat(x, 2, 1), 2, 2))


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (96, 8), (3, 1)])
def test_group_norm_and_its_gradient_are_those_of_flax(channels, groups):
    x = 3 * normal(2, 5, 4, channels) + 1
    ours, theirs = GroupNorm(), nn.GroupNorm(groups, epsilon=1e-5)
    params = {"params": {"scale": normal(channels, seed=1), "bias": normal(channels, seed=2)}}
    weight = normal(*x.shape, seed=3)

    def value(net, params, x):
        return jnp.sum(net.apply(params, x) * weight)

    np.testing.assert_allclose(jax.jit(ours.apply)(params, x), jax.jit(theirs.apply)(params, x), atol=2e-5)
    gradient = jax.jit(jax.grad(value, (1, 2)), static_argnums=0)
    pairs = zip(jax.tree.leaves(gradient(ours, params, x)), jax.tree.leaves(gradient(theirs, params, x)), strict=True)
    for got, expected in pairs:
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=2e-4)


def test_attention_is_softmax_attention_around_a_skip():
    layer, x = SelfAttention(heads=2), normal(2, 3, 3, 8)
    params = layer.init(jax.random.key(0), x)["params"]
    np.testing.assert_allclose(layer.apply({"params": params}, x), x, atol=1e-6)
    params = {**params, "out": {"kernel": normal(8, 8, seed=4), "bias": normal(8, seed=5)}}

    tokens = nn.GroupNorm(2, epsilon=1e-5).apply({"params": params["norm"]}, x).reshape(2, 9, 8)
    qkv = np.asarray(tokens @ params["qkv"]["kernel"] + params["qkv"]["bias"]).reshape(2, 9, 3, 2, 4)
    query, key, value = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))  # [B, heads, tokens, 4]
    mixed = jax.nn.softmax(query @ key.swapaxes(2, 3) / 2.0) @ value
    mixed = mixed.transpose(0, 2, 1, 3).reshape(2, 9, 8)
    expected = x + (mixed @ params["out"]["kernel"] + params["out"]["bias"]).reshape(x.shape)
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=1e-4)


def test_time_embedding_is_that_of_the_paper():
    t, features = np.array([0, 1, 500]), 8
    frequencies = 10_000.0 ** (-np.arange(4) / 3)
    expected = np.concatenate([np.sin(t[:, None] * frequencies), np.cos(t[:, None] * frequencies)], 1)
    np.testing.assert_allclose(sinusoidal(jnp.asarray(t), features), expected, atol=1e-4)
