"""Autoencoders: penalties against closed forms and finite differences, noise, what evaluation says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from gm_jax.errors import UserError
from gm_jax.losses import sparsity
from gm_jax.metrics.latents import dead_units
from gm_jax.metrics.reconstruction import mean_squared_error, peak_signal_to_noise
from gm_jax.models.autoencoder import make_autoencoder
from gm_jax.state import create
from gm_jax.step import make_train_call, make_train_step
from gm_jax.tasks import DataSpec, make_task
from gm_jax.tasks.task import Variables
from tests.test_step import map_over
from tests.tiny import load, open_tiny, shrunk

RNG = np.random.default_rng(0)
DIGITS = DataSpec((28, 28, 1), tuple("0123456789"))


def directional(function, x, seed=0, step=1e-2):
    """The derivative along a random direction, from the gradient and from central differences."""
    direction = np.random.default_rng(seed).normal(size=x.shape).astype(np.float32)
    numeric = (function(x + step * direction) - function(x - step * direction)) / (2 * step)
    return np.sum(jax.grad(function)(x) * direction), numeric


def test_l1_penalty_and_its_gradient():
    a = RNG.normal(size=(6, 5)).astype(np.float32)
    assert float(sparsity.l1(a)) == pytest.approx(np.abs(a).sum() / 6, rel=1e-6)
    assert np.allclose(*directional(sparsity.l1, a, step=1e-3), rtol=1e-2)


def test_kl_penalty_and_its_gradient():
    activity = RNG.uniform(0.02, 0.9, 7).astype(np.float32)
    target = 0.05
    expected = scipy.special.rel_entr([target, 1 - target], np.stack([activity, 1 - activity], 1)).sum()
    assert float(sparsity.kl(activity, target)) == pytest.approx(expected, rel=1e-5)
    assert float(sparsity.kl(np.full(3, target), target)) == pytest.approx(0, abs=1e-6)
    assert np.allclose(*directional(lambda a: sparsity.kl(a, target), activity, step=1e-3), rtol=1e-2)
    assert np.isfinite(sparsity.kl(np.array([0.0, 1.0], np.float32), target))


def test_errors_and_signal_to_noise():
    x, y = RNG.uniform(size=(2, 3, 4, 5, 1)).astype(np.float32)
    np.testing.assert_allclose(mean_squared_error(x, y), ((x - y) ** 2).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(peak_signal_to_noise(np.zeros((1, 4, 4, 1)), np.full((1, 4, 4, 1), 0.1)), 20, atol=1e-4)
    assert np.isfinite(peak_signal_to_noise(x, x)).all()


def test_dead_units_hardly_vary():
    activations = np.stack([np.zeros(9), np.linspace(0.3, 0.305, 9), np.linspace(0, 1, 9), np.eye(9)[3]], axis=1)
    assert dead_units(activations) == 0.5


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


def make(experiment, **changes):
    task = make_task(shrunk(experiment, **changes), DIGITS)
    params = {"autoencoder": jax.jit(task.init)(jax.random.key(0))["autoencoder"]["params"]}
    image = RNG.integers(0, 256, (8, 28, 28, 1), dtype=np.uint8)
    return task, params, {"image": image, "position": np.arange(8, dtype=np.int32)}


def test_noise_is_on_what_the_network_sees_alone_and_clipped():
    task, params, batch = make("denoising_autoencoder_mnist")
    clean, given, made, code = map(np.asarray, jax.jit(task.reconstruct)(params, batch, jax.random.key(0)))
    np.testing.assert_allclose(clean, batch["image"] / 255.0, atol=1e-6)
    assert given.min() == 0 and given.max() == 1 and made.min() > 0 and code.shape == (8, 6)
    inside = (given > 0) & (given < 1)
    assert 0.2 < np.std((given - clean)[inside]) < 0.5 and 0.3 < inside.mean() < 0.8
    values = jax.jit(task.evaluate)(Variables(params, {}), batch, jax.random.key(0))
    np.testing.assert_allclose(values["mean_squared_error"], mean_squared_error(clean, made), rtol=1e-5)
    np.testing.assert_allclose(values["peak_signal_to_noise_before"], peak_signal_to_noise(clean, given), rtol=1e-5)


def test_sparse_loss_is_the_squared_error_and_the_penalty():
    task, params, batch = make("sparse_autoencoder_mnist", autoencoder__penalty_weight=0.7)
    loss, (metrics, _) = jax.jit(task.loss)(params, {}, batch, jax.random.key(0))
    clean, _, made, code = map(np.asarray, jax.jit(task.reconstruct)(params, batch, jax.random.key(0)))
    expected = np.sum((clean - made) ** 2) / 8 + 0.7 * np.abs(code).sum() / 8
    assert float(loss) == pytest.approx(expected, rel=1e-5) and np.min(code) == 0 < np.max(code)
    assert float(metrics["mean_activity"]) == pytest.approx(np.abs(code).mean(), rel=1e-5)
    derived = task.derive({"unit_activity": code})
    assert derived["dead_units"] == np.mean(np.ptp(code, axis=0) < 0.01)


def test_two_devices_give_the_update_of_one(tmp_path):
    """The KL penalty is not linear in the batch, and noise is drawn for each example."""
    run = open_tiny(tmp_path, "sparse_autoencoder_mnist:kl", autoencoder__noise=0.3)
    optimizers, decays = {"autoencoder": optax.sgd(1e-3)}, {"autoencoder": None}
    state = jax.device_get(create(jax.jit(run.task.init)(jax.random.key(0)), optimizers, decays))
    call = make_train_call(make_train_step(run.task.phases(), optimizers, decays, seed=3))
    data = {name: np.asarray(x[:64]) for name, x in run.split("train").items()}
    index = np.arange(16, dtype=np.int32).reshape(2, 1, 8)
    (one, metrics_one), (two, metrics_two) = (map_over(n, call)(state, data, index) for n in (1, 2))
    np.testing.assert_allclose(metrics_one["penalty"], metrics_two["penalty"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one.params, two.params)
    assert not np.allclose(one.params["autoencoder"]["encoder"]["head"]["bias"], 0)


@pytest.mark.parametrize(
    ("experiment", "changes", "message"),
    [
        ("autoencoder_mnist", {"autoencoder__penalty": "l2"}, r"penalty='l2' is not one of none, l1, kl"),
        ("autoencoder_mnist", {"autoencoder__penalty": "kl"}, r"set model.activation=sigmoid"),
        ("sparse_autoencoder_mnist:kl", {"autoencoder__target_activity": 0.0}, r"=0.0 is not between 0 and 1"),
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
