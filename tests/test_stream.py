"""The residual stream: the gradient is the same to the last bit, and no block works out another's again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.layers.stream import sum_once
from gm_jax.models import resnet, unet


def test_the_gradient_is_the_same_to_the_last_bit():
    gradient = jnp.asarray([1.5, -0.0, 0.0, -2e-38, 2e-38, 3e38, jnp.inf, -jnp.inf, jnp.nan], jnp.float32)
    _, back = jax.vjp(jax.jit(sum_once), jnp.ones(9))
    np.testing.assert_array_equal(np.asarray(back(gradient)[0]), np.asarray(gradient))
    assert np.signbit(back(gradient)[0])[1]
    assert back(gradient)[0].dtype == jnp.float32
    half = jax.grad(lambda x: jnp.sum(sum_once(x) * jnp.arange(3, dtype=jnp.bfloat16)))(jnp.ones(3, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16 and half.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends sum as they please")
def test_the_work_grows_with_the_blocks_not_with_their_square():
    def work(blocks: int, stream) -> float:
        def loss(kernels, x):
            for kernel in kernels:
                x = stream(x)
                normed = x - jnp.mean(x, 1, keepdims=True) * x
                x = x + jnp.tanh(normed @ kernel)
            return jnp.sum(x)

        shapes = jax.ShapeDtypeStruct((blocks, 16, 16), jnp.float32), jax.ShapeDtypeStruct((64, 8, 16), jnp.float32)
        return jax.jit(jax.grad(loss)).lower(*shapes).compile().cost_analysis()["flops"]

    few, some, many = (work(blocks, sum_once) for blocks in (2, 6, 10))
    assert many - some == pytest.approx(some - few, rel=0.01)
    few, some, many = (work(blocks, lambda x: x) for blocks in (2, 6, 10))
    assert many - some > 1.1 * (some - few)  # else XLA has learned it, and the division is in vain


def test_every_residual_block_sums_once(monkeypatch):
    summed = []
    for module in (unet, resnet):
        monkeypatch.setattr(module, "sum_once", lambda x: summed.append(x.shape) or x)
    small = unet.UNet(width=8, multipliers=(1,), blocks=1, dense=8, space_to_depth=2)
    jax.eval_shape(small.init, jax.random.key(0), jnp.ones((1, 8, 8, 1)), jnp.ones(1))
    assert summed == [(1, 4, 4, 8), (1, 4, 4, 8), (1, 4, 4, 16), (1, 4, 4, 16)]  # down, middle, up twice
    summed.clear()
    jax.eval_shape(resnet.ResNet(2, stages=(1, 1), width=4).init, jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    assert summed == [(1, 8, 8, 4), (1, 8, 8, 16)]
