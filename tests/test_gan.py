"""The task `gan`: its networks, what each phase changes, devices, resume, samples, warnings and a user's mistakes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import evaluate, sample
from gm_jax.errors import UserError
from gm_jax.models.dcgan import Discriminator
from gm_jax.run import open_trained
from gm_jax.state import Variables, split_variables
from gm_jax.step import AXIS
from gm_jax.tasks import DataSpec, collapse, make_task
from gm_jax.tasks.gan import DISCRIMINATOR, GENERATOR
from gm_jax.workdir import Workdir
from tests.tiny import EXPERIMENTS, GAN, load, shrunk, train_tiny

DIGITS = DataSpec((16, 16, 1), tuple("0123456789"))


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


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


@pytest.mark.parametrize("experiment", ["dcgan_cats", "dcgan_mnist:modern", "gan_mnist"])
def test_every_norm_is_of_the_global_batch(experiment):
    """It averages over the devices, once for each norm."""
    config = shrunk(experiment, **{f"model__{net}__hidden": 4 for net in GAN} if "dcgan" in experiment else {})
    task = make_task(config, DIGITS)
    variables = jax.eval_shape(task.init, jax.random.key(0))
    params, state = ({net: split_variables(tree)[part] for net, tree in variables.items()} for part in (0, 1))

    def through(variables, z):
        x, after = task.fake(variables, z, None, train=True)
        return task.discriminate(after, x, None, jax.random.split(jax.random.key(0), 2))

    mapped = jax.pmap(through, axis_name=AXIS, in_axes=(None, 0), devices=jax.devices()[:1])
    latents = jnp.zeros((1, 2, config.model.latent_dim))
    program = str(jax.make_jaxpr(mapped)(Variables(params, state, {}), latents))
    norms = sum("mean" in layer for net in state.values() for layer in net.get("batch_stats", {}).values())
    assert program.count("psum") == norms > 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny conditional GAN and a tiny classifier of the same images."""
    folder = tmp_path_factory.mktemp("judged")
    train_tiny(folder / "judge", "fnn_mnist", dataset__image_size=16)
    train_tiny(folder / "gan", "gan_mnist", **CONDITIONAL)
    return folder


CONDITIONAL = {"gan__conditional": True, "optim__generator__ema_decay": 0.9, "evaluate_every": 2}


def open_gan(folder, **overrides):
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    return open_trained("gan_mnist", overrides, Workdir(folder / "gan"))


def test_a_sample_is_a_function_of_seed_number_and_label(trained):
    run = open_gan(trained)
    restored = run.restore("newest")
    some, more = (run.task.sample(restored.variables, n, 7) for n in (3, 12))
    np.testing.assert_array_equal(some["images"], more["images"][:3])
    np.testing.assert_array_equal(more["labels"], [*range(10), 0, 1])
    asked = open_gan(trained, sampling__label=7)
    assert set(asked.task.sample(restored.variables, 5, 7)["labels"]) == {7}
    z = run.task.draw_latents(12, 7)
    np.testing.assert_array_equal(run.task.render_all(restored, z, more["labels"]), more["images"])
    assert not np.array_equal(run.task.render_all(restored, z, 3), run.task.render_all(restored, z, 4))


def test_a_trained_classifier_judges_samples(trained):
    run = open_gan(trained, evaluation__judge=str(trained / "judge"))
    assert evaluate.evaluate(run, "newest") == 0
    results = json.loads((run.workdir.path / "evaluation.json").read_text())["results"]
    assert sum(results["judged_classes"]["value"]) == results["judged_accuracy"]["n"] == 9
    assert results["judge_accuracy"]["judge"] == "fnn_mnist on digits, step 4" and results["judge_accuracy"]["n"] == 10
    assert results["similar_pairs"]["pairs"] == results["similar_pairs_of_real_images"]["pairs"] == 72
    assert results["similar_features"]["judge"] == "fnn_mnist on digits, step 4"
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
    run.experiment.spec = run.spec._replace(image_shape=(28, 28, 1))
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


