"""Classifiers: networks, augmentation, loss, what evaluation counts, and the mistakes of a user."""

import functools
import itertools
import json
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from gm_jax import evaluate, random
from gm_jax.data import augment
from gm_jax.errors import UserError
from gm_jax.experiment import Experiment
from gm_jax.layers.norm import BatchNorm
from gm_jax.layers.pool import fused_max_pool, global_max_pool, max_pool
from gm_jax.losses.classification import cross_entropy
from gm_jax.metrics import classification as metrics
from gm_jax.metrics.moments import Moments
from gm_jax.models.classifiers import CLASSIFIERS, make_classifier
from gm_jax.optim import make_optimizers
from gm_jax.portions import count_epochs
from gm_jax.run import open_trained
from gm_jax.state import Variables, create
from gm_jax.step import AXIS, make_train_call, make_train_step
from gm_jax.tasks import DataSpec, classifier, make_task
from gm_jax.tasks.task import take
from gm_jax.workdir import Workdir
from tests.test_step import map_over
from tests.tiny import EXPERIMENTS, gm_jax, load, open_tiny, shrunk, train_tiny
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
IMAGES = RNG.integers(0, 256, (16, 12, 10, 3), dtype=np.uint8)
CIFAR = (32, 32, 3)
KEY = jax.random.key(7)


def keys(n=16, seed=0):
    return random.example_keys(jax.random.key(seed), jnp.arange(n))


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def shapes_of(network, shape):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *shape)))


@pytest.mark.parametrize(
    ("experiment", "shape", "parameters"),
    [
        ("fnn_mnist", (28, 28, 1), 784 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10),
        ("fnn_cifar10", CIFAR, 3072 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10),
        ("cnn_cifar10", CIFAR, 122_570),  # as TensorFlow's tutorial prints it
        ("resnet50_cifar10", CIFAR, 23_520_842),
        ("resnet50_cifar10:modern", CIFAR, 6_573_120),
    ],
)
def test_number_of_parameters(experiment, shape, parameters):
    network = make_classifier(image_shape=shape, classes=10, **load(experiment).model)
    assert count(shapes_of(network, shape)["params"]) == parameters


def test_layers_are_those_of_the_report():
    def layers(experiment):
        network = make_classifier(image_shape=CIFAR, classes=10, **load(experiment).model)
        flat = jax.tree_util.tree_leaves_with_path(shapes_of(network, CIFAR)["params"])
        ranks = [leaf.ndim for path, leaf in flat if path[-1].key == "kernel"]
        return ranks.count(4), ranks.count(2)

    assert layers("cnn_cifar10") == (3, 2)
    assert layers("alexnet_cifar10") == layers("alexnet_cifar10:modern") == (5, 1)
    assert layers("resnet50_cifar10") == (49 + 4, 1)  # 50 layers with the dense one, and four projections of a skip


@pytest.mark.parametrize("experiment", [e for e in EXPERIMENTS if load(e).task == "classifier"])
def test_steps_are_whole_epochs_and_calls(experiment):
    """Those of the examples that are trained on: without the 1,000 that choose the best checkpoint."""
    config = load(experiment)
    shape, examples = ((28, 28, 1), 59_000) if "mnist" in experiment else (CIFAR, 49_000)
    epochs = config.epochs.steps
    assert count_epochs(config, Experiment(config, DataSpec(shape, tuple("0123456789"))), examples, ())
    assert config.steps % epochs == 0
    more = config.steps // epochs * config.batch_size - examples
    assert 0 <= more < config.steps_per_call * config.batch_size and more < 0.025 * examples
    assert config.optim.decay_steps == config.steps and config.log_every == config.steps // epochs
    if ":" not in experiment and "lenet" not in experiment:
        assert epochs == 100
    for name in ("steps", "log_every", "evaluate_every", "checkpoint_every"):
        assert config[name] % config.steps_per_call == 0
    assert config.checkpoint_every % config.evaluate_every == 0  # so that every checkpoint has a score


