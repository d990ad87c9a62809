"""Variational autoencoders: the bound and its terms against closed forms, networks, free bits, mistakes of a user."""

import functools

import flax.linen as nn
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
from gm_jax.metrics.moments import Moments
from gm_jax.models.vae import make_vae
from gm_jax.state import Variables, create
from gm_jax.step import make_train_call, make_train_step
from gm_jax.tasks import DataSpec, make_task, vae
from gm_jax.tasks import task as base
from gm_jax.tasks.task import take
from gm_jax.tasks.vae import VAE
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

RNG = np.random.default_rng(0)
KEY = jax.random.key(7)
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


class ToyVAE(nn.Module):
    latent_dim: int
    learned_scale: bool

    def setup(self):
        encoder, decoder = (PIXELS, self.latent_dim), (self.latent_dim, PIXELS)
        shapes = {
            "mean": encoder,
            "spread": encoder,
            "out": decoder,
            **({"log_scale": ()} if self.learned_scale else {}),
        }
        self.weights = {name: self.param(name, nn.initializers.zeros, shape) for name, shape in shapes.items()}

    def __call__(self, x):
        return self.decode(self.encode(x)[0])

    def encode(self, x):
        x = x.reshape(len(x), -1)
        return x @ self.weights["mean"], x @ self.weights["spread"] - 1.0

    def decode(self, z):
        return (z @ self.weights["out"]).reshape(*z.shape[:-1], *SHAPE)


def make(latent_dim=3, **changes):
    """A task with a toy network, and its variables."""
    task = toy_task("vae_cats", model__latent_dim=latent_dim, **changes)
    task.network = ToyVAE(latent_dim, task.network.learned_scale)
    params = {"mean": weights(PIXELS, latent_dim) / 2, "spread": weights(PIXELS, latent_dim, seed=1) / 2}
    params["out"] = weights(latent_dim, PIXELS)
    if task.network.learned_scale:
        params["log_scale"] = np.float32(-1.2)
    return task, Variables({"vae": params}, {"vae": {}}, {})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unit(batch):
    return np.float64(batch["image"]).reshape(-1, PIXELS) / 255


def bound(task, params, x, noise):
    """log p(x|z) and log p(z) - log q(z|x), each [B, K], and the divergence of each latent [B, D]."""
    mean, log_variance = x @ params["mean"], x @ params["spread"] - 1
    scale = np.exp(log_variance / 2)[:, None]
    z = mean[:, None] + scale * noise
    p, x, likelihood = sigmoid(z @ params["out"]), x[:, None], task.settings.likelihood
    if likelihood == "gaussian":
        deviation = np.exp(params["log_scale"]) if "log_scale" in params else task.settings.scale
        reconstruction = scipy.stats.norm.logpdf(x, p, deviation).sum(-1)
    else:
        reconstruction = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(-1)
    ratio = scipy.stats.norm.logpdf(z) - scipy.stats.norm.logpdf(z, mean[:, None], scale)
    return reconstruction, ratio.sum(-1), (mean**2 + np.exp(log_variance) - 1 - log_variance) / 2


def draws(samples, latent_dim=3):
    """What pixels and posterior samples are drawn from: each example's key, with 0 and 1 folded in."""

    def draw(batch, key):
        pixel_keys, noise_keys = (random.fold_in(random.example_keys(key, batch["position"]), i) for i in range(2))
        return random.uniform(pixel_keys, SHAPE).reshape(-1, PIXELS), random.normal(noise_keys, (samples, latent_dim))

    return draw


@pytest.mark.parametrize(
    ("beta", "step", "changes"),
    [
        (1.0, 0, {"vae__binarise": "dynamic"}),
        (1.5, 1, {"vae__beta": 3.0, "vae__warmup_steps": 4, "vae__free_bits": 0.4}),
        (1.0, 9, {"vae__likelihood": "gaussian", "vae__warmup_steps": 4}),
        (0.5, 0, {"vae__likelihood": "gaussian", "vae__scale": 0.3, "vae__train_samples": 3, "vae__warmup_steps": 2}),
        (2.0, 0, {"vae__binarise": "threshold", "vae__train_samples": 5, "vae__beta": 2.0}),
    ],
)
def test_loss_is_minus_the_bound_with_its_weights(beta, step, changes):
    """beta is that of this step; the metrics are of the plain bound, whatever is maximised."""
    task, variables = make(**changes)
    batch, settings = batch_of(8), task.settings

    def loss(params, noise):
        x, (u, noise) = unit(batch), noise
        x = np.float64({"none": x, "dynamic": u < x, "threshold": x > 0.5}[settings.binarise])
        reconstruction, ratio, kl = bound(task, params["vae"], x, noise)
        metrics = {"reconstruction": reconstruction.mean(), "kl": kl.sum(1).mean()}
        metrics["elbo"] = metrics["reconstruction"] - metrics["kl"]
        if settings.train_samples == 1:
            metrics["loss"] = beta * np.maximum(kl.mean(0), settings.free_bits).sum() - metrics["reconstruction"]
        else:
            weights = scipy.special.logsumexp(reconstruction + beta * ratio, axis=1) - np.log(settings.train_samples)
            metrics["loss"] = -weights.mean()
        return metrics["loss"], metrics, {}

    check_phases(task.phases(), variables, batch, at_step(KEY, step), draws(settings.train_samples), loss)
    if settings.free_bits:
        free = bound(task, variables.params["vae"], unit(batch), 0.0)[2].mean(0) < settings.free_bits
        assert free.any() and not free.all()


