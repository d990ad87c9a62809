"""Measures of samples against cases whose answer is known."""

import numpy as np

from gm_jax.metrics.neighbours import NEIGHBOURS, find_neighbours, vote


def test_nearest_neighbours_on_two_clouds():
    rng = np.random.default_rng(0)
    dark, light = rng.integers(0, 40, (20, 4, 4, 1)), rng.integers(200, 240, (20, 4, 4, 1))
    images = np.concatenate([dark, light]).astype(np.uint8)
    labels = np.repeat([0, 1], 20)
    between = np.full((1, 4, 4, 1), 120, np.uint8)
    samples = np.concatenate([images[:1], images[-1:], np.full((1, 4, 4, 1), 10, np.uint8), between])
    near = vote(find_neighbours(samples, images), labels)
    np.testing.assert_array_equal(near.label[:3], [0, 1, 0])
    assert near.unanimous[:3].all()
    np.testing.assert_allclose(near.distance[:2], 0)
    expected = np.sqrt(np.mean((images.astype(float) - 10.0) ** 2, (1, 2, 3))).min()
    np.testing.assert_allclose(near.distance[2], expected, rtol=1e-5)
    found = find_neighbours(between, images)
    mixed = vote(found, np.isin(np.arange(40), found["rows"][0, : NEIGHBOURS // 2 - 1]).astype(int))
    assert not mixed.unanimous[0] and mixed.label[0] == 0
