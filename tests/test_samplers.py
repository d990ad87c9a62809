"""Schedules, processes and samplers against NumPy, published algorithms, and diffusers where it is installed."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.samplers import diffusion, plans, schedules
from gm_jax.samplers.diffusion import Answer
from gm_jax.samplers.likelihood import bits_by_flow
from gm_jax.samplers.processes import Chain, Flow, LogNormal, karras

CHAINS = [schedules.linear(1000), schedules.cosine(1000), schedules.growing(10, 0.05, 0.5)]
every_schedule = pytest.mark.parametrize("schedule", CHAINS, ids=["linear", "cosine", "exploding"])


def keys_of(batch: int, seed: int = 0) -> jax.Array:
    return random.example_keys(jax.random.key(seed), jnp.arange(batch))


# Schedules.


def test_linear_schedule_has_the_values_of_the_paper():
    schedule = schedules.linear(1000)
    assert schedule.T == 1000
    assert schedule.betas[1] == pytest.approx(1e-4) and schedule.betas[1000] == pytest.approx(0.02)
    assert schedule.signal[1000] ** 2 == pytest.approx(4.036e-5, rel=1e-3)  # alpha_bar_T, published as 4.04e-5
    assert schedule.signal[0] == 1.0 and schedule.noise[0] == 0.0


def test_cosine_schedule_is_the_formula_until_beta_is_clipped():
    schedule, s = schedules.cosine(1000), 0.008
    t = np.arange(999)
    f = np.cos((t / 1000 + s) / (1 + s) * np.pi / 2) ** 2
    np.testing.assert_allclose(schedule.signal[:999] ** 2, f / np.cos(s / (1 + s) * np.pi / 2) ** 2, rtol=1e-9)
    assert schedule.betas[1000] == pytest.approx(0.999)
    assert schedule.signal[500] ** 2 == pytest.approx(0.4938, abs=1e-4)


def test_sigmoid_schedule_is_the_formula():
    t = np.arange(1000) / 1000

    def g(t):
        return 1 / (1 + np.exp(-(-3 + 6 * t)))

    expected = (g(1) - g(t)) / (g(1) - g(0))
    np.testing.assert_allclose(schedules.sigmoid(1000).signal[:1000] ** 2, expected, rtol=1e-9)


@every_schedule
def test_composing_the_one_step_transitions_gives_signal_and_noise(schedule):
    betas, signal, noise = schedule
    exploding = signal[-1] == 1.0
    mean, variance = 1.0, 0.0
    for t in range(1, schedule.T + 1):
        shrink = 1.0 if exploding else np.sqrt(1 - betas[t])
        mean, variance = shrink * mean, shrink**2 * variance + betas[t]
        assert signal[t] == pytest.approx(mean, rel=1e-9)
        assert noise[t] == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_schedules_are_found_by_name_and_mistakes_are_named():
    np.testing.assert_array_equal(schedules.make_schedule("cosine", 7).signal, schedules.cosine(7).signal)
    assert schedules.make_schedule("linear", 7, beta_end=0.5).betas[-1] == 0.5
    with pytest.raises(UserError, match=r"did you mean 'cosine'"):
        schedules.make_schedule("cosin", 7)
    with pytest.raises(UserError, match="beta_start"):
        schedules.make_schedule("cosine", 7, beta_start=0.1)
    with pytest.raises(UserError, match="at least 1 step"):
        schedules.make_schedule("cosine", 0)


def test_betas_that_would_more_than_erase_the_image_are_refused():
    with pytest.raises(UserError, match="betas below 1"):
        schedules.make_schedule("linear", 20, beta_end=1.5)
    assert schedules.make_schedule("exploding", 10, beta_end=8.0).noise[-1] > 5  # there the noise only adds up


# Processes.


def test_training_levels_are_those_of_the_papers():
    u = np.array([0.0, 0.2, 0.5, 0.999])
    chain = Chain(CHAINS[0]).draw(jnp.asarray(u))
    np.testing.assert_array_equal(chain.time, [1, 201, 501, 1000])
    np.testing.assert_allclose(chain.signal, CHAINS[0].signal[[1, 201, 501, 1000]], rtol=1e-6)
    np.testing.assert_allclose(chain.noise, CHAINS[0].noise[[1, 201, 501, 1000]], rtol=1e-6)
    edm = LogNormal().draw(jnp.asarray(u[1:]))
    np.testing.assert_allclose(edm.noise, np.exp(norm.ppf(u[1:], -1.2, 1.2)), rtol=1e-4)
    np.testing.assert_allclose(edm.time, np.log(edm.noise) / 4, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(edm.signal, 1.0)
    assert np.isfinite(LogNormal().draw(jnp.array([0.0, 1.0])).time).all()  # what a float32 uniform may be rounded to
    flow = Flow().draw(jnp.asarray(u[1:]))
    np.testing.assert_allclose([flow.noise, 1 - flow.signal, flow.time / 1000], [u[1:]] * 3, rtol=1e-4)


def test_evenly_spaced_levels_go_from_the_prior_to_the_clean_image():
    chain = Chain(CHAINS[0])
    np.testing.assert_array_equal(chain.evenly(1000).time, np.arange(1000, -1, -1))
    np.testing.assert_array_equal(chain.evenly(50).time[:3], [1000, 980, 960])
    np.testing.assert_array_equal(chain.evenly(50).noise[:3], CHAINS[0].noise[[1000, 980, 960]])
    np.testing.assert_allclose(Flow().evenly(4).noise, [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(LogNormal().evenly(3).noise, [80, 0.4, 0.002, 0])
    for process in (chain, LogNormal(), Flow()):
        for steps in (1, 3, 7, 999):
            levels = process.evenly(steps)
            assert len(levels.noise) == steps + 1 and levels.noise[-1] == 0 and levels.signal[-1] == 1
            assert (np.diff(levels.noise / np.maximum(levels.signal, 1e-9)) < 0).all()
    with pytest.raises(UserError, match="between 1 and 10 steps, not 11"):
        Chain(schedules.cosine(10)).evenly(11)


def test_levels_of_a_ratio_lie_on_the_process():
    ratio = np.array([50.0, 2.0, 0.4])
    for process in (Chain(CHAINS[0]), Chain(CHAINS[2]), LogNormal(), Flow()):
        levels = process.at_ratio(ratio)
        np.testing.assert_allclose(levels.noise / levels.signal, ratio)
    schedule = CHAINS[0]
    for t in (3, 400, 1000):  # the network's time of a step is the step
        level = Chain(schedule).at_ratio(schedule.noise[[t]] / schedule.signal[[t]])
        np.testing.assert_allclose([*level], [[schedule.signal[t]], [schedule.noise[t]], [t]], rtol=1e-9)


def test_karras_spacing_is_equation_5():
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    levels = karras(LogNormal(), 18)
    np.testing.assert_allclose(levels.noise, [*expected, 0.0])
    assert karras(Chain(CHAINS[1]), 5, rho=3.0).noise[0] == pytest.approx(80 / np.hypot(80, 1))


# Samplers.


def toy_denoiser(x, time):
    """Any function will do to compare samplers with each other; this one leaves [-1, 1] so that clipping matters."""
    return 1.5 * np.tanh(x * 2 + 0.001 * time) if isinstance(x, np.ndarray) else 1.5 * jnp.tanh(x * 2 + 0.001 * time)


def ask(x, level):
    return Answer(toy_denoiser(x, level.time))


def clipped(x, time):
    return np.clip(toy_denoiser(np.asarray(x, np.float64), time), -1, 1)


def in_float64(denoise, plan, x):
    """Run a plan in NumPy; return the final states."""
    final, before, states = np.float64(x), 0.0, [x]
    for i in range(len(plan.base)):
        x0 = denoise(x, *plans.row(plan.level, i))
        x = plan.base[i] * final + plan.image[i] * x0 + plan.previous[i] * before
        before = x0
        if plan.final[i]:
            final = x
            states.append(x)
    return states


START = np.random.default_rng(0).standard_normal((4, 5))


def ddim_in_numpy(schedule, x, steps, eta, noise_of):
    """DDIM as in Song et al. (2021), eq. 12 and 16; returns all states."""
    _, signal, noise = schedule
    states = [np.asarray(x, np.float64)]
    for number, (t, s) in enumerate(itertools.pairwise(steps)):
        x = states[-1]
        x0 = clipped(x, t)
        epsilon = (x - signal[t] * x0) / noise[t]
        alpha_ratio = (signal[t] / signal[s]) ** 2
        sigma = eta * noise[s] / noise[t] * np.sqrt(noise[t] ** 2 - alpha_ratio * noise[s] ** 2)
        states.append(signal[s] * x0 + np.sqrt(max(noise[s] ** 2 - sigma**2, 0)) * epsilon + sigma * noise_of(number))
    return states


@every_schedule
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_scanned_ddim_equals_a_numpy_loop(schedule, eta):
    keys, steps = keys_of(6), np.round(np.linspace(schedule.T, 0, 9)).astype(int)
    plan = plans.ddim(Chain(schedule).evenly(8), eta)
    x = diffusion.prior(plan, keys, (5,))
    out = jax.jit(lambda x: diffusion.sample(ask, plan, keys, x, keep=4)._replace(kept=None))(x)
    states = ddim_in_numpy(schedule, x, steps, eta, lambda i: np.asarray(random.normal(random.fold_in(keys, i), (5,))))
    np.testing.assert_allclose(out.x, states[-1], atol=1e-5)
    assert out.states.shape == out.x0.shape == (4, 6, 5)
    for kept, index in enumerate([0, 2, 5, 7]):  # evenly spread over the 8 evaluations, the first among them
        np.testing.assert_allclose(out.states[kept], states[index], atol=1e-5)
        np.testing.assert_allclose(out.x0[kept], clipped(states[index], steps[index]), atol=1e-5)


def test_eta_one_is_the_posterior_of_the_ddpm_paper():
    """Equation 7 of Ho et al. (2020): mean and variance of q(x_{t-1} | x_t, x_0)."""
    betas = np.concatenate([[0], np.linspace(1e-4, 0.02, 1000)])
    bar = np.cumprod(1 - betas)
    plan = plans.ddim(Chain(schedules.linear(1000)).evenly(1000), eta=1.0)
    t = np.arange(1000, 0, -1)
    image = np.sqrt(bar[t - 1]) * betas[t] / (1 - bar[t])
    base = np.sqrt(1 - betas[t]) * (1 - bar[t - 1]) / (1 - bar[t])
    np.testing.assert_allclose(plan.image, image, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(plan.base, base, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(plan.noise**2, betas[t] * (1 - bar[t - 1]) / (1 - bar[t]), rtol=1e-7, atol=1e-15)


def dpm_solver_in_numpy(signal, noise, time, x):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), first order in the first and the last step."""
    answers, states = [], [x]
    for i in range(len(noise) - 1):
        answers.append(clipped(states[-1], time[i]))
        D = answers[-1]
        if noise[i + 1] == 0:
            states.append(D)
            break
        if i:
            lamb = np.log(signal[i - 1 : i + 2] / noise[i - 1 : i + 2])
            r = (lamb[1] - lamb[0]) / (lamb[2] - lamb[1])
            D = (1 + 1 / (2 * r)) * D - answers[-2] / (2 * r)
        h = np.log(signal[i + 1] / noise[i + 1]) - np.log(signal[i] / noise[i])
        states.append(noise[i + 1] / noise[i] * states[-1] - signal[i + 1] * np.expm1(-h) * D)
    return states


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_dpm_solver_is_the_published_algorithm(steps):
    levels = Chain(schedules.linear(1000)).evenly(steps)
    found = in_float64(lambda x, signal, noise, time: clipped(x, time), plans.dpm_solver(levels), START)
    np.testing.assert_allclose(found, dpm_solver_in_numpy(*levels, START), atol=1e-10)


