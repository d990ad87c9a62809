"""The peers of the benchmark are the same networks: equal outputs from equal parameters; and the comparison runs."""

import contextlib
import functools
import importlib.util
import json
from types import SimpleNamespace
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from benchmarks import compare, jax_ways, machine, tables, timing
from benchmarks.flops import product_flops
from benchmarks.peers_flax import LAYERS, stock
from gm_jax import random
from gm_jax.layers.conv import Conv, ConvTranspose
from gm_jax.layers.equalised import EqualisedConv
from gm_jax.layers.norm import GroupNorm
from gm_jax.losses import elbo, penalties
from gm_jax.optim import learning_rate
from gm_jax.samplers import diffusion as samplers
from gm_jax.stages import Context
from gm_jax.state import Variables
from gm_jax.step import derive
from gm_jax.tasks import DataSpec, make_task
from tests.network_cases import filled
from tests.tiny import EXPERIMENTS, load, shrunk

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
SIZES = {"classifier": (32, 32, 3), "diffusion": (28, 28, 1), "gan": (32, 32, 3), "vae": (32, 32, 3)}  # by task
# Every part of a U-Net, whatever the shipped config leaves out.
WHOLE_UNET = {
    "model__multipliers": (1, 2),
    "model__space_to_depth": 2,
    "model__attention": (7,),
    "model__heads": 2,
    "model__dense": 0,
}


def open_networks(experiment: str, changes: dict | None = None, batch: int = 2):
    """Return the shrunk config and, by the name of its PyTorch peer, each network, variables without a zero, inputs."""
    config = shrunk(experiment, **(changes or {}))
    shape = SIZES[config.task]
    if config.task == "diffusion":
        config.diffusion.conditional = False  # the peers know the unconditional network
    task = make_task(config, DataSpec(shape, tuple("0123456789")))
    x = jax.random.normal(jax.random.key(1), (batch, *shape))
    z = jax.random.normal(jax.random.key(2), (batch, config.model.get("latent_dim", 1)))
    match config.task:
        case "classifier":
            networks = {"classifier": (task.network, x)}
        case "diffusion":
            networks = {"denoiser": (task.network, x, jnp.arange(1, batch + 1) * 9)}
        case "gan":
            networks = {"generator": (task.generator, z), "discriminator": (task.discriminator, x)}
        case "vae":
            networks = {"vae.encoder": (task.network.encoder, x), "vae.decoder": (task.network.decoder, z)}
    shapes = {net: jax.eval_shape(network.init, jax.random.key(0), *x) for net, (network, *x) in networks.items()}
    return config, {net: (network, filled(shapes[net]), inputs) for net, (network, *inputs) in networks.items()}


def one_of_each_network() -> list[tuple[str, dict]]:
    """Return an experiment with changes for each network that is compared, with batch norm too, and a whole U-Net."""
    found = {}
    whole = [experiment for experiment in compare.EXPERIMENTS if "@" not in experiment]
    for experiment in [*whole, *(e for e in EXPERIMENTS if load(e).task == "classifier")]:
        config = load(experiment)
        known = (config.model.get("name"), config.model.get("batch_norm", False))
        found.setdefault(experiment if config.task in ("gan", "vae") else known, experiment)
    shipped_levels = {"model__multipliers": load("ddpm_mnist").model.multipliers, "model__dense": 16}
    changes = {"ddpm_mnist": shipped_levels}
    return [*((name, changes.get(name, {})) for name in found.values()), ("ddpm_mnist", WHOLE_UNET)]


@needs_torch
@pytest.mark.parametrize(("experiment", "changes"), one_of_each_network())
def test_the_pytorch_peer_is_the_same_function(experiment, changes):
    import torch

    from benchmarks.peers_torch import copy_weights, trainable
    from benchmarks.torch_tasks import PEERS

    config, networks = open_networks(experiment, changes)
    peers = torch.nn.ModuleDict(PEERS[config.task](config, SIZES[config.task], 10, "cpu").networks)
    for net, (network, variables, inputs) in networks.items():
        peer = peers.get_submodule(net).to(memory_format=torch.channels_last)
        copy_weights(variables, peer)
        assert sum(p.numel() for p in trainable(peer)) == sum(x.size for x in jax.tree.leaves(variables["params"]))
        expected = np.asarray(jax.jit(network.apply)(variables, *inputs))
        x, *rest = (torch.tensor(np.asarray(value)) for value in inputs)
        x = x.permute(0, 3, 1, 2) if x.ndim == 4 else x
        turned = getattr(peer, "turned", False)
        with torch.inference_mode():
            output = peer.eval()(x.flip(2, 3) if turned and x.ndim == 4 else x, *rest)
        if output.ndim == 4:
            assert output.is_contiguous(memory_format=torch.channels_last)
            output = (output.flip(2, 3) if turned else output).permute(0, 2, 3, 1)
        assert np.std(expected) > 0.01 * np.abs(expected).max()
        np.testing.assert_allclose(output.numpy(), expected, atol=1e-4 * np.abs(expected).max())