def test_global_max_pool_passes_the_gradient_to_one_place():
    """Also where the largest value occurs twice, as zeros after a ReLU do."""
    x = jnp.asarray(RNG.integers(0, 3, (4, 3, 3, 5)), jnp.float32)
    np.testing.assert_array_equal(global_max_pool(x), x.max((1, 2)))
    gradient = jax.grad(lambda x: jnp.sum(global_max_pool(x)))(x)
    np.testing.assert_array_equal(gradient.sum((1, 2)), np.ones((4, 5)))
    np.testing.assert_array_equal(jnp.where(gradient == 1, x, 0.0).sum((1, 2)), x.max((1, 2)))


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_is_flaxs(train):
    """Outputs, running statistics and gradients with respect to parameters and images."""
    x = jnp.asarray(RNG.normal(3.0, 2.0, (4, 5, 7, 8)), jnp.float32)
    modules = BatchNorm(train), nn.BatchNorm(use_running_average=not train, momentum=0.9)
    shapes = [jax.tree.map(jnp.shape, module.init(jax.random.key(0), x)) for module in modules]
    assert shapes[0] == shapes[1]
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(RNG.uniform(0.5, 1.5, leaf.shape)), modules[0].init(jax.random.key(0), x)
    )

    def value(params, x, module):
        y, state = module.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y)), (y, state)

    grad = jax.value_and_grad(value, (0, 1), has_aux=True)
    ours, theirs = (grad(variables["params"], x, module) for module in modules)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


def test_batch_norm_covers_the_global_batch():
    """Logits and running statistics on two devices are those on one."""
    network = make_classifier("mlp", (4, 4, 1), 3, axis_name="batch", hidden=(8,), batch_norm=True)
    x = RNG.normal(size=(8, 4, 4, 1)).astype(np.float32)
    variables = network.init(jax.random.key(0), x)

    def apply(x):
        return network.apply(variables, x, train=True, mutable=["batch_stats"])

    run = jax.pmap(apply, axis_name="batch", out_axes=(0, None))
    one, one_state = jax.pmap(apply, "batch", out_axes=(0, None), devices=jax.devices()[:1])(x[None])
    two, two_state = run(x.reshape(2, 4, 4, 4, 1))
    np.testing.assert_allclose(two.reshape(8, 3), one[0], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one_state, two_state)


def test_two_devices_give_the_update_of_one(tmp_path):
    """Through augmentation, dropout and batch norm, whose gradients cross the devices."""
    run = open_tiny(tmp_path, "fnn_mnist:modern")
    optimizers, decays = {"classifier": optax.sgd(0.1)}, {"classifier": None}
    state = create(jax.device_get(run.task.init(jax.random.key(0))), optimizers, decays)
    call = make_train_call(make_train_step(run.task.phases(), optimizers, decays, seed=3))
    data = {name: np.asarray(x[:64]) for name, x in run.split("train").items()}
    index = np.arange(16, dtype=np.int32).reshape(2, 1, 8)
    (one, metrics_one), (two, metrics_two) = (map_over(n, call)(state, data, index) for n in (1, 2))
    np.testing.assert_allclose(metrics_one["loss"], metrics_two["loss"], rtol=1e-4)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, (one.params, one.model_state), (two.params, two.model_state))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one.params, state.params)
    assert min(jax.tree.leaves(moved)) > 1e-4


@pytest.mark.parametrize("pool", [max_pool, fused_max_pool])
@pytest.mark.parametrize("size", [2, 3])
def test_max_pool_equals_a_window_reduction(pool, size):
    x = RNG.normal(size=(2, 7, 6, 3)).astype(np.float32)

    def reference(x):
        return nn.max_pool(x, (size, size), (size, size))

    np.testing.assert_array_equal(pool(x, size), reference(x))
    ours, theirs = (jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(x) for f in (lambda x: pool(x, size), reference))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    gradient = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(pool(x, size))))(x))
    assert "select_and_scatter" not in gradient