def edm_in_numpy(x, steps, churn, noise_of):
    """Algorithm 2 of Karras et al. (2022); the noise that it first adds is part of x already."""
    t = [*(80 ** (1 / 7) + np.arange(steps) / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0.0]
    for i in range(steps):
        raised = t[i] * (1 + min(churn / steps, np.sqrt(2) - 1))
        x = x + np.sqrt(raised**2 - t[i] ** 2) * noise_of(i)
        d = (x - clipped(x, np.log(raised) / 4)) / raised
        guess = x + (t[i + 1] - raised) * d
        if t[i + 1]:
            other = (guess - clipped(guess, np.log(t[i + 1]) / 4)) / t[i + 1]
            guess = x + (t[i + 1] - raised) * (d + other) / 2
        x = guess
    return x


@pytest.mark.parametrize("churn", [0.0, 2.0])
@pytest.mark.parametrize("steps", [2, 6])
def test_heun_is_algorithm_2_of_edm(steps, churn):
    """Noise is drawn after the evaluation that ends a step; the first step's is part of the prior."""
    process = LogNormal()
    plan = plans.heun(process, karras(process, steps), churn)
    keys, x = keys_of(4), jnp.float32(START * plan.scale)
    found = diffusion.sample(ask, plan, keys, x).x
    drawn = [0.0, *(np.asarray(random.normal(random.fold_in(keys, 2 * i - 1), (5,))) for i in range(1, steps))]
    assert len(plan.base) == 2 * steps - 1
    raised = 80 * (1 + min(churn / steps, np.sqrt(2) - 1))
    assert plan.level.noise[0] == pytest.approx(raised)
    expected = edm_in_numpy(np.asarray(x, np.float64), steps, churn, lambda i: drawn[i])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_heun_converges_twice_as_fast_as_euler():
    """On N(0, 0.5^2), whose exact path is known: x(sigma) proportional to sqrt(sigma^2 + 0.5^2)."""
    process, errors = LogNormal(), {}
    for steps in (20, 40):
        levels = karras(process, steps)
        for name, plan in (("heun", plans.heun(process, levels)), ("euler", plans.ddim(levels))):
            end = in_float64(lambda x, signal, noise, time: x * 0.25 / (0.25 + noise**2), plan, 80.0)[-1]
            errors[name, steps] = abs(end / (80 * 0.5 / np.hypot(80, 0.5)) - 1)
    assert errors["euler", 20] / errors["euler", 40] == pytest.approx(2, rel=0.3)
    assert errors["heun", 20] / errors["heun", 40] > 3.3 and errors["heun", 40] < errors["euler", 40] / 5


def test_heun_needs_a_first_level_with_signal():
    with pytest.raises(UserError, match=r"set sampling.spacing=karras"):
        plans.heun(Flow(), Flow().evenly(5))
    assert np.isfinite(plans.heun(Flow(), karras(Flow(), 5)).base).all()


def test_ddim_on_a_flow_is_eulers_method_for_its_velocity():
    levels, x = Flow().evenly(5), START.copy()
    for t, s in itertools.pairwise(np.linspace(1, 0, 6)):
        x0 = clipped(x, 1000 * t)
        velocity = (x - (1 - t) * x0) / t - x0  # epsilon - x_0
        x = x + (s - t) * velocity
    found = in_float64(lambda x, signal, noise, time: clipped(x, time), plans.ddim(levels), START)[-1]
    np.testing.assert_allclose(found, x, atol=1e-12)
    assert np.isfinite(plans.dpm_solver(levels).image).all()  # it starts from noise alone, where ln(signal) is infinite


def test_one_program_runs_all_plans_of_one_length():
    traces = []

    @jax.jit
    def run(plan, keys, x):
        traces.append(plan)
        return diffusion.sample(lambda x, level: Answer(0.9 * jnp.tanh(x)), plan, keys, x).x

    chain, keys = Chain(schedules.cosine(100)), keys_of(4)
    made = [plans.ddim(chain.evenly(7)), plans.ddim(chain.evenly(7), 1.0), plans.dpm_solver(karras(chain, 7)),
            plans.heun(chain, karras(chain, 4), 1.0)]  # fmt: skip
    results = [run(plan, keys, jnp.float32(START)) for plan in made]
    assert len(traces) == 1 and len({np.asarray(r).tobytes() for r in results}) == 4


def test_kept_states_are_never_more_than_there_are():
    plan, keys = plans.ddim(Chain(schedules.cosine(100)).evenly(4)), keys_of(2)
    x = random.normal(keys, (3,))
    out = diffusion.sample(ask, plan, keys, x, keep=9)
    np.testing.assert_array_equal(out.kept, [0, 1, 2, 3])
    none = diffusion.sample(ask, plan, keys, x)
    assert none.states.shape == (0, 2, 3) and len(none.kept) == 0
    np.testing.assert_array_equal(none.x, out.x)


def exact_denoiser(mean, deviation):
    """E[x_0 | x] for x_0 ~ N(mean, deviation^2)."""

    def denoise(x, level):
        gain = level.signal * deviation**2 / (level.signal**2 * deviation**2 + level.noise**2)
        return Answer(mean + gain * (x - level.signal * mean))

    return denoise


@pytest.mark.parametrize(
    ("process", "make", "loss"),
    [
        (Chain(CHAINS[0]), lambda p: plans.ddim(p.evenly(1000), 1.0), 0.03),
        (Chain(CHAINS[1]), lambda p: plans.ddim(p.evenly(100), 1.0), 0.1),  # long ancestral steps lose variance
        (Chain(CHAINS[1]), lambda p: plans.ddim(p.evenly(100)), 0.05),
        (Chain(CHAINS[2]), lambda p: plans.ddim(p.evenly(10), 1.0), 0.25),
        (Chain(CHAINS[1]), lambda p: plans.dpm_solver(p.evenly(25)), 0.03),
        (Chain(CHAINS[0]), lambda p: plans.dpm_solver(karras(p, 30)), 0.03),
        (Flow(), lambda p: plans.ddim(p.evenly(50)), 0.05),
        (LogNormal(), lambda p: plans.heun(p, karras(p, 40)), 0.03),
        (LogNormal(), lambda p: plans.heun(p, karras(p, 50), churn=5.0), 0.04),
    ],
)
def test_the_exact_denoiser_of_gaussian_data_recovers_mean_and_variance(process, make, loss):
    mean, deviation, count, plan = 0.3, 0.5, 5000, make(process)
    keys = keys_of(count)
    signal, noise = plan.level.signal[0], plan.level.noise[0]
    x = signal * mean + np.hypot(noise, signal * deviation) * random.normal(random.fold_in(keys, 999), (1,))
    run = jax.jit(lambda x: diffusion.sample(exact_denoiser(mean, deviation), plan, keys, x, clip=False).x)
    x = np.asarray(run(x))
    assert x.mean() == pytest.approx(mean, abs=0.02)
    assert x.std() == pytest.approx(deviation, rel=loss)


def test_a_learned_variance_makes_few_ancestral_steps_exact():
    """Of Gaussian data p(x_s | x_t) is known: its variance is the posterior's and what is not known of x_0."""
    deviation, keys, levels = 0.5, keys_of(5000), Chain(CHAINS[1]).evenly(10)
    plan, exact = plans.ddim(levels, 1.0), exact_denoiser(0.0, deviation)
    signal, noise = plan.level.signal, plan.level.noise
    unknown = deviation**2 * noise**2 / (signal**2 * deviation**2 + noise**2)
    w = np.log1p((plan.image / np.maximum(plan.noise, 1e-9)) ** 2 * unknown) / np.maximum(plan.widest, 1e-9)
    assert np.all((w[:-1] > 0) & (w[:-1] < 1)) and plan.widest[-1] == 0.0  # between the two that need no data

    def learned(x, level):
        return exact(x, level)._replace(w=jnp.interp(level.time, *table))

    def variance(denoise):  # the last step shows E[x_0 | x], which has less than x_0
        run = jax.jit(lambda x: diffusion.sample(denoise, plan, keys, x, clip=False).x)
        return np.var(run(diffusion.prior(plan, keys, (1,)))) + unknown[-1]

    table = np.float32(plan.level.time[::-1]), np.float32(w[::-1])
    assert variance(learned) == pytest.approx(deviation**2, rel=0.05) and variance(exact) < 0.8 * deviation**2
    largest = noise[:-1] ** 2 - (signal[:-1] / levels.signal[1:-1] * levels.noise[1:-1]) ** 2  # of q(x_t | x_s): beta_t
    np.testing.assert_allclose(plan.noise[:-1] ** 2 * np.exp(plan.widest[:-1]), largest, rtol=1e-6)
    assert not np.any(plans.ddim(levels, 0.5).widest) and not np.any(plans.dpm_solver(levels).widest)


def test_few_steps_from_a_prior_without_signal_are_harmless():
    """With the cosine schedule x_0 is a division by 5e-5 at t = T: clipping must keep the chain on its way."""
    keys = keys_of(512)
    truth = jnp.sign(random.normal(random.fold_in(keys, 5), (16,))) * 0.8

    def noise_error(x, level):  # a noise prediction that is 3 % off, turned into x_0
        epsilon = (x - level.signal * truth) / level.noise + 0.03 * random.normal(keys, (16,))
        return Answer((x - level.noise * epsilon) / level.signal)

    plan = plans.ddim(Chain(schedules.cosine(1000)).evenly(5))
    x = diffusion.sample(noise_error, plan, keys, diffusion.prior(plan, keys, (16,))).x
    assert float(jnp.mean(jnp.abs(x - truth))) < 0.05


def test_the_prior_has_the_scale_of_the_first_level():
    x = diffusion.prior(plans.ddim(Chain(CHAINS[2]).evenly(10)), keys_of(4000), (5,))
    assert float(jnp.std(x)) == pytest.approx(np.sqrt(1 + np.linspace(0.05, 0.5, 10).sum()), rel=0.02)


@pytest.mark.parametrize("process", [LogNormal(), Chain(CHAINS[0]), Flow()], ids=["edm", "linear", "flow"])
def test_the_exact_denoiser_of_gaussian_data_has_their_likelihood(process):
    """A Gaussian so wide that a bin is flat; its bits are those of the density times the bin's width."""
    mean, deviation = 0.1, 0.3
    x0 = jnp.float32(np.random.default_rng(1).normal(mean, deviation, (64, 40)))
    denoise = exact_denoiser(mean, deviation)
    found = jax.jit(lambda x: bits_by_flow(denoise, process, x, keys_of(64), 200))(x0)
    expected = -norm.logpdf(x0, mean, deviation).mean(1) / np.log(2) + np.log2(127.5)
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert np.corrcoef(found, expected)[0, 1] > 0.99


@pytest.mark.parametrize(("steps", "ours"), [(10, "ddim"), (20, "ddim"), (10, "dpm_solver"), (20, "dpm_solver")])
def test_chains_are_those_of_diffusers(steps, ours):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    if ours == "ddim":
        scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing", clip_sample=True)
        more = {"use_clipped_model_output": True}
        plan = plans.ddim(Chain(schedules.linear(1000)).evenly(steps))
    else:
        scheduler = diffusers.DPMSolverMultistepScheduler(
            solver_order=2, solver_type="midpoint", timestep_spacing="trailing", final_sigmas_type="zero"
        )
        more, plan = {}, plans.dpm_solver(Chain(schedules.linear(1000)).evenly(steps))
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    scheduler.betas, scheduler.alphas = betas, 1 - betas
    scheduler.alphas_cumprod = bar = torch.cumprod(1 - betas, 0)
    if ours == "dpm_solver":
        scheduler.alpha_t, scheduler.sigma_t = bar**0.5, (1 - bar) ** 0.5
        scheduler.lambda_t = torch.log(scheduler.alpha_t) - torch.log(scheduler.sigma_t)
        scheduler.sigmas = ((1 - bar) / bar) ** 0.5
    scheduler.set_timesteps(steps)
    if ours == "dpm_solver":
        scheduler.sigmas = torch.cat([(((1 - bar) / bar) ** 0.5)[scheduler.timesteps], torch.zeros(1)]).double()
    x = torch.from_numpy(START.copy())
    for t in scheduler.timesteps:
        signal, noise = bar[t] ** 0.5, (1 - bar[t]) ** 0.5
        x0 = torch.from_numpy(clipped(x.numpy(), int(t) + 1))  # diffusers counts steps from 0
        x = scheduler.step((x - signal * x0) / noise, t, x, **more).prev_sample
    expected = in_float64(lambda x, signal, noise, time: clipped(x, time), plan, START)[-1]
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-5)
