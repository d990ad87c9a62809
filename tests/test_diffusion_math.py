"""Losses of diffusion and the variational bound, against NumPy, SciPy and published values; noise by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from gm_jax import random
from gm_jax.losses import diffusion as losses
from gm_jax.samplers import schedules
from gm_jax.samplers.diffusion import diffuse
from gm_jax.samplers.processes import Chain, Flow, Level, LogNormal

CHAINS = [schedules.linear(1000), schedules.cosine(1000), schedules.growing(10, 0.05, 0.5)]
every_schedule = pytest.mark.parametrize("schedule", CHAINS, ids=["linear", "cosine", "exploding"])
PROCESSES = [*map(Chain, CHAINS), LogNormal(), Flow()]
every_process = pytest.mark.parametrize("process", PROCESSES, ids=["linear", "cosine", "exploding", "edm", "flow"])


def arrays(*shape: int, count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32))


def levels_of(process) -> Level:
    return process.draw(jnp.array([0.02, 0.3, 0.6, 0.97]))


@every_process
@pytest.mark.parametrize("prediction", losses.PREDICTIONS)
def test_a_perfect_output_of_any_prediction_gives_back_the_image(process, prediction):
    x0, epsilon = arrays(4, 3, 3, count=2)
    level = levels_of(process)
    x = jax.jit(diffuse)(level, x0, epsilon)
    output = losses.target(prediction, level, x0, epsilon)
    np.testing.assert_allclose(losses.to_x0(prediction, level, x, output), x0, atol=2e-4)


def told(prediction, signal, noise, x0, epsilon):
    """What a network says, by the papers' formulas."""
    if prediction == "edm":  # c_skip and c_out of Karras et al. (2022), table 1, for x / signal
        sigma, data = noise / signal, 0.5
        skip = data**2 / (sigma**2 + data**2)
        return (x0 - skip * (x0 + sigma * epsilon)) / (sigma * data / np.sqrt(sigma**2 + data**2))
    return {
        "noise": epsilon,
        "image": x0,
        "velocity": signal * epsilon - noise * x0,  # Salimans & Ho (2022)
        "flow": epsilon - x0,
    }[prediction]


@every_process
@pytest.mark.parametrize("prediction", losses.PREDICTIONS)
def test_targets_are_those_of_the_papers_and_errors_differ_by_a_weight(process, prediction):
    """An arbitrary wrong prediction of x_0, told in each way, has the error of x_0 times the weight."""
    x0, epsilon, wrong = arrays(4, 3, 3, count=3, seed=5)
    level = levels_of(process)
    signal, noise = (np.asarray(v, np.float64)[:, None, None] for v in level[:2])
    right = told(prediction, signal, noise, x0, epsilon)
    np.testing.assert_allclose(losses.target(prediction, level, x0, epsilon), right, rtol=2e-3, atol=1e-4)
    x = signal * x0 + noise * epsilon
    guess = told(prediction, signal, noise, wrong, (x - signal * wrong) / noise)
    ratio = np.mean((right - guess) ** 2, (1, 2)) / np.mean((x0 - wrong) ** 2, (1, 2))
    np.testing.assert_allclose(losses.error_weight(prediction, level), ratio, rtol=2e-3)


def test_weights_are_those_of_the_papers():
    sigma = np.array([0.01, 0.3, 1.0, 20.0])
    level = Level(np.ones(4), sigma, np.zeros(4))
    np.testing.assert_allclose(losses.error_weight("edm", level), (sigma**2 + 0.25) / (sigma * 0.5) ** 2, rtol=1e-5)
    np.testing.assert_allclose(losses.error_weight("min_snr", level), np.minimum(sigma**-2.0, 5), rtol=1e-5)
    np.testing.assert_allclose(losses.to_input("edm", level, np.ones((4, 2))).T[0], 1 / np.hypot(sigma, 0.5), rtol=1e-5)
    np.testing.assert_array_equal(losses.to_input("flow", level, np.ones((4, 2))), 1.0)


def test_squared_error_is_the_mean_per_example():
    a, b = arrays(5, 4, 4, 1, count=2)
    np.testing.assert_allclose(jax.jit(losses.squared_error)(a, b), ((a - b) ** 2).mean((1, 2, 3)), rtol=1e-5)


def kl_bits(mean1, var1, mean2, var2):
    return (0.5 * (np.log(var2 / var1) + var1 / var2 + (mean1 - mean2) ** 2 / var2 - 1)).mean(-1) / np.log(2)