def test_speednet_starts_from_an_orthonormal_transform():
    network = make_classifier("speednet", CIFAR, 10, widths=(8,), depth=1)
    stem = jax.jit(lambda key: network.init(key, jnp.zeros((1, *CIFAR)))["params"]["stem"]["kernel"])
    kernel = stem(jax.random.key(0)).reshape(12, 12)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(12), atol=1e-6)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_last_layer_is_called_head(name):
    """It is how `features` finds what the logits are read from."""
    assert "head" in shapes_of(make_classifier(name, CIFAR, 10), CIFAR)["params"]


def test_bfloat16_computes_near_float32():
    x = RNG.normal(size=(2, 16, 16, 3)).astype(np.float32)
    exact, rough = (make_classifier("speednet", x.shape[1:], 10, widths=(4, 4), dtype=d) for d in (None, "bfloat16"))

    @jax.jit
    def both(x):
        variables = exact.init(jax.random.key(0), x)
        return exact.apply(variables, x), rough.apply(variables, x)

    a, b = both(x)
    assert b.dtype == jnp.float32 and not np.array_equal(a, b)
    np.testing.assert_allclose(a, b, atol=0.1 * np.abs(a).max())


def test_flip_mirrors_about_half_and_is_an_involution():
    once = np.asarray(augment.flip(IMAGES, keys()))
    flipped = [not np.array_equal(a, b) for a, b in zip(once, IMAGES, strict=True)]
    assert 3 <= sum(flipped) <= 13
    np.testing.assert_array_equal(once[flipped], IMAGES[flipped][:, :, ::-1])
    np.testing.assert_array_equal(augment.flip(once, keys()), IMAGES)


