"""The task `gan`: its networks, what each phase changes, devices, resume, samples, warnings and a user's mistakes."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import evaluate, random, sample
from gm_jax.errors import UserError
from gm_jax.models.dcgan import Discriminator
from gm_jax.run import open_trained
from gm_jax.state import create, split_variables
from gm_jax.step import Phase, make_train_call, make_train_step
from gm_jax.tasks import DataSpec, make_task
from gm_jax.tasks.gan import DISCRIMINATOR, GENERATOR
from gm_jax.tasks.task import Variables
from gm_jax.workdir import Workdir
from tests.test_step import map_over
from tests.tiny import EVERY_GAN_OPTION, EXPERIMENTS, GAN, flags, gm_jax, load, open_tiny, shrunk, train_tiny

DIGITS = DataSpec((16, 16, 1), tuple("0123456789"))


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def start(task):
    """Parameters and state at step 0, by network."""
    variables = jax.jit(task.init)(jax.random.key(0))
    split = {net: split_variables(tree) for net, tree in variables.items()}
    return tuple({net: pair[i] for net, pair in split.items()} for i in range(2))


@pytest.mark.parametrize(
    ("experiment", "shape", "generator", "discriminator"),
    [
        ("dcgan_cats", (64, 64, 3), 3_576_704, 2_765_568),  # as PyTorch's tutorial counts
        ("dcgan_mnist", (28, 28, 1), 2_305_472, 212_865),  # as TensorFlow's does (trainable)
        ("gan_mnist", (28, 28, 1), 1_503_632, 533_505),
    ],
)
def test_number_of_parameters(experiment, shape, generator, discriminator):
    task = make_task(load(experiment), DataSpec(shape, tuple("0123456789")))
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    assert count(shapes[GENERATOR]["params"]) == generator
    assert count(shapes[DISCRIMINATOR]["params"]) == discriminator


def test_layers_of_the_cats_are_those_of_the_report():
    task = make_task(load("dcgan_cats"), DataSpec((64, 64, 3)))
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    expected = {
        GENERATOR: ("stem", [(100, 512), (512, 256), (256, 128), (128, 64), (64, 3)], 4),
        DISCRIMINATOR: ("conv0", [(3, 64), (64, 128), (128, 256), (256, 512), (512, 1)], 3),
    }
    for net, (first, channels, norms) in expected.items():
        params = shapes[net]["params"]
        assert params[first].keys() == {"kernel"} and params[first]["kernel"].shape == (4, 4, *channels[0])
        kernels = [layer["kernel"].shape for layer in params.values() if "kernel" in layer]
        assert sorted(kernels) == sorted((4, 4, *pair) for pair in channels)
        assert sum("scale" in layer for layer in params.values()) == norms


@pytest.mark.parametrize("experiment", [e for e in EXPERIMENTS if load(e).task == "gan"])
def test_shipped_networks_fit_their_images(experiment):
    config = load(experiment)
    side = {"mnist": 28, "cifar10": 32, "shapes": 32}.get(config.dataset.name, 64)
    shape = (side, side, 1 if config.dataset.name == "mnist" else 3)
    shapes = jax.eval_shape(make_task(config, DataSpec(shape, tuple("0123456789"))).init, jax.random.key(0))
    assert 1e5 < count(shapes[GENERATOR]["params"]) < 1e7
    for name in ("steps", "log_every", "evaluate_every", "checkpoint_every"):
        assert config[name] % config.steps_per_call == 0
    assert config.checkpoint_every % config.evaluate_every == 0  # so that every checkpoint has a score


def test_a_signal_reaches_the_head_without_norms():
    """N(0, 0.02^2) kernels gave logits of 0.001, and hardly a slope."""
    network = Discriminator(width=16, bias=False, batch_norm=False)
    x = jax.random.normal(jax.random.key(0), (16, 64, 64, 3))
    logits, _ = jax.jit(network.init_with_output)(jax.random.key(1), x)
    assert 0.1 < float(jnp.std(logits)) < 5.0


@pytest.mark.parametrize("hidden", [0, 6])
def test_projection_adds_a_product_of_label_and_features(hidden):
    """Miyato & Koyama 2018, eq. (5): linear in the label's vector, and nothing else of the label is seen."""
    shape = {"width": 4, "multipliers": (1, 2), "strides": (2, 2), "kernels": (4, 4), "hidden": hidden}
    blind, sees = Discriminator(**shape), Discriminator(**shape, classes=3, projection=True)
    x, label = jax.random.normal(jax.random.key(0), (5, 16, 16, 3)), jnp.array([0, 1, 2, 0, 1])
    variables = sees.init(jax.random.key(1), x, label)

    def logits(factor):
        kernel = variables["params"]["label"]["kernel"]
        return sees.apply(
            {**variables, "params": {**variables["params"], "label": {"kernel": factor * kernel}}}, x, label
        )

    without = {name: layer for name, layer in variables["params"].items() if name != "label"}
    np.testing.assert_allclose(logits(0.0), blind.apply({**variables, "params": without}, x), atol=1e-6)
    np.testing.assert_allclose(logits(2.0) - logits(0.0), 2.0 * (logits(1.0) - logits(0.0)), atol=1e-5)
    assert float(jnp.min(jnp.abs(logits(1.0) - logits(0.0)))) > 0.0


