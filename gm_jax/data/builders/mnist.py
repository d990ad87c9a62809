"""MNIST, Fashion-MNIST and KMNIST: TFDS's builders with their TensorFlow parts replaced.

Description, features, version, addresses and checksums stay TFDS's own.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from gm_jax.data.builders.idx import FILES, find_idx, read_pair


class _FromIdx:
    """Reads the four idx files of a local folder `source`, or downloads them, and yields PNG files."""

    def __init__(self, *, source: str | None = None, **kwargs):
        self._source = source
        super().__init__(**kwargs)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        if self._source is None:
            paths = dl_manager.download({split: [f"{self.URL}{n}.gz" for n in names] for split, names in FILES.items()})
        else:
            source = Path(self._source).expanduser()
            paths = {split: [find_idx(source, name) for name in names] for split, names in FILES.items()}
        return {split: self._generate_examples(*read_pair(*map(Path, pair))) for split, pair in paths.items()}

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, dict]]:
        from PIL import Image

        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            png = io.BytesIO()
            Image.fromarray(image).save(png, format="png")
            yield i, {"image": png.getvalue(), "label": int(label)}


class Mnist(_FromIdx, tfds.builder_cls("mnist"), skip_registration=True):
    """60,000 training and 10,000 test images of handwritten digits."""

    name = "mnist"
    url_infos = tfds.builder_cls("mnist").url_infos


class FashionMnist(_FromIdx, tfds.builder_cls("fashion_mnist"), skip_registration=True):
    """60,000 training and 10,000 test images of clothes."""

    name = "fashion_mnist"
    url_infos = tfds.builder_cls("fashion_mnist").url_infos


class Kmnist(_FromIdx, tfds.builder_cls("kmnist"), skip_registration=True):
    """60,000 training and 10,000 test images of Japanese characters."""

    name = "kmnist"
    url_infos = tfds.builder_cls("kmnist").url_infos
