"""GANs with toy networks: each phase, validation, statistics, samples and figures against NumPy."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import random
from gm_jax.layers import diff_augment
from gm_jax.stages import stable_hash
from gm_jax.state import Variables, create
from gm_jax.step import AXIS, derive, make_train_call, make_train_step
from gm_jax.tasks import gan_figures
from gm_jax.tasks import task as base
from gm_jax.tasks.gan import DISCRIMINATOR, GENERATOR
from tests.test_step import map_over
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

LATENTS = 4
KEY = jax.random.key(7)


def zeros(*shape):
    return lambda key: jnp.zeros(shape)


class ToyGenerator(nn.Module):
    classes: int = 0
    axis_name: str | None = AXIS

    @nn.compact
    def __call__(self, z, label=None, train=False):
        x = z @ self.param("w", zeros(LATENTS, PIXELS))
        x = x + (self.param("v", zeros(self.classes, PIXELS))[label] if self.classes else 0.0)
        running = self.variable("batch_stats", "mean", jnp.zeros, PIXELS)
        if not train:
            return jnp.tanh(x - running.value).reshape(-1, *SHAPE)
        mean = jnp.mean(x, 0) if self.axis_name is None else jax.lax.pmean(jnp.mean(x, 0), self.axis_name)
        running.value = 0.9 * running.value + 0.1 * mean
        return jnp.tanh(x - mean).reshape(-1, *SHAPE)


def draw(params, mean, z, label, train):
    """What the generator makes of latents, and its running mean then."""
    x = z @ params["w"] + (params["v"][label] if "v" in params else 0.0)
    of_batch = x.mean(0) if train else mean
    return np.tanh(x - of_batch), 0.9 * mean + 0.1 * of_batch if train else mean


class ToyDiscriminator(nn.Module):
    classes: int = 0

    @nn.compact
    def __call__(self, x, label=None, train=False, keys=None):
        x = x.reshape(len(x), -1)
        weight = self.param("b", zeros(self.classes))[label] if self.classes else self.param("b", zeros(1))
        logits = 0.5 * jnp.square(x) @ self.param("a", zeros(PIXELS)) + weight * jnp.sum(x, 1)
        seen = self.variable("spectral", "seen", jnp.zeros, ())
        logits = (1.0 + seen.value) * logits * (1.0 if keys is None else random.uniform(keys))
        if train:
            seen.value = 0.5 * seen.value + jax.lax.pmean(jnp.mean(logits), AXIS)
        return logits


def judge(params, seen, x, label, dropped=1.0, mask=1.0):
    """The discriminator's logits, what it has seen then, and its slope at each image."""
    x = mask * x
    factor = (1.0 + seen) * dropped
    weight = params["b"][0 if label is None else label]
    logits = factor * (0.5 * x**2 @ params["a"] + weight * x.sum(1))
    slope = mask * np.reshape(factor, (-1, 1)) * (x * params["a"] + np.reshape(weight, (-1, 1)))
    return logits, 0.5 * seen + logits.mean(), slope


def softplus(x):
    return np.logaddexp(0.0, x)


GAMES = {  # real (logits, target), fake, generator, opinion
    "minimax": (
        lambda x, target: target * softplus(-x) + (1 - target) * softplus(x),
        softplus,
        lambda x: -softplus(x),
        lambda x: 1 / (1 + np.exp(-x)),
    ),
    "wasserstein": (lambda x, target: -x, lambda x: x, lambda x: -x, lambda x: x),
    "hinge": (lambda x, target: np.maximum(0, 1 - x), lambda x: np.maximum(0, 1 + x), lambda x: -x, lambda x: x),
    "least_squares": (
        lambda x, target: (x - target) ** 2 / 2,
        lambda x: x**2 / 2,
        lambda x: (x - 1) ** 2 / 2,
        lambda x: x,
    ),
}
GAMES["non_saturating"] = (*GAMES["minimax"][:2], lambda x: softplus(-x), GAMES["minimax"][3])