def test_crop_equals_cutting_out_of_the_reflected_image():
    padding = 3
    cropped = np.asarray(augment.crop(IMAGES, keys(), padding))
    assert cropped.shape == IMAGES.shape and cropped.dtype == IMAGES.dtype
    padded = np.pad(IMAGES, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")
    found = set()
    for image, source in zip(cropped, padded, strict=True):
        offsets = [(i, j) for i in range(7) for j in range(7) if np.array_equal(source[i : i + 12, j : j + 10], image)]
        assert len(offsets) == 1
        found.update(offsets)
    assert len(found) > 8


def test_crop_reaches_every_shift_up_to_the_padding():
    ramp = np.broadcast_to(np.arange(12, dtype=np.uint8)[:, None, None], (400, 12, 10, 1))
    middle = np.asarray(augment.crop(ramp, keys(400), 2))[:, 6, 0, 0]
    assert set(middle) == {4, 5, 6, 7, 8}


def test_cutout_blanks_a_square_with_the_mean():
    ones = np.concatenate([np.zeros((64, 12, 5, 1), np.float32), np.full((64, 12, 5, 1), 2, np.float32)], axis=2)
    holes = np.asarray(augment.cutout(ones, keys(64), 4))[..., 0] == 1.0
    sizes = holes.sum((1, 2))
    assert sizes.max() == 16 and sizes.min() >= 4  # whole inside, a quarter of it at a corner
    for hole in holes:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_augmentation_is_a_function_of_key_and_position():
    settings = {"flip": True, "crop": 2, "cutout": 3}

    def move(images, positions, seed):
        return augment.augment(images, random.example_keys(jax.random.key(seed), positions), settings)

    mapped = jax.pmap(move, in_axes=(0, 0, None))

    def move_all(images, positions, seed=0):
        return np.asarray(mapped(images.reshape(2, 8, 12, 10, 3), positions.reshape(2, 8), seed)).reshape(images.shape)

    whole, there = move_all(IMAGES, np.arange(16)), np.roll(np.arange(16), 5)
    np.testing.assert_array_equal(whole[there], move_all(IMAGES[there], there))
    assert not np.array_equal(whole, move_all(IMAGES, np.arange(16), seed=1))
    assert not np.array_equal(whole, move_all(IMAGES, np.arange(16) + 16))


def test_cross_entropy_with_smoothing_equals_numpy():
    logits, labels = RNG.normal(size=(6, 4)).astype(np.float32), np.array([0, 1, 2, 3, 0, 1])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    for smoothing in (0.0, 0.2):
        target = np.eye(4)[labels] * (1 - smoothing) + smoothing / 4
        loss = jax.jit(cross_entropy, static_argnums=2)(logits, labels, smoothing)
        np.testing.assert_allclose(loss, -(target * log_p).sum(1), rtol=1e-5)


def test_the_first_bin_of_confidence_holds_0_too():
    bins = np.asarray(metrics.calibration(np.array([0.0, 0.25, 0.26, 1.0]), np.ones(4, bool), 4))[..., 0]
    np.testing.assert_array_equal(bins.argmax(1), [0, 0, 1, 3])


def test_calibration_and_confusion_equal_numpy():
    n, bins, classes = 500, 15, 3
    confidence = np.concatenate([RNG.uniform(1 / 3, 1, n - 2), [1.0, 1 / 15]]).astype(np.float32)
    correct = RNG.uniform(size=n) < confidence**2
    labels, predicted = RNG.integers(0, classes, (2, n))

    error = 0.0
    for low, high in itertools.pairwise(np.linspace(0, 1, bins + 1)):
        inside = (confidence > np.float32(low)) & (confidence <= np.float32(high))
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    shares = np.mean(metrics.calibration(confidence, correct, bins), axis=0)
    assert metrics.expected_calibration_error(shares) == pytest.approx(error, abs=1e-6) and error > 0.05
    assert shares[:, 0].sum() == pytest.approx(1)

    matrix = np.sum(metrics.confusion(labels, predicted, classes), axis=0)
    for row in range(classes):
        for column in range(classes):
            assert matrix[row, column] == np.sum((labels == row) & (predicted == column))


def test_weight_decay_shrinks_kernels_alone():
    params = {"classifier": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    for name in ("sgd", "adamw"):
        config = shrunk("fnn_mnist", optim__name=name, optim__weight_decay=0.1)
        optimizer = make_optimizers(config, ["classifier"])["classifier"]
        tree = params["classifier"]
        updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, tree), optimizer.init(tree), tree, step=0)
        assert np.all(updates["kernel"] < 0) and np.all(updates["bias"] == 0)
    with pytest.raises(UserError, match=r"optim.name=adam ignores optim.weight_decay: use adamw or sgd"):
        make_optimizers(shrunk("fnn_mnist", optim__weight_decay=0.1), ["classifier"])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier")
    changes = dict(steps=300, log_every=100, evaluate_every=300, checkpoint_every=300, steps_per_call=100)
    changes.update(model__hidden=(32,), batch_size=20, optim__learning_rate=1e-2, optim__decay_steps=1000)
    train_tiny(path, "fnn_mnist", **changes)
    return Workdir(path)


def test_evaluation_counts_every_example_once(workdir):
    """297 images in batches of 8, on two devices: the last one is padded, and what is padded never counts."""
    run = open_trained("fnn_mnist", {"evaluation.n": None}, workdir)
    assert evaluate.evaluate(run, "newest") == 0
    results = json.loads((workdir.path / "evaluation.json").read_text())["results"]
    assert {result["n"] for result in results.values()} == {297}

    data = run.split("test")
    variables = run.restore("newest").variables
    logits = np.asarray(run.task.logits(variables, data["image"]), np.float64)
    predicted, labels = logits.argmax(1), data["label"]
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert (
        results["accuracy"]["value"] == pytest.approx(np.mean(predicted == labels))
        and np.mean(predicted == labels) > 0.5
    )
    assert results["loss"]["value"] == pytest.approx(-log_p[np.arange(297), labels].mean(), rel=1e-4)
    counts = np.zeros((10, 10))
    np.add.at(counts, (labels, predicted), 1)
    np.testing.assert_allclose(297 * np.array(results["confusion"]["value"]), counts, atol=1e-9)
    for digit in range(10):
        accuracy = counts[digit, digit] / counts[digit].sum()
        assert results[f"accuracy/{digit}"]["value"] == pytest.approx(accuracy)
    assert 0 < results["expected_calibration_error"]["value"] < 1