def test_validation_is_the_bound_of_one_sample_and_evaluation_streams_those_of_many():
    """30 samples in three chunks, of binary pixels that are the same in both."""
    task, variables = make(vae__binarise="dynamic", evaluation__importance_samples=30)
    batch = batch_of(6)

    def measure(variables, batch, key):
        keys = random.example_keys(key, batch["position"])
        chunks = [random.normal(random.fold_in(keys, 1 + chunk), (10, 3)) for chunk in range(3)]
        evaluated = task.evaluate(variables, batch, keys)
        return task.validate(variables, batch, keys), evaluated, draws(1)(batch, key), jnp.concatenate(chunks, axis=1)

    validated, evaluated, (u, noise), all_noise = run(measure, variables, batch, KEY)
    params = variables.params["vae"]
    x = np.float64(u < unit(batch))
    reconstruction, _, kl = bound(task, params, x, noise)
    parts = {"elbo": reconstruction[:, 0] - kl.sum(1), "reconstruction": reconstruction[:, 0], "kl": kl.sum(1)}
    compare(validated, parts)
    reconstruction, ratio, _ = bound(task, params, x, all_noise)
    mean = x @ params["mean"]
    expected = {
        "elbo": reconstruction.mean(1) - kl.sum(1),
        "reconstruction": reconstruction.mean(1),
        "kl": kl.sum(1),
        "importance_weighted_bound": scipy.special.logsumexp(reconstruction + ratio, axis=1) - np.log(30),
        "mean_squared_error": ((x - sigmoid(mean @ params["out"])) ** 2).mean(1),
        "posterior_mean": mean,
        "posterior_variance": np.exp(x @ params["spread"] - 1),
    }
    compare(evaluated, expected)
    moments = {"posterior_mean": Moments.of(np.array([[0.0, 1.0, 0.01], [0.5, 1.0, 0.0]]))}
    assert task.derive(moments) == {"active_units": 1}


@pytest.mark.parametrize(("samples", "size"), [(1, 1), (7, 7), (22, 2), (500, 10), (13, 1)])
def test_importance_samples_are_decoded_in_equal_chunks_of_ten_at_most(samples, size):
    task, variables = make(evaluation__importance_samples=samples)
    seen = []
    task.weigh = lambda params, x, posterior, noise: (
        seen.append(noise.shape) or VAE.weigh(task, params, x, posterior, noise)
    )
    jax.eval_shape(task.evaluate, variables, batch_of(2), jax.random.split(KEY, 2))
    assert set(seen) == {(2, size, 3)}


def train_two_steps(task, variables, devices):
    """The state after two steps of training, and the metrics of both."""
    optimizers, decays = {"vae": optax.sgd(1e-2)}, {"vae": None}
    start = {"vae": {**task.init(KEY)["vae"], "params": variables.params["vae"]}}
    call = make_train_call(make_train_step(task.phases(), optimizers, decays, seed=3))
    index = np.arange(16, dtype=np.int32).reshape(2, 1, 8)
    return map_over(devices, call)(create(start, optimizers, decays), batch_of(16), index)


def test_beta_rises_with_the_steps_of_training():
    state, metrics = train_two_steps(*make(vae__beta=3.0, vae__warmup_steps=4), devices=1)
    np.testing.assert_allclose((metrics["loss"] + metrics["reconstruction"]) / metrics["kl"], [0.75, 1.5], rtol=1e-4)
    assert state.model_state["vae"] == {}  # no counter but the step


def test_two_devices_give_the_update_of_one():
    """Free bits are not linear in the batch."""
    task, variables = make(vae__free_bits=0.4)
    (one, metrics_one), (two, metrics_two) = (train_two_steps(task, variables, n) for n in (1, 2))
    np.testing.assert_allclose(metrics_one["loss"], metrics_two["loss"], rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), one.params, two.params)
    assert one.step == two.step == 2


def pictures(params, z):
    return np.round(255 * sigmoid(z @ params["out"])).reshape(-1, *SHAPE)


