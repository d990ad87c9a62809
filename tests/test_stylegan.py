"""StyleGAN with toy networks: growth, phases, memory, samples, figures and projection against NumPy."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import project, random
from gm_jax.errors import UserError
from gm_jax.experiment import Experiment
from gm_jax.figures import latent_file
from gm_jax.figures.arithmetic import check_terms, parse, solve
from gm_jax.judge import Judge
from gm_jax.layers.resample import double, halve
from gm_jax.models.stylegan import Mapping
from gm_jax.stages import Context
from gm_jax.state import Variables
from gm_jax.step import AXIS, derive
from gm_jax.tasks import DataSpec, gan_figures, make_task, stylegan_figures, stylegan_project
from gm_jax.tasks.growth import spans
from gm_jax.tasks.stylegan import DISCRIMINATOR, GENERATOR
from tests.tiny import shrunk, train_tiny
from tests.toys import CAPTION, close, record, run, same_pictures, trained, weights

LATENTS, SIDE, B = 4, 16, 4
KEY = jax.random.key(7)


class ToyMapping(nn.Module):
    @nn.compact
    def __call__(self, z):
        return z @ self.param("m", nn.initializers.zeros, (LATENTS, LATENTS))


class ToySynthesis(nn.Module):
    """An image of one grey a row, which w of all layers, the noise and the level tell."""

    @nn.compact
    def __call__(self, w, keys, level, shown):
        side, p = 4 << max(shown), self.param("s", nn.initializers.zeros, (6, LATENTS))
        grey = jnp.einsum("bld,ld->b", w, p[: w.shape[1]]) + 0.1 * random.normal(keys) + 0.2 * level
        rows = jnp.linspace(0.1, 1.0, side)[:, None, None]
        return jnp.tanh(grey[:, None, None, None] * rows) * jnp.ones((1, side, side, 1))


class ToyDiscriminator(nn.Module):
    @nn.compact
    def __call__(self, x, level, shown):
        a = self.param("a", nn.initializers.zeros, (3,))
        return a[0] * jnp.sum(x, (1, 2, 3)) + (a[1] + level) * jnp.mean(x[:, : len(shown)] ** 2, (1, 2, 3)) + a[2]


def make(**changes):
    """A task with toy networks for grey images of 16 pixels, which begins with 8, and variables."""
    sizes = {"batch_size": 8, "growth__batch_sizes": (8, 16), "growth__rates": (1.0, 1.5), "steps": 20}
    growth = {
        "growth__first": 8,
        "growth__stable": 16,
        "growth__fade": 64,
        "model__channels": (4, 4, 4),
        "model__latent_dim": LATENTS,
    }
    config = shrunk("stylegan_shapes", **{**sizes, **growth, "gan__r1_every": 1, **changes})
    task = make_task(config, DataSpec((SIDE, SIDE, 1)))
    task.mapping, task.synthesis, task.discriminator = ToyMapping(), ToySynthesis(), ToyDiscriminator()
    params = {
        GENERATOR: {"mapping": {"m": weights(LATENTS, LATENTS)}, "synthesis": {"s": weights(6, LATENTS, seed=1)}},
        DISCRIMINATOR: {"a": np.array([0.01, 0.3, -0.2], np.float32)},
    }
    memory = {"mean_w": weights(LATENTS, seed=2), "level": np.float32(1.5), "grown": task.init_memory(KEY)["grown"]}
    return task, Variables(params, {GENERATOR: {}, DISCRIMINATOR: {}}, memory)


def images_of(n):
    image = np.random.default_rng(n).integers(0, 256, (n, SIDE, SIDE, 1), dtype=np.uint8)
    return {"image": image, "position": np.roll(np.arange(n, dtype=np.int32), 1)}


def test_growth_doubles_and_fades():
    """Batches, rates and lengths by resolution: in whole calls, at least so many images; the last has no end."""
    config = shrunk("stylegan_shapes", batch_size=8, growth__batch_sizes=(8, 16), growth__rates=(1.0, 1.5))
    config.growth.update({"first": 8, "stable": 100, "fade": 200})
    config.steps_per_call = 3
    planned = spans(config, 4)
    assert [(s.side, s.fades, s.batch_size, s.rate) for s in planned] == [
        *[(8, False, 8, 1.0), (16, True, 16, 1.5), (16, False, 16, 1.5), (32, True, 8, 1.0), (32, False, 8, 1.0)]
    ]
    assert [s.begin for s in planned] == [0, 15, 30, 39, 66]  # 13 -> 15 steps, 13 -> 15, 7 -> 9, 25 -> 27
    assert [s.end for s in planned] == [15, 30, 39, 66, None]
    assert [s.shown for s in planned] == [(1,), (1, 2), (2,), (2, 3), (3,)]
    fade = planned[1]
    levels = [float(fade.level(jnp.int32(step))) for step in (15, 20, 29, 30)]
    close(levels, [1.0, 1 + 5 / 15, 1 + 14 / 15, 2.0])
    assert [float(s.level(jnp.int32(70))) for s in (planned[0], planned[4])] == [1.0, 3.0]
    config.growth.first = 4
    assert [s.side for s in spans(config, 2)] == [4, 8, 8]


@pytest.mark.parametrize(("first", "message"), [(16, "is not 4 or 8"), (8, "larger than the images, which have 4")])
def test_a_growth_that_cannot_be_is_refused(first, message):
    config = shrunk("stylegan_shapes", growth__first=first)
    with pytest.raises(UserError, match=message):
        spans(config, 1)


def test_the_mapping_has_the_layers_and_the_rate_of_the_config():
    config = shrunk("stylegan_shapes", model__mapping_layers=3, model__mapping_rate=0.2)
    assert make_task(config, DataSpec((SIDE, SIDE, 1))).mapping == Mapping(3, 0.2)


def test_batches_have_whole_groups_on_every_device():
    with pytest.raises(UserError, match=r"12 images of 16 pixels .* each of 2 devices .* multiples of 8"):
        make(growth__batch_sizes=(8, 12))


def test_stages_follow_the_growth_and_start_both_optimisers_anew():
    task, _ = make()
    stages = task.stages()
    assert [(s.begin, s.batch_size, s.rate) for s in stages] == [(0, 8, 1.0), (2, 16, 1.5), (6, 16, 1.5)]
    assert [s.fresh for s in stages] == [(), *[(GENERATOR, DISCRIMINATOR)] * 2]
    phases = [(p.name, p.nets, p.noise_of) for p in stages[1].phases]
    assert phases == [(DISCRIMINATOR, (DISCRIMINATOR,), None), (GENERATOR, (GENERATOR,), DISCRIMINATOR)]
    lazy = make(gan__r1_every=4)[0].phases(1)[2]
    assert (lazy.name, lazy.nets, lazy.every) == ("r1", (DISCRIMINATOR,), 4)
    assert len(make(gan__r1=0.0, gan__r1_every=4)[0].phases()) == 2


def softplus(x):
    return np.logaddexp(0.0, x)


def drawn(task, variables, keys, level, side, shown):
    """What training draws, worked out example by example, and w of the first latents."""
    p, layers = variables.params[GENERATOR], 2 * (max(shown) + 1)
    z = [np.float64(random.normal(random.fold_in(keys, i), (LATENTS,))) for i in (0, 1)]
    cut = np.asarray(random.randint(random.fold_in(keys, 2), (), 1, layers))
    cut = np.where(np.asarray(random.uniform(random.fold_in(keys, 3))) < task.settings.mixing, cut, layers)
    w = [each @ p["mapping"]["m"] for each in z]
    grey = sum(
        np.where(layer < cut, w[0] @ p["synthesis"]["s"][layer], w[1] @ p["synthesis"]["s"][layer])
        for layer in range(layers)
    )
    grey = grey + 0.1 * np.float64(random.normal(random.fold_in(keys, 4))) + 0.2 * level
    rows = np.linspace(0.1, 1.0, side)[:, None, None]
    return np.tanh(grey[:, None, None, None] * rows) * np.ones((1, side, side, 1)), w[0]


def judge(a, x, level, shown):
    return a[0] * x.sum((1, 2, 3)) + (a[1] + level) * (x[:, : len(shown)] ** 2).mean((1, 2, 3)) + a[2]


@pytest.fixture(scope="module")
def losses():
    """Values and gradients of all phases in the middle of the fade, on one device, and the same of a lazy R1."""
    task, variables = make(gan__mixing=0.5)
    lazy, batch = make(gan__r1_every=4)[0], images_of(B)

    def everything(variables, batch):
        def gradient(phase):
            context = Context(KEY, jnp.int32(3))  # a quarter of the fade's four steps
            found, slope = derive(phase, variables, batch, context)
            return found, slope[phase.nets[0]]

        return [gradient(phase) for phase in (*task.phases(1), lazy.phases(1)[2])]

    found = run(everything, variables, batch)
    return task, variables, batch, found


def test_losses_in_the_middle_of_a_fade(losses):
    task, variables, batch, (critic, generator, lazy) = losses
    level, shown, a = 1.25, (1, 2), np.float64(variables.params[DISCRIMINATOR]["a"])
    keys = random.example_keys(KEY, batch["position"])
    fake, w = drawn(task, variables, keys, level, SIDE, shown)
    real = batch["image"] / 127.5 - 1.0
    real = 0.75 * np.float64(double(halve(jnp.asarray(real)))) + 0.25 * real
    on_real, on_fake = judge(a, real, level, shown), judge(a, fake, level, shown)

    slope = np.full(real.shape, a[0])
    slope[:, :2] += 2 * (a[1] + level) * real[:, :2] / real[0, :2].size
    r1 = 0.5 * (slope**2).sum((1, 2, 3)).mean()
    plain = softplus(-on_real).mean() + softplus(on_fake).mean()
    (value, result), _ = critic
    close(value, plain + task.settings.r1 * r1)
    sigmoid = lambda x: (1 / (1 + np.exp(-x))).mean()  # noqa: E731
    expected = {"discriminator_loss": plain, "d_real": sigmoid(on_real), "d_fake": sigmoid(on_fake), "r1": r1}
    assert result.metrics.keys() == expected.keys() and result.memory is None
    for name, number in expected.items():
        close(result.metrics[name], number, err_msg=name)
    close(lazy[0][0], 4 * task.settings.r1 * r1)

    (value, result), _ = generator
    close(value, softplus(-on_fake).mean())
    close(result.metrics["level"], level)
    close(result.memory["mean_w"], 0.995 * variables.memory["mean_w"] + 0.005 * w.mean(0))
    assert result.memory["level"] == np.float32(level)
    np.testing.assert_array_equal(result.memory["grown"], variables.memory["grown"])


def test_gradients_are_those_of_the_losses(losses):
    """Of the generator by central differences through mapping and both latents; of the critic's bias exactly."""
    task, variables, batch, (critic, generator, _) = losses
    keys, a = random.example_keys(KEY, batch["position"]), np.float64(variables.params[DISCRIMINATOR]["a"])

    def loss(m):
        params = {**variables.params[GENERATOR], "mapping": {"m": m}}
        other = variables._replace(params={**variables.params, GENERATOR: params})
        return softplus(-judge(a, drawn(task, other, keys, 1.25, SIDE, (1, 2))[0], 1.25, (1, 2))).mean()

    m, direction = np.float64(variables.params[GENERATOR]["mapping"]["m"]), np.random.default_rng(1).normal(size=(4, 4))
    along = (loss(m + 1e-5 * direction) - loss(m - 1e-5 * direction)) / 2e-5
    close(np.sum(generator[1]["mapping"]["m"] * direction), along)
    metrics = critic[0][1].metrics
    close(critic[1]["a"][2], metrics["d_fake"] - (1 - metrics["d_real"]))