@needs_torch
def test_the_pytorch_peers_have_the_same_losses():
    """A Gaussian and a Bernoulli likelihood, the KL divergence, and a slope with its second derivatives."""
    import torch

    from benchmarks.peers_torch import copy_weights
    from benchmarks.torch_tasks import PEERS, kl_divergence, squared_slope

    x, logits = (np.random.default_rng(i).uniform(0.1, 0.9, (3, 32, 32, 3)).astype(np.float32) for i in range(2))
    theirs = [torch.tensor(value).permute(0, 3, 1, 2) for value in (x, logits)]
    for experiment, expected in (
        ("vae_mnist", elbo.bernoulli_log_likelihood(x, logits)),
        ("vae_faces64", elbo.gaussian_log_likelihood(x, jax.nn.sigmoid(logits), jnp.log(0.1))),
    ):
        peer = PEERS["vae"](shrunk(experiment), (32, 32, 3), 10, "cpu")
        value = peer.log_likelihood(peer.networks["vae"], *theirs)
        np.testing.assert_allclose(value.detach(), expected, rtol=1e-5)
    kl = elbo.kl_divergence(x, logits).sum((1, 2, 3)).mean()
    np.testing.assert_allclose(kl_divergence(*theirs).item(), kl, rtol=1e-5)

    config, networks = open_networks("wgan_gp_cifar10")
    network, variables, _ = networks["discriminator"]
    critic = PEERS["gan"](config, (32, 32, 3), 10, "cpu").networks["discriminator"]
    copy_weights(variables, critic)
    slope = squared_slope(critic, torch.tensor(x).permute(0, 3, 1, 2).flip(2, 3))
    slope.sum().backward()

    def total(params):
        return penalties.squared_slope(lambda x: network.apply({"params": params}, x), x).sum()

    expected, gradients = jax.jit(jax.value_and_grad(total))(variables["params"])
    np.testing.assert_allclose(slope.sum().item(), expected, rtol=1e-4)
    gradient = np.asarray(gradients["conv1"]["kernel"])[::-1, ::-1].transpose(3, 2, 0, 1)
    np.testing.assert_allclose(critic.conv1.weight.grad, gradient, atol=1e-4 * np.abs(gradient).max())


class Draws:
    """Random numbers in the order in which they are asked for, the same ones for JAX and for PyTorch.

    Both ask for as many, JAX with channels last; where that matters, there is one channel.
    """

    def restart(self):
        self.generator = np.random.default_rng(0)

    def normal(self, *shape):
        return self.generator.normal(size=shape).astype(np.float32)

    def uniform(self, *shape):
        return self.generator.uniform(size=shape).astype(np.float32)

    @contextlib.contextmanager
    def instead(self, torch):
        """Draw these in place of what `gm_jax.random` and PyTorch draw."""
        ours = {
            "normal": lambda keys, shape: jnp.asarray(self.normal(len(keys), *shape)),
            "uniform": lambda keys: jnp.asarray(self.uniform(len(keys))),
            "stratified": lambda key, place, n: (self.uniform() + place.astype(jnp.float32) / n) % 1.0,
            "randint": lambda keys, shape, low, high: jnp.asarray(self.generator.integers(low, high, len(keys))),
        }
        theirs = {
            "randn": lambda *shape, device: torch.tensor(self.normal(*np.ravel(shape))),
            "randn_like": lambda x: torch.tensor(self.normal(*x.shape)),
            "rand": lambda shape, device: torch.tensor(self.uniform(*np.ravel(shape).astype(int))),
            "randint": lambda low, high, size, device: torch.tensor(self.generator.integers(low, high, size)),
        }
        with mock.patch.multiple(random, **ours), mock.patch.multiple(torch, **theirs):
            yield


