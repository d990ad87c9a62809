"""The train step: devices, scans and phases change nothing that they should not."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import random
from gm_jax.data.pipeline import Stream, arrays, batches, epoch_order, next_examples
from gm_jax.errors import UserError
from gm_jax.optim import lazy_share
from gm_jax.stages import (
    Context,
    Phase,
    Result,
    Stage,
    check_stages,
    examples_before,
    stable_hash,
    stage_at,
)
from gm_jax.state import Variables, create
from gm_jax.step import AXIS, gather, make_train_call, make_train_step, mean_of_devices
from gm_jax.window import Window
from tests.tiny import open_tiny


def map_over(devices, call):
    devices = jax.devices()[:devices]
    mapped = jax.pmap(call, axis_name=AXIS, in_axes=(None, None, 0, 2), out_axes=(None, None), devices=devices)

    def run(state, resident, index):
        """One source, or several by name; metrics are the means of each step."""
        sources = index if isinstance(index, dict) else {"images": index}
        resident = resident if isinstance(index, dict) else {"images": resident}
        split = {name: {"index": x.reshape(*x.shape[:2], len(devices), -1)} for name, x in sources.items()}
        size = next(iter(sources.values())).shape[2]
        position = np.arange(size, dtype=np.int32).reshape(len(devices), -1)
        state, metrics = jax.device_get(mapped(state, resident, position, split))
        return state, {name: x[..., 0] / np.maximum(x[..., 1], 1) for name, x in metrics.items()}

    return run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The DDPM task, shrunk, with plain SGD: Adam would amplify the rounding of tiny gradients."""
    run = open_tiny(tmp_path_factory.mktemp("tiny"))
    variables = {net: {"params": params} for net, params in run.init_state().params.items()}
    # The last convolutions start at zero, which stops most gradients: shake everything.
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    shaken = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    variables = jax.tree.unflatten(tree, shaken)
    optimizers, decays = {"denoiser": optax.sgd(0.1)}, {"denoiser": 0.9}
    step = make_train_step(run.task.phases(), optimizers, decays, seed=3)
    state = jax.device_get(create(variables, optimizers, decays))
    data = {name: np.asarray(x[:64]) for name, x in arrays(run.dataset.split("train")).items()}
    return make_train_call(step), state, data


def test_two_devices_give_the_update_of_one(tiny):
    call, state, data = tiny
    index = np.arange(32, dtype=np.int32).reshape(4, 1, 8)
    one, metrics_one = map_over(1, call)(state, data, index)
    two, metrics_two = map_over(2, call)(state, data, index)
    # 4 SGD steps; only the order of float32 sums differs.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6), one.params, two.params)
    np.testing.assert_allclose(metrics_one["loss"], metrics_two["loss"], rtol=1e-5)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one.params, state.params)
    assert max(jax.tree.leaves(moved)) > 1e-3


def test_scanned_steps_equal_single_steps_bit_for_bit(tiny):
    call, state, data = tiny
    index = np.arange(32, dtype=np.int32).reshape(4, 1, 8)
    run = map_over(1, call)
    together, metrics = run(state, data, index)
    losses = []
    for i in range(4):
        state, single = run(state, data, index[i : i + 1])
        losses.append(single["loss"][0])
    jax.tree.map(np.testing.assert_array_equal, together, state)
    np.testing.assert_array_equal(metrics["loss"], losses)


def toy(every=1, repeats=1):
    """Two networks of one number each; each phase pulls its own towards the other's plus noise."""

    def pull(net, other):
        def loss(variables, batch, context):
            noise = random.normal(random.example_keys(context.key, batch["position"]))
            params = variables.params
            value = jnp.mean((params[net]["w"] - params[other]["w"] - batch["image"] - noise) ** 2)
            return value, Result({f"{net}_loss": value})

        return loss

    critic = Phase("critic", ("critic",), pull("critic", "generator"), every, repeats)
    phases = [critic, Phase("generator", ("generator",), pull("generator", "critic"))]
    variables = {"critic": {"params": {"w": jnp.zeros(())}}, "generator": {"params": {"w": jnp.ones(())}}}
    optimizers = {net: optax.adam(0.1) for net in variables}
    decays = {"critic": None, "generator": 0.9}
    state = create(variables, optimizers, decays)
    return phases, optimizers, decays, state


