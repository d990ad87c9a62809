"""The peers of the benchmark are the same networks: equal outputs from equal parameters; and the comparison runs."""

import importlib.util
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from benchmarks import compare, jax_ways, tables, timing
from benchmarks.flops import product_flops
from benchmarks.peers_flax import LAYERS, stock
from gm_jax.layers.conv import Conv, ConvTranspose
from gm_jax.layers.norm import GroupNorm
from gm_jax.optim import learning_rate
from gm_jax.tasks import DataSpec, make_task
from tests.tiny import EXPERIMENTS, load, shrunk

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
SIZES = {"classifier": (32, 32, 3), "diffusion": (28, 28, 1)}
# Every part of a U-Net, whatever the shipped config leaves out.
WHOLE_UNET = {
    "model__multipliers": (1, 2),
    "model__space_to_depth": 2,
    "model__attention": (7,),
    "model__heads": 2,
    "model__dense": 0,
}


def open_network(experiment: str, changes: dict, batch: int = 2):
    """Return the shrunk config, its network, variables without a zero, and a function of them with its inputs."""
    config = shrunk(experiment, **changes)
    shape = SIZES[config.task]
    if config.task == "diffusion":
        config.diffusion.conditional = False  # the peers know the unconditional network
    network = make_task(config, DataSpec(shape, tuple("0123456789"))).network
    inputs = [jax.random.normal(jax.random.key(1), (batch, *shape))]
    if config.task == "diffusion":
        inputs.append(jnp.arange(1, batch + 1) * 9)
    generator = np.random.default_rng(0)

    def filled(leaf):
        return generator.uniform(0.1, 0.5, leaf.shape).astype(np.float32)

    variables = jax.tree.map(filled, jax.eval_shape(network.init, jax.random.key(0), *inputs))
    # Kernels of both signs, variances of one.
    variables["params"] = jax.tree.map(lambda x: x * generator.choice([-1, 1], x.shape), variables["params"])
    return config, network, variables, inputs


def one_of_each_network() -> list[tuple[str, dict]]:
    """Return an experiment with changes for each network that a shipped config has, and for a whole U-Net."""
    found = {}
    for experiment in EXPERIMENTS:
        config = load(experiment)
        batch_norm = config.model.get("batch_norm", False)
        found.setdefault((config.task, config.model.get("name"), batch_norm), experiment)
    shipped_levels = {"model__multipliers": load("ddpm_mnist").model.multipliers, "model__dense": 16}
    changes = {"ddpm_mnist": shipped_levels}
    return [*((name, changes.get(name, {})) for name in found.values()), ("ddpm_mnist", WHOLE_UNET)]


@needs_torch
@pytest.mark.parametrize(("experiment", "changes"), one_of_each_network())
def test_the_pytorch_peer_is_the_same_function(experiment, changes):
    import torch

    from benchmarks.peers_torch import PEERS, copy_weights, trainable

    config, network, variables, inputs = open_network(experiment, changes)
    peer = PEERS[config.task](config, inputs[0].shape[1:], 10, "cpu").network.to(memory_format=torch.channels_last)
    copy_weights(variables, peer)
    assert sum(p.numel() for p in trainable(peer)) == sum(x.size for x in jax.tree.leaves(variables["params"]))
    expected = np.asarray(jax.jit(network.apply)(variables, *inputs))
    x, *rest = (torch.tensor(np.asarray(value)) for value in inputs)
    with torch.inference_mode():
        output = peer.eval()(x.permute(0, 3, 1, 2), *rest)
    output = output.permute(0, 2, 3, 1).numpy() if output.ndim == 4 else output.numpy()
    np.testing.assert_allclose(output, expected, atol=1e-4 * np.abs(expected).max())


@needs_torch
def test_the_pytorch_peer_has_the_same_learning_rate():
    from benchmarks.peers_torch import rate_factor

    for experiment in EXPERIMENTS:
        optim = load(experiment).optim
        ours, theirs = learning_rate(optim), rate_factor(optim)
        for step in (0, 1, optim.warmup_steps, optim.warmup_steps + 7, (optim.decay_steps or 100) // 2):
            np.testing.assert_allclose(theirs(step), ours(step) / optim.learning_rate, atol=2e-4)


@needs_torch
@pytest.mark.parametrize("settings", [{"crop": 4, "flip": False, "cutout": 0}, {"crop": 0, "flip": True, "cutout": 8}])
def test_the_pytorch_peer_augments(settings):
    import torch

    from benchmarks.peers_torch import augment

    images = torch.arange(32 * 32 * 3).view(1, 32, 32, 3).expand(64, -1, -1, -1) % 251
    images = images.to(torch.uint8)
    changed = augment(images, settings)
    assert changed.shape == images.shape and changed.dtype == torch.uint8
    per_pixel = (changed != images).any(-1)
    if settings["cutout"]:
        mirrored = torch.where((changed == images.flip(2)).float().mean((1, 2, 3), keepdim=True) > 0.9, 1, 0).bool()
        back = torch.where(mirrored, changed.flip(2), changed)
        holes = (back != images).any(-1).sum((1, 2))
        assert 0 < mirrored.float().mean() < 1 and holes.max() <= 64 and holes.max() > 32
    else:
        assert per_pixel.any((1, 2)).float().mean() > 0.9


@pytest.fixture(autouse=True)
def parsed_flags():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["compare"])


class Layers(nn.Module):
    """Each layer that `stock` replaces, in each form."""

    @nn.compact
    def __call__(self, x):
        x = Conv(8, 3, strides=2)(x)
        x = Conv(8, (3, 2), padding=((1, 0), (2, 1)), kernel_dilation=(1, 2))(x)
        x = GroupNorm()(x)
        x = ConvTranspose(8, 4, strides=2)(x)
        x = ConvTranspose(4, 4, strides=2, padding=1, use_bias=False)(x)
        return ConvTranspose(4, 3, strides=2, padding=((1, 0), (0, 1)))(x)


