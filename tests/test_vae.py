"""Variational autoencoders: the bound and its terms against closed forms, networks, free bits, mistakes of a user."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.figures.interpolation import lerp, slerp
from gm_jax.figures.latent_map import gaussian_plane
from gm_jax.losses import elbo
from gm_jax.metrics.latents import active_units, principal_plane
from gm_jax.models.vae import make_vae
from gm_jax.state import create
from gm_jax.step import make_train_call, make_train_step
from gm_jax.tasks import DataSpec, make_task
from gm_jax.tasks.task import Variables
from tests.test_step import map_over
from tests.tiny import load, open_tiny, shrunk

RNG = np.random.default_rng(0)
DIGITS = DataSpec((28, 28, 1), tuple("0123456789"))
CAT = (64, 64, 3)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def parameters(experiment, shape, **changes):
    network = make_vae(image_shape=shape, **{**load(experiment).model, **changes})
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *shape)))["params"]


def test_kl_equals_the_closed_form_and_monte_carlo():
    mean, log_variance = normal(3, 4), normal(3, 4)
    kl = np.asarray(jax.jit(elbo.kl_divergence)(mean, log_variance), np.float64)
    variance = np.exp(log_variance.astype(np.float64))
    np.testing.assert_allclose(kl, (mean**2 + variance - 1 - np.log(variance)) / 2, rtol=1e-4, atol=1e-6)

    n = 200_000
    z, log_ratio = elbo.reparameterise(mean, log_variance, normal(3, n, 4))
    np.testing.assert_allclose(-np.mean(log_ratio, 1), kl.sum(1), rtol=0.02)
    np.testing.assert_allclose(np.var(z, 1), variance, rtol=0.02)


def test_log_ratio_equals_scipy():
    mean, log_variance = normal(3, 4), normal(3, 4)
    z, log_ratio = elbo.reparameterise(mean, log_variance, normal(3, 5, 4))
    posterior = scipy.stats.norm(mean[:, None], np.exp(log_variance[:, None] / 2))
    expected = scipy.stats.norm.logpdf(z).sum(-1) - posterior.logpdf(z).sum(-1)
    np.testing.assert_allclose(log_ratio, expected, rtol=1e-4, atol=1e-4)


def test_likelihoods_equal_scipy():
    logits, x = 3 * normal(2, 5, 3, 4, 1), RNG.integers(0, 2, (2, 1, 3, 4, 1))
    expected = scipy.stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-logits.astype(np.float64)))).sum((-3, -2, -1))
    np.testing.assert_allclose(jax.jit(elbo.bernoulli_log_likelihood)(x, logits), expected, rtol=1e-5)

    x = normal(2, 1, 3, 4, 1)
    expected = scipy.stats.norm.logpdf(x, logits, np.exp(-0.7)).sum((-3, -2, -1))
    np.testing.assert_allclose(elbo.gaussian_log_likelihood(x, logits, -0.7), expected, rtol=1e-5)


def test_bernoulli_likelihood_of_a_certain_pixel_is_finite():
    x, logits = np.array([[[[1.0]]], [[[1.0]]]]), np.array([[[[200.0]]], [[[-200.0]]]])
    np.testing.assert_allclose(elbo.bernoulli_log_likelihood(x, logits), [0.0, -200.0], atol=1e-6)


def test_importance_weighted_bound_grows_towards_log_p_of_x():
    """p(x|z) = N(x; z, 1), p(z) = N(0, 1), so that p(x) = N(x; 0, 2) is known; q is off on purpose."""
    x, n = 1.3, 8000
    z, log_ratio = elbo.reparameterise(np.full((1, 1), 0.2), np.full((1, 1), -0.5), normal(1, n * 64, 1))
    log_weights = (scipy.stats.norm.logpdf(x, z[..., 0]) + log_ratio).reshape(n, 64)
    bounds = [float(np.mean(elbo.importance_weighted_bound(log_weights[:, :k]))) for k in (1, 4, 16, 64)]
    evidence = scipy.stats.norm.logpdf(x, scale=np.sqrt(2))
    assert all(np.diff(bounds) > 0.002) and bounds[-1] < evidence
    assert bounds[-1] == pytest.approx(evidence, abs=0.01)
    assert bounds[0] == pytest.approx(float(np.mean(log_weights[:, 0])), abs=1e-5)


def test_free_bits_stop_the_gradient_of_latents_that_use_few():
    kl = jnp.array([0.1, 0.5, 2.0])
    total, gradient = jax.value_and_grad(elbo.free_bits)(kl, 0.4)
    assert float(total) == pytest.approx(0.4 + 0.5 + 2.0)
    np.testing.assert_array_equal(gradient, [0, 1, 1])


@pytest.mark.parametrize(
    ("experiment", "shape", "encoder", "decoder"),
    [
        ("vae_mnist", (28, 28, 1), 69_076 + 240 * (3136 + 1 + 4), 65_089),  # as Keras prints them, 256 units for 16
        ("vae_celeba", CAT, 93_248 + 8192 * 256 + 256, 8192 * 129 + 147_584 + 73_792 + 18_464 + 867),
        ("vae_cats", CAT, 12288 * 512 + 512 * 512 + 512 * 32 + 1056, 16 * 512 + 512 * 512 + 512 * 12288 + 1024 + 12288),
    ],
)
def test_networks_are_those_of_the_reports(experiment, shape, encoder, decoder):
    tree = parameters(experiment, shape)
    assert (count(tree["encoder"]), count(tree["decoder"])) == (encoder, decoder)


def test_latents_of_the_sweep_change_the_last_and_the_first_layer_alone():
    small, large = (parameters("vae_mnist", (28, 28, 1), latent_dim=n) for n in (2, 64))
    assert count(large) - count(small) == 62 * (2 * 257 + 3136)


def task_and_variables(experiment, seed=0, **changes):
    task = make_task(shrunk(experiment, **changes), DIGITS)
    variables = jax.device_get(jax.jit(task.init)(jax.random.key(seed)))["vae"]
    shaken = jax.tree.map(lambda p: p + 0.1 * normal(*p.shape), variables["params"])
    return task, Variables({"vae": shaken}, {"vae": {"progress": variables["progress"]}})


def batch_of(n):
    return {"image": RNG.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8), "position": np.arange(n, dtype=np.int32)}


def test_evaluation_streams_the_bound_of_all_samples_at_once():
    """30 samples in three chunks; each ELBO below its bound, and the parts add up."""
    task, variables = task_and_variables("vae_mnist:modern", evaluation__importance_samples=30)
    batch, key = batch_of(6), jax.random.key(1)
    values = jax.jit(task.evaluate)(variables, batch, key)

    @jax.jit
    def at_once(params):
        pixel_key, noise_key = jax.random.split(key)
        x = task.pixels(batch, pixel_key)
        keys = random.example_keys(noise_key, batch["position"])
        noise = jnp.concatenate([random.normal(random.fold_in(keys, c), (10, 40)) for c in range(3)], axis=1)
        return x, *task.weigh(params, x, task.encode(params, x), noise)

    x, reconstruction, log_ratio = map(np.asarray, at_once(variables.params))
    expected = scipy.special.logsumexp(reconstruction + log_ratio, axis=1) - np.log(30)
    np.testing.assert_allclose(values["importance_weighted_bound"], expected, rtol=1e-5)
    np.testing.assert_allclose(values["reconstruction"], reconstruction.mean(1), rtol=1e-5)
    np.testing.assert_allclose(values["elbo"], values["reconstruction"] - values["kl"], rtol=1e-5)
    assert np.all(values["importance_weighted_bound"] > values["elbo"])
    assert set(np.unique(x)) == {0, 1} and 0 < np.mean(x != (batch["image"] > 127)) < 0.5


def test_dynamic_pixels_follow_the_grey_level_and_evaluation_repeats_them():
    task, _ = task_and_variables("vae_mnist", vae__binarise="dynamic")
    batch = {"image": np.full((200, 28, 28, 1), 51, np.uint8), "position": np.arange(200)}
    pixels = jax.jit(task.pixels)
    x = np.asarray(pixels(batch, jax.random.key(0)))
    assert x.mean() == pytest.approx(0.2, abs=0.005) and set(np.unique(x)) == {0, 1}
    np.testing.assert_array_equal(x, pixels(batch, jax.random.key(0)))
    assert not np.array_equal(x, pixels(batch, jax.random.key(1)))
    other, _ = task_and_variables("vae_mnist", vae__binarise="threshold")
    assert np.all(np.asarray(other.pixels({"image": np.array([127, 128], np.uint8)}, None)) == [0, 1])


@pytest.mark.parametrize(
    "changes",
    [
        {"model__latent_dim": 4, "vae__free_bits": 0.03, "vae__warmup_steps": 4},
        {"vae__train_samples": 3, "vae__warmup_steps": 4, "vae__binarise": "dynamic"},
    ],
)
def test_two_devices_give_the_update_of_one(changes, tmp_path):
    """Free bits are not linear in the batch; dynamic pixels and posterior samples are drawn for each example."""
    run = open_tiny(tmp_path, "vae_mnist", **changes)
    optimizers, decays = {"vae": optax.sgd(1e-4)}, {"vae": None}
    state = jax.device_get(create(jax.jit(run.task.init)(jax.random.key(0)), optimizers, decays))
    call = make_train_call(make_train_step(run.task.phases(), optimizers, decays, seed=3))
    data = {name: np.asarray(x[:64]) for name, x in run.split("train").items()}
    index = np.arange(16, dtype=np.int32).reshape(2, 1, 8)
    (one, metrics_one), (two, metrics_two) = (map_over(n, call)(state, data, index) for n in (1, 2))
    np.testing.assert_allclose(metrics_one["loss"], metrics_two["loss"], rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), one.params, two.params)
    assert one.model_state["vae"]["progress"]["updates"] == 2
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one.params, state.params)
    assert min(jax.tree.leaves(moved["vae"]["decoder"])) > 0


def test_loss_is_minus_the_bound_with_its_weights():
    """In the second of four warm-up steps beta is half of its value; many samples give a tighter bound."""

    def loss(**changes):
        task, variables = task_and_variables("vae_mnist", **changes)
        state, key = {"vae": {"progress": {"updates": jnp.ones(())}}}, jax.random.key(2)
        step = jax.jit(jax.vmap(lambda batch: task.loss(variables.params, state, batch, key)[1], axis_name="batch"))
        metrics, after = step(jax.tree.map(lambda x: x[None], batch_of(4)))
        assert after["vae"]["progress"]["updates"] == 2
        return {name: float(x[0]) for name, x in metrics.items()}

    metrics = loss(vae__beta=3.0, vae__warmup_steps=4)
    assert metrics["loss"] == pytest.approx(1.5 * metrics["kl"] - metrics["reconstruction"], rel=1e-5)
    assert metrics["elbo"] == pytest.approx(metrics["reconstruction"] - metrics["kl"], rel=1e-5)
    bounded = loss(vae__free_bits=100.0)
    assert bounded["loss"] == pytest.approx(2 * 100.0 - bounded["reconstruction"], rel=1e-5)
    cold, warm = (loss(vae__train_samples=5, vae__warmup_steps=n)["loss"] for n in (1000, 1))
    assert cold < warm - 0.01  # nearly without the ratio of prior and posterior
    metrics = loss(vae__train_samples=50)
    assert metrics["elbo"] + 0.5 < -metrics["loss"]


def test_samples_and_reconstructions_are_images_of_their_latents(tmp_path):
    run = open_tiny(tmp_path, "vae_mnist")
    trained = run.trained(run.init_state())
    a, b = run.task.sample(trained, 5, 0)["images"], run.task.sample(trained, 3, 0)["images"]
    np.testing.assert_array_equal(a[:3], b)
    assert a.shape == (5, 28, 28, 1) and not np.array_equal(a, run.task.sample(trained, 5, 1)["images"])
    encoded = run.task.encode_some(trained, 4)
    np.testing.assert_array_equal(encoded["seen"], run.split("test")["image"][:4])
    x = encoded["seen"].astype(np.float32) / 255
    mean, _ = jax.jit(run.task.encode)(trained.variables.params, x)
    np.testing.assert_allclose(encoded["mean"], mean, atol=1e-5)


def test_paths_between_latents():
    start, end = normal(3, 8), normal(3, 8)
    for walk in (lerp, slerp):
        path = walk(start, end, 5)
        assert path.shape == (3, 5, 8)
        np.testing.assert_allclose(path[:, [0, -1]], np.stack([start, end], 1), atol=1e-6)
        np.testing.assert_allclose(walk(start, start, 3), np.repeat(start[:, None], 3, 1), atol=1e-6)
    np.testing.assert_allclose(lerp(start, end, 3)[:, 1], (start + end) / 2, atol=1e-6)
    # A quarter circle whose radius doubles: after a third of the way, 30 degrees and 4/3.
    quarter = slerp(np.array([[1.0, 0]]), np.array([[0, 2.0]]), 4)[0, 1]
    np.testing.assert_allclose(quarter, 4 / 3 * np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)]), atol=1e-9)


def test_gaussian_plane_holds_equal_probabilities():
    plane = gaussian_plane(4).reshape(4, 4, 2)
    np.testing.assert_allclose(scipy.stats.norm.cdf(plane[0, :, 0]), [0.125, 0.375, 0.625, 0.875], atol=1e-6)
    assert np.all(np.diff(plane[:, 0, 1]) < 0) and np.all(plane[:, 1, 0] == plane[0, 1, 0])


def test_active_units_and_principal_plane():
    latents = RNG.normal(size=(500, 5)) * np.array([1.0, 0.05, 3.0, 0.2, 0.0])
    assert active_units(latents) == 3
    plane, share = principal_plane(latents)
    variances = np.linalg.eigvalsh(np.cov(latents.T))[::-1]
    np.testing.assert_allclose(np.var(plane, axis=0, ddof=1), variances[:2])
    assert share == pytest.approx(variances[:2].sum() / variances.sum())
    assert abs(np.corrcoef(plane[:, 0], latents[:, 2])[0, 1]) > 0.99
    line, share = principal_plane(latents[:, :1])
    assert share == pytest.approx(1) and np.all(line[:, 1] == 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__latent_dim": 0}, r"model.latent_dim=0 must be at least 1"),
        ({"model__features": (4, 4, 4)}, r"must divide by 8, and 28x28 pixels do not: set dataset.image_size"),
        ({"model__name": "mpl"}, r"model.name='mpl' is not one of conv, mlp, residual \(did you mean 'mlp'\?\)"),
        ({"model__name": "residual"}, r"model residual has no key model.dense: it has width, blocks"),
        ({"vae__likelihood": "bernouli"}, r"vae.likelihood='bernouli' is not one of .* \(did you mean 'bernoulli'\?\)"),
        ({"vae__binarise": "always"}, r"vae.binarise='always' is not one of none, dynamic, threshold"),
        ({"vae__likelihood": "gaussian", "vae__binarise": "dynamic"}, r"set vae.likelihood=bernoulli"),
        ({"vae__scale": 0.1}, r"vae.scale=0.1 is a standard deviation above 0, of vae.likelihood=gaussian alone"),
        ({"vae__train_samples": 0}, r"vae.train_samples=0 must be at least 1"),
        ({"evaluation__importance_samples": 0}, r"evaluation.importance_samples=0 must be at least 1"),
        ({"vae__beta": -1.0}, r"vae.beta=-1.0 must not be negative"),
        ({"vae__free_bits": 0.1, "vae__train_samples": 2}, r"vae.free_bits is for vae.train_samples=1"),
    ],
)
def test_a_config_that_does_not_fit_is_told(changes, message):
    with pytest.raises(UserError, match=message):
        make_task(shrunk("vae_mnist", **changes), DIGITS)