def run_toy(phases, optimizers, decays, state, steps, repeats=1):
    call = make_train_call(make_train_step(phases, optimizers, decays, seed=0))
    index = np.arange(steps * repeats * 4, dtype=np.int32).reshape(steps, repeats, 4)
    return map_over(1, call)(state, {"image": np.linspace(0, 1, 64, dtype=np.float32)}, index)


def test_a_phase_updates_its_network_alone():
    phases, optimizers, decays, state = toy()
    after, _ = run_toy(phases[:1], optimizers, decays, state, steps=1)
    assert after.params["critic"]["w"] != state.params["critic"]["w"]
    jax.tree.map(np.testing.assert_array_equal, after.params["generator"], state.params["generator"])
    jax.tree.map(np.testing.assert_array_equal, after.opt_state["generator"], state.opt_state["generator"])


def test_a_phase_may_draw_the_noise_of_another():
    own, shared = ([], [])
    for phases, seen in ((toy()[0], own), ([toy()[0][0], toy()[0][1]._replace(noise_of="critic")], shared)):
        _, optimizers, decays, state = toy()
        step = make_train_step(
            [phase._replace(loss=noise_alone(phase.name)) for phase in phases], optimizers, decays, 0
        )
        index = np.arange(4, dtype=np.int32).reshape(1, 1, 4)
        _, metrics = map_over(1, make_train_call(step))(state, {"image": np.zeros(64, np.float32)}, index)
        seen.extend(metrics[net][0] for net in ("critic", "generator"))
    assert shared[0] == shared[1] == own[0] != own[1]


def noise_alone(net):
    def loss(variables, batch, context):
        noise = jnp.mean(random.normal(random.example_keys(context.key, batch["position"])))
        return variables.params[net]["w"] * noise, Result({net: noise})

    return loss


def made_in_turn(made, **changes):
    """A critic and a generator whose sample both see; `made` lists by whose noise a program makes it."""

    def make(variables, batch, context):
        made.append(context.key)
        noise = random.normal(random.example_keys(context.key, batch["position"]))
        return {"sample": jnp.sin(variables.params["generator"]["w"] * (1.5 + noise))}

    def loss(net):
        def value_of(variables, batch, context):
            opinion = variables.params["critic"]["w"] * context.made["sample"] - batch["image"]
            value = jnp.mean(jnp.tanh(opinion) if net == "critic" else opinion**2)
            return value, Result({f"{net}_loss": value})

        return value_of

    both = {"make": make, "makers": ("generator",)}
    critic = Phase("critic", ("critic",), loss("critic"), **{**both, **changes})
    return [critic, Phase("generator", ("generator",), loss("generator"), noise_of="critic", **both)]


def inline(phase):
    """The phase with the making in its loss."""
    if phase.make is None:
        return phase

    def loss(variables, batch, context):
        return phase.loss(variables, batch, context._replace(made=phase.make(variables, batch, context)))

    return phase._replace(loss=loss, make=None, makers=())


@pytest.mark.parametrize("changes", [{}, {"every": 2}, {"repeats": 2}])
def test_what_two_phases_make_is_made_once_with_the_gradients_of_making_it_in_each(changes):
    made, (_, optimizers, decays, state) = [], toy()
    phases = made_in_turn(made, **changes)
    shared, metrics = run_toy(phases, optimizers, decays, state, steps=3, repeats=changes.get("repeats", 1))
    traced = len(made)
    apart, expected = run_toy([inline(p) for p in phases], optimizers, decays, state, 3, changes.get("repeats", 1))
    assert traced == 1 or changes, traced
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), shared, apart)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    assert np.all(metrics["grad_norm/generator"] > 0)


@pytest.mark.parametrize("updated", ["by its own", "by another"])
def test_what_other_parameters_made_is_made_anew(updated):
    """The critic sees what the generator makes after an update, be it one that makes nothing itself."""
    made, (_, optimizers, decays, state) = [], toy()
    critic, generator = made_in_turn(made)
    between = generator._replace(name="between", loss=toy()[0][1].loss, make=None, makers=())
    phases = {
        "by its own": [generator._replace(noise_of=None), critic._replace(noise_of="generator")],
        "by another": [critic, between, generator],
    }[updated]
    shared, _ = run_toy(phases, optimizers, decays, state, steps=2)
    traced = len(made)
    apart, _ = run_toy([inline(p) for p in phases], optimizers, decays, state, steps=2)
    assert traced == 2
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), shared, apart)


