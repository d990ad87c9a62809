"""The diffusion task with a toy network: loss, bound, guidance, samples and figures against NumPy."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from gm_jax import images, random
from gm_jax.errors import UserError
from gm_jax.losses import diffusion as losses
from gm_jax.samplers.diffusion import Answer
from gm_jax.samplers.likelihood import bits_by_flow
from gm_jax.samplers.processes import Chain, Level
from gm_jax.samplers.schedules import linear
from gm_jax.state import Variables
from gm_jax.tasks import DataSpec, diffusion_figures, make_task
from gm_jax.tasks import task as task_module
from gm_jax.tasks.diffusion_settings import make_plan, make_process
from gm_jax.tasks.task import take
from tests.tiny import shrunk
from tests.toys import (
    NAMES,
    PIXELS,
    SHAPE,
    at_step,
    batch_of,
    check_phases,
    close,
    compare,
    record,
    run,
    same_pictures,
    toy_task,
    trained,
    weights,
)

KEY = jax.random.key(7)
T = 20


class ToyDenoiser(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, t, keys=None, label=None):
        size = self.param("size", nn.initializers.zeros, (2,))
        moved = (
            self.param("shift", nn.initializers.zeros, (self.classes + 1,))[label]
            if self.classes
            else jnp.zeros(len(x))
        )
        moved = moved + size[1] * t / T + (0.0 if keys is None else random.uniform(keys))
        return size[0] * jnp.tanh(x) + moved[:, None, None, None]


def output(params, x, t, label, dropped=0.0):
    """What the toy network says of x [B, PIXELS]."""
    moved = (params["shift"][label] if "shift" in params else 0.0) + params["size"][1] * t / T + dropped
    return params["size"][0] * np.tanh(x) + np.broadcast_to(moved, len(x))[:, None]


def make(prediction="noise", objective="noise", names=NAMES, timesteps=T, **changes):
    """A task with a toy network, and its parameters."""
    beta_end = {"linear": 0.5, "exploding": 4.0}.get(changes.get("diffusion__schedule"))  # few steps that end in noise
    changes = {"sampling__sampler": "ddim", "sampling__spacing": "time", **changes}
    changes = {"diffusion__beta_end": beta_end, "diffusion__prediction": prediction, **changes}
    changes["diffusion__objective"] = objective
    task = toy_task("ddpm_mnist", names, diffusion__timesteps=timesteps, **changes)
    task.network = ToyDenoiser(len(names))
    params = {"size": weights(2), **({"shift": weights(len(names) + 1, seed=1)} if names else {})}
    return task, Variables({"denoiser": params}, {"denoiser": {}}, {})


def flat(batch):
    return np.float64(batch["image"]).reshape(-1, PIXELS) / 127.5 - 1


def column(values, t):
    return np.asarray(values, np.float64)[np.asarray(t, int)][:, None]


def predict(task, params, x0, t, epsilon, label, dropped=0.0):
    """The loss per example and the prediction of x_0."""
    signal, noise = column(task.process.schedule.signal, t), column(task.process.schedule.noise, t)
    x_t = signal * x0 + noise * epsilon
    out = output(params, x_t, t, label, dropped)
    weight = {"image": 1.0, "noise": (signal / noise) ** 2, "velocity": ((signal**2 + noise**2) / noise) ** 2}
    x0_hat, target = {
        "image": (out, x0),
        "noise": ((x_t - noise * out) / signal, epsilon),
        "velocity": ((signal * x_t - noise * out) / (signal**2 + noise**2), signal * epsilon - noise * x0),
    }[task.prediction]
    error = (target - out) ** 2 * weight[task.objective] / weight[task.prediction]
    return error.mean(1), x0_hat


@pytest.mark.parametrize(
    ("prediction", "objective", "schedule", "names"),
    [
        ("noise", "noise", "linear", ()),  # equation (4)
        ("velocity", "image", "exploding", NAMES),
        ("image", "velocity", "cosine", NAMES),
    ],
)
def test_loss_is_the_error_of_the_objective_and_some_labels_are_hidden(prediction, objective, schedule, names):
    """Steps cover 1 ... T evenly; what is hidden is the class after the last."""
    task, variables = make(prediction, objective, names, diffusion__schedule=schedule, batch_size=64)
    batch = batch_of(64)

    def draw(batch, key):
        step_key, *others = jax.random.split(key, 4)
        noise, dropout, label = (random.example_keys(key, batch["position"]) for key in others)
        u = random.stratified(step_key, batch["position"], 64)
        return u, random.normal(noise, SHAPE).reshape(64, PIXELS), random.uniform(dropout), random.uniform(label)

    def loss(params, drawn):
        u, epsilon, dropped, chance = drawn
        label = np.where(chance < 0.1, 3, batch["label"])
        t = 1 + np.floor(u * T).astype(int)
        value = predict(task, params["denoiser"], flat(batch), t, epsilon, label, dropped)[0].mean()
        return value, {"loss": value}, {}

    u, *_, chance = check_phases(task.phases(), variables, batch, at_step(KEY), draw, loss)
    assert 1 <= np.sum(chance < 0.1) <= 14 and set(np.floor(u * T)) == set(range(T))


def test_validation_spreads_the_steps_by_the_golden_ratio():
    task, variables = make("velocity", "noise")
    batch = batch_of(8)

    def measure(variables, batch, keys):
        return task.validate(variables, batch, keys), random.normal(keys, SHAPE).reshape(8, PIXELS)

    values, epsilon = run(measure, variables, batch, random.example_keys(KEY, batch["position"]))
    t = 1 + np.floor(T * (np.float64(batch["position"]) * (np.sqrt(5) - 1) / 2 % 1)).astype(int)
    compare(values, {"loss": predict(task, variables.params["denoiser"], flat(batch), t, epsilon, batch["label"])[0]})


def bits_of_pixels(x, mean, scale):
    """-log2 of the mass of a Gaussian in the bin of each 8-bit value."""
    lower = np.where(x < -0.999, -np.inf, (x - 1 / 255 - mean) / scale)
    upper = np.where(x > 0.999, np.inf, (x + 1 / 255 - mean) / scale)
    flip = lower > 0  # digits are kept in the left tail alone
    lower, upper = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
    return -np.log2(norm.cdf(upper) - norm.cdf(lower))


def test_evaluation_is_the_bound_with_a_level_for_each_bin():
    """A bin of n steps counts n times; L_0 and L_T stand beside them; predictions are clipped as the sampler does."""
    task, variables = make(diffusion__schedule="linear")
    batch, params = batch_of(6), variables.params["denoiser"]

    def measure(variables, batch, keys):
        def of_bin(number):
            own = random.fold_in(keys, number)
            return random.uniform(random.fold_in(own, 0)), random.normal(random.fold_in(own, 1), (PIXELS,))

        first = random.normal(random.fold_in(keys, 10), (PIXELS,))
        return task.evaluate(variables, batch, keys), first, jax.vmap(of_bin)(jnp.arange(10))

    keys = random.example_keys(KEY, batch["position"])
    values, first, (u, epsilon) = run(measure, variables, batch, keys)
    x0, label = flat(batch), batch["label"]
    _, signal, noise = task.process.schedule
    snr = (signal[1:] / noise[1:]) ** 2
    losses, chain = [], 0.0
    for i in range(10):  # two steps each
        t = 1 + 2 * i + np.floor(2 * u[i]).astype(int)
        error, x0_hat = predict(task, params, x0, t, epsilon[i], label)
        losses.append(error)
        squared = np.mean((x0 - np.clip(x0_hat, -1, 1)) ** 2, 1)
        gain = np.where(t == 1, 0.0, (snr[t - 2] - snr[t - 1]) / 2)
        chain = chain + 2 * gain * squared / np.log(2)
    one = np.ones(6, int)
    x0_hat = np.clip(predict(task, params, x0, one, first, label)[1], -1, 1)
    scale = np.sqrt((noise[2] ** 2 - (signal[2] / signal[1] * noise[1]) ** 2) * noise[1] ** 2 / noise[2] ** 2)
    variance = noise[-1] ** 2
    parts = {
        "bits_prior": ((signal[-1] * x0) ** 2 + variance - 1 - np.log(variance)).mean(1) / 2 / np.log(2),
        "bits_chain": chain,
        "bits_decoder": bits_of_pixels(x0, x0_hat, scale).mean(1),
    }
    by_step = np.stack(losses, 1)
    expected = {
        "loss": by_step.mean(1),
        "loss_by_timestep": by_step,
        "bits_per_dimension": sum(parts.values()),
        **parts,
    }
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), values, expected)


@pytest.mark.parametrize("changes", [{"objective": "image"}, {"objective": "min_snr"}, {"diffusion__schedule": "flow"}])
def test_a_model_that_its_objective_does_not_bound_has_no_bits(changes):
    task, variables = make(**changes)
    batch = batch_of(4)
    keys = random.example_keys(KEY, batch["position"])
    assert set(jax.eval_shape(task.evaluate, variables, batch, keys)) == {"loss", "loss_by_timestep"}


def denoised(task, params, x_t, t, label):
    """x_0 in NumPy, with guidance where there are labels."""

    def x0(label):
        signal, noise = column(task.process.schedule.signal, t), column(task.process.schedule.noise, t)
        return (x_t - noise * output(params, x_t, t, label)) / signal

    if "shift" not in params:
        return x0(None)
    free = x0(np.full(len(x_t), 3))
    return free + task.config.sampling.guidance * (x0(label) - free)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_runs_from_unconditional_over_conditional_onwards(guidance):
    task, variables = make(sampling__guidance=guidance)
    x_t, t, label = weights(3, PIXELS), np.array([1, 9, 20]), np.arange(3)
    for number in t:
        level = jax.tree.map(jnp.float32, task.process.at_step(number))
        found = jax.jit(task.denoise)(variables.params, label, x_t.reshape(3, *SHAPE), level)
        expected = denoised(task, variables.params["denoiser"], x_t, np.full(3, number), label)
        close(found.x0.reshape(3, PIXELS), expected)


class TwoHeads(nn.Module):
    """Says the noise and, with two outputs, something of the variance."""

    outputs: int = 2

    @nn.compact
    def __call__(self, x, t, keys=None, label=None):
        size = self.param("size", nn.initializers.zeros, (2,))
        return jnp.concatenate([size[0] * jnp.tanh(x), size[1] * x][: self.outputs], axis=-1)


def test_the_bound_trains_a_learned_variance_and_nothing_else():
    """The whole loss is that of the prediction and 1/1000 of the chain's bits (Nichol & Dhariwal 2021, eq. 16)."""
    task, _ = make(names=(), diffusion__variance="learned", diffusion__schedule="linear", batch_size=8)
    plain, _ = make(names=(), diffusion__schedule="linear", batch_size=8)
    task.network, plain.network = TwoHeads(), TwoHeads(1)
    batch, context = batch_of(8), at_step(KEY)

    def loss(task, size):
        return task.loss(Variables({"denoiser": {"size": size}}, {}, {}), batch, context)

    size = jnp.array([0.7, 0.3])
    (value, result), gradient = jax.jit(jax.value_and_grad(functools.partial(loss, task), has_aux=True))(size)
    simple, first = jax.value_and_grad(lambda size: loss(plain, size)[0])(jnp.array([0.7, 0.0]))
    close(result.metrics["loss"], simple)
    close(value, simple + 0.001 * result.metrics["bits_chain"])
    close(gradient[0], first[0])  # none of the bound's
    assert gradient[1] != 0
    keys = random.example_keys(KEY, batch["position"])
    parameters = Variables({"denoiser": {"size": size}}, {}, {})
    assert run(task.evaluate, parameters, batch, keys)["bits_chain"].shape == (8,)
    ancestral, _ = make(names=(), diffusion__variance="learned", diffusion__schedule="linear", sampling__eta=1.0)
    ancestral.network = TwoHeads()
    made = [
        run(ancestral.generate, Variables({"denoiser": {"size": size * sign}}, {}, {}), batch, keys)["images"]
        for sign in (jnp.array([1, 1]), jnp.array([1, -1]))
    ]
    assert np.any(made[0] != made[1])  # the samples' noise has the learned variance