def make(conditional=True, **changes):
    """A task with toy networks and the networks' variables."""
    names = NAMES if conditional else ()
    task = toy_task("cgan_mnist", names, gan__conditional=conditional, **{"gan__wrong_labels": False, **changes})
    task.generator, task.discriminator = ToyGenerator(len(names)), ToyDiscriminator(len(names))
    params = {
        GENERATOR: {"w": weights(LATENTS, PIXELS), **({"v": weights(3, PIXELS)} if conditional else {})},
        DISCRIMINATOR: {"a": weights(PIXELS), "b": weights(3 if conditional else 1)},
    }
    state = {
        GENERATOR: {"batch_stats": {"mean": weights(PIXELS, seed=1)}},
        DISCRIMINATOR: {"spectral": {"seen": np.float32(0.3)}},
    }
    return task, Variables(params, state, {})


def noise(task):
    """Draw latents, what the discriminator drops and masks of each kind of image, wrong labels, and places on lines.

    An example's key with a number folded in gives each.
    """
    settings = task.settings

    def of_image(keys):
        mask = diff_augment.augment(jnp.ones((8, *SHAPE)), random.fold_in(keys, 0), settings.augment)
        return random.uniform(keys), mask.reshape(8, PIXELS)

    def draw(batch, key):
        keys = [random.fold_in(random.example_keys(key, batch["position"]), i) for i in range(6)]
        drawn = {"z": random.normal(keys[0], (LATENTS,)), "real": of_image(keys[1]), "fake": of_image(keys[2])}
        if settings.wrong_labels:
            drawn |= {"shift": random.randint(keys[3], (), 1, 3), "wrong": of_image(keys[4])}
        return {**drawn, "share": random.uniform(keys[5])} if settings.gradient_penalty else drawn

    return draw


def flat(batch):
    return np.float64(batch["image"]).reshape(-1, PIXELS) / 127.5 - 1.0


CUTOUT = {"gan__augment": ("cutout",)}
EVERY_OPTION = [
    ("minimax", False, {"gan__label_smoothing": 0.1}),
    ("non_saturating", True, {"gan__label_smoothing": 0.2, "gan__wrong_labels": True, **CUTOUT}),
    ("wasserstein", False, {"gan__gradient_penalty": 10.0}),
    ("hinge", True, {"gan__gradient_penalty": 3.0, "gan__wrong_labels": True, **CUTOUT}),
    ("least_squares", True, {}),
]


@pytest.mark.parametrize(("name", "conditional", "options"), EVERY_OPTION, ids=[name for name, *_ in EVERY_OPTION])
def test_losses_of_both_networks(name, conditional, options):
    """Real, generated and wrongly labelled images in this order, each with noise of its own; one z for both phases."""
    task, variables = make(conditional, gan__loss=name, **options)
    batch, settings, (real, fake, generator, opinion) = batch_of(8), task.settings, GAMES[name]
    x, label, state = flat(batch), batch["label"] if conditional else None, variables.model_state
    mean, seen = state[GENERATOR]["batch_stats"]["mean"], state[DISCRIMINATOR]["spectral"]["seen"]

    def discriminator_loss(params, noise):
        own, (made, _) = params[DISCRIMINATOR], draw(params[GENERATOR], mean, noise["z"], label, train=True)
        on_real, after, _ = judge(own, seen, x, label, *noise["real"])
        on_fake, after, _ = judge(own, after, made, label, *noise["fake"])
        rejected = fake(on_fake).mean()
        if settings.wrong_labels:
            on_wrong, after, _ = judge(own, after, x, (label + noise["shift"].astype(int)) % 3, *noise["wrong"])
            rejected = (rejected + fake(on_wrong).mean()) / 2
        loss = real(on_real, 1 - settings.label_smoothing).mean() + rejected
        metrics = {"discriminator_loss": loss, "d_real": opinion(on_real).mean(), "d_fake": opinion(on_fake).mean()}
        if settings.gradient_penalty:
            share = noise["share"][:, None]
            slope = judge(own, seen, share * x + (1 - share) * made, label, *noise["real"])[2]
            metrics["penalty"] = np.mean((np.linalg.norm(slope, axis=1) - 1) ** 2)
            loss = loss + settings.gradient_penalty * metrics["penalty"]
        return loss, metrics, {DISCRIMINATOR: {"spectral": {"seen": after}}}

    def generator_loss(params, noise):
        made, after = draw(params[GENERATOR], mean, noise["z"], label, train=True)
        loss = generator(judge(params[DISCRIMINATOR], seen, made, label, *noise["real"])[0]).mean()
        return loss, {"generator_loss": loss}, {GENERATOR: {"batch_stats": {"mean": after}}}

    phases = task.phases()
    assert [(phase.name, phase.nets, *phase[3:6]) for phase in phases] == [
        (DISCRIMINATOR, (DISCRIMINATOR,), 1, 1, None),
        (GENERATOR, (GENERATOR,), 1, 1, DISCRIMINATOR),
    ]
    drawn = check_phases(phases, variables, batch, at_step(KEY), noise(task), discriminator_loss, generator_loss)
    assert (0 < np.mean(drawn["real"][1]) < 1) == bool(settings.augment)
    assert not settings.wrong_labels or set(drawn["shift"]) == {1, 2}


