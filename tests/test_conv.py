"""Convolutions: the same values and derivatives as XLA's, Flax's and PyTorch's, in a form that is fast on CPUs."""

import importlib.util
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

from gm_jax.layers import conv as layer
from gm_jax.layers.conv import Conv, ConvTranspose, conv, conv_transpose

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
SIZES, STRIDES, DILATIONS = [(1, 1), (2, 3), (3, 3), (4, 4), (5, 2)], [(1, 1), (1, 2), (2, 2), (3, 2)], [1, (2, 1)]
EXPLICIT = [((1, 1), (0, 2)), ((2, 1), (1, 0))]
# One draw for the whole geometry: drawn value by value, most examples would be repetitions of simple ones.
geometries = st.sampled_from(list(product([(8, 7), (5, 6), (3, 4)], SIZES, STRIDES, ["SAME", "VALID", *EXPLICIT])))
# Limits that choose between the forms of an operation: so small that each form meets small images.
LIMITS = [{"CHUNK": 64}, {"NARROW": 0, "WIDE": 1}, {"CHUNK": 64, "NARROW": 0, "WIDE": 1}]
variants = st.sampled_from(list(product(DILATIONS, [(1, 3), (2, 4), (3, 2), (4, 1), (1, 4)], LIMITS)))
sweep = settings(max_examples=32, deadline=None, derandomize=True)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def stock_conv(x, kernel, strides, padding, dilation=(1, 1)):
    return lax.conv_general_dilated(x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=DIMENSIONS)


def stock_transpose(x, kernel, strides, padding, dilation=(1, 1)):
    return lax.conv_transpose(x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=DIMENSIONS)


def value_and_gradients(function, x, kernel):
    """The output and, for a fixed cotangent, the gradients with respect to both arguments, jitted."""

    @jax.jit
    def run(x, kernel):
        y, pull = jax.vjp(function, x, kernel)
        return y, *pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    return run(x, kernel)


def assert_same(ours, reference, x, kernel, tolerance=2e-5):
    for a, b in zip(value_and_gradients(ours, x, kernel), value_and_gradients(reference, x, kernel), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()))


def assert_sweep(ours, stock, geometry, variant):
    """Both operations agree in one geometry; `variant` is (dilation, channels, limits)."""
    image, size, strides, padding = geometry
    dilation, channels, limits = variant
    x, kernel = normal(0, 4, *image, channels[0]), normal(1, *size, *channels)
    with pytest.MonkeyPatch.context() as patch:
        for name, limit in limits.items():
            patch.setattr(layer, name, limit)
        assert_same(
            lambda x, k: ours(x, k, strides, padding, dilation),
            lambda x, k: stock(x, k, strides, padding, layer.as_pair(dilation)),
            x,
            kernel,
        )


@sweep
@given(geometries, variants)
def test_conv_equals_lax(geometry, variant):
    image, size, _, padding = geometry
    span = layer.dilated(size, layer.as_pair(variant[0]))
    assume(padding == "SAME" or all(n >= e for n, e in zip(image, span, strict=True)))
    assert_sweep(conv, stock_conv, geometry, variant)


@sweep
@given(geometries.filter(lambda geometry: isinstance(geometry[-1], str)), variants)
def test_conv_transpose_equals_lax(geometry, variant):
    assert_sweep(conv_transpose, stock_transpose, geometry, variant)