def test_outside_of_its_interval_guidance_asks_the_conditional_model_alone():
    interval = {"sampling__guidance": 2.5, "sampling__guidance_interval": (0.5, 2.0)}
    (task, variables), (plain, _) = make(**interval), make(sampling__guidance=1.0)
    (full, _), x, label = make(sampling__guidance=2.5), weights(3, *SHAPE), np.arange(3)
    for ratio, same in ((0.5, plain), (0.51, full), (2.0, full), (2.01, plain)):
        level = Level(*(jnp.float32(column) for column in (0.5, 0.5 * ratio, 7.0)))
        found = jax.jit(task.denoise)(variables.params, label, x, level)
        close(found.x0, jax.jit(same.denoise)(variables.params, label, x, level).x0)
    assert task.describe_samples()[-1] == "guidance 2.5 at noise 0.5 to 2 of the signal"


def reverse(task, params, seed, label, eta):
    """All states of the chain in NumPy, and x_0 at each but the last (Song et al. 2021, eq. (12))."""
    keys = random.example_keys(jax.random.key(seed), jnp.arange(len(label)))
    _, signal, noise = task.process.schedule
    steps = np.round(np.linspace(T, 0, task.sampling_steps + 1)).astype(int)
    x = np.asarray(random.normal(random.fold_in(random.fold_in(keys, 0), 0), (PIXELS,)), np.float64)
    x = x * np.sqrt(signal[-1] ** 2 + noise[-1] ** 2)
    states = [x / np.hypot(signal[-1], noise[-1])]
    for number, (t, s) in enumerate(itertools.pairwise(steps)):
        x0 = np.clip(denoised(task, params, x, np.full(len(x), t), label), -1, 1)
        epsilon = (x - signal[t] * x0) / noise[t]
        c = eta * noise[s] / noise[t] * np.sqrt(noise[t] ** 2 - (signal[t] / signal[s] * noise[s]) ** 2)
        z = np.asarray(random.normal(random.fold_in(random.fold_in(keys, 1), number), (PIXELS,)))
        x = signal[s] * x0 + np.sqrt(noise[s] ** 2 - c**2) * epsilon + c * z
        states.append(x / np.hypot(signal[s], noise[s]))  # as figures show it
    return np.stack(states, 1)