def test_classes_that_do_not_occur_have_no_accuracy(workdir):
    run = open_trained("fnn_mnist", {"evaluation.n": 5}, workdir)
    evaluate.evaluate(run, "newest")
    results = json.loads((workdir.path / "evaluation.json").read_text())["results"]
    present = {f"accuracy/{label}" for label in take(run.split("test"), 5)["label"]}
    assert {name for name in results if name.startswith("accuracy/")} == present


class ToyClassifier(nn.Module):
    @nn.compact
    def __call__(self, x, train=False, keys=None):
        x = x.reshape(len(x), -1)
        running = self.variable("batch_stats", "mean", jnp.zeros, PIXELS)
        if train:
            running.value = 0.9 * running.value + 0.1 * jax.lax.pmean(jnp.mean(x, 0), AXIS)
        x = (x - running.value) * (1.0 if keys is None else random.uniform(keys)[:, None])
        return nn.Dense(3, name="head")(x)


def logits_of(params, x):
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def toy(**changes):
    """A task with a toy network, and its variables."""
    changes = {"classifier__mean": (0.3,), "classifier__std": (0.4,), **changes}
    task = toy_task("fnn_mnist", **changes)
    task.network = ToyClassifier()
    params = {"head": {"kernel": weights(PIXELS, 3) / 4, "bias": weights(3)}}
    statistics = {"batch_stats": {"mean": weights(PIXELS, seed=1)}}
    return task, Variables({"classifier": params}, {"classifier": statistics}, {})


def standardised(image):
    return (np.float64(image).reshape(-1, *SHAPE) / 255 - 0.3) / 0.4


def log_softmax(logits):
    return logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)


def test_loss_has_smoothed_labels_and_is_logged_without():
    """Augmentation and dropout have keys of their own, and the running statistics follow what the network sees."""
    task, variables = toy(classifier__label_smoothing=0.2, augment__flip=True, augment__crop=1)
    batch = batch_of(8)

    def draw(batch, key):
        moved, dropped = (random.example_keys(key, batch["position"]) for key in jax.random.split(key))
        return augment.augment(batch["image"], moved, task.config.augment), random.uniform(dropped)

    def loss(params, drawn):
        x = standardised(drawn[0]).reshape(8, PIXELS)
        mean = 0.9 * variables.model_state["classifier"]["batch_stats"]["mean"] + 0.1 * x.mean(0)
        log_p = log_softmax(logits_of(params["classifier"], (x - mean) * drawn[1][:, None]))
        plain = -log_p[np.arange(8), batch["label"]]
        metrics = {"loss": plain.mean(), "accuracy": np.mean(log_p.argmax(1) == batch["label"])}
        state = {"classifier": {"batch_stats": {"mean": mean}}}
        return 0.8 * plain.mean() - 0.2 * log_p.mean(), metrics, state

    moved, _ = check_phases(task.phases(), variables, batch, at_step(KEY), draw, loss)
    assert not np.array_equal(moved, batch["image"])


@pytest.mark.parametrize("mirror", [False, True])
def test_validation_evaluation_and_features(mirror):
    """With the mirror image the logits are the mean of both, and so are features that stand beside each other."""
    task, variables = toy(classifier__flip_at_test=mirror, classifier__label_smoothing=0.2)
    params, batch = variables.params["classifier"], batch_of(8)
    values = run(lambda *seen: (task.validate(*seen), task.evaluate(*seen)), variables, batch, keys(8))
    mean = variables.model_state["classifier"]["batch_stats"]["mean"]
    sides = [standardised(image).reshape(8, PIXELS) - mean for image in (batch["image"], batch["image"][:, :, ::-1])]
    sides = sides[: 1 + mirror]
    log_p = log_softmax(np.mean([logits_of(params, x) for x in sides], axis=0))
    label, predicted = batch["label"], log_p.argmax(1)
    correct, confidence = predicted == label, np.exp(log_p.max(1))
    expected = {"loss": -log_p[np.arange(8), label], "accuracy": np.float64(correct)}
    assert 0 < correct.mean() < 1
    compare(values[0], expected)
    confusion, calibration = np.zeros((8, 3, 3)), np.zeros((8, 15, 3))
    confusion[np.arange(8), label, predicted] = 1
    calibration[np.arange(8), np.ceil(confidence * 15).astype(int) - 1] = np.stack([np.ones(8), confidence, correct], 1)
    expected |= {"confidence": confidence, "confusion": confusion, "calibration": calibration}
    compare(values[1], expected)

    seen = types.SimpleNamespace(variables=variables)
    close(task.features(seen, batch["image"]), np.concatenate(sides, axis=1))
    assert task.describe(seen, batch["image"]) == [frozenset([NAMES[number]]) for number in predicted]


