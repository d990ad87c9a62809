"""Autoencoders: penalties against closed forms and finite differences, noise, what evaluation says."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.losses import sparsity
from gm_jax.metrics.latents import dead_units
from gm_jax.metrics.moments import Moments
from gm_jax.metrics.reconstruction import mean_squared_error, peak_signal_to_noise
from gm_jax.models.autoencoder import make_autoencoder
from gm_jax.state import Variables, create
from gm_jax.step import make_train_call, make_train_step
from gm_jax.tasks import DataSpec, autoencoder, make_task
from gm_jax.tasks.task import take
from tests.test_step import map_over
from tests.tiny import load, shrunk
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
RNG = np.random.default_rng(0)
DIGITS = DataSpec((28, 28, 1), tuple("0123456789"))


def test_kl_penalty_is_none_at_the_target_and_finite_where_a_unit_is_silent():
    assert float(sparsity.kl(np.full(3, 0.05), 0.05)) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(sparsity.kl(np.array([0.0, 1.0], np.float32), 0.05))


def test_errors_and_signal_to_noise():
    x, y = RNG.uniform(size=(2, 3, 4, 5, 1)).astype(np.float32)
    np.testing.assert_allclose(mean_squared_error(x, y), ((x - y) ** 2).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(peak_signal_to_noise(np.zeros((1, 4, 4, 1)), np.full((1, 4, 4, 1), 0.1)), 20, atol=1e-4)
    assert np.isfinite(peak_signal_to_noise(x, x)).all()


def test_dead_units_hardly_vary():
    activations = np.stack([np.zeros(9), np.linspace(0.3, 0.305, 9), np.linspace(0, 1, 9), np.eye(9)[3]], axis=1)
    assert dead_units(Moments.of(activations)) == 0.5


@pytest.mark.parametrize(
    ("experiment", "parameters"),
    [
        ("autoencoder_mnist", sum(a * b + b for a, b in ((784, 128), (128, 64), (64, 32)))
         + sum(a * b + b for a, b in ((32, 64), (64, 128), (128, 784)))),
        ("sparse_autoencoder_mnist", 784 * 1024 + 1024 + 1024 * 784 + 784),
    ],
)  # fmt: skip
def test_number_of_parameters(experiment, parameters):
    network = make_autoencoder(image_shape=(28, 28, 1), **load(experiment).model)
    tree = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    assert sum(x.size for x in jax.tree.leaves(tree)) == parameters


class ToyAutoencoder(nn.Module):
    units: int

    def setup(self):
        shapes = {"in": (PIXELS, self.units), "out": (self.units, PIXELS), "bias": (PIXELS,)}
        self.weights = {name: self.param(name, nn.initializers.zeros, shape) for name, shape in shapes.items()}

    def decode(self, code):
        return (code @ self.weights["out"] + self.weights["bias"]).reshape(-1, *SHAPE)

    def __call__(self, x):
        code = nn.sigmoid(x.reshape(len(x), -1) @ self.weights["in"])
        return nn.sigmoid(self.decode(code)), code


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reconstruct(params, x):
    code = sigmoid(x @ params["in"])
    return sigmoid(code @ params["out"] + params["bias"]), code


def make(units=5, **changes):
    """A task with a toy network, and its parameters."""
    names = {"latent_dim": units, "activation": "sigmoid"}
    task = toy_task("autoencoder_mnist", **{f"model__{name}": value for name, value in names.items()}, **changes)
    task.network = ToyAutoencoder(units)
    params = {"in": weights(PIXELS, units), "out": weights(units, PIXELS), "bias": weights(PIXELS)}
    return task, Variables({"autoencoder": params}, {"autoencoder": {"of": np.ones(1)}}, {})


def unit(batch):
    return np.float64(batch["image"]).reshape(-1, PIXELS) / 255


def draw(batch, key):
    return random.normal(random.example_keys(key, batch["position"]), SHAPE).reshape(-1, PIXELS)


OPTIONS = [  # noise, weight and penalty of the codes, settings
    (0.0, 0.0, None, {}),
    (0.3, 0.0, None, {}),
    (0.3, 0.7, lambda code: np.abs(code).sum(1).mean(), {"autoencoder__penalty": "l1"}),
    (
        0.0,
        0.2,
        lambda code: scipy.special.rel_entr([0.1, 0.9], np.stack([code.mean(0), 1 - code.mean(0)], -1)).sum(),
        {"autoencoder__penalty": "kl", "autoencoder__target_activity": 0.1},
    ),
]


@pytest.mark.parametrize(("noise", "weight", "penalty", "changes"), OPTIONS, ids=["plain", "noise", "l1", "kl"])
def test_loss_is_the_squared_error_and_the_penalty(noise, weight, penalty, changes):
    """Noise is on what the network sees alone, and clipped as a picture would be."""
    task, variables = make(autoencoder__noise=noise, autoencoder__penalty_weight=weight, **changes)
    batch = batch_of(8)

    def loss(params, drawn):
        clean = unit(batch)
        made, code = reconstruct(params["autoencoder"], np.clip(clean + noise * drawn, 0, 1))
        metrics = {"mean_squared_error": np.mean((clean - made) ** 2)}
        metrics["loss"] = PIXELS * metrics["mean_squared_error"]
        if penalty:
            metrics |= {"penalty": penalty(code), "mean_activity": np.abs(code).mean()}
            metrics["loss"] += weight * metrics["penalty"]
        return metrics["loss"], metrics, {}

    check_phases(task.phases(), variables, batch, at_step(KEY), draw, loss)


@pytest.mark.parametrize("option", [0, 1, 2], ids=["plain", "noise", "both"])
def test_validation_and_evaluation(option):
    """With noise, the signal-to-noise ratio before and after; with a penalty, how active the units are."""
    noise, weight, penalty, changes = OPTIONS[option]
    task, variables = make(autoencoder__noise=noise, autoencoder__penalty_weight=weight, **changes)
    batch = batch_of(6)

    def measure(variables, batch, key):
        keys = random.example_keys(key, batch["position"])
        return task.validate(variables, batch, keys), task.evaluate(variables, batch, keys), draw(batch, key)

    validated, evaluated, drawn = run(measure, variables, batch, KEY)
    clean = unit(batch)
    given = np.clip(clean + noise * drawn, 0, 1)
    made, code = reconstruct(variables.params["autoencoder"], given)
    errors = {name: np.mean((clean - x) ** 2, 1) for name, x in (("before", given), ("after", made))}
    expected = {"mean_squared_error": errors["after"]}
    if penalty:
        expected["mean_activity"] = np.abs(code).mean(1)
    compare(validated, expected)
    if noise:
        expected |= {f"peak_signal_to_noise_{when}": -10 * np.log10(error) for when, error in errors.items()}
    if penalty:
        expected["unit_activity"] = code
    compare(evaluated, expected)
    activity = np.stack([np.zeros(9), np.linspace(0, 1, 9)], axis=1)
    assert task.derive({"unit_activity": Moments.of(activity)}) == ({"dead_units": 0.5} if penalty else {})


def same_reconstructions(made, task, variables, data, noise):
    """What `autoencode` returns of the first images of the data."""
    given = np.clip(unit(data) + noise * np.asarray(draw(data, jax.random.key(0))), 0, 1)
    reconstruction, code = reconstruct(variables.params["autoencoder"], given)
    for name, x in (("given", given), ("made", reconstruction)):
        same_pictures(made[name], np.round(255 * x).reshape(-1, *SHAPE))
    np.testing.assert_array_equal(made["clean"], data["image"])
    return code


def test_figures_show_held_out_images_as_given_made_and_clean(tmp_path, monkeypatch):
    task, variables = make(autoencoder__noise=0.3, evaluation__n=5)
    data = {**batch_of(12), "position": np.arange(12)}
    state = trained(variables, tmp_path, data)
    made = task.autoencode_some(state, None)
    same_reconstructions(made, task, variables, data, 0.3)
    few = {n: task.autoencode_some(state, n) for n in (3, 5)}
    codes = {n: same_reconstructions(few[n], task, variables, take(data, n), 0.3) for n in few}
    row = task.rows(state, 3)["reconstructions"]
    np.testing.assert_array_equal(row.images, few[3]["made"])
    np.testing.assert_array_equal(row.reference, few[3]["clean"])

    seen = record(monkeypatch, autoencoder, "save_curves", "save_table", "save_versions", "save_latent_map")
    for figure in task.figures().values():
        figure(state)
    assert seen["curves.png"][:2] == seen["curves.md"] == (state.workdir.metrics, ["mean_squared_error", "loss"])
    versions, columns, _ = seen["reconstructions.png"]
    for shown, name in zip(versions, ("given", "made", "clean"), strict=True):
        np.testing.assert_array_equal(shown, made[name])
    latents, labels, names, _ = seen["latents.png"]
    close(latents, codes[5])
    assert (columns, names, list(labels)) == (10, NAMES, list(take(data, 5)["label"]))


def test_the_features_of_a_sparse_code_are_drawn_the_most_active_first(tmp_path, monkeypatch):
    """A feature is what a unit adds to the logits, scaled by its largest pixel: here a row of the weights."""
    changes = {"autoencoder__penalty": "l1", "autoencoder__penalty_weight": 0.1}
    task, variables = make(**changes, evaluation__n=6)
    params = variables.params["autoencoder"]
    active = np.argmax(reconstruct(params, unit(take(batch_of(12), 6)))[1].mean(0))
    params["out"][active] = 0.0  # a unit that draws nothing is grey
    state = trained(variables, tmp_path, batch_of(12))
    monkeypatch.setattr(autoencoder, "FEATURES", 3)
    seen = record(monkeypatch, autoencoder, "save_curves", "save_table", "save_grid", "save_versions")
    for figure in task.figures().values():
        figure(state)
    assert seen["curves.png"][1] == ["mean_squared_error", "loss", "mean_activity"]
    assert len(seen["reconstructions.png"][0]) == 2 and len(seen["reconstructions.png"][0][0]) == 12
    np.testing.assert_array_equal(seen["reconstructions.png"][0][0], batch_of(12)["image"])
    code = reconstruct(params, unit(take(batch_of(12), 6)))[1]
    rows = params["out"][np.argsort(-code.mean(0))[:3]]
    largest = np.maximum(np.abs(rows).max(1, keepdims=True), 1e-9)
    same_pictures(seen["features.png"][0], np.round((rows / largest + 1) * 127.5).reshape(-1, *SHAPE))
    assert seen["features.png"][1] == 10


def test_two_devices_give_the_update_of_one():
    """The KL penalty is not linear in the batch, and noise is drawn for each example."""
    task, variables = make(autoencoder__noise=0.3, autoencoder__penalty_weight=0.2, autoencoder__penalty="kl")
    optimizers, decays = {"autoencoder": optax.sgd(1e-2)}, {"autoencoder": None}
    start = {"autoencoder": {"params": variables.params["autoencoder"]}}
    call = make_train_call(make_train_step(task.phases(), optimizers, decays, seed=3))
    index = np.arange(16, dtype=np.int32).reshape(2, 1, 8)
    state, data = create(start, optimizers, decays), batch_of(16)
    (one, metrics_one), (two, metrics_two) = (map_over(n, call)(state, data, index) for n in (1, 2))
    np.testing.assert_allclose(metrics_one["penalty"], metrics_two["penalty"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one.params, two.params)
    assert not np.allclose(one.params["autoencoder"]["bias"], variables.params["autoencoder"]["bias"])


@pytest.mark.parametrize(
    ("experiment", "changes", "message"),
    [
        ("autoencoder_mnist", {"autoencoder__penalty": "l2"}, r"penalty='l2' is not one of none, l1, kl"),
        ("autoencoder_mnist", {"autoencoder__penalty": "kl"}, r"set model.activation=sigmoid"),
        (
            "sparse_autoencoder_mnist:kl",
            {"autoencoder__target_activity": 0.0},
            r"target_activity=0.0 is not in \(0, 1\)",
        ),
        (
            "sparse_autoencoder_mnist:kl",
            {"autoencoder__target_activity": 1.0},
            r"target_activity=1.0 is not in \(0, 1\)",
        ),
        (
            "sparse_autoencoder_mnist",
            {"autoencoder__penalty_weight": -0.1},
            r"penalty_weight=-0.1 must not be negative",
        ),
        ("sparse_autoencoder_mnist", {"autoencoder__penalty_weight": 0.0}, r"a penalty needs a weight above 0"),
        ("autoencoder_mnist", {"autoencoder__penalty_weight": 0.1}, r"none has no weight"),
        ("autoencoder_mnist", {"autoencoder__noise": -0.1}, r"autoencoder.noise=-0.1 must not be negative"),
        (
            "autoencoder_mnist",
            {"model__activation": "rleu"},
            r"is not one of linear, relu, sigmoid \(did you mean 'relu'",
        ),
        ("autoencoder_mnist", {"model__latent_dim": 0}, r"model.latent_dim=0 must be at least 1"),
    ],
)
def test_a_config_that_does_not_fit_is_told(experiment, changes, message):
    with pytest.raises(UserError, match=message):
        make_task(shrunk(experiment, **changes), DIGITS)