@pytest.mark.parametrize("conditional", [False, True])
def test_r1_is_of_real_images_and_stronger_the_rarer(conditional):
    """gamma / 2 |slope|^2, times the steps from one to the next, of the discriminator as it sees images in training."""
    task, variables = make(conditional, gan__r1=0.7, gan__r1_every=3, gan__critic_steps=2, **CUTOUT)
    batch, state = batch_of(8), variables.model_state
    first, _, lazy = task.phases()
    assert (first.repeats, lazy.nets, *lazy[3:6]) == (2, (DISCRIMINATOR,), 3, 1, None)

    def draw(batch, key):
        keys = random.example_keys(key, batch["position"])
        mask = diff_augment.augment(jnp.ones((8, *SHAPE)), random.fold_in(keys, 0), ("cutout",))
        return random.uniform(keys), mask.reshape(8, PIXELS)

    def loss(params, noise):
        label = batch["label"] if conditional else None
        slope = judge(params[DISCRIMINATOR], state[DISCRIMINATOR]["spectral"]["seen"], flat(batch), label, *noise)[2]
        penalty = np.mean(np.sum(slope**2, 1)) / 2
        return 3 * 0.7 * penalty, {"r1": penalty}, {}

    check_phases([lazy], variables, batch, at_step(KEY), draw, loss)


def test_critic_steps_are_on_fresh_batches_and_two_devices_give_the_update_of_one():
    task, variables = make(gan__critic_steps=2)
    optimizers = {net: optax.sgd(0.1, momentum=0.9) for net in (GENERATOR, DISCRIMINATOR)}
    decays = {GENERATOR: None, DISCRIMINATOR: None}
    start = {net: {"params": variables.params[net], **variables.model_state[net]} for net in decays}
    state, data = create(start, optimizers, decays), batch_of(16)
    call = make_train_call(make_train_step(task.phases(), optimizers, decays, seed=3))
    index = np.arange(16, dtype=np.int32).reshape(1, 2, 8)
    (one, metrics_one), (two, metrics_two) = (map_over(n, call)(state, data, index) for n in (1, 2))
    jax.tree.map(close, (one.params, one.model_state, metrics_one), (two.params, two.model_state, metrics_two))

    def gradient(variables, batch, context):
        (value, result), slope = derive(task.phases()[0], variables, batch, context)
        return (value, result.model_state), slope[DISCRIMINATOR]

    mapped = jax.pmap(gradient, axis_name=AXIS, in_axes=(None, 0, None), devices=jax.devices()[:1])
    (params, model_state, memory), losses = variables, []
    momentum = jax.tree.map(np.zeros_like, params[DISCRIMINATOR])
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 0), stable_hash(DISCRIMINATOR))
    for i in range(2):
        batch = {**{name: x[None, 8 * i : 8 * i + 8] for name, x in data.items()}, "position": np.arange(8)[None]}
        found = mapped(Variables(params, model_state, memory), batch, at_step(jax.random.fold_in(key, i)))
        (loss, new), grads = jax.tree.map(lambda x: x[0], found)
        model_state = {**model_state, **new}
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads)
        params = {**params, DISCRIMINATOR: jax.tree.map(lambda p, m: p - 0.1 * m, params[DISCRIMINATOR], momentum)}
        losses.append(loss)
    compare(one.params[DISCRIMINATOR], params[DISCRIMINATOR])
    compare(one.model_state[DISCRIMINATOR], model_state[DISCRIMINATOR])
    close(metrics_one["discriminator_loss"], [np.mean(losses)])


