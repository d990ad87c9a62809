"""The diffusion mathematics against NumPy, SciPy and published values."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.losses import diffusion as losses
from gm_jax.samplers import diffusion, schedules

ALL = [schedules.linear(1000), schedules.cosine(1000), schedules.growing(10, 0.05, 0.5)]
NAMES = ["linear", "cosine", "exploding"]
every_schedule = pytest.mark.parametrize("schedule", ALL, ids=NAMES)


def keys_of(batch: int, seed: int = 0) -> jax.Array:
    return random.example_keys(jax.random.key(seed), jnp.arange(batch))


def arrays(*shape: int, count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32))


def float64(schedule: schedules.Schedule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.asarray(column, np.float64) for column in schedule)


# Schedules.


def test_linear_schedule_has_the_values_of_the_paper():
    schedule = schedules.linear(1000)
    assert schedule.T == 1000
    assert float(schedule.betas[1]) == pytest.approx(1e-4) and float(schedule.betas[1000]) == pytest.approx(0.02)
    assert float(schedule.signal[1000] ** 2) == pytest.approx(4.036e-5, rel=1e-3)  # alpha_bar_T, published as 4.04e-5
    assert float(schedule.signal[0]) == 1.0 and float(schedule.noise[0]) == 0.0


def test_cosine_schedule_is_the_formula_until_beta_is_clipped():
    schedule, s = schedules.cosine(1000), 0.008
    t = np.arange(999)
    f = np.cos((t / 1000 + s) / (1 + s) * np.pi / 2) ** 2
    expected = f / np.cos(s / (1 + s) * np.pi / 2) ** 2
    np.testing.assert_allclose(np.asarray(schedule.signal[:999], np.float64) ** 2, expected, rtol=1e-5)
    assert float(schedule.betas[1000]) == pytest.approx(0.999)
    assert float(schedule.signal[500] ** 2) == pytest.approx(0.4938, abs=1e-4)


@every_schedule
def test_composing_the_one_step_transitions_gives_signal_and_noise(schedule):
    betas, signal, noise = float64(schedule)
    exploding = signal[-1] == 1.0
    mean, variance = 1.0, 0.0
    for t in range(1, schedule.T + 1):
        shrink = 1.0 if exploding else np.sqrt(1 - betas[t])
        mean, variance = shrink * mean, shrink**2 * variance + betas[t]
        assert signal[t] == pytest.approx(mean, rel=1e-4)
        assert noise[t] == pytest.approx(np.sqrt(variance), rel=1e-4)


def test_schedules_are_found_by_name_and_mistakes_are_named():
    np.testing.assert_array_equal(schedules.make_schedule("cosine", 7).signal, schedules.cosine(7).signal)
    assert float(schedules.make_schedule("linear", 7, beta_end=0.5).betas[-1]) == 0.5
    with pytest.raises(UserError, match=r"did you mean 'cosine'"):
        schedules.make_schedule("cosin", 7)
    with pytest.raises(UserError, match="beta_start"):
        schedules.make_schedule("cosine", 7, beta_start=0.1)
    with pytest.raises(UserError, match="at least 1 step"):
        schedules.make_schedule("cosine", 0)


@every_schedule
def test_predictions_invert_the_forward_process(schedule):
    x0, epsilon = arrays(4, 5, count=2)
    t = jnp.array([1, 3, 7, 9])
    x_t = jax.jit(schedules.diffuse)(schedule, x0, t, epsilon)
    np.testing.assert_allclose(schedules.predict_x0(schedule, x_t, t, epsilon), x0, atol=1e-5)
    np.testing.assert_allclose(schedules.predict_epsilon(schedule, x_t, t, x0), epsilon, atol=2e-4)
    _, signal, noise = float64(schedule)
    np.testing.assert_allclose(schedules.snr(schedule, t), (signal[t] / noise[t]) ** 2, rtol=1e-5)


@pytest.mark.parametrize("t", [2, 10, 500, 1000])
def test_posterior_is_equation_7_of_the_ddpm_paper(t):
    schedule = schedules.linear(1000)
    x0, x_t = arrays(3, 4, count=2)
    betas = np.concatenate([[0], np.linspace(1e-4, 0.02, 1000)])
    bar = np.cumprod(1 - betas)
    expected_mean = (np.sqrt(bar[t - 1]) * betas[t] * x0 + np.sqrt(1 - betas[t]) * (1 - bar[t - 1]) * x_t) / (
        1 - bar[t]
    )
    mean, variance = jax.jit(schedules.posterior)(schedule, x0, x_t, jnp.full(3, t - 1), jnp.full(3, t))
    np.testing.assert_allclose(mean, expected_mean, rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(np.ravel(variance), betas[t] * (1 - bar[t - 1]) / (1 - bar[t]), rtol=2e-3)


@every_schedule
@pytest.mark.parametrize(("s", "t"), [(1, 2), (3, 10), (0, 5)])
def test_posterior_is_bayes_rule_on_a_grid(schedule, s, t):
    _, signal, noise = float64(schedule)
    x0 = 0.7
    x_t = signal[t] * x0 - 0.8 * noise[t]
    mean, variance = (
        float(np.ravel(v)[0]) for v in schedules.posterior(schedule, jnp.full((1, 1), x0), jnp.full((1, 1), x_t), s, t)
    )
    if s == 0:  # q(x_0 | x_t, x_0) is a point
        assert mean == pytest.approx(x0, abs=1e-5) and variance == 0.0
        return
    a = signal[t] / signal[s]
    grid = signal[s] * x0 + noise[s] * np.linspace(-12, 12, 200_001)
    weight = norm.pdf(grid, signal[s] * x0, noise[s]) * norm.pdf(
        x_t, a * grid, np.sqrt(noise[t] ** 2 - (a * noise[s]) ** 2)
    )
    weight /= weight.sum()
    expected = (weight * grid).sum()
    assert mean == pytest.approx(expected, abs=2e-4)
    assert variance == pytest.approx((weight * (grid - expected) ** 2).sum(), rel=2e-3)


# The reverse process.


def test_timesteps_go_from_the_prior_to_the_data():
    np.testing.assert_array_equal(diffusion.timesteps(1000, 1000), np.arange(1000, -1, -1))
    np.testing.assert_array_equal(diffusion.timesteps(1000, 50)[:3], [1000, 980, 960])
    for steps in (1, 3, 7, 999):
        spaced = diffusion.timesteps(1000, steps)
        assert len(spaced) == steps + 1 and spaced[0] == 1000 and spaced[-1] == 0 and (np.diff(spaced) < 0).all()
    with pytest.raises(UserError, match="between 1 and 10 steps, not 11"):
        diffusion.timesteps(10, 11)


def toy_denoiser(x_t: jax.Array, t: jax.Array) -> jax.Array:
    """Any function will do to compare samplers with each other; this one leaves [-1, 1] so that clipping matters."""
    return 1.5 * jnp.tanh(x_t * 2 + 0.001 * t[:, None])


def numpy_chain(schedule, x, steps, eta, noise_at):
    """DDIM as in Song et al. (2021), eq. 12 and 16, in float64; returns all states."""
    _, signal, noise = float64(schedule)
    states = [np.asarray(x, np.float64)]
    for t, s in itertools.pairwise(steps):
        x = states[-1]
        x0 = np.clip(1.5 * np.tanh(x * 2 + 0.001 * t), -1, 1)
        epsilon = (x - signal[t] * x0) / noise[t]
        alpha_ratio = (signal[t] / signal[s]) ** 2
        sigma = eta * noise[s] / noise[t] * np.sqrt(noise[t] ** 2 - alpha_ratio * noise[s] ** 2)
        states.append(signal[s] * x0 + np.sqrt(max(noise[s] ** 2 - sigma**2, 0)) * epsilon + sigma * noise_at(t))
    return states


@every_schedule
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_scanned_sampler_equals_a_numpy_loop(schedule, eta):
    keys, steps = keys_of(6), diffusion.timesteps(schedule.T, 8)
    x_T = diffusion.prior(schedule, keys, (5,))
    out = jax.jit(lambda x: diffusion.sample(toy_denoiser, schedule, keys, x, steps, eta, keep=4)._replace(t=None))(x_T)
    states = numpy_chain(schedule, x_T, steps, eta, lambda t: np.asarray(random.normal(random.fold_in(keys, t), (5,))))
    np.testing.assert_allclose(out.x, states[-1], atol=1e-3)
    assert out.x_t.shape == out.x0.shape == (4, 6, 5)
    for kept, index in enumerate(
        [0, 2, 5, 7]
    ):  # evenly spread over the 8 states that are denoised, the first among them
        np.testing.assert_allclose(out.x_t[kept], states[index], atol=1e-3)
        np.testing.assert_allclose(out.x0[kept], np.clip(toy_denoiser(states[index], steps[[index]]), -1, 1), atol=1e-3)


def test_eta_one_is_the_ancestral_step():
    schedule, (x0, x_t) = schedules.linear(1000), arrays(4, 3, count=2)
    keys = keys_of(4)
    mean, variance = schedules.posterior(schedule, x0, x_t, 499, 500)
    expected = mean + np.sqrt(variance) * random.normal(random.fold_in(keys, 500), (3,))
    np.testing.assert_allclose(diffusion.step(schedule, x_t, x0, 499, 500, 1.0, keys), expected, atol=1e-4)


def test_kept_states_are_labelled_and_never_more_than_there_are():
    schedule, keys = schedules.cosine(100), keys_of(2)
    steps = diffusion.timesteps(100, 4)
    out = diffusion.sample(toy_denoiser, schedule, keys, random.normal(keys, (3,)), steps, keep=9)
    np.testing.assert_array_equal(out.t, [100, 75, 50, 25])
    none = diffusion.sample(toy_denoiser, schedule, keys, random.normal(keys, (3,)), steps)
    assert none.x_t.shape == (0, 2, 3) and len(none.t) == 0
    np.testing.assert_array_equal(none.x, out.x)


@every_schedule
@pytest.mark.parametrize(("steps", "eta"), [(None, 1.0), (100, 0.0), (100, 1.0)])
def test_the_exact_denoiser_of_gaussian_data_recovers_mean_and_variance(schedule, steps, eta):
    mean, deviation, count = 0.3, 0.5, 5000
    steps = min(steps or schedule.T, schedule.T)

    def denoise(x_t, t):  # E[x_0 | x_t] for x_0 ~ N(mean, deviation^2)
        signal, noise = schedules.at(schedule.signal, t, x_t), schedules.at(schedule.noise, t, x_t)
        gain = signal * deviation**2 / (signal**2 * deviation**2 + noise**2)
        return mean + gain * (x_t - signal * mean)

    keys = keys_of(count)
    start = random.normal(random.fold_in(keys, 0), (1,))
    x_T = (
        schedule.signal[-1] * mean + jnp.sqrt(schedule.noise[-1] ** 2 + (schedule.signal[-1] * deviation) ** 2) * start
    )
    chain = jax.jit(
        lambda x: (
            diffusion.sample(denoise, schedule, keys, x, diffusion.timesteps(schedule.T, steps), eta, clip=False).x
        )
    )
    x = np.asarray(chain(x_T))
    assert x.mean() == pytest.approx(mean, abs=0.02)
    # Long ancestral steps lose variance: the posterior leaves out the uncertainty about x_0.
    loss = 0.25 if schedule.T == 10 else 0.1 if eta == 1.0 and steps < schedule.T else 0.05
    assert x.std() == pytest.approx(deviation, rel=loss)


def test_few_steps_from_a_prior_without_signal_are_harmless():
    """With the cosine schedule x_0 is a division by 5e-5 at t = T: clipping must keep the chain on its way."""
    schedule, keys = schedules.cosine(1000), keys_of(512)
    truth = jnp.sign(random.normal(random.fold_in(keys, 5), (16,))) * 0.8

    def noise_error(x_t, t):  # a noise prediction that is 3 % off, turned into x_0
        epsilon = schedules.predict_epsilon(schedule, x_t, t, truth) + 0.03 * random.normal(
            random.fold_in(keys, t[0]), (16,)
        )
        return schedules.predict_x0(schedule, x_t, t, epsilon)

    x_T = diffusion.prior(schedule, keys, (16,))
    x = diffusion.sample(noise_error, schedule, keys, x_T, diffusion.timesteps(1000, 5)).x
    assert float(jnp.mean(jnp.abs(x - truth))) < 0.05


def test_forward_chain_starts_at_the_data_and_ends_at_the_prior():
    schedule, keys = schedules.cosine(1000), keys_of(3)
    (x0,) = arrays(3, 4, count=1)
    chain = diffusion.forward_chain(schedule, keys, x0, np.array([0, 500, 1000]))
    np.testing.assert_array_equal(chain[0], x0)
    np.testing.assert_allclose(chain[2], random.normal(keys, (4,)), atol=1e-3)


# Losses.


@every_schedule
@pytest.mark.parametrize("objective", losses.OBJECTIVES)
def test_a_perfect_output_of_any_objective_gives_back_the_image(schedule, objective):
    x0, epsilon = arrays(4, 3, 3, count=2)
    t = jnp.array([1, 3, 7, 9])
    x_t = schedules.diffuse(schedule, x0, t, epsilon)
    output = losses.target(objective, schedule, x0, t, epsilon)
    np.testing.assert_allclose(losses.to_x0(objective, schedule, x_t, t, output), x0, atol=1e-4)


@every_schedule
@pytest.mark.parametrize("quantity", losses.OBJECTIVES)
def test_errors_of_noise_velocity_and_image_differ_by_a_weight(schedule, quantity):
    """An arbitrary wrong prediction of x_0, told in each quantity, has the error of x_0 times the weight."""
    x0, epsilon, wrong = np.random.default_rng(5).standard_normal((3, 4, 3, 3, 1)).astype(np.float32)
    t = np.array([1, schedule.T // 3, schedule.T // 2, schedule.T - 1])
    signal, noise = (np.asarray(v, np.float64)[t][:, None, None, None] for v in (schedule.signal, schedule.noise))
    x_t = signal * x0 + noise * epsilon
    told = {
        "image": (x0, wrong),
        "noise": (epsilon, (x_t - signal * wrong) / noise),
        "velocity": tuple((signal * x_t - (signal**2 + noise**2) * x) / noise for x in (x0, wrong)),
    }
    right, guess = told[quantity]
    expected = np.mean((right - guess) ** 2, (1, 2, 3)) / np.mean((x0 - wrong) ** 2, (1, 2, 3))
    np.testing.assert_allclose(losses.error_weight(quantity, schedule, t), expected, rtol=2e-3)
    np.testing.assert_allclose(losses.target(quantity, schedule, x0, t, epsilon), right, atol=2e-3)


def test_velocity_is_that_of_salimans_and_ho():
    schedule, (x0, epsilon) = schedules.cosine(1000), arrays(2, 3, count=2)
    bar = np.asarray(schedule.signal[300], np.float64) ** 2
    expected = np.sqrt(bar) * epsilon - np.sqrt(1 - bar) * x0
    np.testing.assert_allclose(
        losses.target("velocity", schedule, x0, jnp.array([300, 300]), epsilon), expected, atol=1e-5
    )
    with pytest.raises(UserError, match="did you mean 'velocity'"):
        losses.target("velocty", schedule, x0, jnp.array([1, 1]), epsilon)


def test_squared_error_is_the_mean_per_example():
    a, b = arrays(5, 4, 4, 1, count=2)
    np.testing.assert_allclose(jax.jit(losses.squared_error)(a, b), ((a - b) ** 2).mean((1, 2, 3)), rtol=1e-5)


def kl_bits(mean1, var1, mean2, var2):
    return (0.5 * (np.log(var2 / var1) + var1 / var2 + (mean1 - mean2) ** 2 / var2 - 1)).mean(-1) / np.log(2)


@every_schedule
def test_bound_terms_are_divergences_in_bits(schedule):
    _, signal, noise = float64(schedule)
    x0, x_t, x0_hat = arrays(3, 6, count=3)
    prior = 1.0 if signal[-1] < 1 else 1 + noise[-1] ** 2
    np.testing.assert_allclose(
        losses.prior_bits(schedule, x0), kl_bits(signal[-1] * x0, noise[-1] ** 2, 0.0, prior), rtol=1e-3, atol=1e-7
    )
    for t in (2, 5, 10):
        a = signal[t] / signal[t - 1]
        v = noise[t] ** 2 - (a * noise[t - 1]) ** 2
        variance = v * noise[t - 1] ** 2 / noise[t] ** 2
        means = [(a * noise[t - 1] ** 2 * x_t + signal[t - 1] * v * x) / noise[t] ** 2 for x in (x0, x0_hat)]
        expected = kl_bits(means[0], variance, means[1], variance)
        np.testing.assert_allclose(jax.jit(losses.step_bits)(schedule, x0, x0_hat, jnp.full(3, t)), expected, rtol=2e-3)


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
def test_step_one_of_the_bound_is_the_decoder(T):
    """Its variance is the posterior's of step 2 or, in a chain of one step, that of the step."""
    schedule = schedules.linear(T)
    x0 = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 8)) / 127.5 - 1, jnp.float32).at[0, 0].set(1.0)
    bits = jax.jit(losses.step_bits)(schedule, x0, x0, jnp.array([1, 1, min(2, T), min(2, T)]))
    if T > 1:
        np.testing.assert_array_equal(bits[2:], 0.0)  # a perfect prediction costs nothing later on
    b1, b2 = 1e-4, 1e-4 + (0.02 - 1e-4) / 999
    scale = np.sqrt(b2 * b1 / (1 - (1 - b1) * (1 - b2))) if T > 1 else np.sqrt(b1)
    inside = -np.log2(2 * norm.cdf(1 / 255 / scale) - 1)
    edge = -np.log2(norm.cdf(1 / 255 / scale))
    expected = np.where(np.abs(x0[:2]) > 0.999, edge, inside).mean(-1)
    np.testing.assert_allclose(bits[:2], expected, rtol=2e-2)


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
    keys = keys_of(4000)
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


def test_betas_that_would_more_than_erase_the_image_are_refused():
    with pytest.raises(UserError, match="betas below 1"):
        schedules.make_schedule("linear", 20, beta_end=1.5)
    assert schedules.make_schedule("exploding", 10, beta_end=8.0).noise[-1] > 5  # there the noise only adds up