def test_an_averaged_generator_gets_the_statistics_of_its_own_samples():
    """The first norm sees W z, whose variance the averaged W alone tells."""
    config = shrunk("dcgan_mnist:modern", batch_size=512, model__latent_dim=8)
    task = make_task(config, DIGITS)
    params, state = start(task)
    params[GENERATOR]["hidden"]["kernel"] = 3.0 * params[GENERATOR]["hidden"]["kernel"]
    standing = task.standing(Variables(params, state))
    found = standing.model_state[GENERATOR]["batch_stats"]["hidden_norm"]
    expected = np.square(params[GENERATOR]["hidden"]["kernel"]).sum(0)
    np.testing.assert_allclose(found["var"], expected, rtol=0.2)
    np.testing.assert_allclose(found["mean"] / np.sqrt(expected), 0.0, atol=0.1)
    assert standing.params is params
    config.optim.generator.ema_decay = None
    assert make_task(config, DIGITS).standing(Variables(params, state)).model_state is state


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A conditional GAN with every option and one layer: task, state at step 0, 64 examples, and two ways to step."""
    single = {
        f"model__{net}__{key}": (n,) for net in GAN for key, n in (("multipliers", 1), ("strides", 4), ("kernels", 4))
    }
    run = open_tiny(tmp_path_factory.mktemp("all"), "cgan_mnist:modern", **EVERY_GAN_OPTION, **single)
    optimizers = {net: optax.sgd(0.1, momentum=0.9) for net in (GENERATOR, DISCRIMINATOR)}
    decays = {GENERATOR: 0.9, DISCRIMINATOR: None}
    state = create(jax.device_get(jax.jit(run.task.init)(jax.random.key(0))), optimizers, decays)
    data = {name: np.asarray(x[:64]) for name, x in run.split("train").items()}

    def train(devices, phases, steps, repeats=2):
        call = make_train_call(make_train_step(phases, optimizers, decays, seed=3))
        index = np.arange(steps * repeats * 8, dtype=np.int32).reshape(steps, repeats, 8)
        return map_over(devices, call)(state, data, index)

    @functools.cache
    def phase(number):  # one step of one phase on one device
        return train(1, [run.task.phases()[number]], 1)[0]

    return run.task, state, data, train, phase


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_two_devices_give_the_update_of_one(everything):
    task, state, _, train, _ = everything
    (one, metrics_one), (two, metrics_two) = (train(n, task.phases(), 2) for n in (1, 2))
    close = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5)
    jax.tree.map(close, (one.params, one.model_state, metrics_one), (two.params, two.model_state, metrics_two))
    assert all(not same(one.params[net], state.params[net]) for net in one.params)


def test_a_phase_changes_its_own_network_alone(everything):
    _, state, _, _, phase = everything
    for number, (mine, other) in enumerate([(DISCRIMINATOR, GENERATOR), (GENERATOR, DISCRIMINATOR)]):
        after = phase(number)
        assert not same(after.params[mine], state.params[mine])
        assert not same(after.model_state[mine], state.model_state[mine])
        for part in ("params", "opt_state", "model_state"):
            assert same(getattr(after, part)[other], getattr(state, part)[other])


def test_critic_steps_equal_a_loop_over_fresh_batches(everything):
    task, state, data, _, phase = everything
    after = phase(0)
    params, model_state = state.params, state.model_state
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 0), 0)
    momentum = jax.tree.map(np.zeros_like, params[DISCRIMINATOR])

    @functools.partial(jax.pmap, axis_name="batch", devices=jax.devices()[:1], in_axes=(None, None, 0, None))
    def gradient(params, model_state, batch, key):
        def loss(own):
            value, (_, new) = task.discriminator_loss({**params, DISCRIMINATOR: own}, model_state, batch, key)
            return value, new

        return jax.grad(loss, has_aux=True)(params[DISCRIMINATOR])

    for i in range(2):
        batch = {**{name: x[None, 8 * i : 8 * i + 8] for name, x in data.items()}, "position": np.arange(8)[None]}
        grads, model_state = jax.tree.map(
            lambda x: x[0], gradient(params, model_state, batch, jax.random.fold_in(key, i))
        )
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads)
        own = jax.tree.map(lambda p, m: p - 0.1 * m, params[DISCRIMINATOR], momentum)
        params = {**params, DISCRIMINATOR: own}
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    jax.tree.map(close, after.params[DISCRIMINATOR], params[DISCRIMINATOR])
    jax.tree.map(close, after.model_state[DISCRIMINATOR], model_state[DISCRIMINATOR])


def test_wrong_labels_are_rejected_by_half():
    """Against the definition, with the discriminator's own logits of real images under each label."""
    config = shrunk("cgan_mnist", gan__wrong_labels=True, model__discriminator__dropout=0.0)
    task = make_task(config, DIGITS)
    params, state = start(task)
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), dtype=np.uint8)
    batch = {"image": jnp.asarray(images), "label": jnp.arange(8), "position": jnp.arange(8)}
    key = jax.random.key(5)
    keys = random.example_keys(key, batch["position"])

    @functools.partial(jax.pmap, axis_name="batch", devices=jax.devices()[:1])
    def run(batch):
        z = task.latents(random.fold_in(keys, 0))
        fake, _ = task.generate(params, state, z, batch["label"], train=True)
        return task.discriminator_loss(params, state, batch, key)[0], fake

    loss, fake = (x[0] for x in run(jax.tree.map(lambda x: x[None], batch)))
    x = jnp.asarray(images / 127.5 - 1.0, jnp.float32)
    discriminate = jax.jit(lambda x, label: task.discriminate(params, state, x, label, train=False)[0])

    def logits(x, label):
        return np.asarray(discriminate(x, label), np.float64)

    wrong = (batch["label"] + random.randint(random.fold_in(keys, 3), (), 1, 10)) % 10
    assert not np.any(wrong == batch["label"])
    softplus = functools.partial(np.logaddexp, 0.0)
    rejected = [softplus(logits(fake, batch["label"])).mean(), softplus(logits(x, wrong)).mean()]
    expected = softplus(-logits(x, batch["label"])).mean() + np.mean(rejected)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny conditional GAN and a tiny classifier of the same images."""
    folder = tmp_path_factory.mktemp("judged")
    train_tiny(folder / "judge", "lenet_mnist", dataset__image_size=16)
    train_tiny(folder / "gan", "cgan_mnist:modern", evaluate_every=2)
    return folder


def open_gan(folder, **overrides):
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    return open_trained("cgan_mnist:modern", overrides, Workdir(folder / "gan"))


def test_a_sample_is_a_function_of_seed_number_and_label(trained):
    run = open_gan(trained)
    restored = run.restore("newest")
    some, more = (run.task.sample(restored, n, 7) for n in (3, 12))
    np.testing.assert_array_equal(some["images"], more["images"][:3])
    np.testing.assert_array_equal(more["labels"], [*range(10), 0, 1])
    asked = open_gan(trained, sampling__label=7)
    assert set(asked.task.sample(restored, 5, 7)["labels"]) == {7}
    z = run.task.draw_latents(12, 7)
    np.testing.assert_array_equal(run.task.render(restored, z, more["labels"]), more["images"])
    assert not np.array_equal(run.task.render(restored, z, 3), run.task.render(restored, z, 4))


def test_a_trained_classifier_judges_samples(trained):
    run = open_gan(trained, evaluation__judge=str(trained / "judge"))
    assert evaluate.evaluate(run, "newest") == 0
    results = json.loads((run.workdir.path / "evaluation.json").read_text())["results"]
    assert sum(results["judged_classes"]["value"]) == results["judged_accuracy"]["n"] == 9
    assert (
        results["judge_accuracy"]["judge"] == "lenet_mnist on digits, step 4" and results["judge_accuracy"]["n"] == 10
    )
    assert results["similar_pairs"]["pairs"] == results["similar_pairs_of_real_images"]["pairs"] == 72
    assert results["similar_features"]["judge"] == "lenet_mnist on digits, step 4"
    assert results["similar_features_of_real_images"]["pairs"] == 72


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (None, "this needs a judge: give --config.evaluation.judge=WORKDIR"),
        ("gan", "is a run of the task gan: name a classifier's"),
        ("nowhere", "there is no run in .*nowhere"),
        ("judge", "looks at images of 16x16x1, and these are 28x28x1"),
    ],
)
def test_a_judge_that_cannot_judge_is_told(trained, judge, message):
    run = open_gan(trained, evaluation__judge=judge and str(trained / judge))
    run.spec = run.spec._replace(image_shape=(28, 28, 1))
    with pytest.raises(UserError, match=message):
        run.judge()


def test_figures_of_arithmetic_and_training(trained):
    assert {path.name for path in (trained / "gan" / "figures").iterdir()} == {
        *("samples.png", "classes.png", "interpolation.png", "losses.png", "losses.md", "quality.png"),
        *("samples_0000002.png", "samples_0000004.png", "samples.gif"),
    }
    assert (trained / "gan" / "figures" / "losses.md").read_text().count("\n") == 4
    run = open_gan(trained, sampling__arithmetic="3,17 - 5 + 9", sampling__label=2)
    assert sample.figures(run, "newest") == 0
    assert (trained / "gan" / "figures" / "arithmetic.png").exists()


def test_collapse_is_warned_of():
    """A real image and its negative have similarity -1; two of each and no other, on average, -1/3."""
    task = make_task(shrunk("dcgan_mnist"), DIGITS)
    image = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1), dtype=np.uint8)
    held_out = {"image": np.concatenate([image, 255 - image, image, 255 - image])}
    limit = -1 / 3 + 0.3 * 4 / 3
    assert task.warnings({"similarity": limit - 0.01}, held_out) == []
    (warning,) = task.warnings({"similarity": limit + 0.01}, held_out)
    assert "two samples is 0.077, of two real images -0.333" in warning


def test_the_loop_warns_of_collapse_and_shows_the_similarity(tmp_path):
    """An alarm of -3 is below every similarity."""
    result = gm_jax(*flags("dcgan_mnist", tmp_path / "run", evaluate_every=2, gan__collapse_alarm=-3.0))
    assert result.returncode == 0, result.stderr
    assert "step 2: the mean cosine similarity of two samples is" in result.stderr
    assert ", similarity 0." in result.stderr


def test_a_lazy_penalty_is_scaled_by_its_interval():
    eager, lazy = (make_task(shrunk("dcgan_shapes", gan__r1_every=n), DIGITS) for n in (1, 8))
    assert [phase.every for phase in (eager.phases()[-1], lazy.phases()[-1])] == [1, 8]
    assert isinstance(lazy.phases()[-1], Phase)
    params, state = start(eager)
    batch = {"image": jnp.full((2, 16, 16, 1), 77, jnp.uint8), "position": jnp.arange(2)}
    losses = [float(jax.jit(task.r1_loss)(params, state, batch, jax.random.key(0))[0]) for task in (eager, lazy)]
    assert losses[1] == pytest.approx(8 * losses[0], rel=1e-5) and losses[0] > 0


@pytest.mark.parametrize(
    ("experiment", "changes", "spec", "message"),
    [
        ("dcgan_mnist", dict(gan__loss="wgan"), DIGITS, r"gan.loss='wgan' is not one of minimax"),
        ("dcgan_mnist", dict(gan__loss="wasserstein"), DIGITS, "needs a critic of bounded slope: set gan.gradient_pen"),
        ("wgan_mnist", dict(gan__loss="hinge"), DIGITS, "clip_weights=0.01 is for gan.loss=wasserstein, not hinge"),
        ("dcgan_cats", dict(gan__gradient_penalty=1.0), DIGITS, "gan.gradient_penalty is of each image by itself"),
        ("dcgan_cats", dict(gan__r1=1.0), DIGITS, "gan.r1 is of each image by itself, and batch norm mixes images"),
        ("dcgan_mnist", dict(sampling__arithmetic="red - - circle"), DIGITS, "a sign stands where a term should"),
        ("dcgan_mnist", dict(sampling__arithmetic="red - 3,17"), DIGITS, "has words, for which it needs a judge"),
        ("cgan_mnist", dict(sampling__arithmetic="3 - 17"), DIGITS, "one class here: give sampling.label"),
        ("dcgan_mnist", dict(model__generator__width=0), DIGITS, "model.generator.width=0 must be like its default"),
        ("dcgan_mnist", dict(model__generator__strides=(1, 2, 0)), DIGITS, "must be like its default"),
        ("dcgan_mnist", dict(model__discriminator__dropout=1.0), DIGITS, r"dropout=1.0 is not in \[0, 1\)"),
        ("dcgan_mnist", dict(gan__augment=(1,)), DIGITS, "gan.augment has 1, but knows"),
        ("dcgan_mnist", dict(gan__critic_steps=0), DIGITS, "gan.critic_steps=0 must be at least 1"),
        ("dcgan_mnist", dict(gan__r1=-1.0), DIGITS, "gan.r1=-1.0 must not be negative"),
        ("dcgan_mnist", dict(gan__label_smoothing=1.0), DIGITS, r"gan.label_smoothing=1.0 is not in \[0, 1\)"),
        ("sngan_cifar10", dict(gan__label_smoothing=0.1), DIGITS, "label_smoothing means nothing for gan.loss=hinge"),
        ("cgan_mnist", {}, DataSpec((16, 16, 1)), "gan.conditional needs labels of two or more classes, and data set"),
        ("dcgan_mnist", dict(gan__wrong_labels=True), DIGITS, "gan.wrong_labels needs labels: set gan.conditional"),
        ("dcgan_mnist", dict(sampling__label=3), DIGITS, "sampling.label=3 is not one of the 0 classes"),
        ("dcgan_mnist", dict(gan__augment=("flip",)), DIGITS, "gan.augment has 'flip', but knows colour"),
        ("dcgan_mnist", dict(model__latent_dim=0), DIGITS, "model.latent_dim=0 must be at least 1"),
        ("dcgan_mnist", dict(model__name="dcgna"), DIGITS, r"model.name='dcgna' .* \(did you mean 'dcgan'\?\)"),
        (
            "dcgan_mnist",
            dict(model__generator__wdith=3),
            DIGITS,
            r"model dcgan has no key model.generator.wdith \(did you mean 'generator.width'\?\)",
        ),
        (
            "dcgan_cats",
            {},
            DataSpec((30, 30, 1)),
            "model.generator halves or doubles images by strides of 4 in all, and 30x30 pixels do not divide by that",
        ),
        (
            "dcgan_mnist",
            dict(model__discriminator__strides=(2,)),
            DIGITS,
            "model.discriminator has 2 multipliers, 1 strides and 2 kernels",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_told(experiment, changes, spec, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(make_task(shrunk(experiment, **changes), spec).init, jax.random.key(0))