def test_lazy_phase_runs_at_multiples_only_and_its_mean_is_honest():
    phases, optimizers, decays, state = toy(every=3)
    after, metrics = run_toy(phases, optimizers, decays, state, steps=6)
    assert after.opt_state["critic"][0].count == 2 and after.opt_state["generator"][0].count == 6
    assert np.all(metrics["grad_norm/generator"] != 0)
    np.testing.assert_array_equal(metrics["critic_loss"] != 0, [True, False, False, True, False, False])
    assert metrics["critic_loss"][0] == pytest.approx(run_toy(*toy(), steps=1)[1]["critic_loss"][0], rel=1e-6)


def test_the_mean_of_a_lazy_phase_is_that_of_its_due_steps_over_any_window():
    """Steps 0 and 3 of five are due, then 6 alone, then none: a window closes after five, two and two steps."""
    window, means = Window({}), []
    for begin, end in ((0, 5), (5, 7), (7, 9)):
        values = [[10.0 + step, 1.0] if step % 3 == 0 else [0.0, 0.0] for step in range(begin, end)]
        window.append({"r1": np.array(values[:1]), "loss": np.ones((1, 2))})
        window = Window(window.values())  # as a checkpoint keeps it
        window.append({"r1": np.array(values[1:]), "loss": np.ones((end - begin - 1, 2))})
        means.append(window.close())
    assert means == [{"r1": 11.5, "loss": 1.0}, {"r1": 16.0, "loss": 1.0}, {"loss": 1.0}]


def test_a_number_that_is_not_finite_is_told_with_its_step():
    window = Window({"loss": [[1.0, 1.0]]})
    window.append({"loss": np.array([[2.0, 1.0], [np.nan, 1.0], [1.0, 1.0]])})
    with pytest.raises(UserError, match="loss is nan at step 13:"):
        window.check_finite(14)
    assert "at step 13" not in str(Window({"loss": [[1.0, 1.0]]}).check_finite(14))


def test_two_phases_of_a_network_log_a_gradient_each():
    phases, optimizers, decays, state = toy()
    lazy = phases[0]._replace(name="lazy", every=3)
    _, metrics = run_toy([*phases, lazy], optimizers, decays, state, steps=4)
    assert np.all(metrics["grad_norm/critic"] != 0)
    np.testing.assert_array_equal(metrics["grad_norm/critic/lazy"] != 0, [True, False, False, True])
    assert lazy_share([*phases, lazy], "critic") == pytest.approx(3 / 4) and lazy_share([lazy], "critic") == 1
    assert lazy_share([phases[0]._replace(repeats=5), lazy], "critic") == pytest.approx(15 / 16)
    assert lazy_share([*phases, lazy], "generator") == 1 == lazy_share([], "critic")
    assert Stage(0, [phases[0]._replace(repeats=4), lazy], 8).batches == 4 and Stage(0, [], 8).batches == 1


def test_one_gradient_updates_several_networks_each_by_its_own_optimiser():
    """(a b - mean x)^2: both slopes are taken before either network moves."""

    def loss(variables, batch, context):
        a, b = (variables.params[net]["w"] for net in ("a", "b"))
        value = jnp.square(a * b - jnp.mean(batch["image"]))
        return value, Result({"loss": value})

    optimizers, decays = {"a": optax.sgd(0.1), "b": optax.sgd(0.01)}, {"a": None, "b": None}
    state = create({net: {"params": {"w": jnp.float32(w)}} for net, w in (("a", 2.0), ("b", 3.0))}, optimizers, decays)
    step = make_train_step([Phase("both", ("a", "b"), loss)], optimizers, decays, seed=0)
    images = np.linspace(0, 1, 8, dtype=np.float32)
    after, metrics = map_over(2, make_train_call(step))(state, {"image": images}, np.arange(8).reshape(1, 1, 8))
    error = 2 * (6.0 - 0.5)
    np.testing.assert_allclose(after.params["a"]["w"], 2.0 - 0.1 * error * 3.0, rtol=1e-6)
    np.testing.assert_allclose(after.params["b"]["w"], 3.0 - 0.01 * error * 2.0, rtol=1e-6)
    np.testing.assert_allclose([metrics["grad_norm/a"], metrics["grad_norm/b"]], [[error * 3], [error * 2]], rtol=1e-6)