def test_the_loop_warns_of_collapse_and_shows_the_similarity(tmp_path, caplog, capfd, monkeypatch):
    """No samples are less alike than real images of similarity -1."""
    seen = []
    monkeypatch.setattr(collapse, "mean_similarity", lambda *real: seen.append(real) or -1.0)
    train_tiny(tmp_path / "run", "gan_mnist", **CONDITIONAL, gan__collapse_alarm=0.0)
    ((images, labels),) = seen  # measured once, of the held-out images
    assert images.shape == (10, 16, 16, 1) and -1 == images.min() < images.max() <= 1 and labels.shape == (10,)
    assert "step 2: the mean cosine similarity of two samples is" in caplog.text
    assert ", similarity " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("experiment", "changes", "spec", "message"),
    [
        ("dcgan_mnist", dict(gan__loss="wgan"), DIGITS, r"gan.loss='wgan' is not one of non_saturating, minimax"),
        ("dcgan_mnist", dict(gan__loss="wasserstein"), DIGITS, "needs a critic of bounded slope: set gan.gradient_pen"),
        ("wgan_mnist", dict(gan__loss="hinge"), DIGITS, "clip_weights=0.01 is for gan.loss=wasserstein, not hinge"),
        ("wgan_mnist", dict(optim__discriminator__clip_weights=0.0), DIGITS, "clip_weights=0.0 must be above 0"),
        ("dcgan_mnist", dict(gan__label_smoothing=-0.1), DIGITS, r"gan.label_smoothing=-0.1 is not in \[0, 1\)"),
        ("dcgan_mnist", dict(gan__r1_every=0), DIGITS, "gan.r1_every=0 must be at least 1"),
        ("wgan_mnist:gp", dict(gan__gradient_penalty=-1.0), DIGITS, "gan.gradient_penalty=-1.0 must not be negative"),
        ("cgan_mnist", dict(sampling__label=10), DIGITS, "sampling.label=10 is not one of the 10 classes"),
        ("cgan_mnist", dict(sampling__label=-1), DIGITS, "sampling.label=-1 is not one of the 10 classes"),
        ("cgan_mnist", {}, DataSpec((16, 16, 1), ("a",)), "two or more classes, and data set 'digits' has 1"),
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


@pytest.mark.parametrize(
    ("experiment", "changes"),
    [
        ("wgan_mnist", dict(optim__discriminator__clip_weights=None, model__discriminator__spectral_norm=True)),
        ("wgan_mnist", dict(optim__discriminator__clip_weights=None, gan__gradient_penalty=1.0,
                            model__discriminator__batch_norm=False)),
        ("gan_mnist", dict(gan__r1=1.0, gan__gradient_penalty=1.0)),  # dense networks have no batch norm there
        ("cgan_mnist", dict(sampling__label=1, sampling__arithmetic="3 - 17")),
        ("cgan_mnist", dict(sampling__label=0)),
        ("dcgan_mnist", dict(sampling__arithmetic="red - 3,17", evaluation__judge="shapes")),
    ],
)  # fmt: skip
def test_what_goes_together_is_accepted(experiment, changes):
    task = make_task(shrunk(experiment, **changes), DataSpec((16, 16, 1), ("a", "b")))
    assert task.classes == (2 if experiment == "cgan_mnist" else 0)


def test_labels_of_the_data_count_where_they_are_seen():
    data = {"image": np.zeros((2, 16, 16, 1), np.uint8), "label": np.array([0, 10])}
    make_task(shrunk("dcgan_mnist"), DIGITS).check_data("test", data)
    with pytest.raises(UserError, match="label 10 of example 1 in split 'test' is not one of the 10 classes"):
        make_task(shrunk("cgan_mnist"), DIGITS).check_data("test", data)