@settings(sweep, max_examples=8)
@given(image=st.integers(2, 5), size=st.integers(3, 5), stride=st.integers(1, 3), sides=st.sampled_from(EXPLICIT))
def test_explicit_padding_of_conv_transpose_is_that_of_the_convolution_it_is_adjoint_to(image, size, stride, sides):
    """<conv(y), x> = <y, conv_transpose(x)> for all x and y, with the same numbers as padding."""
    x, kernel = normal(0, 2, image, image, 3), normal(1, size, size, 3, 2)
    y = jax.jit(lambda x: conv_transpose(x, kernel, stride, sides))(x)
    assert y.shape[1:3] == tuple((image - 1) * stride + size - sum(pads) for pads in sides)
    adjoint = stock_conv(normal(2, *y.shape), layer.flipped(kernel), (stride, stride), sides)
    np.testing.assert_allclose(np.vdot(adjoint, x), np.vdot(normal(2, *y.shape), y), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size, stride, padding", [(3, 1, "SAME"), (4, 2, "SAME"), (4, 1, "VALID"), (1, 2, "SAME")])
def test_gradient_penalty(size, stride, padding):
    """Derivatives of a squared gradient, everything with respect to images and kernels."""
    x = normal(0, 2, 4, 4, 3)
    kernels = normal(1, size, size, 3, 4), normal(2, size, size, 4, 2)
    pair = (stride, stride)

    def penalty(down, up):
        def critic(x, kernels):
            return jnp.sum(jnp.tanh(up(jnp.tanh(down(x, kernels[0], pair, padding)), kernels[1], pair, padding)))

        def squared(x, kernels):
            return sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(jax.grad(critic, (0, 1))(x, kernels)))

        return jax.jit(jax.grad(squared, (0, 1)))

    ours, reference = penalty(conv, conv_transpose)(x, kernels), penalty(stock_conv, stock_transpose)(x, kernels)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(reference), strict=True):
        assert np.abs(b).max() > 1e-3
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0)])
def test_vmap(in_axes):
    x, kernel = normal(0, 3, 2, 5, 5, 2), normal(1, 3, 4, 4, 2, 3)
    args = [array if axis == 0 else array[0] for array, axis in zip((x, kernel), in_axes, strict=True)]

    def loss(x, kernel):
        return jnp.sum(jnp.sin(conv_transpose(conv(x, kernel, 2), kernel.swapaxes(2, 3), 2)))

    gradients = jax.grad(loss, (0, 1))
    together = jax.jit(jax.vmap(gradients, in_axes))(*args)
    for i in range(3):
        one = [array[i] if axis == 0 else array for array, axis in zip(args, in_axes, strict=True)]
        for a, b in zip(together, jax.jit(gradients)(*one), strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-4)


class Stock(nn.Module):
    """What `Conv` and `ConvTranspose` stand in for."""

    transposed: bool
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x):
        kind = nn.ConvTranspose if self.transposed else nn.Conv
        return kind(4, (3, 2), strides=(2, 1), kernel_dilation=(1, 2), dtype=self.dtype, name="layer")(x)


class Ours(nn.Module):
    """The same with the layers under test."""

    transposed: bool
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x):
        kind = ConvTranspose if self.transposed else Conv
        return kind(4, (3, 2), strides=(2, 1), kernel_dilation=(1, 2), dtype=self.dtype, name="layer")(x)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_modules_stand_in_for_flax(transposed, dtype):
    x = normal(0, 2, 6, 6, 3)
    ours, stock = Ours(transposed, dtype), Stock(transposed, dtype)
    params = stock.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, ours.init(jax.random.key(0), x), params)
    params = jax.tree.map(lambda p: p + 0.1, params)  # a bias that shows
    y, reference = jax.jit(ours.apply)(params, x), jax.jit(stock.apply)(params, x)
    assert y.dtype == reference.dtype
    np.testing.assert_allclose(y.astype(np.float32), reference.astype(np.float32), atol=2e-2 if dtype else 1e-5)


