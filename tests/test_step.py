"""The train step: devices, scans and phases change nothing that they should not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import random
from gm_jax.data.pipeline import arrays, batch_indices, batches, epoch_order
from gm_jax.optim import learning_rate
from gm_jax.state import create
from gm_jax.step import AXIS, Phase, batches_per_step, make_train_call, make_train_step, updates_per_step
from tests.tiny import open_tiny, shrunk


def map_over(devices, call):
    devices = jax.devices()[:devices]
    mapped = jax.pmap(call, axis_name=AXIS, in_axes=(None, None, 2), out_axes=(None, None), devices=devices)

    def run(state, resident, index):
        split = index.reshape(*index.shape[:2], len(devices), -1)
        return jax.device_get(mapped(state, resident, {"index": split}))

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
        def loss(params, model_state, batch, key):
            noise = random.normal(random.example_keys(key, batch["position"]))
            value = jnp.mean((params[net]["w"] - params[other]["w"] - batch["image"] - noise) ** 2)
            return value, ({f"{net}_loss": value}, model_state)

        return loss

    critic = Phase("critic", pull("critic", "generator"), every, repeats)
    phases = [critic, Phase("generator", pull("generator", "critic"))]
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
    for phases, seen in ((toy()[0], own), ([toy()[0][0], toy()[0][1]._replace(noise_of=0)], shared)):
        _, optimizers, decays, state = toy()
        step = make_train_step([phase._replace(loss=noise_alone(phase.net)) for phase in phases], optimizers, decays, 0)
        index = np.arange(4, dtype=np.int32).reshape(1, 1, 4)
        _, metrics = map_over(1, make_train_call(step))(state, {"image": np.zeros(64, np.float32)}, index)
        seen.extend(metrics[net][0] for net in ("critic", "generator"))
    assert shared[0] == shared[1] == own[0] != own[1]


def noise_alone(net):
    def loss(params, model_state, batch, key):
        noise = jnp.mean(random.normal(random.example_keys(key, batch["position"])))
        return params[net]["w"] * noise, ({net: noise}, model_state)

    return loss


def test_lazy_phase_runs_at_multiples_only_and_its_mean_is_honest():
    phases, optimizers, decays, state = toy(every=3)
    after, metrics = run_toy(phases, optimizers, decays, state, steps=6)
    assert after.opt_state["critic"][0].count == 2 and after.opt_state["generator"][0].count == 6
    assert np.all(metrics["grad_norm/generator"] != 0)
    due = metrics["critic_loss"] != 0
    np.testing.assert_array_equal(due, [True, False, False, True, False, False])
    assert metrics["critic_loss"][0] == pytest.approx(3 * run_toy(*toy(), steps=1)[1]["critic_loss"][0], rel=1e-6)


def test_two_phases_of_a_network_log_a_gradient_each():
    phases, optimizers, decays, state = toy()
    lazy = phases[0]._replace(every=3)
    _, metrics = run_toy([*phases, lazy], optimizers, decays, state, steps=4)
    assert np.all(metrics["grad_norm/critic"] != 0)
    np.testing.assert_array_equal(metrics["grad_norm/critic/2"] != 0, [True, False, False, True])
    assert updates_per_step([*phases, lazy]) == {"critic": 1 + 1 / 3, "generator": 1}
    assert updates_per_step([lazy._replace(repeats=6)]) == {"critic": 2}
    assert batches_per_step([phases[0]._replace(repeats=4), lazy]) == 4 and batches_per_step([]) == 1


def test_a_decay_ends_with_the_steps_however_many_updates_a_step_has():
    optim = shrunk("wgan_mnist:gp", optim__decay="linear", optim__decay_steps=10, optim__warmup_steps=0).optim
    once, often = learning_rate(optim), learning_rate(optim, updates_per_step=5.0)
    np.testing.assert_allclose([often(5 * step) for step in range(11)], [once(step) for step in range(11)], rtol=1e-6)
    assert float(often(49)) > 0 and float(often(50)) == 0


def counted(net, rate):
    """A phase whose loss is (w - mean of the images)^2, and which counts its updates in the model state."""

    def loss(params, model_state, batch, key):
        value = jnp.mean((params[net]["w"] - batch["image"]) ** 2)
        count = {**model_state, net: {"count": model_state[net]["count"] + rate}}
        return value, ({"loss": value, "seen": model_state[net]["count"]}, count)

    return Phase(net, loss)


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
                np.testing.assert_allclose(metrics["loss/1"][step], np.mean((w - batch) ** 2), rtol=1e-5)
                assert metrics["seen/1"][step] == count
            w -= 0.1 * 2 * (w - batch.mean())
            count += (1.0, 10.0)[phase]
        np.testing.assert_allclose(metrics["grad_norm/net"][step], np.mean(norms[:2]), rtol=1e-4)
        np.testing.assert_allclose(metrics["grad_norm/net/1"][step], norms[2], rtol=1e-4)
        decay = min(0.3, (1 + step) / (10 + step))
        average += (1 - decay) * (w - average)
        average_count += (1 - decay) * (count - average_count)
    np.testing.assert_allclose(after.params["net"]["w"], w, rtol=1e-5)
    np.testing.assert_allclose(after.ema["net"]["params"]["w"], average, rtol=1e-5)
    np.testing.assert_allclose(after.ema["net"]["count"], average_count, rtol=1e-5)
    assert after.model_state["net"]["count"] == 60.0 and after.step == 5
    averaged_params, averaged_state = after.averaged()
    assert averaged_params["net"]["w"] == after.ema["net"]["params"]["w"]
    assert averaged_state["net"]["count"] == after.ema["net"]["count"]


def test_noise_follows_from_seed_step_phase_and_repeat():
    """As the docstring of `make_train_step` says: folded in one after the other."""

    def noisy(net):
        def loss(params, model_state, batch, key):
            return 0.0 * params[net]["w"], ({f"noise_{net}": jax.random.normal(key)}, model_state)

        return loss

    _, optimizers, decays, state = toy()
    phases = [Phase("critic", noisy("critic"), repeats=2), Phase("generator", noisy("generator"))]
    call = make_train_call(make_train_step(phases, optimizers, decays, seed=5))
    index = np.zeros((3, 2, 4), np.int32)
    _, metrics = map_over(1, call)(state, {"image": np.zeros(4, np.float32)}, index)
    fold = jax.random.fold_in
    for step in range(3):
        of_step = fold(jax.random.key(5), step)
        critic = [jax.random.normal(fold(fold(of_step, 0), repeat)) for repeat in (0, 1)]
        np.testing.assert_allclose(metrics["noise_critic"][step], np.mean(critic), rtol=1e-5)
        np.testing.assert_allclose(
            metrics["noise_generator"][step], jax.random.normal(fold(fold(of_step, 1), 0)), rtol=1e-5
        )


def test_places_in_the_global_batch():
    def places(params, model_state, batch, key):
        hit = batch["position"][:, None] == jnp.arange(8)
        return 0.0 * params["critic"]["w"], ({"image_at": jnp.sum(hit * batch["image"][:, None], 0)}, model_state)

    _, optimizers, decays, state = toy()
    call = make_train_call(make_train_step([Phase("critic", places)], optimizers, decays, seed=0))
    index = np.array([[[5, 3, 1, 7, 2, 0, 6, 4]]], np.int32)
    for devices in (1, 2):
        _, metrics = map_over(devices, call)(state, {"image": np.arange(8, dtype=np.float32)}, index)
        np.testing.assert_allclose(metrics["image_at"][0] * devices, index[0, 0])


def critic_loss(loss, params, batch, key, critic):
    return loss({**params, "critic": critic}, {}, batch, key)[0]


def test_repeats_equal_a_loop_over_fresh_batches():
    phases, optimizers, decays, state = toy(repeats=3)
    after, _ = run_toy(phases[:1], optimizers, decays, state, steps=1, repeats=3)
    data, key = np.linspace(0, 1, 64, dtype=np.float32), jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0)
    params, opt_state = state.params, state.opt_state["critic"]
    for i in range(3):
        batch = {"image": data[4 * i : 4 * i + 4], "position": jnp.arange(4)}
        loss = functools.partial(critic_loss, phases[0].loss, params, batch, jax.random.fold_in(key, i))
        updates, opt_state = optimizers["critic"].update(jax.grad(loss)(params["critic"]), opt_state)
        params = {**params, "critic": optax.apply_updates(params["critic"], updates)}
    np.testing.assert_allclose(after.params["critic"]["w"], params["critic"]["w"], rtol=1e-6)


def test_batches_are_a_function_of_seed_and_step():
    stream = np.concatenate([batch_indices(10, 4, 7, s) for s in range(10)])
    for epoch in range(4):  # nothing dropped, nothing twice, across epoch borders
        assert sorted(stream[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert list(stream[:10]) != list(stream[10:20])
    np.testing.assert_array_equal(batch_indices(10, 4, 7, 6), stream[24:28])
    assert len(batch_indices(3, 8, 0, 1)) == 8  # a batch larger than the data set
    assert list(epoch_order(10, 7, 0)) != list(epoch_order(10, 8, 0))


def test_streamed_batches_equal_resident_ones():
    data = {"image": np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)}
    common = dict(batch_size=4, seed=1, calls=range(3, 6), steps_per_call=2, batches_per_step=1)
    examples = np.array([3, 5, 6, 7, 9, 11, 13, 17], np.int32)
    streamed = list(batches(data, examples, resident=False, **common))
    resident = list(batches(data, examples, resident=True, **common))
    assert len(streamed) == 3 and streamed[0]["index"].shape == (2, 1, 4)
    for one, two in zip(streamed, resident, strict=True):
        np.testing.assert_array_equal(one["image"], data["image"][two["index"]])
    assert set(np.concatenate([call["index"] for call in resident]).ravel()) == set(examples)
    halves = [next(batches(data, examples, resident=True, process=(p, 2), **common))["index"] for p in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(halves, -1), resident[0]["index"])