def experiments_and_layers():
    """Yield a network with its variables and inputs: the layers by themselves, a U-Net, a network that pools."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    yield Layers(), jax.jit(Layers().init)(jax.random.key(1), x), [x]
    yield open_network("ddpm_mnist", WHOLE_UNET)[1:]
    yield open_network("lenet_mnist", {})[1:]


def test_flaxs_own_layers_are_the_same_function_of_the_same_parameters():
    for network, variables, inputs in experiments_and_layers():
        ours = jax.jit(network.apply)(variables, *inputs)
        with stock():
            theirs = jax.jit(lambda *a, network=network: network.apply(*a))(variables, *inputs)
            shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
        assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(jnp.abs(ours).max()))


def test_the_swap_really_swaps_and_ends():
    def text(apply, variables, inputs):
        # A new function each time: JAX remembers the trace of one that it knows.
        return str(jax.make_jaxpr(lambda *a: apply(*a))(variables, *inputs))

    for network, variables, inputs in experiments_and_layers():
        with stock():
            assert "custom_vjp" not in text(network.apply, variables, inputs)
        assert "custom_vjp" in text(network.apply, variables, inputs)
    # The last of them pools.
    with stock():
        assert "reduce_window_max" in text(network.apply, variables, inputs)
    assert "reduce_window_max" not in text(network.apply, variables, inputs)


def test_no_layer_of_ours_is_left_inside_the_swap(monkeypatch):
    """Poison our layers first: what `stock` forgets to replace fails."""

    def poisoned(self, x):
        raise AssertionError(f"{type(self).__name__} of gm_jax was called")

    for ours, _ in LAYERS:
        monkeypatch.setattr(ours, "__call__", poisoned)
    network, x = Layers(), jnp.zeros((1, 8, 8, 3))
    with pytest.raises(AssertionError, match="was called"):
        jax.eval_shape(network.init, jax.random.key(0), x)
    with stock():
        jax.eval_shape(network.init, jax.random.key(0), x)


def test_products_are_counted():
    def function(x, kernel):
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        y, _ = jax.lax.scan(lambda carry, _: (carry @ jnp.ones((5, 5)), None), y, None, length=7)
        return jnp.tanh(y)

    x, kernel = jnp.zeros((2, 6, 6, 3)), jnp.zeros((3, 3, 3, 5))
    convolution, products = 2 * (2 * 4 * 4 * 5) * (3 * 3 * 3), 7 * 2 * (2 * 4 * 4 * 5) * 5
    assert product_flops(jax.jit(function), x, kernel) == convolution + products


def test_strided_gradients_count_as_much_as_the_convolution():
    """XLA's input gradient moves over zeros, its kernel gradient over gaps; neither counts."""

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    x, kernel = jnp.zeros((2, 16, 16, 3)), jnp.zeros((2, 2, 3, 5))
    forward = product_flops(convolve, x, kernel)
    both = product_flops(jax.grad(lambda *a: convolve(*a).sum(), (0, 1)), x, kernel)
    assert forward > 0 and 1.9 < both / forward - 1 < 2.1


def test_ways_are_measured_in_turn_and_slow_ones_less_often(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "sleep", lambda _: None)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def way(name, seconds, steps=1):
        def call():
            calls.append(name)
            clock[0] += seconds

        return timing.Way(name, call, steps=steps)

    timings = timing.round_robin([way("a", 0.5, 5), way("b", 1.0), way("slow", 25.0)], 3, seconds=1.0, patience=60.0)
    assert "".join(name[0] for name in calls) == "aabbss" + "aabs" + "bsaa" + "aab"
    assert [timings[name].rounds for name in ("a", "b", "slow")] == [[0.1] * 3, [1.0] * 3, [25.0] * 2]
    assert timing.ratios(timings["slow"], timings["a"]) == {"median": 250.0, "low": 250.0, "high": 250.0}


def test_the_comparison_runs_and_fills_its_tables(monkeypatch, capsys):
    monkeypatch.setattr(compare, "STEPS_PER_CALL", (1, 4))
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    with flagsaver.flagsaver(rounds=2, seconds=0.0, patience=1.0, batch_size=32):
        results = json.loads(json.dumps(compare.compare(["fnn_mnist"])))
    training, prediction = results["rows"]
    assert training["parameters"] == 784 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10
    # Three products a layer, but for the gradient of the images; on each of the devices its share of the batch.
    kernels, share = [784 * 64, 64 * 32, 32 * 10], 32 // jax.device_count()
    assert training["flops"] == 2 * share * (3 * sum(kernels) - kernels[0])
    assert prediction["flops"] == 2 * 32 * sum(kernels)
    assert len(training["ratios"]["Flax"]) == 3 and training["ratios"]["Flax"]["median"] > 0
    assert set(results["dispatch"][0]["images_per_second"]) == {"1", "4"}
    text = tables.markdown(results)
    assert all(word in text for word in ("fnn_mnist, training", "fnn_mnist, prediction", "52,650", "PyTorch"))
    assert "fnn_mnist training, batch 32" in capsys.readouterr().out


def test_a_peer_that_would_take_too_long_is_estimated(monkeypatch):
    monkeypatch.setattr(compare, "time_calls", lambda way, calls: 100.0)
    run = jax_ways.open_experiment("fnn_mnist", 64)
    ways, timings = compare.scanned_training(run, 10)
    assert not ways and timings[compare.SCANNED].estimate == 100.0 / 2 * 64 / jax.device_count()