def to_pictures(x):
    return np.round((np.clip(x, -1, 1) + 1) * 127.5).reshape(*x.shape[:-1], *SHAPE)


def test_samples_and_figures_are_the_reverse_process(tmp_path, monkeypatch):
    """DDIM in five steps with labels in turn and guidance; all six states are in the figure of the chain."""
    task, variables = make(diffusion__schedule="exploding", sampling__guidance=1.5, sampling__seed=3)
    params, data = variables.params["denoiser"], batch_of(9)
    state, turns = trained(variables, tmp_path, data), np.arange(8) % 3
    expected = to_pictures(reverse(task, params, 3, turns, eta=0.0))
    drawn = task.sample(state.variables, 8, 3)
    assert drawn.keys() == {"images", "labels"} and expected.std() > 10
    same_pictures(drawn["images"], expected[:, -1])
    np.testing.assert_array_equal(drawn["labels"], turns)
    with_chain = task.sample(state.variables, 8, 3, functools.partial(diffusion_figures.generate_chain, task))
    same_pictures(with_chain["chain"], expected)
    np.testing.assert_array_equal(with_chain["chain"][:, -1], with_chain["images"])
    np.testing.assert_array_equal(with_chain["labels"], turns)

    seen = record(monkeypatch, diffusion_figures, "save_strips", "save_curves", "save_sprite", "save_film")
    grids = record(monkeypatch, task_module, "save_grid")
    for figure in task.figures().values():
        figure(state)
    np.testing.assert_array_equal(grids["samples.png"][0], drawn["images"][:4])
    assert grids["samples.png"][1] == 8 and seen["loss.png"][:2] == (state.workdir.metrics, ["loss"])
    same_pictures(seen["reverse_chain.png"][0], expected)
    gif = [np.asarray(frame) for frame in seen["reverse_chain.gif"][0]]  # of 26 pixels, times 10
    assert len(gif) == 6 and gif[0].shape == (260, 260, 3)
    same_pictures(gif[3][20:60:10, 20:60:10, :1], expected[0, 3])
    film, columns, _, about = seen["reverse_film.png"]
    same_pictures(film[:, 2:6, 2:6, :1], expected[0])  # the first sample's place on the sheet of 64
    assert (columns, len(film), about["noise"][-1]) == (1, 6, 0.0) and about["noise"] == sorted(about["noise"])[::-1]
    x0, steps = flat(take(data, 8)), np.round(np.linspace(T, 0, 11)).astype(int)[::-1]
    epsilon = np.asarray(random.normal(random.example_keys(jax.random.key(3), jnp.arange(8)), (PIXELS,)))
    signal, noise = column(task.process.schedule.signal, steps), column(task.process.schedule.noise, steps)
    forward = (signal * x0[:, None] + noise * epsilon[:, None]) / np.hypot(signal, noise)
    same_pictures(np.asarray(seen["forward_chain.png"][0]), to_pictures(forward))