def test_smaller_images_are_means_and_what_is_stable_does_not_fade():
    task, _ = make()
    batch = images_of(8)
    x = batch["image"] / 127.5 - 1.0
    small = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    close(task.real(batch, task.spans[0], 1.0), small)
    close(task.real(batch, task.spans[2], 2.0), x)


def test_mixing_changes_the_layers_behind_a_cut_alone(monkeypatch):
    """Cuts lie between the current layers, six here, four before; of 400 samples with a half mixed, about a half is."""
    task, variables = make(gan__mixing=0.5)
    monkeypatch.setattr(task, "draw", lambda variables, w, keys, level, shown: w)
    keys = random.example_keys(KEY, jnp.arange(400))
    first, second = (
        np.asarray(random.normal(random.fold_in(keys, i), (LATENTS,)) @ variables.params[GENERATOR]["mapping"]["m"])
        for i in (0, 1)
    )
    for span, layers in ((task.spans[0], 4), (task.spans[1], 6)):
        w, own = (np.asarray(x) for x in task.fake(variables, keys, span, 1.0))
        close(own, first)
        assert w.shape == (400, layers, LATENTS)
        of_first = np.isclose(w, first[:, None], atol=1e-5).all(-1)
        np.testing.assert_array_equal(of_first, ~np.isclose(w, second[:, None], atol=1e-5).all(-1))
        cut = of_first.sum(1)
        np.testing.assert_array_equal(of_first, np.arange(layers) < cut[:, None])
        counts = np.bincount(cut, minlength=layers + 1)
        assert counts[0] == 0 and all(counts[1:]) and 160 < counts[layers] < 240
    assert all(np.asarray(make(gan__mixing=share)[0].settings.mixing) == share for share in (0.0, 1.0))