@pytest.mark.parametrize("operation", [conv, conv_transpose])
def test_bfloat16_gradients_are_summed_in_single_precision(operation, monkeypatch):
    """They are within the rounding of bfloat16 (2^-8) of those in float32, however many chunks they are summed over."""
    monkeypatch.setattr(layer, "CHUNK", 64)
    x, kernel = (jnp.asarray(normal(i, *shape), jnp.bfloat16) for i, shape in enumerate([(64, 8, 8, 2), (4, 4, 2, 3)]))

    @jax.jit
    def gradients(x, kernel):
        y, pull = jax.vjp(lambda x, k: operation(x, k, 2), x, kernel)
        return pull(jnp.ones_like(y))

    exact = gradients(x.astype(jnp.float32), kernel.astype(jnp.float32))
    for low, full in zip(gradients(x, kernel), exact, strict=True):
        assert low.dtype == jnp.bfloat16
        np.testing.assert_allclose(low.astype(np.float32), full, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("operation, stock", [(conv, stock_conv), (conv_transpose, stock_transpose)])
def test_other_devices_take_the_native_path(operation, stock, monkeypatch):
    """XLA's own operation computes the same, and then knows forward mode too."""
    monkeypatch.setattr(layer, "on_cpu", lambda: False)
    x, kernel = normal(0, 2, 7, 6, 3), normal(1, 4, 3, 3, 2)
    assert_same(lambda x, k: operation(x, k, (2, 3), "SAME"), lambda x, k: stock(x, k, (2, 3), "SAME"), x, kernel)
    y, tangent = jax.jvp(lambda x: operation(x, kernel, 2, 1), (x,), (x,))
    np.testing.assert_allclose(y, tangent, atol=1e-5)


def slow_convolutions(conv, conv_transpose) -> list[str]:
    """Those convolutions in the program of two scanned training steps that are not in the form fast inside loops."""
    kernels = [normal(i, *shape) for i, shape in enumerate([(3, 3, 4, 4), (3, 3, 4, 4), (4, 4, 4, 8), (4, 4, 8, 4)])]

    def loss(kernels):
        y = conv(normal(4, 2, 8, 8, 4), kernels[0], (1, 1), "SAME")
        y = conv(jnp.sin(y), kernels[1], (1, 1), "SAME")
        y = conv(jnp.sin(y), kernels[2], (2, 2), "SAME")
        return jnp.sum(conv_transpose(jnp.sin(y), kernels[3], (2, 2), "SAME") ** 2)

    def step(kernels, _):
        return jax.tree.map(lambda k, g: k - 0.01 * g, kernels, jax.grad(loss)(kernels)), None

    program = jax.jit(lambda kernels: lax.scan(step, kernels, None, length=2)[0]).lower(kernels).compile().as_text()
    lines = [line for line in program.splitlines() if " convolution(" in line]
    assert len(lines) >= 3  # the forward ones at least
    return [line for line in lines if "dim_labels=b01f_01io->b01f" not in line or "reversal" in line]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about the CPU's slow forms")
def test_scanned_training_has_no_slow_convolution():
    assert slow_convolutions(conv, conv_transpose) == []
    assert slow_convolutions(stock_conv, stock_transpose)  # XLA's own gradients have: so this test can fail


def test_gradients_on_several_devices_average_to_the_whole_batch():
    """Under `pmap`, as training uses it, on however many devices there are."""
    devices = jax.local_device_count()
    x, kernel = normal(0, 2 * devices, 4, 4, 2), normal(1, 4, 4, 2, 2)

    def gradient(kernel, x):
        return jax.grad(lambda k: jnp.mean(jnp.sin(conv_transpose(conv(x, k, 2), k, 2, 1))))(kernel)

    mapped = jax.pmap(lambda k, x: lax.pmean(gradient(k, x), "batch"), "batch", in_axes=(None, 0), out_axes=None)
    np.testing.assert_allclose(mapped(kernel, x.reshape(devices, 2, 4, 4, 2)), gradient(kernel, x), atol=1e-6)


def test_a_kernel_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        conv(normal(0, 1, 3, 3, 1), normal(1, 4, 4, 1, 1), 1, "VALID")


def test_padding_must_have_a_known_name():
    with pytest.raises(ValueError, match="SAME"):
        conv_transpose(normal(0, 1, 4, 4, 1), normal(1, 3, 3, 1, 1), 2, "FULL")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("size, stride, padding, dilation", [(3, 1, 1, 1), (4, 2, 1, 1), (5, 2, 2, 1), (3, 2, 1, 2)])
@pytest.mark.parametrize("operation", [conv, conv_transpose])
def test_parity_with_pytorch(operation, size, stride, padding, dilation):
    """PyTorch's layers and their gradients; its kernels are [out, in, h, w], or [in, out, h, w] and flipped."""
    import torch

    x, kernel = normal(0, 2, 8, 8, 3), normal(1, size, size, 3, 4)
    theirs = torch.nn.functional.conv2d if operation is conv else torch.nn.functional.conv_transpose2d
    order = (3, 2, 0, 1) if operation is conv else (2, 3, 0, 1)
    flip = (lambda k: k) if operation is conv else (lambda k: k[::-1, ::-1])
    torch_x = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    torch_kernel = torch.tensor(flip(kernel).transpose(order).copy(), requires_grad=True)
    torch_y = theirs(torch_x, torch_kernel, stride=stride, padding=padding, dilation=dilation)
    torch_y.square().sum().backward()

    y, pull = jax.vjp(lambda x, k: operation(x, k, stride, padding, dilation), x, kernel)
    dx, dk = pull(2 * y)
    np.testing.assert_allclose(y, torch_y.detach().numpy().transpose(0, 2, 3, 1), atol=1e-4)
    np.testing.assert_allclose(dx, torch_x.grad.numpy().transpose(0, 2, 3, 1), atol=1e-3)
    np.testing.assert_allclose(dk, flip(torch_kernel.grad.numpy().transpose(np.argsort(order))), atol=1e-3)
