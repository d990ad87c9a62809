"""Convolutions whose gradients are fast on CPUs too, as functions and as Flax modules (2-D, NHWC).

A convolution is bilinear, so with its two gradients it forms a closed family of three operations:

  convolve(x, k)         y[p, o] = sum over taps t and channels i of x[s p + d t - low, i] k[t, i, o]
  input_gradient(g, k)   the adjoint of x -> convolve(x, k), which is what a transposed convolution computes
  kernel_gradient(x, g)  the adjoint of k -> convolve(x, k)

The derivative of each with respect to either argument is another of the three. Saying just that gives derivatives of
every order (a gradient penalty needs two), each as fast as these three are. Other devices than CPUs get XLA's own
convolution with its own derivatives, which also know forward mode (`jax.jvp`); the CPU's rules are for reverse mode.
`native_rules()`, or GM_JAX_CONVOLUTIONS=native in the environment, gives CPUs XLA's own, too.
"""

import contextlib
import contextvars
import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.linen.linear import default_kernel_init
from jax import lax

Array = jax.Array
Pair = tuple[int, int]
Padding = str | int | Sequence[int | Pair]

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Patches are made and used chunk by chunk: so many values stay in the cache, yet make an efficient product.
CHUNK = 2**20
NARROW = 8  # channels of an output that a product makes faster than XLA's convolution
WIDE = 64  # values of a patch's row that is long enough to be multiplied by itself


class Geometry(NamedTuple):
    """The static part of a convolution: sizes of image, kernel and output (height, width), and how they are joined."""

    image: Pair
    kernel: Pair
    output: Pair
    strides: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair


def conv(
    x: Array, kernel: Array, strides: int | Pair = 1, padding: Padding = "SAME", dilation: int | Pair = 1
) -> Array:
    """Convolution (cross-correlation, as everywhere in deep learning) of images with a kernel.

    x [B, H, W, in], kernel [kh, kw, in, out] -> [B, H', W', out]. Padding is "SAME", "VALID", one int for all sides, or
    an int or a (before, after) pair for each of height and width.
    """
    strides, dilation = as_pair(strides), as_pair(dilation)
    image, size = x.shape[1:3], kernel.shape[:2]
    extent = dilated(size, dilation)
    pads = tuple(lax.padtype_to_pads(image, extent, strides, padding)) if isinstance(padding, str) else as_pads(padding)
    output = tuple((n + sum(p) - e) // s + 1 for n, p, e, s in zip(image, pads, extent, strides, strict=True))
    if min(output) < 1:
        raise ValueError(f"a kernel over {extent} pixels does not fit into an image of {image} padded by {pads}")
    x, kernel = promote_dtype(x, kernel)
    if size == (1, 1) and pads == ((0, 0), (0, 0)):
        x = x[:, :: strides[0], :: strides[1]]
        return pointwise(x, kernel[0, 0]) if own_rules() else x @ kernel[0, 0]
    geometry = Geometry(image, size, output, strides, pads, dilation)
    return convolve(geometry, x, kernel) if own_rules() else native_convolve(geometry, x, kernel)


def conv_transpose(
    x: Array, kernel: Array, strides: int | Pair = 1, padding: Padding = "SAME", dilation: int | Pair = 1
) -> Array:
    """Transposed convolution: the input gradient of a strided convolution, whose padding is what `padding` means.

    x [B, H, W, in], kernel [kh, kw, in, out] -> [B, H', W', out].
      "SAME"        H' = H stride                             as `lax.conv_transpose`
      "VALID"       H' = H stride + max(kh - stride, 0)       as `lax.conv_transpose`
      int or pairs  H' = (H - 1) stride - 2 padding + kh      as PyTorch: 4x4, stride 2, padding 1 doubles an image
    The kernel is oriented as in `lax.conv_transpose`: PyTorch's, flipped in height and width.
    """
    strides, dilation = as_pair(strides), as_pair(dilation)
    size = kernel.shape[:2]
    extent = dilated(size, dilation)
    if isinstance(padding, str):
        pads = tuple(transposed_pads(padding, e - s) for e, s in zip(extent, strides, strict=True))
    else:
        pads = as_pads(padding)
    image = tuple((m - 1) * s + e - sum(p) for m, s, e, p in zip(x.shape[1:3], strides, extent, pads, strict=True))
    geometry = Geometry(image, size, x.shape[1:3], strides, pads, dilation)
    x, kernel = promote_dtype(x, kernel)
    return input_gradient(geometry, x, flipped(kernel)) if own_rules() else native_transpose(geometry, x, kernel)


@jax.custom_vjp
def pointwise(x: Array, kernel: Array) -> Array:
    """x [B, H, W, in], kernel [in, out] -> [B, H, W, out]; the gradient transposes the smaller of its two factors."""
    return x @ kernel


def pointwise_gradients(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    rows, g_rows = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    narrow = x.shape[-1] <= g.shape[-1]
    return g @ kernel.T, rows.T @ g_rows if narrow else (g_rows.T @ rows).T


pointwise.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), pointwise_gradients)


