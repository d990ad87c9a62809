"""The field's metrics against independent implementations, and against cases whose answer is known."""

import json

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial.distance

from gm_jax.errors import UserError
from gm_jax.metrics import evaluators, frechet, kernel, manifold, store
from gm_jax.metrics.evaluators import Comparison, Seen
from gm_jax.metrics.frechet import Gaussian, frechet_distance, gaussian
from gm_jax.metrics.inception_score import inception_score
from gm_jax.metrics.kernel import kernel_distance
from gm_jax.metrics.manifold import density_coverage, memorisation, precision_recall

RNG = np.random.default_rng(0)
close = dict(rtol=1e-6, atol=1e-8)


def features(n, dimensions=6, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, dimensions)) * np.linspace(0.5, 2.0, dimensions) + shift).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks of everything, the last ones short."""
    monkeypatch.setattr(frechet, "BLOCK", 64)
    monkeypatch.setattr(manifold, "ROWS", 32)
    monkeypatch.setattr(manifold, "COLUMNS", 40)


def by_matrix_root(x, y):
    """The Frechet distance as pytorch-fid computes it: a general matrix root."""
    x, y = np.float64(x), np.float64(y)
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(first + second - 2 * root)


def test_frechet_distance_equals_the_one_by_a_matrix_root():
    x, y = features(300), features(200, shift=0.3, seed=1)
    assert frechet_distance(gaussian(x), gaussian(y)) == pytest.approx(by_matrix_root(x, y), rel=1e-6)
    np.testing.assert_allclose(gaussian(x).covariance, np.cov(np.float64(x), rowvar=False), **close)
    assert frechet_distance(gaussian(x), gaussian(x)) == pytest.approx(0.0, abs=1e-8)


def test_frechet_distance_of_known_gaussians():
    """|m|^2 + sum (s - t)^2 where both covariances are diagonal, of scales s and t."""
    s, t, mean = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 1.0]), np.array([1.0, -2.0, 0.5])
    distance = frechet_distance(Gaussian(9, np.zeros(3), np.diag(s**2)), Gaussian(9, mean, np.diag(t**2)))
    assert distance == pytest.approx(np.sum(mean**2) + np.sum((s - t) ** 2), rel=1e-12)


def test_frechet_distance_grows_with_noise_and_shrinks_with_examples():
    x = features(2000)
    noisy = [x + level * RNG.normal(size=x.shape) for level in (0.0, 0.3, 0.6, 1.2)]
    assert np.all(np.diff([frechet_distance(gaussian(x), gaussian(y)) for y in noisy]) > 0)
    halves = frechet_distance(gaussian(x[:1000]), gaussian(x[1000:]))  # bias: not 0 for two halves of one set
    fewer = frechet_distance(gaussian(x[:100]), gaussian(x[100:200]))
    assert 0 < halves < fewer


def test_what_cannot_be_compared_is_told_in_one_line():
    for x, said in ((features(1), "two features or more, not 1"), (features(5) * np.nan, "NaN or infinite")):
        with pytest.raises(UserError, match=said):
            gaussian(x)
    with pytest.raises(UserError, match="features of 6 and 5 values"):
        frechet_distance(gaussian(features(9)), gaussian(features(9, 5)))


def test_kernel_distance_equals_a_loop():
    x, y = features(70), features(50, shift=0.2, seed=1)
    mean, spread, size = kernel_distance(x, y, subsets=3, size=40, seed=5)
    rng, expected = np.random.default_rng(5), []
    for _ in range(3):
        a, b = (np.float64(f[np.sort(rng.choice(len(f), 40, replace=False))]) for f in (x, y))
        k = lambda p, q: (p @ q / 6 + 1) ** 3  # noqa: E731
        within = [np.mean([k(s[i], s[j]) for i in range(40) for j in range(40) if i != j]) for s in (a, b)]
        expected.append(sum(within) - 2 * np.mean([k(p, q) for p in a for q in b]))
    np.testing.assert_allclose((mean, spread, size), (np.mean(expected), np.std(expected), 40), **close)
    assert kernel_distance(x, y, subsets=2)[2] == 50  # as many as there are
    same = np.float64(x)
    assert abs(kernel.squared_discrepancy(same[:35], same[35:])) < kernel.squared_discrepancy(same, same + 1)


def test_inception_score_of_known_predictions():
    logits = RNG.normal(size=(103, 4)).astype(np.float32)
    scores = []
    for first, last in zip(range(10), range(1, 11), strict=True):
        part = np.float64(logits)[first * 103 // 10 : last * 103 // 10]
        p = np.exp(part) / np.exp(part).sum(1, keepdims=True)
        scores.append(np.exp(np.mean(np.sum(p * np.log(p / p.mean(0)), 1))))
    np.testing.assert_allclose(inception_score(logits), (np.mean(scores), np.std(scores)), **close)
    certain = 1000.0 * np.eye(4)[np.arange(80) % 4]
    assert inception_score(certain, 2)[0] == pytest.approx(4.0) and inception_score(0 * certain)[0] == 1.0


def prdc(real, generated, k):
    """Precision, recall (Kynkaanniemi et al., <=), density and coverage (Naeem et al., <) from whole matrices."""
    d = scipy.spatial.distance.cdist
    real, generated = np.float64(real), np.float64(generated)
    radii = [np.sort(d(x, x), axis=1)[:, k] for x in (real, generated)]
    between = d(real, generated)
    return (
        np.mean(np.any(between <= radii[0][:, None], 0)),
        np.mean(np.any(between <= radii[1][None], 1)),
        np.sum(between < radii[0][:, None]) / (k * len(generated)),
        np.mean(between.min(1) < radii[0]),
    )


def test_precision_recall_density_coverage_equal_whole_matrices():
    real, generated = features(100), features(90, shift=0.5, seed=1)
    assert precision_recall(real, generated) == pytest.approx(prdc(real, generated, 3)[:2], rel=1e-9)
    assert density_coverage(real, generated) == pytest.approx(prdc(real, generated, 5)[2:], rel=1e-9)
    far = features(90, shift=100.0)
    assert precision_recall(real, far) == (0.0, 0.0) and density_coverage(real, far) == (0.0, 0.0)


def test_a_border_belongs_to_the_balls_of_precision_and_recall_and_not_to_those_of_density_and_coverage():
    real, generated = np.float64([[0], [1], [2], [3]]), np.float64([[-1], [4]])  # radii of 1, and of 5
    assert precision_recall(real, generated, k=1) == (1.0, 1.0) and density_coverage(real, generated, k=1) == (0.0, 0.0)
    assert precision_recall(generated, real, k=1) == (1.0, 1.0)


@pytest.mark.parametrize("width", [manifold.EXACT, manifold.EXACT + 1])
def test_nearest_images_are_found_exactly(width):
    """Black, white and random ones, whose products are as large as they can be; the distances are integers."""
    rng = np.random.default_rng(0)
    extremes = 255 * rng.integers(0, 2, (2, width), dtype=np.uint8)
    known = np.concatenate([rng.integers(0, 256, (90, width), dtype=np.uint8), extremes, 255 - extremes])
    asked = np.concatenate([rng.integers(0, 256, (40, width), dtype=np.uint8), extremes])
    squared, found = manifold.nearest(asked, known, 5)
    whole = scipy.spatial.distance.cdist(np.float64(asked), np.float64(known), "sqeuclidean")
    np.testing.assert_array_equal(squared, np.sort(whole, axis=1)[:, :5])
    np.testing.assert_array_equal(np.take_along_axis(whole, found, 1), squared)
    assert whole.max() == 255**2 * width
    few = manifold.nearest(asked, known[:3], 5)
    np.testing.assert_array_equal(few[0], np.sort(whole[:, :3], axis=1)[:, [0, 1, 2, 2, 2]])


def test_others_leave_out_an_image_itself_even_among_equals():
    same = np.repeat(features(2), [6, 1], 0)
    distance = np.sum((same[0] - same[6]) ** 2)
    np.testing.assert_allclose(manifold.others(same, np.int64([5, 6]), 2), [[0, 0], [distance] * 2], atol=1e-4)
    one, two = manifold.others(np.float64([[0], [3], [4]]), np.arange(3), 4)[:2]
    np.testing.assert_array_equal([one, two], [[9, 16, 16, 16], [1, 9, 9, 9]])


def test_copies_are_recognised():
    training, fresh = features(150), features(60, seed=2)
    ratio, closer = memorisation(training, training[10:70])
    assert ratio == pytest.approx(0.0, abs=1e-4) and closer == 1.0
    assert precision_recall(training, training[10:70])[0] == 1.0
    ratio, closer = memorisation(training, fresh)
    among = np.sort(scipy.spatial.distance.cdist(training, training), axis=1)[:, 1]
    distances = scipy.spatial.distance.cdist(fresh, training)
    some = np.random.default_rng(0).permutation(150)[:60]
    assert ratio == pytest.approx(distances.min(1).mean() / among[some].mean(), rel=1e-5) and 0.7 < ratio < 1.5
    assert closer == pytest.approx(np.mean(distances.min(1) < among[distances.argmin(1)])) and 0.2 < closer < 0.8
    few = np.repeat(training[:5], 12, 0)  # five images again and again: nothing of the rest is covered
    assert density_coverage(training, few)[1] < 0.4 and precision_recall(training, few)[1] < 0.4


def test_metrics_equal_those_of_torch_fidelity():
    """Its functions on the same features, float64: its own reader averages in float32."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    real, generated = np.float64(features(120)), np.float64(features(103, shift=0.5, seed=1))
    logits = RNG.normal(size=(103, 7))
    x, y = torch.tensor(real), torch.tensor(generated)
    statistics = [metric_fid.fid_features_to_statistics(t) for t in (x, y)]
    fid = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(gaussian(real), gaussian(generated)) == pytest.approx(fid, rel=1e-6)
    discrepancy = metric_kid.kernel_mmd(real[:103], generated, kid_kernel="poly", kid_kernel_poly_degree=3)
    assert kernel.squared_discrepancy(real[:103], generated) == pytest.approx(discrepancy, rel=1e-6)
    score = metric_isc.isc_features_to_metric(torch.tensor(logits), shuffle=False)
    assert inception_score(logits) == pytest.approx(tuple(score.values()), rel=1e-6)
    expected = metric_prc.calculate_precision_recall_full(y, x)
    assert precision_recall(real, generated) == pytest.approx(expected, abs=1e-7)  # its means are in float32