def test_two_devices_have_the_memory_of_one(losses):
    """The mean of w is of the whole batch, the same bits on both devices."""
    task, variables, batch, (_, generator, _) = losses
    halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), batch)
    phase = task.phases(1)[1]

    def remembered(inputs):
        return derive(phase, *inputs, Context(KEY, jnp.int32(3)))[0][1].memory

    twice = jax.tree.map(lambda x: np.stack([x, x]), variables)
    found = jax.pmap(remembered, axis_name=AXIS)((twice, halves))
    np.testing.assert_array_equal(*found["mean_w"])
    np.testing.assert_allclose(found["mean_w"][0], generator[0][1].memory["mean_w"], rtol=1e-6)


def shown_at(variables, w, noise, level=1.5):
    """What the toy shows of w [n, 6, D] at a level, as uint8, with these noises [n]."""
    grey = np.einsum("bld,ld->b", w, variables.params[GENERATOR]["synthesis"]["s"]) + 0.1 * noise + 0.2 * level
    x = np.tanh(grey[:, None, None, None] * np.linspace(0.1, 1.0, SIDE)[:, None, None]) * np.ones((1, SIDE, SIDE, 1))
    return np.round((x + 1) * 127.5)


def test_samples_are_truncated_towards_the_mean_and_seen_at_the_level_reached():
    task, variables = make(sampling__truncation=0.6)
    keys, mean = random.example_keys(KEY, jnp.arange(5)), variables.memory["mean_w"]
    w = np.float64(random.normal(keys, (LATENTS,))) @ variables.params[GENERATOR]["mapping"]["m"]
    w = np.repeat((mean + 0.6 * (w - mean))[:, None], 6, 1)
    noise = np.float64(random.normal(random.fold_in(keys, 1)))
    same_pictures(np.asarray(task.generate(variables, {}, keys)["images"]), shown_at(variables, w, noise))


