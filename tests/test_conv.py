"""Convolutions: the values and derivatives of the definition, of XLA, Flax and PyTorch, in a form fast on CPUs."""

import importlib.util
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gm_jax.layers import conv as layer
from gm_jax.layers.conv import Conv, ConvTranspose, conv, conv_transpose

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Limits that choose between the forms of an operation: so small that each form meets small images.
CHUNKS, WIDE, ALL = {"CHUNK": 64}, {"NARROW": 0, "WIDE": 1}, {"CHUNK": 64, "NARROW": 0, "WIDE": 1}


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def stock_conv(x, kernel, strides, padding, dilation=(1, 1)):
    return lax.conv_general_dilated(x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=DIMENSIONS)


def stock_transpose(x, kernel, strides, padding, dilation=(1, 1)):
    return lax.conv_transpose(x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=DIMENSIONS)


class Definition:
    """A convolution in NumPy, tap by tap: y[p] = sum over taps t of x[s p + d t - low] k[t], and its two adjoints."""

    def __init__(self, image, size, output, strides, dilation, low):
        self.image, self.size, self.output, self.low = image, size, output, low
        spans = [(n - 1) * s + 1 for n, s in zip(output, strides, strict=True)]
        self.whole = [n + 20 for n in image]  # with room for any padding
        self.places = {
            tap: tuple(slice(t * d, t * d + o, s) for t, d, o, s in zip(tap, dilation, spans, strides, strict=True))
            for tap in itertools.product(*map(range, size))
        }

    def inside(self):
        """Where, with padding, the image is."""
        return tuple(slice(p, p + n) for p, n in zip(self.low, self.image, strict=True))

    def padded(self, x):
        whole = np.zeros((len(x), *self.whole, x.shape[-1]))
        whole[:, *self.inside()] = x
        return whole

    def convolve(self, x, kernel):
        return sum(self.padded(x)[:, *place] @ kernel[tap] for tap, place in self.places.items())

    def input_gradient(self, g, kernel):
        whole = np.zeros((len(g), *self.whole, kernel.shape[2]))
        for tap, place in self.places.items():
            whole[:, *place] += g @ kernel[tap].T
        return whole[:, *self.inside()]

    def kernel_gradient(self, x, g):
        kernel = np.zeros((*self.size, x.shape[-1], g.shape[-1]))
        for tap, place in self.places.items():
            kernel[tap] = np.einsum("bhwi,bhwo->io", self.padded(x)[:, *place], g)
        return kernel