def seen(x, logits=None):
    return Seen(gaussian(x), x, logits)


def test_numbers_are_called_after_their_extractor_and_fid_only_by_the_published_one():
    x, y = features(40), features(30, seed=1)
    names = list(evaluators.EVALUATORS)
    comparison = Comparison(seen(x), seen(y, RNG.normal(size=(30, 3))), seen(x), memorised=20)
    found = evaluators.run(names, comparison, "lenet_mnist", published=False)
    assert all(name.endswith("_lenet_mnist") for name in found) and not any("fid" in name for name in found)
    assert found["frechet_lenet_mnist"]["value"] == pytest.approx(by_matrix_root(x, y), rel=1e-6)
    ratio = memorisation(x, y[:20])[0]
    assert found["memorisation_lenet_mnist"] == {"value": ratio, "n_training": 40, "n_compared": 20}
    published = evaluators.run(names, comparison, "clean", published=True)
    assert {"fid_clean", "kid_clean", "inception_score_clean"} < set(published) and len(published) == len(found)
    assert published["kid_clean"]["standard_deviation"] > 0


def test_few_images_are_said_beside_the_number():
    many, few = features(40), features(6)
    run = lambda real: evaluators.run(["frechet"], Comparison(seen(real), seen(many)), "x", False)  # noqa: E731
    assert "note" not in run(many)["frechet_x"]
    assert run(few)["frechet_x"]["note"] == "6 images for features of 6 values: the covariance is not of full rank"