@needs_torch
@pytest.mark.parametrize("experiment", ["ddpm_mnist", "edm_cifar10"])
def test_diffusions_pytorch_peer_has_the_same_loss_and_samples(experiment):
    import torch

    from benchmarks.peers_torch import copy_weights
    from benchmarks.torch_tasks import PEERS

    config, networks = open_networks(experiment, {"model__dropout": 0.0, "batch_size": 4, "sampling__steps": 3})
    shape, draws, (_, variables, _) = SIZES["diffusion"], Draws(), networks["denoiser"]
    task, peer = make_task(config, DataSpec(shape, tuple("0123456789"))), PEERS["diffusion"](config, shape, 10, "cpu")
    copy_weights(variables, peer.networks["denoiser"].to(memory_format=torch.channels_last))
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)

    def ours(batch):
        everything = Variables({"denoiser": variables["params"]}, {"denoiser": {}}, {})
        draws.restart()
        loss, _ = task.loss(everything, batch, Context(jax.random.key(0), jnp.int32(0)))
        draws.restart()
        keys = random.example_keys(jax.random.key(0), batch["position"])
        return loss, task.generate(everything, {"position": batch["position"]}, keys)["images"]

    with draws.instead(torch):
        expected, expected_samples = jax.jit(ours)({"image": images, "position": np.arange(4)})
        draws.restart()
        loss, _ = peer.phases(0)[0].loss(peer.networks, torch.tensor(images), None)
        draws.restart()
        with torch.inference_mode():
            samples = peer.sample(peer.networks, None)
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-4)
    difference = np.abs(samples.permute(0, 2, 3, 1).numpy().astype(int) - expected_samples)
    assert samples.is_contiguous(memory_format=torch.channels_last) and difference.max() <= 1
    assert len(np.unique(expected_samples)) > 50


@needs_torch
@pytest.mark.parametrize("stage", [2, 3])
def test_stylegans_pytorch_peer_has_the_same_losses_and_samples(stage):
    """In a stable stage, before which images are halved, and within a fade to full size, with R1 of both kinds."""
    import torch

    from benchmarks.peers_torch import copy_weights, trainable
    from benchmarks.torch_tasks import PEERS

    shape, draws, progress = (16, 16, 3), Draws(), 2000
    every = {2: 1, 3: 16}[stage]
    changes = {"model__mapping_rate": 0.5, "gan__r1_every": every, "sampling__truncation": 0.6, "sampling__n": 8}
    config = shrunk("stylegan_shapes", **changes)
    task, peer = make_task(config, DataSpec(shape, tuple("012"))), PEERS["stylegan"](config, shape, 3, "cpu")
    generator = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), jax.eval_shape(task.init, jax.random.key(0))
    )
    images = generator.integers(0, 256, (8, *shape), np.uint8)
    mean_w = generator.normal(size=8).astype(np.float32)
    batch, span = {"image": images, "position": np.arange(8)}, task.spans[stage]
    assert span.fades == (stage == 3)

    def ours(batch):
        memory = {"mean_w": mean_w, "level": 2.0}
        variables, found = Variables({net: tree["params"] for net, tree in params.items()}, {}, memory), {}
        context = Context(jax.random.key(0), jnp.int32(span.begin + progress))
        for phase in task.phases(stage):
            draws.restart()
            (found[f"{phase.name} phase"], result), _ = derive(phase, variables, batch, context)
            found |= result.metrics
            memory = result.memory or memory
        draws.restart()
        keys = random.example_keys(jax.random.key(0), batch["position"])
        return found, memory["mean_w"], task.generate(variables, batch, keys)["images"]

    for net, network in peer.networks.items():
        copy_weights(params[net], network.to(memory_format=torch.channels_last))
        assert sum(p.numel() for p in trainable(network)) == sum(x.size for x in jax.tree.leaves(params[net]))
    peer.step, peer.mean_w, found = progress - 1, torch.tensor(mean_w), {}
    changed_by = {"augment": lambda x, keys, names: 0.7 * x + 0.1}, {"diff_augment": lambda x, names: 0.7 * x + 0.1}
    with (
        draws.instead(torch),
        mock.patch.multiple("gm_jax.layers.diff_augment", **changed_by[0]),
        mock.patch.multiple("benchmarks.torch_tasks", **changed_by[1]),
    ):
        expected, expected_mean, expected_samples = jax.tree.map(
            lambda x: np.asarray(x[0]),
            jax.jit(jax.vmap(ours, axis_name="batch"))(jax.tree.map(lambda x: x[None], batch)),
        )
        for phase in peer.phases(stage):
            draws.restart()
            loss, metrics = phase.loss(peer.networks, torch.tensor(images), None)
            found |= {f"{phase.name} phase": loss.detach(), **metrics}
        new_mean, peer.mean_w = peer.mean_w.numpy(), torch.tensor(mean_w)
        draws.restart()
        samples = peer.sample(peer.networks, None)
    assert found.keys() == expected.keys() - {"level"} and "r1" in found
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(new_mean, expected_mean, atol=1e-5)
    difference = np.abs(samples.permute(0, 2, 3, 1).numpy().astype(int) - expected_samples)
    assert samples.is_contiguous(memory_format=torch.channels_last) and difference.max() <= 1
    assert len(np.unique(expected_samples)) > 100