def test_the_accuracy_of_a_class_is_of_its_own_examples():
    """Of those that occur; and the calibration error is that of the mean over all examples."""
    task, _ = toy()
    counts = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
    confusion = np.stack(
        [np.eye(9)[3 * row + column] for row in range(3) for column in range(3) for _ in range(counts[row, column])]
    )
    calibration = np.zeros((8, 15, 3))
    calibration[:, 4] = 1.0, 0.3, 0.5
    derived = task.derive(
        {"confusion": Moments.of(confusion.reshape(-1, 3, 3)), "calibration": Moments.of(calibration)}
    )
    assert derived == {"expected_calibration_error": pytest.approx(0.2), "accuracy/a": 0.75, "accuracy/c": 0.5}


@pytest.mark.parametrize("kernel", [(PIXELS, 70), (2, 2, 3, 5), (2, 2, 2, 5)])
def test_figures_show_confusion_mistakes_and_filters(kernel, tmp_path, monkeypatch):
    task, variables = toy(evaluation__n=8)
    stem = weights(*kernel)
    stem[..., 1] = 0.0  # a filter that is not used is grey
    variables.params["classifier"]["stem"] = {"kernel": stem}
    data = batch_of(12)
    state = trained(variables, tmp_path, data)
    monkeypatch.setattr(classifier, "MISTAKES", 2)
    seen = record(monkeypatch, classifier, "save_curves", "save_confusion", "save_labelled_grid", "save_grid")
    figures = task.figures()
    if kernel == (PIXELS, 70):
        for name in ("curves", "confusion", "mistakes"):
            figures[name](state)
        chosen = take(data, 8)
        predicted, label = task.predict(state, chosen["image"]), chosen["label"]
        counts = np.zeros((3, 3))
        np.add.at(counts, (label, predicted), 1)
        np.testing.assert_array_equal(seen["confusion.png"][0], counts)
        assert seen["confusion.png"][1] == NAMES
        assert f"{np.mean(label == predicted):.2%} of 8" in str(seen["confusion.png"][2])
        wrong = np.flatnonzero(label != predicted)[:2]
        images, captions, columns, _ = seen["mistakes.png"]
        np.testing.assert_array_equal(images, chosen["image"][wrong])
        assert captions == [f"{NAMES[predicted[i]]} / {NAMES[label[i]]}" for i in wrong] and columns == 8
        assert seen["curves.png"][:2] == (state.workdir.metrics, ["accuracy", "loss"])
    figures["filters"](state)
    filters = np.moveaxis(stem.reshape(*SHAPE, 70) if len(kernel) == 2 else stem, -1, 0)[:64]
    filters = filters.mean(3, keepdims=True) if kernel[2:3] == (2,) else filters
    expected = filters / np.where(filters == 0.0, 1.0, np.abs(filters).max((1, 2, 3), keepdims=True))
    same_pictures(seen["filters.png"][0], np.round((expected + 1) * 127.5))
    assert seen["filters.png"][1] == 8


DIGITS = DataSpec((28, 28, 1), tuple("0123456789"))


