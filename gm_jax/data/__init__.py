"""Data sets as uint8 arrays: prepared TFDS directories, folders of images, downloads, and two embedded sets.

`load(config.dataset)` finds the data set (`sources` says where it looks, in which order) and returns a `Dataset`,
whose splits are decoded once, cached and memory-mapped.
"""

from gm_jax.data.dataset import Dataset, Split
from gm_jax.data.sources import load

__all__ = ["Dataset", "Split", "load"]