@needs_torch
def test_the_pytorch_step_follows_the_phases():
    """Each phase moves its own network alone, as often as it says, and the average follows."""
    import torch

    from benchmarks.peers_torch import Torch

    run = jax_ways.open_experiment("gan_mnist", 4, gan__r1=1.0, gan__r1_every=3, gan__critic_steps=2)
    peer, seen = Torch(run, run.data, "cpu"), []

    def noted(phase):
        def loss(networks, images, labels):
            seen.append(
                (phase.nets[0], *(next(networks[net].parameters()).requires_grad for net in networks), images.sum())
            )
            return phase.loss(networks, images, labels)

        return phase._replace(loss=loss)

    peer.phases = [noted(phase) for phase in peer.phases]
    way = peer.training("PyTorch")
    assert way.cycle == 3
    metrics = [way.call() for _ in range(4)]
    critic, generator = ("discriminator", False, True), ("generator", True, False)
    with_r1, without = [critic, critic, generator, critic], [critic, critic, generator]
    assert [s[:3] for s in seen] == [*with_r1, *without, *without, *with_r1]
    assert seen[0][3] != seen[1][3] and seen[0][3] == seen[3][3]  # fresh images for each repeat
    assert ["r1" in m for m in metrics] == [True, False, False, True]
    assert all(torch.isfinite(value) for m in metrics for value in m.values())


@needs_torch
def test_the_pytorch_average_follows_parameters_and_running_statistics():
    import torch

    from benchmarks.peers_torch import average_of

    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    values, average = average_of(network)
    network(torch.randn(8, 3))
    assert [tuple(value.shape) for value in values] == [(4, 3), (4,), (4,), (4,), (4,), (4,)]
    assert [torch.equal(*pair) for pair in zip(values, average, strict=True)] == [True] * 4 + [False] * 2