def test_validation_compares_two_samples_with_held_out_images_of_full_size():
    task, variables = make()
    batch, keys = images_of(B), random.example_keys(KEY, jnp.arange(B))
    scores = task.validate(variables, batch, keys)
    x, y = (
        shown_at(
            variables,
            np.repeat((random.normal(k, (LATENTS,)) @ variables.params[GENERATOR]["mapping"]["m"])[:, None], 6, 1),
            np.float64(random.normal(random.fold_in(k, 1))),
        ).reshape(B, -1)
        / 127.5
        - 1
        for k in (random.fold_in(keys, i) for i in (0, 1))
    )
    real = batch["image"].reshape(B, -1) / 127.5 - 1
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    np.testing.assert_allclose(scores["similarity"], cosine, atol=0.01)
    rms = lambda d: np.sqrt((d**2).mean(1))  # noqa: E731
    np.testing.assert_allclose(scores["energy_score"], rms(x - real) - rms(x - y) / 2, atol=0.01)
    task.alarm = lambda found, held_out: [found, held_out]
    assert task.warnings({"similarity": 0.3}, "held out") == [0.3, "held out"]


def test_what_the_first_latents_draw_is_remembered_at_every_border():
    task, variables = make()
    memory = task.remember(2, variables)
    assert memory["grown"].shape == (2, 8, SIDE, SIDE, 1)
    keys = random.example_keys(jax.random.key(0), jnp.arange(8))
    w = np.repeat((random.normal(keys, (LATENTS,)) @ variables.params[GENERATOR]["mapping"]["m"])[:, None], 6, 1)
    noise = np.float64(random.normal(random.fold_in(keys, 1)))
    same_pictures(np.asarray(memory["grown"][1]), shown_at(variables, w, noise))
    assert not memory["grown"][0].any() and memory["level"] == 1.5


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """The task, what figures take, and the arguments that each figure hands to what writes it."""
    changes = {"sampling__arithmetic": "0 - 1", "evaluation__judge": "shapes"}
    task, variables = make(**changes)
    run = trained(variables, tmp_path_factory.mktemp("figures"))
    words = Judge(
        "a toy", [("dark", "light")], lambda x: [frozenset(["light" if i.mean() > 130 else "dark"]) for i in x]
    )
    run = dataclasses.replace(run, judge=lambda: words, caption=CAPTION._replace(step=4), spec=task.spec)
    with pytest.MonkeyPatch.context() as patch:
        seen = record(patch, stylegan_figures, "save_strips", "save_grid", "save_interpolation")
        for name in ("truncation", "mixing", "noise", "interpolation", "growth"):
            task.figures()[name](run)
    return task, run, variables, seen