def test_samples_and_figures_are_images_of_their_latents(tmp_path, monkeypatch):
    task, variables = make(latent_dim=2, vae__binarise="dynamic", evaluation__n=5)
    params, data = variables.params["vae"], batch_of(20)
    state = trained(variables, tmp_path, data)
    prior = np.asarray(random.normal(random.example_keys(jax.random.key(5), jnp.arange(6)), (2,)))
    same_pictures(task.sample(state.variables, 6, 5)["images"], pictures(params, prior))

    u = np.asarray(draws(1)({"position": jnp.arange(20)}, jax.random.key(0))[0])

    def seen_by(n):
        """The n examples that are chosen, as pictures, and their posterior means; noise is of their new places."""
        x = np.float64(u[:n] < unit(take(data, n)))
        return x @ params["mean"], 255 * x.reshape(-1, *SHAPE)

    rows, (mean, images) = task.rows(state, 3), seen_by(3)
    np.testing.assert_array_equal(rows["samples"].images, task.sample(state.variables, 3, 0)["images"])
    same_pictures(rows["reconstructions"].images, pictures(params, mean))
    same_pictures(rows["reconstructions"].reference, images)

    writers = ("save_curves", "save_table", "save_grid", "save_versions", "save_interpolation", "save_latent_map")
    samples, seen = record(monkeypatch, base, "save_grid"), record(monkeypatch, vae, *writers, "save_sprite")
    for figure in task.figures().values():
        figure(state)
    assert seen["curves.png"][:2] == seen["curves.md"] == (state.workdir.metrics, ["elbo", "reconstruction", "kl"])
    np.testing.assert_array_equal(samples["samples.png"][0], task.sample(state.variables, 4, 0)["images"])
    (clean, made), columns, _ = seen["reconstructions.png"]
    mean, images = seen_by(20)
    same_pictures(clean, images)
    same_pictures(made, pictures(params, mean))
    latents, labels, names, _ = seen["latents.png"]
    close(latents, seen_by(5)[0])
    assert names == NAMES and list(labels) == list(take(data, 5)["label"])
    assert (samples["samples.png"][1], columns, seen["manifold.png"][1]) == (8, 10, 20)
    same_pictures(seen["manifold.png"][0], pictures(params, gaussian_plane(20)))
    plane, columns, _, about = seen["latent_plane.png"]
    same_pictures(plane, pictures(params, gaussian_plane(columns)))
    np.testing.assert_allclose(about["along"], gaussian_plane(columns)[:columns, 0], atol=6e-4)
    paths, decode, _, ends = seen["interpolation.png"]
    drawn, (mean, images) = np.random.default_rng(0).normal(size=(2, 2, 2)), seen_by(16)
    for place, half, z, shown in zip((0, -1), (slice(8), slice(8, 16)), drawn, ends, strict=True):
        close(paths[:, place], np.concatenate([mean[half], z]))
        same_pictures(shown, np.concatenate([images[half], pictures(params, z)]))
    close(paths[:, 4] + paths[:, 5], paths[:, 0] + paths[:, -1])
    assert paths.shape == (10, 10, 2)
    same_pictures(decode(prior), pictures(params, prior))
    assert "manifold" not in make(latent_dim=3)[0].figures()


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


def test_numbers_say_what_they_are_measured_in():
    unit = "nats per image of drawn binary pixels, bernoulli likelihood"
    task = toy_task("vae_mnist", vae__binarise="dynamic")
    assert task.units == {**dict.fromkeys(("elbo", "reconstruction", "importance_weighted_bound"), unit), "kl": "nats"}


def test_active_units_and_principal_plane():
    latents = RNG.normal(size=(500, 5)) * np.array([1.0, 0.05, 3.0, 0.2, 0.0])
    assert active_units(Moments.of(latents)) == 3
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
        ({"vae__scale": 0.1}, r"vae.scale=0.1 is the standard deviation of vae.likelihood=gaussian alone"),
        ({"vae__likelihood": "gaussian", "vae__scale": 0.0}, r"vae.scale=0.0 must be above 0"),
        ({"vae__warmup_steps": -1}, r"vae.warmup_steps=-1 must not be negative"),
        ({"vae__free_bits": -0.1}, r"vae.free_bits=-0.1 must not be negative"),
        ({"vae__train_samples": 0}, r"vae.train_samples=0 must be at least 1"),
        ({"evaluation__importance_samples": 0}, r"evaluation.importance_samples=0 must be at least 1"),
        ({"vae__beta": -1.0}, r"vae.beta=-1.0 must not be negative"),
        ({"vae__free_bits": 0.1, "vae__train_samples": 2}, r"vae.free_bits is for vae.train_samples=1"),
    ],
)
def test_a_config_that_does_not_fit_is_told(changes, message):
    with pytest.raises(UserError, match=message):
        make_task(shrunk("vae_mnist", **changes), DIGITS)