def test_the_figure_of_the_bound_has_its_terms(tmp_path, monkeypatch):
    task, variables = make(diffusion__schedule="linear")
    state, found = trained(variables, tmp_path, batch_of(9)), []
    monkeypatch.setattr(diffusion_figures, "save_figure", lambda path, figure, caption: found.append(figure))
    task.figures()["bound"](state)
    steps, bits = found[0].axes[0].lines[0].get_xydata().T
    np.testing.assert_array_equal(steps, [*range(1, 10), 11, 12, 15, 17, 20])  # even in logarithms
    keys = random.example_keys(jax.random.key(0), jnp.arange(9))
    for t, value in zip(steps, bits, strict=True):
        epsilon = np.asarray(random.normal(random.fold_in(keys, int(t)), (PIXELS,)))
        x0, whole = flat(batch_of(9)), np.full(9, int(t))
        seen = predict(task, variables.params["denoiser"], x0, whole, epsilon, batch_of(9)["label"])[1]
        terms = losses.term_bits(task.process.schedule, jnp.float32(x0), jnp.float32(np.clip(seen, -1, 1)), whole)
        assert value == pytest.approx(float(np.mean(terms)), rel=1e-3)
    assert "bound" not in make(objective="image")[0].figures()


@pytest.mark.parametrize(
    ("names", "eta", "label", "changes"),
    [
        (NAMES, 0.6, 2, {"sampling__eta": 0.6, "sampling__label": 2, "sampling__guidance": 1.0}),
        ((), 1.0, 0, {"sampling__sampler": "ancestral", "sampling__eta": 0.3}),
    ],
)
def test_samples_with_noise_in_every_step(names, eta, label, changes):
    task, variables = make(names=names, diffusion__schedule="linear", **changes)
    label = np.full(3, label)
    drawn = task.sample(variables, 3, 5)
    same_pictures(drawn["images"], to_pictures(reverse(task, variables.params["denoiser"], 5, label, eta)[:, -1]))
    assert ("labels" in drawn) == bool(names) and (not names or np.array_equal(drawn["labels"], label))


