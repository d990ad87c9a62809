"""What is measured chunk by chunk equals what NumPy says of all at once."""

import numpy as np
import pytest

from gm_jax.metrics import diversity
from gm_jax.metrics.diversity import similar_pairs
from gm_jax.metrics.moments import Moments, gather

RNG = np.random.default_rng(0)


def test_moments_of_chunks_are_those_of_the_whole():
    values = {"scalar": 1000 + RNG.normal(size=101), "matrix": RNG.normal(size=(101, 2, 3))}
    chunks = [{name: x[start:end] for name, x in values.items()} for start, end in ((0, 40), (40, 41), (41, 101))]
    for name, found in gather(chunks).items():
        x = values[name]
        assert found.n == 101
        np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.variance, x.var(0), rtol=1e-9)
        np.testing.assert_allclose(found.standard_error, x.std(0, ddof=1) / np.sqrt(101), rtol=1e-9)
        np.testing.assert_array_equal(found.low, x.min(0))
        np.testing.assert_array_equal(found.high, x.max(0))


def test_the_error_of_one_example_is_unknown():
    moments = Moments.of(np.array([[3.0, 4.0]]))
    assert np.isnan(moments.standard_error).all() and moments.mean.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("block", [1, 4, 7, 100])
def test_pairs_are_counted_block_by_block(block, monkeypatch):
    monkeypatch.setattr(diversity, "BLOCK", block)
    features = RNG.normal(size=(11, 3))
    features[7] = 2 * features[2]
    x = features / np.linalg.norm(features, axis=1, keepdims=True)
    pairs = (x @ x.T)[~np.eye(11, dtype=bool)]
    count, mean = similar_pairs(features, 0.6)
    assert count == np.sum(pairs > 0.6) >= 2 and mean == pytest.approx(pairs.mean(), rel=1e-12)
    images = RNG.integers(0, 256, (9, 2, 2, 1), dtype=np.uint8)
    scaled = images.astype(np.float64) / 127.5 - 1
    assert similar_pairs(images, 0.2) == pytest.approx(similar_pairs(scaled, 0.2), rel=1e-12)


def test_identical_samples_are_similar_to_all_others():
    assert similar_pairs(np.full((1000, 4, 4, 1), 7, np.uint8), 0.9) == (999_000, pytest.approx(1.0))
    assert np.isnan(similar_pairs(np.ones((1, 4)), 0.9)[1])