def transposed_pads(padding: str, overlap: int) -> Pair:
    """The padding that "SAME" and "VALID" mean for the strided convolution, whose windows overlap by so many pixels."""
    if padding == "VALID":
        return 0, min(overlap, 0)
    if padding == "SAME":
        low = max(overlap, 0) // 2
        return low, overlap - low
    raise ValueError(f"padding is 'SAME', 'VALID' or numbers, not {padding!r}")


def as_pair(value: int | Sequence) -> tuple:
    """One value for both height and width, or one for each."""
    return (value, value) if isinstance(value, int) else tuple(value)


def as_pads(padding: int | Sequence[int | Pair]) -> tuple[Pair, Pair]:
    """Explicit padding as ((top, bottom), (left, right))."""
    return tuple(as_pair(side) for side in as_pair(padding))


def dilated(size: Pair, dilation: Pair) -> Pair:
    """How many pixels a kernel spans."""
    return tuple(d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True))


def flipped(kernel: Array) -> Array:
    """The kernel of the adjoint: turned by 180 degrees, with inputs and outputs swapped."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


_NATIVE = contextvars.ContextVar("native", default=os.environ.get("GM_JAX_CONVOLUTIONS") == "native")


def own_rules() -> bool:
    """Whether convolutions have the rules of this module: on CPUs, where XLA's own gradients are slow."""
    return jax.default_backend() == "cpu" and not _NATIVE.get()


@contextlib.contextmanager
def native_rules() -> Iterator[None]:
    """Trace convolutions with XLA's own derivatives on CPUs, too: slow, but they know forward mode."""
    token = _NATIVE.set(True)
    try:
        yield
    finally:
        _NATIVE.reset(token)


def native_convolve(geometry: Geometry, x: Array, kernel: Array) -> Array:
    """The convolution as XLA has it: x [B, *image, in], kernel [*kernel, in, out] -> [B, *output, out]."""
    _, _, _, strides, pads, dilation = geometry
    return lax.conv_general_dilated(x, kernel, strides, pads, rhs_dilation=dilation, dimension_numbers=DIMENSIONS)