@pytest.mark.parametrize(
    ("changes", "steps", "evaluations", "noisy"),
    [
        ({}, 20, 20, False),  # of 50, there are 20
        ({"timesteps": 200}, 50, 50, False),
        ({"timesteps": 200, "sampling__sampler": "ancestral", "sampling__eta": 0.0}, 200, 200, True),
        ({"sampling__eta": 1.0, "sampling__steps": 7}, 7, 7, True),
        ({"sampling__sampler": "dpm_solver", "sampling__steps": 7}, 7, 7, False),
        ({"sampling__sampler": "heun", "sampling__steps": 7}, 7, 13, False),
        ({"sampling__sampler": "heun", "sampling__steps": 7, "sampling__churn": 1.0}, 7, 13, True),
        ({"diffusion__schedule": "flow"}, 50, 50, False),
    ],
)
def test_plans_of_the_samplers(changes, steps, evaluations, noisy):
    task, _ = make(**{"sampling__steps": None, **changes})
    assert task.sampling_steps == steps and len(task.plan.base) == evaluations
    assert (task.plan.noise.max() > 0) == noisy


def test_spacing_of_the_plan():
    even, _ = make(sampling__steps=5)
    np.testing.assert_array_equal(even.plan.level.time, [20, 16, 12, 8, 4])
    karras, _ = make(sampling__steps=5, sampling__spacing="karras", sampling__rho=3.0)
    ratio = karras.plan.level.noise / karras.plan.level.signal
    low, high = karras.process.ratios
    np.testing.assert_allclose(ratio ** (1 / 3), np.linspace(high ** (1 / 3), low ** (1 / 3), 5))


@pytest.mark.parametrize(("schedule", "ratio"), [("edm", 0.301), ("flow", 1.0)])
def test_processes_without_steps_are_found_by_name(schedule, ratio):
    level = make_process(shrunk("ddpm_mnist", diffusion__schedule=schedule).diffusion).draw(jnp.float32(0.5))
    assert float(level.noise / level.signal) == pytest.approx(ratio, rel=1e-2)