@pytest.mark.parametrize(
    ("changes", "spec", "message"),
    [
        ({}, DIGITS._replace(label_names=()), r"needs labels of two or more classes, and data set 'digits' has 0"),
        ({}, DIGITS._replace(label_names=("a",)), r"needs labels of two or more classes, and data set 'digits' has 1"),
        (dict(classifier__label_smoothing=-0.1), DIGITS, r"label_smoothing=-0.1 is not in \[0, 1\)"),
        (dict(classifier__std=(0.1, 0.2)), DIGITS, r"classifier.std=\(0.1, 0.2\) has 2 values for images of 1"),
        (dict(classifier__classes=7), DIGITS, r"classifier.classes=7, but data set 'digits' has 10 classes"),
        (dict(classifier__label_smoothing=1.0), DIGITS, r"label_smoothing=1.0 is not in \[0, 1\)"),
        (
            dict(classifier__mean=(0.1, 0.2)),
            DIGITS,
            r"classifier.mean=\(0.1, 0.2\) has 2 values for images of 1",
        ),
        (dict(augment__crop=28), DIGITS, r"augment.crop=28 is not between 0 and 27"),
        (dict(augment__crop=-1), DIGITS, r"augment.crop=-1 must not be negative"),
        (dict(augment__cutout=29), DIGITS, r"augment.cutout=29 is not between 0 and the image's 28"),
        (dict(augment__cutout=-1), DIGITS, r"augment.cutout=-1 must not be negative"),
        (dict(model__name="alexnte"), DIGITS, r"is not one of .* \(did you mean 'alexnet'\?\)"),
        (dict(model__hiden=(3,)), DIGITS, r"model mlp has no key model.hiden \(did you mean 'hidden'\?\)"),
        (dict(model__dtype="bfloat17"), DIGITS, r"model.dtype='bfloat17' is not a floating type"),
        (dict(model__dtype="int32"), DIGITS, r"model.dtype='int32' is not a floating type"),
    ],
)
def test_a_config_that_does_not_fit_is_told(changes, spec, message):
    with pytest.raises(UserError, match=message):
        make_task(shrunk("fnn_mnist", **changes), spec)


def test_two_classes_or_a_mean_for_each_channel_are_accepted():
    spec = DataSpec((28, 28, 3), ("a", "b"))
    changes = {"classifier__classes": 2, "classifier__mean": (0.1, 0.2, 0.3)}
    assert make_task(shrunk("fnn_mnist", **changes), spec).classes == 2


@pytest.mark.parametrize(
    ("name", "side"), [("cnn", 18), ("lenet", 4), ("speednet", 9), ("alexnet", 15), ("resnet9", 8), ("resnet", 1)]
)
def test_images_too_small_are_told_and_the_smallest_are_not(name, side):
    assert shapes_of(make_classifier(name, (side, side, 1), 10), (side, side, 1))
    if side > 1:
        with pytest.raises(UserError, match=f"takes images of {side}x{side} pixels or more, not {side - 1}x40"):
            make_classifier(name, (side - 1, 40, 1), 10)


def test_labels_missing_or_outside_the_range_are_told(tmp_path):
    task = open_tiny(tmp_path, "fnn_mnist").task
    for labels in ([0, 1, 10], [0, 1, -1]):
        with pytest.raises(UserError, match=rf"label {labels[-1]} of example 2 in split 'test' is not one of the 10"):
            task.check_data("test", {"image": IMAGES, "label": np.array(labels)})
    with pytest.raises(UserError, match="split 'test' has no labels"):
        task.check_data("test", {"image": IMAGES})


def test_a_split_without_examples_is_told(tmp_path):
    with pytest.raises(UserError, match=r"evaluation.n=0 must be at least 1"):
        train_tiny(tmp_path, "fnn_mnist", evaluation__n=0)


def test_unknown_variant_in_one_line():
    result = gm_jax("--config=configs/fnn_mnist.py:modren")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "the config has no variant ':modren' (did you mean 'modern'?)" in result.stderr


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_lenet_takes_the_embedded_sets(name, tmp_path):
    run = open_tiny(tmp_path, "lenet_mnist", dataset__name=name)
    assert run.task.classes == (10 if name == "digits" else 3)
    run.split("train")