@needs_torch
def test_the_pytorch_peer_has_the_same_learning_rate():
    from benchmarks.peers_torch import rate_factor

    for experiment in EXPERIMENTS:
        optim = load(experiment).optim
        # Where decays are counted in epochs, the data would say the steps.
        end = optim.decay_steps = optim.decay_steps or 2 * (optim.warmup_steps + optim.hold_steps) + 100
        ours, theirs = learning_rate(optim), rate_factor(optim)
        for step in (0, 1, optim.warmup_steps, optim.warmup_steps + 7, end // 2, 3 * end // 4):
            np.testing.assert_allclose(theirs(step), ours(step) / optim.learning_rate, atol=2e-4)


@needs_torch
@pytest.mark.parametrize("settings", [{"crop": 4, "flip": False, "cutout": 0}, {"crop": 0, "flip": True, "cutout": 8}])
def test_the_pytorch_peer_augments(settings):
    import torch

    from benchmarks.torch_augment import augment

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


@needs_torch
def test_the_pytorch_peer_augments_for_discriminators():
    import torch

    from benchmarks import torch_augment
    from gm_jax.layers import diff_augment

    x = np.random.default_rng(0).uniform(-1, 1, (16, 16, 16, 3)).astype(np.float32)
    for name, (change, count) in diff_augment.CHANGES.items():
        u = np.random.default_rng(1).uniform(0, 1, (16, count)).astype(np.float32)
        changed, known = torch_augment.CHANGES[name]
        output = changed(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(u)).permute(0, 2, 3, 1)
        np.testing.assert_allclose(output, jax.jit(change)(x, u), atol=1e-5)
        assert known == count
    assert list(torch_augment.CHANGES) == list(diff_augment.CHANGES)  # and so is the order


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
        x = EqualisedConv(4, resize="down")(x)
        return ConvTranspose(4, 3, strides=2, padding=((1, 0), (0, 1)))(x)


def experiments_and_layers():
    """Yield a network with its variables and inputs: the layers by themselves, a U-Net, a network that pools."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    yield Layers(), jax.jit(Layers().init)(jax.random.key(1), x), [x]
    yield open_networks("ddpm_mnist", WHOLE_UNET)[1]["denoiser"]
    yield open_networks("lenet_mnist")[1]["classifier"]


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
        assert "name=fused_max_pool" not in text(network.apply, variables, inputs)
    assert "name=fused_max_pool" in text(network.apply, variables, inputs)


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


def test_what_others_disturb_is_measured_again(monkeypatch):
    """The least disturbed attempt counts, of three; one that is quiet ends them."""
    shares, times = iter([0.3, 0.2, 0.6, 0.04]), iter([7.0, 5.0, 6.0, 4.0])
    monkeypatch.setattr(timing, "usage", lambda: SimpleNamespace(others_since=lambda before: next(shares)))
    monkeypatch.setattr(timing, "time_calls", lambda way, calls: next(times))
    assert timing.undisturbed(None, 1) == (0.2, 5.0)
    assert timing.undisturbed(None, 1) == (0.04, 4.0)


def test_what_others_use_is_all_that_is_busy_but_our_own(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(machine.os, "sysconf", lambda name: 100)
    used = []
    for user, stolen, elapsed, own in ((1000, 0, 10.0, 1.0), (1500, 100, 14.0, 3.0)):
        (tmp_path / "stat").write_text(f"cpu  {user} 0 0 5000 70 0 0 {stolen} 0 0\ncpu0 1\n")
        monkeypatch.setattr(machine.time, "perf_counter", lambda elapsed=elapsed: elapsed)
        monkeypatch.setattr(machine.time, "process_time", lambda own=own: own)
        used.append(machine.usage(tmp_path / "stat"))
    assert used[1].others_since(used[0]) == pytest.approx((6.0 - 2.0) / (4.0 * 2))
    assert machine.usage(tmp_path / "none").others_since(used[0]) == 0.0


def test_the_cpu_is_named_with_its_caches(tmp_path):
    (tmp_path / "cpuinfo").write_text("model name\t: CPU\ncpu family\t: 26\nmodel\t\t: 2\n\nmodel name\t: other\n")
    caches = [("1", "48K", "Data"), ("1", "32K", "Instruction"), ("2", "1024K", "Unified")]
    for i, (level, size, kind) in enumerate(caches):
        (tmp_path / f"index{i}").mkdir()
        for name, value in (("level", level), ("size", size), ("type", kind)):
            (tmp_path / f"index{i}" / name).write_text(value + "\n")
    found = machine.describe_cpu(tmp_path, tmp_path / "cpuinfo")
    assert found == {"model": "CPU (family 26, model 2)", "caches": "L1 48 KiB, L2 1024 KiB"}


def test_rows_that_have_become_slower_are_told(capsys, tmp_path):
    """In matrix products of the same rounds: a machine that is half as fast is no regression."""

    def results(rate, **seconds):
        ways = {name: {"gm_jax": {"low": 0.9 * s, "seconds": s, "high": 1.1 * s}} for name, s in seconds.items()}
        rows = [{"experiment": n, "what": "training", "product_rate": rate, "ways": w} for n, w in ways.items()]
        return {"about": {"cpu": {"model": "CPU"}}, "rows": rows}

    before = results(100.0, a=1.0, b=1.0, gone=1.0)
    assert tables.regressions(before, results(50.0, a=2.0, b=2.4, new=9.0)) == []
    slower = tables.regressions(before, results(50.0, a=2.0, b=2.5))
    assert slower == ["b training: 1.25 times as long as before, beyond its spread"]
    with flagsaver.flagsaver(against="old.json"):
        assert compare.judge(before, results(50.0, b=2.5)) == 1 and slower[0] in capsys.readouterr().out
        assert compare.judge(before, results(50.0, b=2.0)) == 0
        assert compare.judge(before | {"about": {}}, results(50.0, b=2.0)) == 0
    assert "of another CPU" in capsys.readouterr().out


def test_the_comparison_runs_and_fills_its_tables(monkeypatch, capsys):
    monkeypatch.setattr(compare, "STEPS_PER_CALL", (1, 4))
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    monkeypatch.setattr(timing, "QUIET", 1.0)
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
    assert not ways and timings[compare.SCANNED].estimate == 100.0 / 2 * 64 / (4 * jax.device_count())


def test_whole_cycles_of_lazy_phases_are_measured(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "sleep", lambda _: None)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def call():
        calls.append(None)
        clock[0] += 5.0 if len(calls) % 4 == 1 else 1.0

    timings = timing.round_robin([timing.Way("lazy", call, cycle=4)], 3, seconds=0.1, patience=60.0)
    assert len(calls) == 2 + 3 * 4 and timings["lazy"].rounds == [2.0] * 3


def test_a_lazy_phase_counts_by_how_often_it_runs():
    def work(**settings):
        return jax_ways.step_flops(jax_ways.open_experiment("gan_mnist", 4, **settings))

    without, always, lazy = (work(gan__r1=r1, gan__r1_every=every) for r1, every in ((0.0, 1), (1.0, 1), (1.0, 16)))
    assert without < lazy and (always - without) / 16 == lazy - without


def test_the_sampler_without_a_scan_draws_the_same():
    tiny = {"model__width": 8, "model__dense": 8, "sampling__steps": 3}
    run = jax_ways.open_experiment("ddpm_mnist", 2, **tiny)
    task, params, keys = run.task, run.random_state().params, random.example_keys(jax.random.key(0), jnp.arange(2))
    x = samplers.prior(task.plan, keys, run.spec.image_shape)
    whole = jax.jit(lambda x: samplers.sample(functools.partial(task.denoise, params, None), task.plan, keys, x).x)(x)
    way, flops = jax_ways.bare_sampling(run, "Flax")
    np.testing.assert_allclose(way.call(), whole, atol=1e-4)
    assert way.steps == 3 and flops > 0


@needs_torch
def test_the_ways_to_extract_features_see_the_same():
    from benchmarks.peers_torch import Torch, copy_weights

    run = jax_ways.open_experiment("lenet_mnist", 4, model__features=(4, 6), model__dense=8)
    peer, variables = Torch(run, run.data, "cpu"), run.trained_variables(run.random_state())
    copy_weights(variables.of("classifier"), peer.networks["classifier"])
    with stock():
        bare, flops = jax_ways.bare_extraction(run, "Flax")
    expected = bare.call()
    assert expected.shape == (4, 8 + 10) and np.std(expected) > 0 and flops > 0
    np.testing.assert_allclose(jax_ways.extraction(run, "gm_jax").call(), expected, atol=1e-4)
    np.testing.assert_allclose(peer.features("PyTorch").call(), expected, atol=1e-4)


def test_a_gan_and_a_vae_are_compared(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    monkeypatch.setattr(timing, "QUIET", 1.0)
    monkeypatch.setattr(compare, "matrix_product", lambda: (timing.Way("product", lambda: None), 1.0))
    monkeypatch.setattr(compare, "scanned_training", lambda run, fits: ([], {}))  # compiles long; tested above
    with flagsaver.flagsaver(rounds=1, seconds=0.0, patience=0.1, batch_size=4):
        training, sampling = compare.compare(["gan_mnist"])["rows"]
        vae = jax_ways.open_experiment("vae_mnist:modern", 4)
        peer, reason = compare.torch_peer(vae)
        decoding = compare.sampling_row(vae, peer, reason)
    share = 4 // jax.device_count()
    generator = [64 * 128, 128 * 256, 256 * 512, 512 * 1024, 1024 * 784]
    critic = [784 * 512, 512 * 256, 256]
    # Forwards and, for what is learnt, both gradients, but for that of the first layer's input. The critic sees two
    # images for each that is generated, and passes a gradient on to the generator.
    critic_phase = sum(generator) + 2 * (3 * sum(critic) - critic[0])
    generator_phase = 3 * sum(generator) - generator[0] + 2 * sum(critic)
    assert training["flops"] == 2 * share * (critic_phase + generator_phase)
    assert sampling["flops"] == 2 * 4 * sum(generator)
    square = 512 * 512
    encoder, decoder = [784 * 512, *[square] * 4, 512 * 80], [40 * 512, *[square] * 4, 512 * 784]
    assert jax_ways.step_flops(vae) == 2 * share * (3 * (sum(encoder) + 5 * sum(decoder)) - encoder[0])
    assert decoding["flops"] == 2 * 4 * sum(decoder)
    ways = {compare.OURS, compare.STOCK} | ({compare.TORCH} if importlib.util.find_spec("torch") else set())
    for row in (training, sampling, decoding):
        assert ways == {name for name, way in row["ways"].items() if way["seconds"]}
    if peer is not None:
        metrics = peer.training(compare.TORCH).call()
        assert metrics["elbo"] < 0 < metrics["kl"] and metrics["loss"] < -metrics["elbo"]  # tighter, and warmed up
