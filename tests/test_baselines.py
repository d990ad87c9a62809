"""The fitted baselines: parameters by hand, densities against scikit-learn and SciPy, samples against their moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.naive_bayes import BernoulliNB

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.state import Variables
from gm_jax.tasks import DataSpec, baseline, make_task
from gm_jax.tasks import task as base
from gm_jax.tasks.baseline import NET
from tests.tiny import open_tiny, shrunk, train_tiny
from tests.toys import record, trained

SHAPE = (3, 2, 1)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, *SHAPE), dtype=np.uint8)
LABELS = RNG.choice([0, 2], 60).astype(np.int32)  # class 1 never occurs
DATA = {"image": IMAGES, "label": LABELS}
BATCH = {**DATA, "position": np.arange(60)}


def make(name, **changes):
    return make_task(shrunk(name, **changes), DataSpec(SHAPE, ("a", "b", "c")))


def values(task, arrays):
    """Return what the task measures of every example of BATCH, under jit."""
    return jax.jit(task.validate)(holding(arrays), BATCH, keys(3, 60))


def holding(arrays):
    return Variables({NET: arrays}, {NET: {}}, {})


def keys(seed, n):
    return random.example_keys(jax.random.key(seed), jnp.arange(n))


def fitted(task, data=DATA):
    return task.fit(lambda: data)[NET]


def samples(task, arrays, n, seed, chunk=512):
    task.config.sampling.batch_size = chunk
    return task.sample(holding(arrays), n, seed)


def test_naive_bayes_counts():
    certain = make("naive_bayes_mnist", model__smoothing=1e-9)
    measured = values(certain, fitted(certain, {**DATA, "image": 0 * IMAGES + 255}))
    assert np.all(np.isfinite(measured["log_likelihood"]))  # though no pixel was ever black
    arrays = fitted(make("naive_bayes_mnist", model__smoothing=0.5))
    for k in range(3):
        white = IMAGES[k == LABELS] >= 128
        np.testing.assert_allclose(arrays["weights"][k], len(white) / 60, rtol=1e-6)
        np.testing.assert_allclose(arrays["white"][k], (white.sum(0) + 0.5) / (len(white) + 1.0), rtol=1e-6)


def test_naive_bayes_is_that_of_scikit_learn():
    task = make("naive_bayes_mnist")
    measured = values(task, fitted(task))
    model = BernoulliNB(alpha=1.0, binarize=127.5).fit(IMAGES.reshape(60, -1), LABELS)
    joint = model.predict_joint_log_proba(IMAGES.reshape(60, -1))
    np.testing.assert_allclose(measured["log_likelihood"], logsumexp(joint, axis=1), rtol=1e-5)
    np.testing.assert_allclose(measured["bits_per_dimension"], -logsumexp(joint, axis=1) / np.log(2) / 6, rtol=1e-5)
    np.testing.assert_array_equal(measured["accuracy"], model.predict(IMAGES.reshape(60, -1)) == LABELS)


def test_naive_bayes_probabilities_of_all_images_sum_to_one():
    task = make("naive_bayes_mnist")
    every = (np.arange(64)[:, None] >> np.arange(6) & 1).reshape(64, *SHAPE) * 255
    batch = {"image": every.astype(np.uint8), "position": np.arange(64)}
    joint = task.log_joint(fitted(task), batch, keys(0, 64))
    np.testing.assert_allclose(np.exp(logsumexp(joint)), 1.0, rtol=1e-5)


def choices(arrays, n, seed):
    """The k that each sample is drawn with, by its share of [0, 1), and the keys of what is then drawn."""
    u = np.asarray(random.uniform(random.fold_in(keys(seed, n), 0)))
    return np.searchsorted(np.cumsum(arrays["weights"]), u, side="right"), random.fold_in(keys(seed, n), 1)


def test_naive_bayes_samples():
    task = make("naive_bayes_mnist")
    arrays = fitted(task)
    drawn = samples(task, arrays, 40, seed=1)
    k, noise_keys = choices(arrays, 40, seed=1)
    assert set(k) == {0, 2}
    np.testing.assert_array_equal(drawn["labels"], k)
    white = random.uniform(noise_keys, SHAPE) < arrays["white"][k]
    np.testing.assert_array_equal(drawn["images"], np.where(white, 255, 0))


def gaussians(components=2, dimensions=2, spread=0.05):
    """Return arrays of a mixture in the middle of the grey levels, and its moments in all dimensions by component."""
    rng, pixels = np.random.default_rng(1), int(np.prod(SHAPE))
    axes = np.linalg.qr(rng.normal(size=(pixels, dimensions)))[0].T
    arrays = {
        "weights": np.array([0.7, 0.3]),
        "centres": rng.normal(size=(components, dimensions)) * spread,
        "cholesky": (np.tril(rng.uniform(-0.5, 0.5, (components, dimensions, dimensions))) + np.eye(2)) * spread,
        "mean": np.full(pixels, 0.5),
        "axes": axes,
        "noise": np.array(0.01),
    }
    within = arrays["cholesky"] @ arrays["cholesky"].transpose(0, 2, 1)
    means = arrays["mean"] + arrays["centres"] @ axes
    return {name: np.float32(x) for name, x in arrays.items()}, means, np.einsum("di,kde,ej->kij", axes, within, axes)


def test_gaussian_mixture_is_the_density_of_scipy():
    """The density of whole images that the class describes, computed with full covariances in all dimensions."""
    task = make("gmm_mnist", model__components=2, model__dimensions=2)
    arrays, means, covariances = gaussians()
    measured = values(task, arrays)
    around = arrays["noise"] * (np.eye(6) - arrays["axes"].T @ arrays["axes"])
    u = random.uniform(keys(3, 60), (6,))
    x = (IMAGES.reshape(60, 6) + np.asarray(u)) / 256
    joint = [
        np.log(arrays["weights"][k]) + multivariate_normal(means[k], covariances[k] + around).logpdf(x)
        for k in range(2)
    ]
    expected = logsumexp(joint, axis=0) - 6 * np.log(256)
    np.testing.assert_allclose(measured["log_likelihood"], expected, rtol=1e-4)
    np.testing.assert_allclose(measured["bits_per_dimension"], -expected / 6 / np.log(2), rtol=1e-4)


def test_gaussian_mixture_samples():
    """The mean of the image given its principal components, clipped; of a mixture wide enough for that."""
    task = make("gmm_mnist", model__components=2, model__dimensions=2)
    arrays, _, _ = gaussians(spread=0.4)
    images = samples(task, arrays, 40, seed=1)["images"].reshape(40, 6)
    k, noise_keys = choices(arrays, 40, seed=1)
    noise = np.asarray(random.normal(noise_keys, (2,)))
    z = arrays["centres"][k] + (arrays["cholesky"][k] @ noise[:, :, None])[:, :, 0]
    expected = np.clip(np.floor(256 * (arrays["mean"] + z @ arrays["axes"])), 0, 255)
    np.testing.assert_allclose(images, expected, atol=1)
    assert np.mean(images != expected) < 0.02 and set(k) == {0, 1} and expected.min() == 0 and expected.max() == 255


@pytest.mark.parametrize("name", ["gmm_mnist", "naive_bayes_mnist"])
def test_figures_show_samples_and_means_with_their_names(name, tmp_path, monkeypatch):
    changes = {"model__components": 2, "model__dimensions": 2} if name == "gmm_mnist" else {}
    task, mixture = make(name, **changes), gaussians()[0]
    arrays = mixture if name == "gmm_mnist" else fitted(task)
    if name == "gmm_mnist":
        means = np.floor(256 * (arrays["mean"] + arrays["centres"] @ arrays["axes"])).reshape(2, *SHAPE)
        names = ["70.0%", "30.0%"]
    else:
        means, names = np.round(255 * arrays["white"]), ["a", "b", "c"]
    state = trained(holding(arrays), tmp_path)
    seen, samples = record(monkeypatch, baseline, "save_labelled_grid"), record(monkeypatch, base, "save_grid")
    for figure in task.figures().values():
        figure(state)
    images, columns, _ = samples["samples.png"]
    np.testing.assert_array_equal(images, task.sample(state.variables, 4, 0)["images"])
    np.testing.assert_array_equal(seen["means.png"][0], means)
    assert (columns, list(seen["means.png"][1]), seen["means.png"][2]) == (8, names, 10)
    monkeypatch.setattr(baseline, "MEANS", 1)
    task.draw_means(state)
    assert len(seen["means.png"][0]) == len(seen["means.png"][1]) == 1


@pytest.mark.parametrize("name", ["gmm_mnist", "naive_bayes_mnist"])
def test_same_seed_same_samples_whatever_the_chunk(name):
    task = make(name, model__smoothing=1.0) if name == "naive_bayes_mnist" else make(name)
    arrays = fitted(task)
    first = samples(task, arrays, 9, seed=4)
    for again in (samples(task, arrays, 9, seed=4, chunk=4), samples(task, arrays, 12, seed=4)):
        for key, array in first.items():
            np.testing.assert_array_equal(array, again[key][:9])
    assert np.any(first["images"] != samples(task, arrays, 9, seed=5)["images"])


def test_em_finds_two_clouds():
    """Clouds of known shares, means and spreads, far from each other on a line."""
    rng = np.random.default_rng(2)
    axis, other = np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    cloud = rng.random(4000) < 0.25
    z = np.where(cloud, 0.3, -0.1) + rng.normal(size=4000) * np.where(cloud, 0.02, 0.04)
    x = 0.5 + z[:, None] * axis + rng.normal(size=(4000, 1)) * 0.01 * other
    images = np.floor(x * 256).astype(np.uint8).reshape(4000, *SHAPE)
    task = make("gmm_mnist", model__components=2, model__dimensions=1)
    arrays = fitted(task, {"image": images})
    assert {key: array.shape for key, array in arrays.items()} == task.shapes()
    np.testing.assert_allclose(arrays["weights"], [0.75, 0.25], atol=0.03)
    np.testing.assert_allclose(
        arrays["mean"] + arrays["centres"] @ arrays["axes"], [0.5 - 0.1 * axis, 0.5 + 0.3 * axis], atol=0.01
    )
    np.testing.assert_allclose(arrays["cholesky"].ravel(), [0.04, 0.02], rtol=0.1)
    np.testing.assert_allclose(arrays["noise"], 0.01**2 / 5 + 2 / 12 / 256**2, rtol=0.1)


def test_the_fit_is_what_is_saved_and_nothing_trains_it(tmp_path):
    run = train_tiny(tmp_path, "naive_bayes_mnist")
    restored = jax.device_get(run.restore("newest").variables.params)
    jax.tree.map(np.testing.assert_array_equal, restored, run.task.fit(run.training))
    assert not [path for path in run.checkpoints.read_meta(4)["leaves"] if path.startswith("opt_state")]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gmm_mnist", {"model__dimensions": 784}, r"model.dimensions=784 is not in 1 ... 783"),
        ("gmm_mnist", {"model__dimensions": 0}, r"model.dimensions=0 must be at least 1"),
        ("gmm_mnist", {"model__components": 0}, r"model.components=0 must be at least 1"),
        ("gmm_mnist", {"model__tolerance": -1.0}, r"model.tolerance=-1.0 must not be negative"),
        ("gmm_mnist", {"model__iterations": 0}, r"model.iterations=0 must be at least 1"),
        ("gmm_mnist", {"model__components": 1501}, r"1501 are the least"),
        ("gmm_mnist", {"model__components": 2000}, r"1500 training images are too few for model.components=2000"),
        ("naive_bayes_mnist", {"model__smoothing": 0.0}, r"model.smoothing=0.0 must be above 0"),
    ],
)
def test_what_cannot_be_fitted_is_told(name, changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_tiny(tmp_path, name, **changes).split("train")


def test_the_least_that_can_be_fitted():
    """Several images for a component, and one more than dimensions; one iteration that must gain nothing."""
    task = make("gmm_mnist", model__components=1, model__dimensions=5, model__tolerance=0.0, model__iterations=1)
    task.check_data("train", {"image": IMAGES[:6]})
    task.check_data("test", {"image": IMAGES[:1]})
    with pytest.raises(UserError, match=r"5 training images are too few .* 6 are the least"):
        task.check_data("train", {"image": IMAGES[:5]})
    with pytest.raises(UserError, match="naive Bayes needs labels, and data set 'digits' has none"):
        make_task(shrunk("naive_bayes_mnist"), DataSpec(SHAPE))
    with pytest.raises(UserError, match="label 3 of example 1 in split 'train' is not one of the 3 classes"):
        make("naive_bayes_mnist").check_data("train", {"image": IMAGES[:2], "label": np.array([2, 3])})