def turned(kernel):
    """A kernel turned by 180 degrees, with inputs and outputs exchanged."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def spanned(size, dilation):
    return [d * (k - 1) + 1 for d, k in zip(dilation, size, strict=True)]


def defined_conv(image, size, strides, padding, dilation):
    """The convolution of an image."""
    spans = spanned(size, dilation)
    if padding == "SAME":  # ceil(n / stride) outputs; an odd row or column of padding comes last
        totals = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(image, strides, spans, strict=True)]
        padding = [(total // 2, total - total // 2) for total in totals]
    padding = [(0, 0), (0, 0)] if padding == "VALID" else padding
    sizes = zip(image, padding, spans, strides, strict=True)
    output = tuple((n + sum(pads) - e) // s + 1 for n, pads, e, s in sizes)
    return Definition(image, size, output, strides, dilation, [low for low, _ in padding])


def defined_transpose(image, size, strides, padding, dilation):
    """The convolution whose output is an image, and whose adjoint is the transposed convolution of the image."""
    spans = spanned(size, dilation)
    overlaps = [e - s for e, s in zip(spans, strides, strict=True)]
    if padding == "SAME":  # cut to n * stride
        padding = [(max(o, 0) // 2, o - max(o, 0) // 2) for o in overlaps]
    elif padding == "VALID":  # all that a window reaches, and whole strides
        padding = [(0, min(o, 0)) for o in overlaps]
    sizes = zip(image, padding, spans, strides, strict=True)
    larger = tuple((n - 1) * s + e - sum(pads) for n, pads, e, s in sizes)
    return Definition(larger, size, image, strides, dilation, [low for low, _ in padding])


def cosines(*shape):
    return np.cos(np.arange(np.prod(shape))).reshape(shape)


def value_and_gradients(function, x, kernel):
    """The output and, for a fixed cotangent, the gradients with respect to both arguments, jitted."""

    @jax.jit
    def run(x, kernel):
        y, pull = jax.vjp(function, x, kernel)
        return y, *pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    return run(x, kernel)


def assert_close(ours, reference):
    for a, b in zip(ours, reference, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1, np.abs(b).max()))


@pytest.mark.parametrize(
    ("operation", "image", "size", "strides", "padding", "dilation", "channels", "limits"),
    [
        (conv, (8, 7), (3, 3), (1, 1), "SAME", (1, 1), (2, 4), CHUNKS),
        (conv, (8, 7), (3, 3), (1, 1), "SAME", (1, 1), (2, 3), ALL),
        (conv, (8, 7), (2, 3), (1, 1), "VALID", (1, 1), (4, 1), CHUNKS),
        (conv, (5, 6), (3, 3), (1, 1), ((1, 1), (0, 2)), (1, 1), (1, 4), CHUNKS),
        (conv, (8, 7), (4, 4), (2, 2), "SAME", (1, 1), (2, 4), ALL),
        (conv, (5, 6), (5, 2), (2, 2), ((2, 1), (1, 0)), (1, 1), (3, 2), WIDE),
        (conv, (5, 6), (3, 3), (1, 2), "VALID", (1, 1), (3, 2), WIDE),
        (conv, (8, 7), (2, 3), (3, 2), "SAME", (1, 1), (3, 2), CHUNKS),
        (conv, (4, 5), (4, 5), (1, 1), "VALID", (1, 1), (2, 3), WIDE),
        (conv, (5, 6), (3, 3), (1, 1), "SAME", (2, 1), (3, 2), WIDE),
        (conv, (8, 7), (3, 3), (2, 2), ((1, 1), (0, 2)), (2, 1), (2, 4), ALL),
        (conv, (5, 6), (1, 1), (1, 2), "SAME", (1, 1), (2, 4), CHUNKS),
        (conv, (5, 6), (1, 1), (2, 2), "VALID", (1, 1), (4, 2), CHUNKS),
        (conv, (5, 6), (1, 1), (1, 1), ((1, 1), (0, 2)), (1, 1), (2, 3), ALL),
        (conv_transpose, (8, 7), (3, 3), (1, 1), "SAME", (1, 1), (2, 4), CHUNKS),
        (conv_transpose, (5, 6), (3, 3), (1, 1), "SAME", (1, 1), (8, 2), CHUNKS),
        (conv_transpose, (5, 6), (4, 4), (2, 2), "SAME", (1, 1), (4, 2), ALL),
        (conv_transpose, (4, 5), (5, 2), (2, 2), ((2, 1), (0, 0)), (1, 1), (3, 2), WIDE),
        (conv_transpose, (4, 3), (5, 3), (2, 2), "SAME", (1, 1), (2, 3), CHUNKS),
        (conv_transpose, (3, 4), (2, 3), (3, 2), "VALID", (1, 1), (3, 2), WIDE),
        (conv_transpose, (3, 4), (4, 4), (1, 2), "VALID", (1, 1), (2, 3), ALL),
        (conv_transpose, (1, 1), (3, 4), (1, 1), "VALID", (1, 1), (3, 2), CHUNKS),
        (conv_transpose, (4, 3), (3, 3), (2, 1), "SAME", (1, 2), (2, 3), WIDE),
        (conv_transpose, (4, 3), (2, 1), (3, 2), "SAME", (1, 1), (3, 2), CHUNKS),
        (conv_transpose, (4, 3), (1, 4), (2, 2), "SAME", (1, 1), (2, 3), WIDE),
    ],
)
def test_convolutions_and_their_gradients_are_those_of_the_definition(
    operation, image, size, strides, padding, dilation, channels, limits, monkeypatch
):
    for name, limit in limits.items():
        monkeypatch.setattr(layer, name, limit)
    x, kernel = normal(0, 4, *image, channels[0]), normal(1, *size, *channels)
    if operation is conv:
        one = defined_conv(image, size, strides, padding, dilation)
        g = cosines(4, *one.output, channels[1])
        expected = one.convolve(x, kernel), one.input_gradient(g, kernel), one.kernel_gradient(x, g)
    else:
        one = defined_transpose(image, size, strides, padding, dilation)
        g = cosines(4, *one.image, channels[1])
        gradients = one.convolve(g, turned(kernel)), turned(one.kernel_gradient(g, x))
        expected = one.input_gradient(x, turned(kernel)), *gradients
    assert_close(value_and_gradients(lambda x, k: operation(x, k, strides, padding, dilation), x, kernel), expected)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about the CPU's forms")
@pytest.mark.parametrize(
    ("operation", "image", "size", "stride", "channels", "convolutions"),
    [
        (conv, 8, 1, 2, (16, 16), 0),  # a product
        (conv, 8, 3, 1, (32, 8), 0),  # painted, since narrow
        (conv, 8, 3, 1, (31, 8), 1),
        (conv, 8, 3, 1, (64, 9), 1),
        (conv, 8, 3, 2, (32, 8), 1),
        (conv_transpose, 8, 3, 1, (16, 16), 1),
        (conv_transpose, 8, 4, 2, (16, 9), 4),  # interleaved
        (conv_transpose, 8, 4, 2, (16, 8), 0),  # painted
        (conv_transpose, 8, 4, 3, (16, 9), 0),
        (conv_transpose, 8, 1, 2, (16, 9), 0),
        (conv_transpose, 8, 3, 1, (32, 8), 0),
        (conv_transpose, 1, 4, 1, (16, 16), 0),
    ],
)
def test_a_convolution_takes_the_form_that_is_fast(operation, image, size, stride, channels, convolutions):
    x, kernel = np.zeros((1, image, image, channels[0])), np.zeros((size, size, *channels))
    program = str(jax.make_jaxpr(lambda x, kernel: operation(x, kernel, stride))(x, kernel))
    assert program.count("conv_general_dilated[") == convolutions


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about the CPU's forms")
@pytest.mark.parametrize(
    ("stride", "channels", "products"), [(1, (21, 32), 1), (1, (22, 32), 3), (1, (32, 12), 1), (2, (32, 32), 1)]
)
def test_a_kernel_gradient_takes_the_form_that_is_fast(stride, channels, products):
    """One product, or one for each row of a kernel where patches are long; the smaller of two kinds of patches."""
    x, kernel = np.zeros((1, 8, 8, channels[0])), np.zeros((3, 3, *channels))
    gradient = jax.grad(lambda kernel: jnp.sum(jnp.sin(conv(x, kernel, stride))))
    assert str(jax.make_jaxpr(gradient)(kernel)).count("dot_general[") == products


@pytest.mark.parametrize("size, strides", [((3, 2), (1, 1)), ((4, 4), (2, 2)), ((1, 1), (2, 1))])
def test_gradients_of_gradients_are_those_of_the_definition(size, strides):
    """As a gradient penalty needs them, with respect to images, kernels and gradients of outputs."""
    one = defined_conv((6, 5), size, strides, "SAME", (1, 1))
    shapes = (2, 6, 5, 3), (*size, 3, 4), (2, *one.output, 4)
    x, kernel, g = (normal(i, *shape) for i, shape in enumerate(shapes))
    along = tuple(cosines(*shape).astype(np.float32) for shape in shapes[:2])

    @jax.jit
    def twice(x, kernel, g):
        def gradients(x, kernel, g):
            return jax.vjp(lambda x, kernel: conv(x, kernel, strides), x, kernel)[1](g)

        return jax.vjp(gradients, x, kernel, g)[1](along)

    by_x, by_kernel = one.input_gradient(g, along[1]), one.kernel_gradient(along[0], g)
    by_g = one.convolve(along[0], kernel) + one.convolve(x, along[1])
    assert_close(twice(x, kernel, g), (by_x, by_kernel, by_g))


def test_vmap_is_a_loop():
    x, kernel = normal(0, 3, 2, 5, 5, 2), normal(1, 3, 4, 4, 2, 3)

    def loss(x, kernel):
        return jnp.mean(jnp.sin(conv_transpose(conv(x, kernel, 2), kernel.swapaxes(2, 3), 2)))

    gradients = jax.grad(loss, (0, 1))
    together, alone = jax.jit(jax.vmap(gradients))(x, kernel), jax.jit(gradients)
    for i in range(3):
        for a, b in zip(together, alone(x[i], kernel[i]), strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-4 * np.abs(b).max())


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


@pytest.mark.parametrize(("transposed", "dtype"), [(False, jnp.bfloat16), (True, None)])
def test_modules_stand_in_for_flax(transposed, dtype):
    x = normal(0, 2, 6, 6, 3)
    ours, stock = Ours(transposed, dtype), Stock(transposed, dtype)
    params = stock.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, ours.init(jax.random.key(0), x), params)
    params = jax.tree.map(lambda p: p + 0.1, params)  # a bias that shows
    y, reference = jax.jit(ours.apply)(params, x), jax.jit(stock.apply)(params, x)
    assert y.dtype == reference.dtype
    np.testing.assert_allclose(y.astype(np.float32), reference.astype(np.float32), atol=2e-2 if dtype else 1e-5)


def test_bfloat16_gradients_are_summed_in_single_precision(monkeypatch):
    """They are within the rounding of bfloat16 (2^-8) of those in float32, however many chunks they are summed over."""
    monkeypatch.setattr(layer, "CHUNK", 64)
    x, kernel = (jnp.asarray(normal(i, *shape), jnp.bfloat16) for i, shape in enumerate([(64, 8, 8, 2), (4, 4, 2, 3)]))

    @jax.jit
    def gradients(x, kernel):
        y, pull = jax.vjp(lambda x, k: conv(x, k, 2), x, kernel)
        return pull(jnp.ones_like(y))

    exact = gradients(x.astype(jnp.float32), kernel.astype(jnp.float32))
    for low, full in zip(gradients(x, kernel), exact, strict=True):
        assert low.dtype == jnp.bfloat16
        np.testing.assert_allclose(low.astype(np.float32), full, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("operation, stock", [(conv, stock_conv), (conv_transpose, stock_transpose)])
def test_native_rules_compute_the_same_and_know_forward_mode(operation, stock):
    """They are those of other devices than CPUs, and can be asked for."""
    x, kernel = normal(0, 2, 7, 6, 3), normal(1, 4, 3, 3, 2)
    with layer.native_rules():
        ours = value_and_gradients(lambda x, k: operation(x, k, (2, 3), "SAME"), x, kernel)
        y, tangent = jax.jvp(lambda x: operation(x, kernel, 2, 1), (x,), (x,))
        pointwise, its_tangent = jax.jvp(lambda x: operation(x, kernel[:1, :1]), (x,), (x,))
    assert_close(ours, value_and_gradients(lambda x, k: stock(x, k, (2, 3), "SAME"), x, kernel))
    np.testing.assert_allclose(y, tangent, atol=1e-5)
    np.testing.assert_allclose(pointwise, its_tangent, atol=1e-5)
    assert layer.own_rules()
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: operation(x, kernel, 2, 1), (x,), (x,))


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
    expected = jax.jit(gradient)(kernel, x)
    np.testing.assert_allclose(mapped(kernel, x.reshape(devices, 2, 4, 4, 2)), expected, atol=1e-6)


@pytest.mark.parametrize("operation", [conv, conv_transpose])
def test_convolutions_keep_the_grid_unless_told_otherwise(operation):
    programs = [
        jax.make_jaxpr(lambda x, kernel, settings=settings: operation(x, kernel, *settings))(
            np.zeros((1, 5, 6, 2)), np.zeros((3, 3, 2, 3))
        )
        for settings in ((), (1, "SAME", 1))
    ]
    assert str(programs[0]) == str(programs[1])


def test_chunks_are_as_large_as_they_may_be(monkeypatch):
    monkeypatch.setattr(layer, "CHUNK", 64)
    shapes = [layer.chunked(np.zeros((6, 2)), cost).shape for cost in (1, 10, 21, 32, 100)]
    assert shapes == [(1, 6, 2), (1, 6, 2), (2, 3, 2), (3, 2, 2), (6, 1, 2)]


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