def styles(task, variables, n, seed=0):
    keys = random.example_keys(jax.random.key(seed), jnp.arange(n))
    return np.asarray(random.normal(keys, (LATENTS,)) @ variables.params[GENERATOR]["mapping"]["m"])


def noise_of(numbers, seed=0):
    return np.float64(random.normal(random.example_keys(jax.random.key(seed), jnp.asarray(numbers))))


def test_pictures_of_styles_share_a_noise_or_have_their_own(figures):
    task, run, variables, _ = figures
    w = weights(3, 6, LATENTS, seed=5)
    same_pictures(task.paint(run, w), shown_at(variables, w, noise_of([0, 0, 0])))
    same_pictures(task.paint(run, w, np.array([4, 2, 9])), shown_at(variables, w, noise_of([4, 2, 9])))
    same_pictures(task.paint(run, w[:, 0]), task.paint(run, np.repeat(w[:, :1], 6, 1)))


def test_figure_of_truncation(figures):
    task, run, variables, seen = figures
    strips, caption = seen["truncation.png"]
    w, mean = styles(task, variables, 16), variables.memory["mean_w"]
    assert strips.shape == (6, 8, SIDE, SIDE, 1) and "0.5, 0.7, 1.0" in str(caption)
    for row, (share, part) in enumerate((s, p) for p in (slice(8), slice(8, 16)) for s in (0.5, 0.7, 1.0)):
        same_pictures(strips[row], task.paint(run, mean + share * (w[part] - mean)))