@pytest.mark.parametrize(
    ("changes", "names", "message"),
    [
        ({"sampling__label": 3}, (), r"sampling.label=3 is not one of the 0 classes"),
        ({"sampling__label": 3}, NAMES, r"sampling.label=3 is not one of the 3 classes"),
        ({"sampling__label": -1}, NAMES, r"sampling.label=-1 is not one of the 3 classes"),
        ({"sampling__sampler": "dimm"}, NAMES, r"is not one of ddim, .* \(did you mean 'ddim'\?\)"),
        ({"sampling__eta": 1.1}, NAMES, r"sampling.eta=1.1 is not in \[0, 1\]"),
        ({"sampling__eta": -0.1}, NAMES, r"sampling.eta=-0.1 is not in \[0, 1\]"),
        ({"sampling__steps": 21, "sampling__spacing": "time"}, NAMES, r"between 1 and 20 steps, not 21"),
        (
            {"diffusion__objective": "nois"},
            NAMES,
            r"diffusion.objective='nois' is not one of noise, .* \(did you mean 'noise'\?\)",
        ),
        (
            {"diffusion__prediction": "imag"},
            NAMES,
            r"diffusion.prediction='imag' is not one of noise, .* \(did you mean 'image'\?\)",
        ),
        ({"model__width": 0}, NAMES, r"model.width=0"),
        ({"diffusion__variance": "learned", "diffusion__schedule": "flow"}, NAMES, "variance=learned is for chains"),
        ({"sampling__guidance_interval": (5.0,)}, NAMES, r"guidance_interval=\(5.0,\) is not a low and a high ratio"),
        ({"sampling__guidance_interval": (5.0, 0.3)}, NAMES, r"is not a low and a high ratio, such as 0.3,5.0"),
    ],
)
def test_a_config_that_does_not_fit_is_told(changes, names, message):
    with pytest.raises(UserError, match=message):
        make_task(shrunk("ddpm_mnist", **changes), DataSpec(SHAPE, names))


def test_the_network_knows_each_class_and_none_and_data_without_labels_have_no_classes():
    assert make(names=())[0].classes == make(diffusion__conditional=False)[0].classes == 0
    task = toy_task("ddpm_mnist", sampling__label=0)
    params = jax.eval_shape(task.init, KEY)["denoiser"]["params"]
    assert task.classes == 3 and params["label"]["embedding"].shape[0] == 4


@pytest.mark.parametrize(("objective", "there"), [("noise", True), ("image", False)])
def test_likelihoods_by_the_flow_are_of_models_that_learn_little_noise(objective, there):
    """The conditional model's, whatever the guidance of samples."""
    task, variables = make("image", objective, evaluation__ode_steps=7, sampling__guidance=3.0)
    batch = batch_of(4)
    keys = random.example_keys(KEY, batch["position"])
    values = jax.jit(task.evaluate)(variables, batch, keys)
    assert ("bits_by_flow" in values) == there
    if there:
        x0, own = images.to_model(batch["image"]), random.fold_in(keys, 11)
        see = functools.partial(task.see, variables.params, batch["label"])
        close(values["bits_by_flow"], jax.jit(lambda x: bits_by_flow(see, task.process, x, own, 7))(x0))


ATTRIBUTES = {"size": ("small", "large"), "shape": ("circle", "square", "triangle")}


def attribute_task(**changes):
    changes = {"diffusion__attributes": ("size", "shape"), **changes}
    return make_task(shrunk("ddpm_mnist", **changes), DataSpec(SHAPE, NAMES, ATTRIBUTES))


def test_combinations_of_attributes_are_classes_that_words_ask_for():
    task = attribute_task(sampling__words="square small")
    assert task.classes == 6 and task.class_names[1] == "small square" and task.asked() == 1
    batch = {"size": np.array([0, 1, 1]), "shape": np.array([2, 0, 1]), "label": np.array([9, 9, 9])}
    np.testing.assert_array_equal(task.classes_of(batch), [2, 3, 4])
    assert attribute_task().asked() is None and attribute_task(sampling__label=5).asked() == 5
    assert attribute_task(diffusion__conditional=False).classes == 0
    with pytest.raises(UserError, match=r"sampling.words='blue' are those of no class; there are: small circle, "):
        attribute_task(sampling__words="blue")
    with pytest.raises(UserError, match=r"the data have no 'sise' \(did you mean 'size'\?\): size, shape"):
        attribute_task(diffusion__attributes=("sise",))