@pytest.mark.parametrize(("name", "conditional"), [("non_saturating", True), ("least_squares", False)])
def test_validation(name, conditional):
    """Networks as they are used: running statistics, no dropout, no augmentation, no smoothing; two samples each."""
    options = {"gan__label_smoothing": 0.2, **CUTOUT}
    task, variables = make(conditional, gan__loss=name, **options)
    batch, (params, state, _), (real, fake, generator, opinion) = batch_of(8), variables, GAMES[name]

    def measure(variables, batch, key):
        keys = random.example_keys(key, batch["position"])
        z = [random.normal(random.fold_in(keys, i), (LATENTS,)) for i in range(2)]
        return task.validate(variables, batch, keys), z

    values, z = run(measure, variables, batch, KEY)
    x, label = flat(batch), batch["label"] if conditional else None
    mean, seen = state[GENERATOR]["batch_stats"]["mean"], state[DISCRIMINATOR]["spectral"]["seen"]
    first, second = (draw(params[GENERATOR], mean, z, label, train=False)[0] for z in z)
    on_real, on_fake = (judge(params[DISCRIMINATOR], seen, images, label)[0] for images in (x, first))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    to_real, to_other = (np.sqrt(np.mean((first - other) ** 2, 1)) for other in (x, second))
    expected = {
        "discriminator_loss": real(on_real, 1.0) + fake(on_fake),
        "generator_loss": generator(on_fake),
        "d_real": opinion(on_real),
        "d_fake": opinion(on_fake),
        "similarity": (first * second).sum(1) / lengths,
        "energy_score": to_real - to_other / 2,
    }
    compare(values, expected)


@pytest.mark.parametrize("conditional", [False, True])
def test_an_averaged_generator_gets_the_statistics_of_its_own_samples(conditional):
    """Ten batches, labels in turn, and the running mean's bias towards where it began taken out."""
    task, variables = make(conditional, optim__generator__ema_decay=0.9)
    variables.model_state[GENERATOR]["other"] = {"kept": np.ones(2)}
    standing = task.standing(variables)
    label = np.arange(8) % 3 if conditional else None
    mean = 0.0
    for key in jax.random.split(jax.random.key(0), 10):
        z = np.asarray(jax.random.normal(key, (8, LATENTS)))
        mean = draw(variables.params[GENERATOR], mean, z, label, train=True)[1]
    own = {"batch_stats": {"mean": mean / (1 - 0.9**10)}, "other": {"kept": np.ones(2)}}
    compare(standing.model_state, {**variables.model_state, GENERATOR: own})
    assert standing.params is variables.params and standing.memory is variables.memory
    without = variables._replace(model_state={**variables.model_state, GENERATOR: {}})
    assert task.standing(without) is without
    task.config.optim.generator.ema_decay = None
    assert task.standing(variables) is variables


def pictures(task, variables, z, label):
    x, _ = draw(variables.params[GENERATOR], variables.model_state[GENERATOR]["batch_stats"]["mean"], z, label, False)
    return np.round((np.clip(x, -1, 1) + 1) * 127.5).reshape(-1, *SHAPE)


def latents(n, seed):
    return np.asarray(random.normal(random.example_keys(jax.random.key(seed), jnp.arange(n)), (LATENTS,)))