def native_transpose(geometry: Geometry, g: Array, kernel: Array) -> Array:
    """The transposed convolution as XLA has it, a kernel moved over g with zeros between its pixels."""
    pads = []
    for n, e, m, s, (low, _) in zip(
        geometry.image,
        dilated(geometry.kernel, geometry.dilation),
        geometry.output,
        geometry.strides,
        geometry.padding,
        strict=True,
    ):
        before = e - 1 - low
        pads.append((before, n + e - 2 - s * (m - 1) - before))
    return lax.conv_general_dilated(
        g, kernel, (1, 1), pads, geometry.strides, geometry.dilation, dimension_numbers=DIMENSIONS
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def convolve(geometry: Geometry, x: Array, kernel: Array) -> Array:
    """x [B, *image, in], kernel [*kernel, in, out] -> [B, *output, out]."""
    if narrows(geometry, *kernel.shape[2:]):
        return paint(adjoint(geometry), x, flipped(kernel))
    return native_convolve(geometry, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def input_gradient(geometry: Geometry, g: Array, kernel: Array) -> Array:
    """g [B, *output, out], kernel [*kernel, in, out] -> [B, *image, in]."""
    if geometry.output == (1, 1) and geometry.dilation == (1, 1):
        geometry = geometry._replace(strides=geometry.kernel)  # a single window overlaps with no other
    if narrows(geometry, g.shape[-1], kernel.shape[2]):
        return paint(geometry, g, kernel)
    if geometry.strides == (1, 1) or geometry.dilation != (1, 1):
        # XLA's own gradient reads the kernel transposed in place, which inside a loop is 50 times slower.
        return native_transpose(geometry, g, flipped(kernel))
    doubled = geometry.strides == (2, 2) and min(geometry.kernel) > 1 and kernel.shape[2] > NARROW
    return interleave(geometry, g, kernel) if doubled else paint(geometry, g, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def kernel_gradient(geometry: Geometry, x: Array, g: Array) -> Array:
    """x [B, *image, in], g [B, *output, out] -> [*kernel, in, out]."""
    inputs, outputs = x.shape[-1], g.shape[-1]
    if geometry.strides == (1, 1) and inputs > outputs:  # then patches of g are smaller than patches of x
        return flipped(kernel_gradient(adjoint(geometry), g, x))
    kh, kw = geometry.kernel
    # Patches are gathered along the width; then along the height, too, or, where they are long, read in place.
    products = kh if geometry.strides == (1, 1) and kw * inputs >= WIDE else 1
    cost = geometry.output[1] * kw * inputs * (geometry.image[0] if products > 1 else geometry.output[0] * kh)

    def add_chunk(total: Array, chunk: tuple[Array, Array]) -> tuple[Array, None]:
        x, g = chunk
        x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*pads, 0) for pads in geometry.padding), (0, 0, 0)))
        x = jnp.concatenate(taps(x, geometry, 1, along=2), -1)
        if products == 1:
            rows = [jnp.concatenate(taps(x, geometry, 0, along=1), -1)]
        else:
            rows, g = taps(x.swapaxes(0, 1), geometry, 0, along=0), g.swapaxes(0, 1)
        g = g.reshape(-1, outputs).T
        product = [jnp.dot(g, row.reshape(g.shape[1], -1), preferred_element_type=total.dtype) for row in rows]
        return total + jnp.stack(product), None

    # "Like" keeps what shard_map knows: whether values vary over the devices.
    total = jnp.zeros_like(g, shape=(products, outputs, kh * kw * inputs // products), dtype=accumulator(g))
    total, _ = lax.scan(add_chunk, total, (chunked(x, cost), chunked(g, cost)))
    return total.swapaxes(1, 2).reshape(kh, kw, inputs, outputs).astype(x.dtype)


convolve.defvjp(
    lambda geometry, x, kernel: (convolve(geometry, x, kernel), (x, kernel)),
    lambda geometry, saved, g: (input_gradient(geometry, g, saved[1]), kernel_gradient(geometry, saved[0], g)),
)
input_gradient.defvjp(
    lambda geometry, g, kernel: (input_gradient(geometry, g, kernel), (g, kernel)),
    lambda geometry, saved, x: (convolve(geometry, x, saved[1]), kernel_gradient(geometry, x, saved[0])),
)
kernel_gradient.defvjp(
    lambda geometry, x, g: (kernel_gradient(geometry, x, g), (x, g)),
    lambda geometry, saved, kernel: (input_gradient(geometry, saved[1], kernel), convolve(geometry, saved[0], kernel)),
)


def narrows(geometry: Geometry, inputs: int, outputs: int) -> bool:
    """Whether XLA's convolution would be slow because a last layer leaves few of many channels."""
    return geometry.strides == geometry.dilation == (1, 1) and outputs <= NARROW and inputs >= 4 * outputs


def paint(geometry: Geometry, g: Array, kernel: Array) -> Array:
    """The input gradient by painting: each pixel of g paints one window of the image, and where they overlap they add.

    g [B, *output, out], kernel [*kernel, in, out] -> [B, *image, in]; a product gives the windows.
    """
    batch, outputs, (kh, kw), inputs = len(g), g.shape[-1], geometry.kernel, kernel.shape[2]
    painter = kernel.transpose(3, 1, 0, 2).reshape(outputs, -1)

    def paint_chunk(g: Array) -> Array:
        windows = jnp.dot(g, painter, preferred_element_type=accumulator(g))
        rows = overlap_add(windows.reshape(-1, g.shape[2], kw, kh, inputs), geometry, axis=1)
        rows = rows.reshape(len(g), g.shape[1], -1, kh, inputs).swapaxes(2, 3)
        return overlap_add(rows, geometry, axis=0).astype(g.dtype)

    images = lax.map(paint_chunk, chunked(g, math.prod(geometry.output) * painter.shape[1]))
    return images.reshape(batch, *geometry.image, inputs)


def interleave(geometry: Geometry, g: Array, kernel: Array) -> Array:
    """The input gradient, likewise, by convolutions without strides: one for each place that a pixel has in a stride.

    Sub-pixel convolutions (Shi et al. 2016), each with the taps that reach such a pixel.
    """
    (sh, sw), pixels = geometry.strides, [phases(geometry, axis) for axis in (0, 1)]
    rows = [
        jnp.stack(
            [
                lax.conv_general_dilated(
                    g, flipped(kernel[top::sh, left::sw]), (1, 1), (above, beside), dimension_numbers=DIMENSIONS
                )
                for left, beside in pixels[1]
            ],
            axis=3,
        )
        for top, above in pixels[0]
    ]
    x = jnp.stack(rows, axis=2)
    height, width = geometry.image
    return x.reshape(len(g), x.shape[1] * sh, x.shape[3] * sw, -1)[:, :height, :width]


def phases(geometry: Geometry, axis: int) -> list[tuple[int, Pair]]:
    """The first tap that reaches each of the first `stride` pixels, and how g is padded where it and others do."""
    stride, (low, _) = geometry.strides[axis], geometry.padding[axis]
    positions = -(-geometry.image[axis] // stride)
    found = []
    for pixel in range(stride):
        shift, first = divmod(pixel + low, stride)
        taps = -(-(geometry.kernel[axis] - first) // stride)
        found.append((first, (taps - 1 - shift, positions + shift - geometry.output[axis])))
    return found


def adjoint(geometry: Geometry) -> Geometry:
    """The convolution, with stride 1, that takes outputs back to images."""
    extent = dilated(geometry.kernel, geometry.dilation)
    pads = tuple((e - 1 - low, e - 1 - high) for e, (low, high) in zip(extent, geometry.padding, strict=True))
    return geometry._replace(image=geometry.output, output=geometry.image, padding=pads)


def taps(x: Array, geometry: Geometry, axis: int, along: int) -> list[Array]:
    """What each tap of the kernel's height (axis 0) or width (1) sees of a padded x, whose axis `along` that is."""
    step, stride, last = geometry.dilation[axis], geometry.strides[axis], geometry.output[axis] - 1
    return [
        lax.slice_in_dim(x, tap * step, tap * step + last * stride + 1, stride, along)
        for tap in range(geometry.kernel[axis])
    ]


def overlap_add(windows: Array, geometry: Geometry, axis: int) -> Array:
    """The sum of windows that lie `stride` apart along one axis: [B, positions, taps, ...] -> [B, pixels, ...]."""
    stride, (low, _), pixels = geometry.strides[axis], geometry.padding[axis], geometry.image[axis]
    batch, _, taps, *rest = windows.shape
    # A window is `blocks` blocks of `stride` pixels, and block b of window p lies where block 0 of window p + b does.
    blocks = -(-taps // stride)
    windows = pad_axis(windows, 2, 0, blocks * stride - taps).reshape(batch, -1, blocks, stride, *rest)
    total = sum(pad_axis(windows[:, :, b], 1, b, blocks - 1 - b) for b in range(blocks)).reshape(batch, -1, *rest)
    return pad_axis(total, 1, -low, pixels + low - total.shape[1])


def pad_axis(x: Array, axis: int, before: int, after: int) -> Array:
    """Zeros before and after x along one axis; negative numbers cut off instead."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(before, after, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)])


def chunked(x: Array, cost: int) -> Array:
    """[B, ...] -> [chunks, b, ...], a chunk being worth at most CHUNK values if an example is worth `cost`."""
    size = max(n for n in range(1, len(x) + 1) if len(x) % n == 0 and (n == 1 or n * cost <= CHUNK))
    return x.reshape(-1, size, *x.shape[1:])


def accumulator(x: Array) -> jnp.dtype:
    """The type to sum in: at least single precision."""
    return jnp.promote_types(x.dtype, jnp.float32)


class Conv(nn.Module):
    """`nn.Conv` for images, with gradients that are fast on CPUs: the same parameters, initialisers and dtype rules."""

    features: int
    kernel_size: int | Pair
    strides: int | Pair = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Pair = 1
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Callable = default_kernel_init
    bias_init: Callable = nn.initializers.zeros_init()

    operation = staticmethod(conv)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x [B, H, W, in] -> [B, H', W', features]."""
        shape = (*as_pair(self.kernel_size), x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = self.operation(x, kernel, self.strides, self.padding, self.kernel_dilation)
        return y if bias is None else y + bias


class ConvTranspose(Conv):
    """`nn.ConvTranspose`, likewise; numbers as padding mean what they mean in PyTorch (see `conv_transpose`)."""

    operation = staticmethod(conv_transpose)