def test_memory_is_the_same_for_any_number_of_devices_and_is_never_averaged():
    """A pool of uint8 keeps the last of the global batch; a count stays an integer, and the average ignores both.

    Model state is averaged over the devices, though.
    """

    def loss(variables, batch, context):
        everything = gather({"image": batch["image"]}, batch["position"])["image"]
        memory = {"pool": jnp.roll(variables.memory["pool"], 1).at[0].set(everything[-1]), "count": context.step + 10}
        seen = jnp.mean(variables.memory["pool"].astype(jnp.float32))
        state = {"net": {"mean": jnp.mean(batch["image"].astype(jnp.float32))}}
        return jnp.square(variables.params["net"]["w"]), Result({"seen": seen}, state, memory)

    optimizers, decays = {"net": optax.sgd(0.1)}, {"net": 0.9}
    memory = {"pool": jnp.zeros(3, jnp.uint8), "count": jnp.int32(0)}
    variables = {"net": {"params": {"w": jnp.ones(())}, "mean": jnp.float32(0)}}
    state = create(variables, optimizers, decays, memory)
    call = make_train_call(make_train_step([Phase("net", ("net",), loss)], optimizers, decays, seed=0))
    index = np.random.default_rng(0).permutation(16).astype(np.int32).reshape(4, 1, 4)
    for devices in (1, 2):
        after, metrics = map_over(devices, call)(state, {"image": np.arange(16, dtype=np.uint8)}, index)
        np.testing.assert_array_equal(after.memory["pool"], index[::-1, 0, -1][:3])
        assert after.memory["pool"].dtype == np.uint8 and after.memory["count"] == 13
        np.testing.assert_allclose(metrics["seen"][-1], index[:3, 0, -1].mean(), rtol=1e-6)
        np.testing.assert_allclose(after.model_state["net"]["mean"], index[-1].mean(), rtol=1e-6)
        assert after.averaged().memory is after.memory and set(after.ema) == {"net"}


def test_the_mean_over_devices_is_nothing_for_one_alone():
    mean = jax.vmap(mean_of_devices, axis_name=AXIS)
    np.testing.assert_array_equal(mean(jnp.asarray([[1.0, 2.0], [3.0, 6.0]])), [[2.0, 4.0], [2.0, 4.0]])
    assert not jax.make_jaxpr(mean)(jnp.ones((1, 2))).eqns


def test_gather_puts_the_parts_of_all_devices_in_the_order_of_their_positions():
    def parts(x, position):
        return gather({"x": x}, position)["x"]

    x, position = np.arange(6).reshape(2, 3), np.array([[4, 0, 2], [5, 1, 3]])
    found = jax.pmap(parts, axis_name=AXIS, devices=jax.devices()[:2])(x, position)
    np.testing.assert_array_equal(found, [[1, 4, 2, 5, 0, 3]] * 2)


STAGES = (Stage(0, [], 4), Stage(6, [], 8, fresh=("net",)), Stage(10, [], 2))


def test_a_stage_takes_over_at_its_border_and_examples_are_numbered_through():
    assert [stage_at(STAGES, step) for step in (0, 5, 6, 9, 10, 99)] == [0, 0, 1, 1, 2, 2]
    assert [examples_before(STAGES, step) for step in (0, 5, 6, 7, 10, 12)] == [0, 20, 24, 32, 56, 60]
    twice = [Stage(0, [Phase("a", (), None, repeats=3)], 4), Stage(2, [], 5)]
    assert [examples_before(twice, step) for step in (1, 2, 3)] == [12, 24, 29]
    check_stages(STAGES, 2)
    for stages, k in ((STAGES, 4), (STAGES[1:], 1), ((STAGES[0], STAGES[2], STAGES[1]), 1)):
        with pytest.raises(UserError):
            check_stages(stages, k)
    with pytest.raises(ValueError, match="names of their own"):
        check_stages([Stage(0, [Phase("a", (), None), Phase("a", (), None)], 4)], 1)