def test_figure_of_mixed_styles(figures):
    """Two layers for each of coarse, middle and fine; a judge says which attribute follows which."""
    task, run, variables, seen = figures
    strips, caption = seen["mixing.png"]
    w = styles(task, variables, 12)
    assert strips.shape == (7, 7, SIDE, SIDE, 1) and (strips[0, 0] == 128).all()
    same_pictures(strips[0, 1:], task.paint(run, w[:6]))
    for row in range(6):
        mixed = np.repeat(w[:6, None], 6, 1)
        mixed[:, 2 * (row // 2) : 2 * (row // 2) + 2] = w[6 + row]
        same_pictures(strips[row + 1, 0], task.paint(run, w[6 + row : 7 + row])[0])
        same_pictures(strips[row + 1, 1:], task.paint(run, mixed))
    assert "coarse (4), middle (8), fine (16) styles" in str(caption)

    receivers, sources = np.split(styles(task, variables, 1000), 2)
    light = [task.paint(run, x).mean((1, 2, 3)) > 130 for x in (receivers, sources)]
    for i, band in enumerate(("coarse", "middle", "fine")):
        mixed = np.repeat(receivers[:, None], 6, 1)
        mixed[:, 2 * i : 2 * i + 2] = sources[:, None]
        follows = (task.paint(run, mixed).mean((1, 2, 3)) > 130) == light[1]
        assert f"{band} styles carry dark/light {follows[light[0] != light[1]].mean():.0%}" in str(caption)
    assert "by a toy, n = 500" in str(caption)


def test_figure_of_noise(figures):
    task, run, variables, seen = figures
    strips, _ = seen["noise.png"]
    assert strips.shape == (6, 11, SIDE, SIDE, 1)
    w = styles(task, variables, 6)
    same_pictures(strips[2, :10], task.paint(run, np.repeat(w[2:3], 10, 0), np.arange(10)))
    deviation = strips[2, :10].astype(float).std(0)
    np.testing.assert_allclose(strips[2, 10], 255 * deviation / deviation.max(), atol=1.0)


def test_figure_of_paths(figures):
    """Rows in turn: on a great circle of z, and straight in w; both begin and end alike."""
    task, run, variables, seen = figures
    paths, decode, _ = seen["interpolation.png"]
    assert paths.shape == (8, 10, LATENTS)
    w, m = styles(task, variables, 8), variables.params[GENERATOR]["mapping"]["m"]
    close(paths[::2, [0, -1]], np.stack([w[:4], w[4:]], 1))
    close(paths[1::2], np.stack([w[:4] + t * (w[4:] - w[:4]) for t in np.linspace(0, 1, 10)], 1))
    z = paths[::2] @ np.linalg.inv(m)
    lengths = np.linalg.norm(z, axis=-1)
    close(lengths, np.linspace(lengths[:, 0], lengths[:, -1], 10, axis=1), rtol=1e-3)
    same_pictures(decode(paths[0]), task.paint(run, paths[0]))


def test_figure_of_growth(figures):
    """Of the borders behind steps 2 and 6 the first has been reached at step 4; last, what is drawn now."""
    task, _, variables, seen = figures
    strips, caption = seen["growth.png"]
    assert strips.shape == (2, 8, SIDE, SIDE, 1) and "after steps 2 (8)" in str(caption)
    np.testing.assert_array_equal(strips[0], variables.memory["grown"][0])
    np.testing.assert_array_equal(strips[1], task.remember(1, variables)["grown"][0])


def test_arithmetic_is_of_styles(figures, monkeypatch):
    task, run, variables, _ = figures
    monkeypatch.setattr(stylegan_figures, "CANDIDATES", 5)
    seen = record(monkeypatch, gan_figures, "save_arithmetic")
    task.figures()["arithmetic"](run)
    expression, w, decode, judge, _, shell = seen["arithmetic.png"]
    assert (expression, judge, shell) == ("0 - 1", None, False)
    close(w, styles(task, variables, 5))
    same_pictures(decode(w), task.paint(run, w))


def test_files_of_latents_are_terms_of_arithmetic(tmp_path):
    """Of one w, or one a layer: then all terms are."""
    one, layers = weights(LATENTS), weights(3, LATENTS, seed=1)
    for name, latent in (("one", one), ("layers", layers)):
        latent_file.save_latent(tmp_path / f"{name}.npz", latent, error=0.5)
    np.savez(tmp_path / "other.npz", z=one)
    samples = weights(5, LATENTS, seed=2)
    terms = parse(f"{tmp_path}/one.npz - 1,2 + 3")
    assert [str(term) for term in terms] == ["one", "1,2", "3"]
    check_terms(terms, 5, ())
    solved, choices = solve(terms, samples, [frozenset()] * 5, ())
    close(solved, [[one, samples[1:3].mean(0), samples[3], one - samples[1:3].mean(0) + samples[3]]])
    assert [len(numbers) for numbers in choices[0]] == [1, 2, 1]
    solved, _ = solve(parse(f"0 - {tmp_path}/layers.npz"), samples, [frozenset()] * 5, ())
    close(solved, [[np.broadcast_to(samples[0], (3, LATENTS)), layers, samples[0] - layers]])
    for name, message in (("none", "there is no file"), ("other", "holds no latent")):
        with pytest.raises(UserError, match=message):
            check_terms(parse(f"0 - {tmp_path}/{name}.npz"), 5, ())
    with pytest.raises(UserError, match="latent of 4 numbers, not 7"):
        latent_file.read_latent(tmp_path / "one.npz", 7)


def test_figure_between_latents_in_files(figures, tmp_path, monkeypatch):
    task, run, _, _ = figures
    w = [weights(LATENTS, seed=1), weights(6, LATENTS, seed=2), weights(LATENTS, seed=3)]
    files = [str(tmp_path / f"{i}.npz") for i in range(3)]
    for file, each in zip(files, w, strict=True):
        latent_file.save_latent(tmp_path / file, each)
    assert "between" not in task.figures()
    task.config.sampling.between = tuple(files)
    seen = record(monkeypatch, stylegan_figures, "save_grid")
    task.figures()["between"](run)
    rows, columns, _ = seen["between.png"]
    assert rows.shape == (20, SIDE, SIDE, 1) and columns == 10
    ends = np.stack([np.broadcast_to(each, (6, LATENTS)) for each in w])
    same_pictures(rows[[0, 9, 10, 19]], task.paint(run, ends[[0, 1, 1, 2]]))
    same_pictures(rows[3], task.paint(run, (ends[0] + 3 / 9 * (ends[1] - ends[0]))[None])[0])


def test_distance_is_the_mean_over_sizes():
    x, y = np.random.default_rng(0).normal(size=(2, 3, 16, 16, 1)).astype(np.float32)
    error, terms = np.float64(x - y), []
    for _ in range(3):
        terms.append((error**2).mean((1, 2, 3)))
        error = (error[:, ::2, ::2] + error[:, 1::2, ::2] + error[:, ::2, 1::2] + error[:, 1::2, 1::2]) / 4
    close(project.distance(x, y), np.mean(terms, 0))
    close(project.distance(x, y[0]), project.distance(x, np.broadcast_to(y[0], x.shape)))


def test_projection_finds_the_latent_of_an_image():
    """From the nearest of some candidates, along a path that ends with the result."""
    goal, start = np.array([[0.3, -0.5], [-0.2, 0.4]], np.float32), np.zeros((2, 2), np.float32)
    basis = weights(2, 8 * 8 * 1)

    def draw(w):
        return jnp.tanh(0.5 * w @ basis).reshape(-1, 8, 8, 1)

    images = np.asarray(jnp.round((draw(goal) + 1) * 127.5)).astype(np.uint8)
    found = project.project(draw, images, start, 200, 0.05)
    np.testing.assert_allclose(found.latent, goal, atol=0.02)
    assert found.path.shape == (30, 2, 8, 8, 1) and found.path.dtype == np.uint8
    same_pictures(found.path[0], np.full((2, 8, 8, 1), 128))
    same_pictures(found.path[-1], np.round((np.asarray(draw(found.latent)) + 1) * 127.5))
    close(found.error, project.distance(draw(found.latent), images / np.float32(127.5) - 1), atol=1e-5)
    few = project.project(draw, images, start, 29, 0.01)
    assert np.abs(few.latent).max() <= 0.3  # 29 steps of at most 0.01
    candidates = np.concatenate([images[1:], 255 - images, images[:1]])
    np.testing.assert_array_equal(project.nearest(images, candidates), [3, 0])


def test_mode_project_writes_what_figures_read(figures, tmp_path, capsys, monkeypatch):
    from PIL import Image

    task, run, *_ = figures
    w = weights(2, LATENTS, seed=8)
    for name, image in zip("ab", task.paint(run, w), strict=True):
        Image.fromarray(np.repeat(np.repeat(image[..., 0], 2, 0), 2, 1)).save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match="which image"):
        task.modes()["project"](run)
    task.config.project.update({"input": str(tmp_path), "steps": 30, "candidates": 20})
    assert task.modes()["project"](run) == 0
    folder = run.workdir.path / "projected"
    assert {path.name for path in folder.iterdir()} == {"a.npz", "a.gif", "b.npz", "b.gif", "projected.png"}
    latent = latent_file.read_latent(folder / "b.npz", LATENTS)
    error = np.load(folder / "b.npz")["error"]
    assert f"b: error {error:.5f}" in capsys.readouterr().out and error < 0.01
    goal = np.float64(task.paint(run, w[1:]))
    assert np.abs(np.float64(task.paint(run, latent[None])) - goal).mean() < 12
    assert Image.open(folder / "b.gif").n_frames > 1
    task.config.project.layers = True
    task.config.project.input = str(tmp_path / "b.png")
    seen = record(monkeypatch, stylegan_project, "save_strips")
    assert task.modes()["project"](run) == 0
    image, start, _ = seen["projected.png"][0]
    candidates = task.paint(run, task.draw_styles(run, 20))
    np.testing.assert_array_equal(start[0], candidates[project.nearest(image, candidates)[0]])
    assert latent_file.read_latent(folder / "b.npz").shape == (6, LATENTS)
    task.config.project.input = str(tmp_path / "none")
    with pytest.raises(UserError, match="is no image, nor a folder"):
        task.modes()["project"](run)


GROWTH = {  # 8 pixels for four steps, then 16 fade in over eight, four of which are made; test_resume kills it
    **dict(
        dataset__image_size=16, model__channels=(4, 4, 4), model__latent_dim=4, model__mapping_layers=1, gan__r1=0.0
    ),
    **dict(growth__first=8, growth__stable=32, growth__fade=64, steps=8, steps_per_call=2),
    **dict(log_every=2, checkpoint_every=2, evaluate_every=8),
}


def test_every_stage_is_one_program_and_trains_what_it_shows(tmp_path, monkeypatch, caplog):
    """All parameters are there from the first step on; those of blocks to come stay as they were."""
    compiled, train_call = [], Experiment.train_call

    def counting(*own):
        call = train_call(*own)

        def run(*arguments):
            caplog.clear()
            with jax.log_compiles():
                result = call(*arguments)
            compiled.append(sum("Finished XLA compilation" in line for line in caplog.messages))
            caplog.clear()
            return result

        return run

    monkeypatch.setattr(Experiment, "train_call", counting)
    run = train_tiny(tmp_path, "stylegan_shapes", **GROWTH, keep_checkpoints=9)
    assert compiled == [1, 0, 1, 0]
    shapes = run.experiment.state_shapes()
    states = {step: run.checkpoints.restore(step, shapes)[0] for step in (2, 4, 6, 8)}
    levels = {step: float(state.memory["level"]) for step, state in states.items()}
    assert levels == {2: 1.0, 4: 1.0, 6: 1.125, 8: 1.375}  # of the last step before it
    for net, names in ((GENERATOR, ("up16", "conv16", "to_image16")), (DISCRIMINATOR, ("down16", "from_image16"))):
        params = [state.params[net].get("synthesis", state.params[net]) for state in states.values()]
        for name in names:
            kernels = [np.asarray(tree[name]["kernel"]) for tree in params]
            np.testing.assert_array_equal(*kernels[:2])
            assert not np.array_equal(*kernels[1:3])
    counts = {step: int(state.opt_state[GENERATOR][0].count) for step, state in states.items()}
    assert counts == {2: 2, 4: 4, 6: 2, 8: 4}  # anew at the border
    grown = states[8].memory["grown"]
    assert grown.shape == (2, 8, 16, 16, 3) and grown[0].any() and not grown[1].any()
    np.testing.assert_array_equal(grown[0], states[6].memory["grown"][0])
    np.testing.assert_array_equal(grown[0, :, ::2, ::2], grown[0, :, 1::2, 1::2])  # 8 pixels, each doubled