@every_schedule
def test_bound_terms_are_divergences_in_bits(schedule):
    _, signal, noise = schedule
    x0, x_t, x0_hat = arrays(3, 6, count=3)
    prior = 1.0 if signal[-1] < 1 else 1 + noise[-1] ** 2
    expected = kl_bits(signal[-1] * x0, noise[-1] ** 2, 0.0, prior)
    np.testing.assert_allclose(losses.prior_bits(schedule, x0), expected, rtol=1e-3, atol=1e-7)
    for t in (2, 5, 10):
        a = signal[t] / signal[t - 1]
        v = noise[t] ** 2 - (a * noise[t - 1]) ** 2
        variance = v * noise[t - 1] ** 2 / noise[t] ** 2
        means = [(a * noise[t - 1] ** 2 * x_t + signal[t - 1] * v * x) / noise[t] ** 2 for x in (x0, x0_hat)]
        expected = kl_bits(means[0], variance, means[1], variance)
        found = losses.chain_bits(schedule, x0, x0_hat, jnp.full(3, t))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        w = np.linspace(-0.2, 1.1, 6, dtype=np.float32)  # a learned variance: of the posterior at 0, beta_t at 1
        expected = kl_bits(means[0], variance, means[1], variance * (v / variance) ** w)
        found = losses.term_bits(schedule, x0, x0_hat, jnp.full(3, t), w)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_array_equal(losses.chain_bits(schedule, x0, x0_hat, jnp.ones(3, int)), 0.0)


@pytest.mark.parametrize("scale", [0.5, 0.01, 0.002])
def test_discretized_likelihood_is_that_of_scipy_and_sums_to_one(scale):
    values = np.arange(256) / 127.5 - 1
    for mean in (-1.2, -0.9999, 0.0013, 0.6):
        lower = np.where(values < -0.999, -np.inf, (values - 1 / 255 - mean) / scale)
        upper = np.where(values > 0.999, np.inf, (values + 1 / 255 - mean) / scale)
        left = norm.cdf(upper) - norm.cdf(lower)
        right = norm.sf(lower) - norm.sf(upper)
        mass = np.where(upper + lower > 0, right, left)
        log = losses.discretized_log_likelihood(jnp.float32(values), jnp.float32(mean), jnp.float32(scale))
        assert np.isfinite(log).all()
        likely = mass > 1e-30
        np.testing.assert_allclose(np.asarray(log)[likely], np.log(mass[likely]), rtol=2e-3, atol=2e-3)
        assert np.exp(np.asarray(log, np.float64)).sum() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("T", [1, 1000])
def test_the_decoder_has_the_variance_of_step_two(T):
    """Or, in a chain of one step, that of the step."""
    schedule = schedules.linear(T)
    x0 = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 8)) / 127.5 - 1, jnp.float32).at[0, 0].set(1.0)
    bits = losses.decoder_bits(schedule, x0, x0)
    b1, b2 = 1e-4, 1e-4 + (0.02 - 1e-4) / 999
    scale = np.sqrt(b2 * b1 / (1 - (1 - b1) * (1 - b2))) if T > 1 else np.sqrt(b1)
    inside = -np.log2(2 * norm.cdf(1 / 255 / scale) - 1)
    edge = -np.log2(norm.cdf(1 / 255 / scale))
    expected = np.where(np.abs(x0) > 0.999, edge, inside).mean(-1)
    np.testing.assert_allclose(bits, expected, rtol=1e-4)
    w, step = jnp.full(x0.shape, 0.3), jnp.ones(4, int)
    scale = scale**0.7 * np.sqrt(b1) ** 0.3  # a learned variance, which ends at beta_1
    inside, edge = -np.log2(2 * norm.cdf(1 / 255 / scale) - 1), -np.log2(norm.cdf(1 / 255 / scale))
    expected = np.where(np.abs(x0) > 0.999, edge, inside).mean(-1)
    np.testing.assert_allclose(losses.term_bits(schedule, x0, x0, step, w), expected, rtol=1e-4)


# Noise.


def test_noise_of_an_example_does_not_depend_on_the_batch_layout():
    key, positions = jax.random.key(3), jnp.arange(8)
    for draw in (
        lambda p: random.normal(random.example_keys(key, p), (3, 2)),
        lambda p: random.uniform(random.example_keys(key, p), (3,), -1.0, 1.0),
        lambda p: random.randint(random.example_keys(key, p), (), 1, 1001),
        lambda p: random.stratified(key, p, 8),
    ):
        whole = draw(positions)
        halves = jnp.concatenate([draw(positions[:4]), draw(positions[4:])])
        np.testing.assert_array_equal(whole, halves)
        assert len(np.unique(np.asarray(whole).reshape(8, -1)[:, 0])) == 8


def test_noise_has_the_distribution_it_is_named_after():
    keys = random.example_keys(jax.random.key(0), jnp.arange(4000))
    z = np.asarray(random.normal(keys, (10,)))
    assert abs(z.mean()) < 0.02 and z.std() == pytest.approx(1.0, abs=0.02)
    u = np.asarray(random.uniform(keys, (10,), -1.0, 3.0))
    assert u.min() >= -1 and u.max() < 3 and u.mean() == pytest.approx(1.0, abs=0.03)
    i = np.asarray(random.randint(keys, (10,), 1, 5))
    np.testing.assert_array_equal(np.unique(i), [1, 2, 3, 4])


def test_stratified_draws_cover_the_interval_evenly():
    for seed in range(5):
        u = np.sort(random.stratified(jax.random.key(seed), jnp.arange(64), 64))
        np.testing.assert_allclose(np.diff(u), 1 / 64, atol=1e-6)
        assert u[0] >= 0 and u[-1] < 1