def test_batches_of_stages_and_sources_go_on_where_the_last_one_ended():
    data = {name: {"image": np.arange(n)} for name, n in (("long", 11), ("short", 5))}
    sources = {name: Stream(x, np.arange(len(x["image"]), dtype=np.int32), True) for name, x in data.items()}
    common = dict(seed=3, steps_per_call=2)
    calls = list(batches(sources, STAGES, calls=range(6), **common))
    assert [call["long"]["index"].shape for call in calls] == [(2, 1, 4)] * 3 + [(2, 1, 8)] * 2 + [(2, 1, 2)]
    for name, size in (("long", 11), ("short", 5)):
        stream = np.concatenate([call[name]["index"].ravel() for call in calls])
        np.testing.assert_array_equal(stream, next_examples(size, 3, name, 0, 60))
        for epoch in range(60 // size):  # nothing dropped, nothing twice
            assert sorted(stream[size * epoch : size * (epoch + 1)]) == list(range(size))
    np.testing.assert_array_equal(next(batches(sources, STAGES, calls=range(4, 6), **common))["short"]["index"],
                                  calls[4]["short"]["index"])  # fmt: skip
    assert list(epoch_order(11, 3, "long", 0)) != list(epoch_order(11, 3, "other", 0))


def counted(net, rate):
    """A phase whose loss is (w - mean of the images)^2, and which counts its updates in the model state."""

    def loss(variables, batch, context):
        value = jnp.mean((variables.params[net]["w"] - batch["image"]) ** 2)
        seen = variables.model_state[net]["count"]
        return value, Result({"loss": value, "seen": seen}, {net: {"count": seen + rate}})

    return Phase(f"by {rate:g}", (net,), loss)


def test_a_step_is_gradient_descent_with_an_average_that_warms_up():
    """Two SGD updates of the phase in a step, and by hand; the average follows parameters and model state."""
    images = np.linspace(0, 1, 64, dtype=np.float32)
    phases = [counted("net", 1.0)._replace(repeats=2), counted("net", 10.0)]
    optimizers, decays = {"net": optax.sgd(0.1)}, {"net": 0.3}
    variables = {"net": {"params": {"w": jnp.float32(5.0)}, "count": jnp.float32(0.0)}}
    state = create(variables, optimizers, decays)
    call = make_train_call(make_train_step(phases, optimizers, decays, seed=0))
    index = np.arange(5 * 2 * 4, dtype=np.int32).reshape(5, 2, 4)
    after, metrics = map_over(1, call)(state, {"image": images}, index)

    w, count, average, average_count = 5.0, 0.0, 5.0, 0.0
    for step in range(5):
        norms = []
        for phase, repeat in ((0, 0), (0, 1), (1, 0)):  # the second phase sees the first batch again
            batch = images[index[step, repeat]].astype(float)
            norms.append(abs(2 * (w - batch.mean())))
            if phase == 1:
                np.testing.assert_allclose(metrics["loss/by 10"][step], np.mean((w - batch) ** 2), rtol=1e-5)
                assert metrics["seen/by 10"][step] == count
            w -= 0.1 * 2 * (w - batch.mean())
            count += (1.0, 10.0)[phase]
        np.testing.assert_allclose(metrics["grad_norm/net"][step], np.mean(norms[:2]), rtol=1e-4)
        np.testing.assert_allclose(metrics["grad_norm/net/by 10"][step], norms[2], rtol=1e-4)
        decay = min(0.3, (1 + step) / (10 + step))
        average += (1 - decay) * (w - average)
        average_count += (1 - decay) * (count - average_count)
    np.testing.assert_allclose(after.params["net"]["w"], w, rtol=1e-5)
    np.testing.assert_allclose(after.ema["net"]["params"]["w"], average, rtol=1e-5)
    np.testing.assert_allclose(after.ema["net"]["count"], average_count, rtol=1e-5)
    assert after.model_state["net"]["count"] == 60.0 and after.step == 5
    averaged = after.averaged()
    assert averaged.params["net"]["w"] == after.ema["net"]["params"]["w"]
    assert averaged.model_state["net"]["count"] == after.ema["net"]["count"]
    assert after.variables().params["net"]["w"] == after.params["net"]["w"]
    assert after.variables().model_state["net"]["count"] == 60.0


def test_noise_follows_from_seed_step_phase_and_repeat():
    """As the docstring of `make_train_step` says: folded in one after the other. A loss is told the step, too."""

    def noisy(net):
        def loss(variables, batch, context):
            metrics = {f"noise_{net}": jax.random.normal(context.key), f"step_{net}": context.step.astype(jnp.float32)}
            return 0.0 * variables.params[net]["w"], Result(metrics)

        return loss

    toy_nets = ("critic", "generator")
    _, optimizers, decays, state = toy()
    phases = [Phase(net, (net,), noisy(net), repeats=n) for net, n in (("critic", 2), ("generator", 1))]
    call = make_train_call(make_train_step(phases, optimizers, decays, seed=5))
    index = np.zeros((3, 2, 4), np.int32)
    _, metrics = map_over(1, call)(state, {"image": np.zeros(4, np.float32)}, index)
    fold = jax.random.fold_in
    names = {
        name: int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little") for name in toy_nets
    }
    assert {name: int(stable_hash(name)) for name in toy_nets} == names
    for step in range(3):
        of_step = fold(jax.random.key(5), step)
        critic, generator = (fold(of_step, np.uint32(names[name])) for name in toy_nets)
        critic = [jax.random.normal(fold(critic, repeat)) for repeat in (0, 1)]
        np.testing.assert_allclose(metrics["noise_critic"][step], np.mean(critic), rtol=1e-5)
        np.testing.assert_allclose(metrics["noise_generator"][step], jax.random.normal(fold(generator, 0)), rtol=1e-5)
        assert metrics["step_critic"][step] == metrics["step_generator"][step] == step


def test_places_in_the_global_batch():
    def places(variables, batch, context):
        hit = batch["position"][:, None] == jnp.arange(8)
        metrics = {"image_at": jnp.sum(hit * batch["image"][:, None], 0)}
        return 0.0 * variables.params["critic"]["w"], Result(metrics)

    _, optimizers, decays, state = toy()
    call = make_train_call(make_train_step([Phase("critic", ("critic",), places)], optimizers, decays, seed=0))
    index = np.array([[[5, 3, 1, 7, 2, 0, 6, 4]]], np.int32)
    for devices in (1, 2):
        _, metrics = map_over(devices, call)(state, {"image": np.arange(8, dtype=np.float32)}, index)
        np.testing.assert_allclose(metrics["image_at"][0] * devices, index[0, 0])


def critic_loss(loss, params, batch, key, critic):
    return loss(Variables({**params, "critic": critic}, {}, {}), batch, Context(key, jnp.int32(0)))[0]


def test_repeats_equal_a_loop_over_fresh_batches():
    phases, optimizers, decays, state = toy(repeats=3)
    after, _ = run_toy(phases[:1], optimizers, decays, state, steps=1, repeats=3)
    data, key = (
        np.linspace(0, 1, 64, dtype=np.float32),
        jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), stable_hash("critic")),
    )
    params, opt_state = state.params, state.opt_state["critic"]
    for i in range(3):
        batch = {"image": data[4 * i : 4 * i + 4], "position": jnp.arange(4)}
        loss = functools.partial(critic_loss, phases[0].loss, params, batch, jax.random.fold_in(key, i))
        updates, opt_state = optimizers["critic"].update(jax.grad(loss)(params["critic"]), opt_state)
        params = {**params, "critic": optax.apply_updates(params["critic"], updates)}
    np.testing.assert_allclose(after.params["critic"]["w"], params["critic"]["w"], rtol=1e-6)