def test_samples_and_figures_are_what_the_generator_draws(tmp_path, monkeypatch):
    task, variables = make(sampling__batch_size=4)
    run = trained(variables, tmp_path)
    turns = np.arange(6) % 3
    drawn = task.sample(run.variables, 6, 5)
    same_pictures(drawn["images"], pictures(task, variables, latents(6, 5), turns))
    np.testing.assert_array_equal(drawn["labels"], turns)
    z = weights(3, LATENTS)
    same_pictures(task.render_all(run, z), pictures(task, variables, z, 0 * turns[:3]))
    same_pictures(task.render_all(run, z, 2), pictures(task, variables, z, 0 * turns[:3] + 2))

    samples = record(monkeypatch, base, "save_grid")
    seen = record(
        monkeypatch, gan_figures, "save_grid", "save_interpolation", "save_curves", "save_table", "save_relation"
    )
    for figure in task.figures().values():
        figure(run)
    losses = ["discriminator_loss", "generator_loss"]
    assert seen["losses.png"][:2] == (run.workdir.metrics, [*losses, "d_real", "d_fake"])
    assert seen["losses.md"] == (run.workdir.metrics, losses)
    assert seen["quality.png"][:2] == (run.workdir.metrics, ("discriminator_loss", "energy_score"))
    np.testing.assert_array_equal(samples["samples.png"][0], task.sample(run.variables, 4, 0)["images"])
    labels = np.repeat(np.arange(3), 10)
    same_pictures(seen["classes.png"][0], pictures(task, variables, np.tile(latents(10, 0), (3, 1)), labels))
    assert samples["samples.png"][1] == 8 and seen["classes.png"][1] == 10
    paths, decode, _ = seen["interpolation.png"]
    assert paths.shape == (8, 10, LATENTS)
    close(paths[::2, [0, -1]], np.stack([latents(8, 0)[:4], latents(8, 0)[4:]], 1))
    close(paths[1::2, [0, -1]], paths[::2, [0, -1]])
    middle = (paths[::2, 4] + paths[::2, 5]) / 2
    close(middle, (paths[::2, 0] + paths[::2, -1]) / 2)
    assert not np.allclose(middle, (paths[1::2, 4] + paths[1::2, 5]) / 2, atol=0.01)
    np.testing.assert_array_equal(decode(z), task.render_all(run, z))


def test_a_label_is_drawn_on_demand_and_arithmetic_judged_where_it_has_words(tmp_path, monkeypatch):
    task, variables = make(sampling__label=2, sampling__arithmetic="0,3 - 8")
    run, seen = trained(variables, tmp_path), record(monkeypatch, gan_figures, "save_arithmetic")
    drawn = task.sample(run.variables, 2, 5)
    np.testing.assert_array_equal(drawn["labels"], [2, 2])
    same_pictures(drawn["images"], pictures(task, variables, latents(2, 5), np.array([2, 2])))
    z = weights(3, LATENTS)
    same_pictures(task.render_all(run, z), pictures(task, variables, z, np.array([2, 2, 2])))
    monkeypatch.setattr(gan_figures, "CANDIDATES", 11)
    assert "classes" in task.figures()
    task.figures()["arithmetic"](run)
    expression, candidates, decode, judge, _, shell = seen["arithmetic.png"]
    assert (expression, judge, shell) == ("0,3 - 8", None, True)
    np.testing.assert_allclose(candidates, latents(11, 0), atol=1e-6)
    np.testing.assert_array_equal(decode(z), task.render_all(run, z))
    task.config.sampling.arithmetic = "red - 3"  # some words are enough to ask the judge
    task.figures()["arithmetic"](dataclasses.replace(run, judge=lambda: "judge"))
    assert seen["arithmetic.png"][3] == "judge"


def test_without_labels_nothing_is_of_a_class(tmp_path):
    task, variables = make(False)
    run = trained(variables, tmp_path)
    drawn = task.sample(run.variables, 3, 5)
    assert drawn.keys() == {"images"}
    same_pictures(drawn["images"], pictures(task, variables, latents(3, 5), None))
    assert task.figures().keys() == {"samples", "interpolation", "losses", "quality"}


class Echo(nn.Module):
    @nn.compact
    def __call__(self, x, label):
        return self.param("w", lambda key: (jax.random.key_data(key), x, label))


def test_networks_start_from_keys_of_their_own():
    task, _ = make()
    task.generator = task.discriminator = Echo()
    made, keys, label = task.init(KEY), jax.random.split(KEY), np.zeros(1)
    for net, key, x in ((GENERATOR, keys[0], np.zeros((1, LATENTS))), (DISCRIMINATOR, keys[1], np.zeros((1, *SHAPE)))):
        compare(made[net]["params"], Echo().init(key, x, label)["params"])