def test_the_loss_and_the_samples_see_the_combinations():
    task = attribute_task(sampling__words="large circle", diffusion__label_dropout=0.0)
    seen = []
    answer = lambda x0: (jnp.zeros(len(x0)), Answer(x0))  # noqa: E731
    task.predict = lambda params, x0, level, noise, label, dropout=None: seen.append(label) or answer(x0)
    batch = batch_of(4) | {"size": np.array([0, 1, 1, 0]), "shape": np.array([2, 0, 1, 1])}
    with jax.disable_jit():
        task.loss(Variables({}, {}, {}), batch, at_step(KEY))
        task.validate(Variables({}, {}, {}), batch, random.example_keys(KEY, batch["position"]))
    np.testing.assert_array_equal(seen, [[2, 3, 4, 1]] * 2)
    task.generate = lambda variables, batch, keys: {"images": batch["label"]}
    np.testing.assert_array_equal(task.sample(Variables({}, {}, {}), 5, 0)["images"], [3] * 5)


def test_a_plan_of_less_strength_begins_with_less_noise():
    """And as one that begins there: the last steps of a chain that remembers answers do not remember the first's."""
    process = Chain(linear(1000))
    sampling = shrunk("ddpm_shapes", sampling__sampler="dpm_solver", sampling__steps=20).sampling
    whole, part = make_plan(process, sampling), make_plan(process, sampling, 0.5)
    share = part.level.noise / (part.level.noise + part.level.signal)
    assert share[0] <= 0.5 < (whole.level.noise / (whole.level.noise + whole.level.signal))[-len(share) - 1]
    np.testing.assert_array_equal(part.level.time, whole.level.time[-len(share) :])
    assert part.previous[0] == 0.0 and whole.previous[-len(share)] != 0.0
    assert len(make_plan(process, sampling, 1e-6).base) == 1


@pytest.fixture
def pictures(tmp_path):
    """A folder of two images, and a mask that is white on the left."""
    (tmp_path / "in").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4), dtype=np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "in" / f"{i}.png")
    Image.fromarray(np.repeat(np.uint8([[255, 128, 127, 0]]), 4, 0)).save(tmp_path / "mask.png")
    return tmp_path, images


def test_inpainting_leaves_known_pixels_untouched_bit_for_bit(pictures):
    path, given = pictures
    files = {"inpaint__input": str(path / "in"), "inpaint__mask": str(path / "mask.png")}
    task, variables = make("image", "image", inpaint__n=3, **files)
    task.denoise = lambda params, label, x, level: Answer(0.5 * jnp.tanh(x))
    assert task.modes()["inpaint"](trained(variables, path)) == 0
    made = np.load(path / "inpainted" / "images.npz")["images"]
    assert made.shape == (2, 3, 4, 4, 1) and (path / "inpainted" / "sheet.png").exists()
    np.testing.assert_array_equal(made[..., 2:, 0], np.repeat(given[:, None, :, 2:], 3, 1))
    hole = made[..., :2, 0].reshape(6, -1)
    assert len(np.unique(hole, axis=0)) == 6 and (hole != np.repeat(given[:, :, :2].reshape(2, -1), 3, 0)).mean() > 0.5


def test_variations_of_more_strength_are_farther_from_the_image(pictures):
    path, given = pictures
    moved = []
    for strength in (0.1, 0.5, 0.9):
        task, variables = make(
            "image", "image", vary__input=str(path / "in"), vary__strength=strength, sampling__steps=20
        )
        task.denoise = lambda params, label, x, level: Answer(jnp.clip(x / level.signal, -1, 1) * 0.9)
        assert task.modes()["vary"](trained(variables, path)) == 0
        made = np.load(path / "varied" / "images.npz")["images"]
        assert made.shape == (2, 7, 4, 4, 1)
        moved.append(np.abs(np.float64(made[..., 0]) - given[:, None]).mean())
    assert 0 < moved[0] < moved[1] < moved[2]


@pytest.mark.parametrize(
    ("mode", "changes", "message"),
    [
        ("inpaint", {}, "this mode needs --config.inpaint.input="),
        ("vary", {}, "this mode needs --config.vary.input="),
        ("vary", {"vary__input": "nowhere"}, "nowhere is no image, nor a folder"),
    ],
)
def test_editing_without_images_is_told(mode, changes, message, tmp_path):
    task, variables = make(**changes)
    with pytest.raises(UserError, match=message):
        task.modes()[mode](trained(variables, tmp_path))


def test_the_bound_says_what_it_is_measured_in():
    assert "per 8-bit pixel and channel, an upper bound" in toy_task("ddpm_mnist").units["bits_per_dimension"]