def test_batches_are_a_function_of_seed_and_step():
    stream = np.concatenate([next_examples(10, 7, "images", 4 * s, 4) for s in range(10)])
    for epoch in range(4):  # nothing dropped, nothing twice, across epoch borders
        assert sorted(stream[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert list(stream[:10]) != list(stream[10:20])
    np.testing.assert_array_equal(next_examples(10, 7, "images", 24, 4), stream[24:28])
    assert len(next_examples(3, 0, "images", 8, 8)) == 8  # a batch larger than the data set
    assert list(epoch_order(10, 7, "images", 0)) != list(epoch_order(10, 8, "images", 0))


def test_streamed_batches_equal_resident_ones():
    data = {"image": np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)}
    common = dict(stages=[Stage(0, [], 4)], seed=1, calls=range(3, 6), steps_per_call=2)
    examples = np.array([3, 5, 6, 7, 9, 11, 13, 17], np.int32)
    one, two = ({"images": Stream(data, examples, resident)} for resident in (False, True))
    streamed, resident = ([call["images"] for call in batches(source, **common)] for source in (one, two))
    assert len(streamed) == 3 and streamed[0]["index"].shape == (2, 1, 4)
    assert set(resident[0]) == {"index"}
    for with_images, numbers in zip(streamed, resident, strict=True):
        np.testing.assert_array_equal(with_images["image"], data["image"][numbers["index"]])
    assert set(np.concatenate([call["index"] for call in resident]).ravel()) == set(examples)
    halves = [next(batches(two, process=(p, 2), **common))["images"]["index"] for p in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(halves, -1), resident[0]["index"])