def test_what_is_not_known_is_left_out():
    statistics = Seen(gaussian(features(40)))
    names = list(evaluators.EVALUATORS)
    assert set(evaluators.run(names, Comparison(statistics, seen(features(9))), "x", False)) == {"frechet_x"}
    with pytest.raises(UserError, match=r"evaluation.metrics: 'frechett' is not one of .* \(did you mean 'frechet'"):
        evaluators.check_evaluators("evaluation.metrics", ["frechett"])


class Killed(Exception):
    pass


def test_a_measurement_that_is_interrupted_goes_on_with_the_same_bits(tmp_path):
    rows, asked = features(25, 3), []

    def read(start, stop, until=99):
        asked.append((start, stop))
        if start >= until:
            raise Killed
        return rows[start:stop]

    def collect(path, n=25, **kind):
        return store.collect(tmp_path / path, n, (3,), np.float32, 4, lambda i, j: read(i, j, **kind))

    with pytest.raises(Killed):
        collect("a.rows", until=12)
    (tmp_path / "a.rows").open("ab").write(b"half a row")
    np.testing.assert_array_equal(collect("a.rows"), rows)
    assert asked[-4:] == [(12, 16), (16, 20), (20, 24), (24, 25)]
    asked.clear()
    np.testing.assert_array_equal(collect("a.rows"), rows)
    np.testing.assert_array_equal(collect("a.rows", n=7), rows[:7])  # fewer are there already
    assert not asked
    rows = features(30, 3, seed=0)
    collect("a.rows", n=30)  # more go on at the border of a chunk, so that these are the same for any n
    assert asked == [(24, 28), (28, 30)]


def test_damaged_features_are_computed_again(tmp_path, caplog):
    rows = features(10, 3)
    collect = lambda: store.collect(tmp_path / "f", 10, (3,), np.float32, 4, lambda i, j: rows[i:j])  # noqa: E731
    collect()
    content = bytearray((tmp_path / "f").read_bytes())
    content[17] ^= 1
    (tmp_path / "f").write_bytes(bytes(content))
    np.testing.assert_array_equal(collect(), rows)
    assert "damaged: it is computed again" in caplog.text
    assert json.loads((tmp_path / "f.json").read_text()) == store.describe(tmp_path / "f")


def test_statistics_are_kept_and_published_ones_are_read(tmp_path):
    x = features(50)
    first = store.statistics(tmp_path / "s.npz", x)
    again = store.statistics(tmp_path / "s.npz", np.zeros((3, 6)))
    assert again.n == first.n == 50
    np.testing.assert_array_equal(again.covariance, first.covariance)
    np.savez(tmp_path / "published.npz", mu=first.mean, sigma=first.covariance)
    published = store.read_statistics(tmp_path / "published.npz")
    assert published.n == 0 and frechet_distance(published, first) == pytest.approx(0.0, abs=1e-8)
