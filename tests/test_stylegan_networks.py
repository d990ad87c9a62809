"""StyleGAN's networks against NumPy, unfused and in double precision; what a level means; published sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.layers.resample import double
from gm_jax.models import stylegan
from gm_jax.models.stylegan import Discriminator, Mapping, Synthesis, batch_deviation, blocks_of, layers_noise

CHANNELS, STYLES, BATCH = (3, 2, 4), 5, 8  # of grids of 4, 8 and 16 pixels
EVERY = (0, 1, 2)
GAIN = 2.0**0.5
close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)


def filled(shapes):
    """Parameters of these shapes, none of them zero."""
    rng = np.random.default_rng(0)
    return {path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in sorted(flatten_dict(shapes).items())}


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def dense(p, name, x, gain=GAIN, rate=1.0):
    kernel, bias = (np.float64(p[*name, leaf]) for leaf in ("kernel", "bias"))
    return x @ kernel * gain * rate / np.sqrt(len(kernel)) + rate * bias


def conv(p, name, x, gain=GAIN):
    """A convolution with zeros around the image, one tap after the other."""
    kernel = np.float64(p[name, "kernel"])
    kernel = kernel * gain / np.sqrt(kernel[..., 0].size)
    reach, side = len(kernel) // 2, x.shape[1]
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    y = sum(
        padded[:, i : i + side, j : j + side] @ kernel[i, j] for i in range(len(kernel)) for j in range(len(kernel))
    )
    return y + p.get((name, "bias"), 0.0)


def up(x):
    return x.repeat(2, 1).repeat(2, 2)


def down(x):
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def blurred(x):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    side = x.shape[1]
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    return sum(weights[i, j] * padded[:, i : i + side, j : j + side] for i in range(3) for j in range(3))


def style(p, name, x, w, noise):
    x = leaky(x + noise * p[name, "noise"] + p[name, "bias"])
    x = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-8)
    scale, shift = np.split(dense(p, (name, "affine"), w, gain=1.0)[:, None, None], 2, -1)
    return x * (scale + 1) + shift


def synthesis(p, w, noises, level, shown):
    x, image = np.repeat(np.float64(p["constant",]), len(w), 0), 0.0
    for i in range(max(shown) + 1):
        side = 4 << i
        if i:
            x, image = blurred(conv(p, f"up{side}", up(x))), up(image) if np.ndim(image) else image
        x = style(p, f"style{side}_0", x, w[:, 2 * i], noises[2 * i])
        x = style(p, f"style{side}_1", conv(p, f"conv{side}", x), w[:, 2 * i + 1], noises[2 * i + 1])
        if i in shown:
            image = image + max(0.0, 1 - abs(level - i)) * conv(p, f"to_image{side}", x, gain=1.0)
    return image


def discriminator(p, image, level, shown):
    x = 0.0
    for i in reversed(range(max(shown) + 1)):
        side = 4 << i
        if i in shown:
            smaller = 1.0 if i == max(shown) else min(max(i + 1 - level, 0.0), 1.0)
            x = (1 - smaller) * x + smaller * leaky(conv(p, f"from_image{side}", image))
            image = down(image)
        if i:
            x = blurred(leaky(conv(p, f"conv{side}", x)))
            bias = p[f"down{side}", "bias"]
            x = leaky(down(conv(p, f"down{side}", x) - bias) + bias)
    groups = x.reshape(-1, 4, *x.shape[1:])
    deviation = np.sqrt(groups.var(1) + 1e-8).mean((1, 2, 3)).repeat(4)
    x = np.concatenate([x, np.broadcast_to(deviation[:, None, None, None], (*x.shape[:3], 1))], -1)
    x = leaky(conv(p, "conv4", x)).reshape(len(x), -1)
    return dense(p, ("head",), leaky(dense(p, ("hidden",), x)), gain=1.0)[:, 0]


@pytest.fixture(scope="module")
def networks():
    """Both networks with parameters of all blocks, jitted once for each choice of blocks, and w, keys and noise."""
    rng, keys = np.random.default_rng(1), random.example_keys(jax.random.key(3), jnp.arange(BATCH))
    w = rng.normal(size=(BATCH, 2 * len(CHANNELS), STYLES)).astype(np.float32)
    noises = [np.float64(noise) for noises in layers_noise(keys, len(CHANNELS)) for noise in noises]
    g, d, apply = Synthesis(CHANNELS), Discriminator(CHANNELS), {}
    shapes = jax.eval_shape(lambda key: g.init(key, w, keys, jnp.float32(0), EVERY), keys[0])["params"]
    image = jnp.zeros((BATCH, 16, 16, 3))
    more = jax.eval_shape(lambda key: d.init(key, image, jnp.float32(0), EVERY), keys[0])["params"]
    params = filled(shapes), filled(more)
    trees = [{"params": unflatten_dict(p)} for p in params]

    def drawn(level, shown):
        key = "g", shown
        apply.setdefault(key, jax.jit(lambda level: g.apply(trees[0], w, keys, level, shown)))
        return apply[key](jnp.float32(level))

    def judged(x, level, shown):
        key = "d", shown
        apply.setdefault(key, jax.jit(lambda x, level: d.apply(trees[1], x, level, shown)))
        return apply[key](x, jnp.float32(level))

    return params, w, noises, drawn, judged


LEVELS = [(1.0, (1,)), (1.25, (1, 2)), (0.5, EVERY), (1.75, EVERY)]


@pytest.mark.parametrize(("level", "shown"), LEVELS)
def test_networks_compute_what_numpy_does(networks, level, shown):
    params, w, noises, drawn, judged = networks
    expected = synthesis(params[0], np.float64(w), noises, level, shown)
    close(drawn(level, shown), expected)
    x = np.random.default_rng(2).normal(size=expected.shape).astype(np.float32)
    close(judged(x, level, shown), discriminator(params[1], np.float64(x), level, shown))


def test_a_fade_begins_with_the_last_stage_and_ends_with_the_next(networks):
    *_, drawn, judged = networks
    np.testing.assert_array_equal(drawn(1.0, (1, 2)), double(drawn(1.0, (1,))))
    np.testing.assert_array_equal(drawn(2.0, (1, 2)), drawn(2.0, (2,)))
    np.testing.assert_allclose(drawn(2.0, EVERY), drawn(2.0, (2,)), rtol=1e-6)
    x = np.random.default_rng(2).normal(size=(BATCH, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(judged(double(x), 1.0, (1, 2)), judged(x, 1.0, (1,)), rtol=1e-5)
    x = np.random.default_rng(2).normal(size=(BATCH, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(judged(x, 2.0, (1, 2)), judged(x, 2.0, (2,)), rtol=1e-5)


def test_mapping_begins_on_the_sphere_and_learns_at_its_own_rate():
    z = np.random.default_rng(0).normal(size=(BATCH, STYLES)).astype(np.float32)
    network = Mapping(2, rate=0.1)
    variables = network.init(jax.random.key(0), z)
    p = filled(variables["params"])
    x = np.float64(z) / np.sqrt(np.mean(np.float64(z) ** 2, -1, keepdims=True) + 1e-8)
    for i in range(2):
        x = leaky(dense(p, (f"dense{i}",), x, rate=0.1))
    close(network.apply({"params": unflatten_dict(p)}, z), x)
    assert Mapping().rate == 0.01


def test_parameters_begin_as_published():
    """Weights ~ N(0, 1), those of the mapping wider, as they are used as if narrower; the constant 1, all else 0."""
    key, wide = jax.random.key(0), (48,)
    g = jax.jit(lambda key: Synthesis(wide).init(key, jnp.zeros((1, 2, 48)), key[None], jnp.float32(0), (0,)))(key)
    d = jax.jit(lambda key: Discriminator(wide).init(key, jnp.zeros((1, 4, 4, 3)), jnp.float32(0), (0,)))(key)
    m = jax.jit(Mapping(1).init)(key, jnp.zeros((1, 48)))
    for path, leaf in flatten_dict({"g": g["params"], "d": d["params"], "m": m["params"]}).items():
        spread = {"kernel": 100.0 if path[0] == "m" else 1.0}.get(path[-1], 0.0)
        np.testing.assert_allclose(leaf.std(), spread, rtol=0.3 if leaf.size < 1000 else 0.1)
        assert abs(leaf.mean() - (path[-1] == "constant")) <= 0.2 * spread


def test_deviations_within_a_batch_do_not_depend_on_devices():
    """Groups are of neighbours: two halves of a batch, each on a device, have those of the whole."""
    x = np.random.default_rng(0).normal(size=(8, 2, 2, 3)).astype(np.float32)
    whole = batch_deviation(jnp.asarray(x))
    np.testing.assert_array_equal(
        whole, np.concatenate([batch_deviation(jnp.asarray(half)) for half in np.split(x, 2)])
    )
    assert whole.shape == (8, 2, 2, 4) and len(np.unique(whole[..., 3])) == 2
    close(batch_deviation(jnp.asarray(x[:2]))[..., 3], np.sqrt(x[:2].var(0) + 1e-8).mean())


def test_noise_is_of_each_example_and_layer_and_stays_what_it_is_when_blocks_are_added():
    keys = random.example_keys(jax.random.key(3), jnp.arange(BATCH))
    few, all_blocks = layers_noise(keys, 2), layers_noise(keys, 4)
    for block, pair in enumerate(all_blocks):
        assert [noise.shape for noise in pair] == [(BATCH, 4 << block, 4 << block, 1)] * 2
    for pair, same in zip(few, all_blocks, strict=False):
        np.testing.assert_array_equal(pair, same)
    np.testing.assert_array_equal(layers_noise(keys[3:4], 2)[1][0], few[1][0][3:4])
    values = np.concatenate([np.reshape(noise, (BATCH, -1)) for pair in all_blocks for noise in pair], axis=1)
    assert len(np.unique(values)) > 0.99 * values.size  # no map is another's, no example another's
    assert abs(values.mean()) < 0.03 and abs(values.std() - 1.0) < 0.03


def test_a_constant_map_stays_zero_and_others_get_variance_one():
    x = 1000.0 + 0.01 * np.random.default_rng(0).normal(size=(1, 8, 8, 2)).astype(np.float32)
    x[..., 0] = 7.3
    y = np.asarray(stylegan.instance_norm(jnp.asarray(x), stylegan.EPSILON))
    assert np.abs(y[..., 0]).max() < 0.1 and y[..., 1].std() == pytest.approx(1.0, abs=1e-3)


def test_networks_for_1024_pixels_have_the_published_sizes():
    """26.2M and 23.1M in Karras et al. 2019, table 1 and appendix; as their code prints them."""
    channels, blocks, z = (512, 512, 512, 512, 256, 128, 64, 32, 16), tuple(range(9)), jnp.zeros((1, 512))
    key, level = jax.random.key(0), jnp.float32(0)

    def init(key):
        w, x = jnp.zeros((1, 18, 512)), jnp.zeros((1, 1024, 1024, 3))
        generator = Mapping().init(key, z), Synthesis(channels).init(key, w, key[None], level, blocks)
        return generator, Discriminator(channels).init(key, x, level, blocks)

    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in jax.eval_shape(init, key)]
    assert sizes == [26_219_627, 23_087_249]


@pytest.mark.parametrize("shape", [(48, 48, 3), (32, 16, 3), (2, 2, 3), (1, 1, 3)])
def test_images_that_doubling_does_not_reach_are_refused(shape):
    with pytest.raises(UserError, match=f"images of {shape[0]}x{shape[1]} are not reached so"):
        blocks_of(shape, (4, 4, 4, 4))


def test_every_grid_needs_channels():
    assert [blocks_of((side, side, 1), (4, 4, 4)) for side in (8, 16)] == [2, 3]
    with pytest.raises(UserError, match=r"has 3 numbers, but images of 32x32 need 4: for grids of 4, 8, 16, 32 pixels"):
        blocks_of((32, 32, 3), (4, 4, 4))
