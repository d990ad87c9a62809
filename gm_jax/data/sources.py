"""Where a data set is found. In this order:

1. `digits` and `shapes` are embedded;
2. `dataset.folder`, a folder of images;
3. a prepared TFDS directory in `dataset.data_dir`, else in $TFDS_DATA_DIR, then ~/tensorflow_datasets;
4. a download, if its host answers;
5. for the MNIST-like sets, unless `dataset.embedded` is False or `dataset.data_dir` is given: the embedded digits,
   announced in a warning and in `Dataset.stand_in`;
6. nowhere: UserError.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from gm_jax.data import embedded, folder, tfds_source
from gm_jax.data.builders import BUILDERS
from gm_jax.data.dataset import Dataset
from gm_jax.errors import UserError, nearest

# The sets that the digits may stand in for: their name in print, and what the digits are not.
MNIST_LIKE = {
    "mnist": ("MNIST", ""),
    "fashion_mnist": ("Fashion-MNIST", " (digits, not clothes)"),
    "kmnist": ("KMNIST", " (digits, not Japanese characters)"),
    "emnist": ("EMNIST", " (digits alone)"),
}
# Names to suggest for a misspelt one before TFDS's whole list.
FAMILIAR = (*embedded.NAMES, *BUILDERS, "cifar10", "celeb_a", "cycle_gan/horse2zebra")


def load(config: ConfigDict) -> Dataset:
    """Find the data set of `config.dataset` (the module says where) and describe it; splits are decoded on first use.

    `config` has `name`, `data_dir`, `folder`, `embedded` and may have `image_size` and, for shapes, `num_images`.
    Raises UserError if the name is misspelt or the data set is to be had nowhere.
    """
    name, image_size = config.name, config.get("image_size")
    if image_size is not None and image_size < 1:
        raise UserError(f"dataset.image_size is {image_size}: give a positive number of pixels")
    if name in embedded.NAMES:
        if config.folder:
            raise UserError(f"dataset.folder is given but '{name}' is an embedded set: give --config.dataset.name too")
        return embedded.load(name, image_size, config.get("num_images"))
    if config.folder:
        return folder.load(config.folder, name, image_size, config.get("skip_corrupt", False))
    data_dirs = find_data_dirs(config.data_dir)
    directory = tfds_source.find(name, data_dirs)
    if directory is not None:
        return tfds_source.load(directory, name, image_size)
    check_name(name, data_dirs)

    from gm_jax.data.download import Unavailable, prepare

    try:
        return tfds_source.load(prepare(name, data_dirs[0]), name, image_size)
    except Unavailable as error:
        places = " and ".join(map(str, data_dirs))
        reason = f"data set '{name}' is not in {places} and cannot be downloaded: {error}"
    if config.data_dir:
        found = tfds_source.prepared(data_dirs)
        holds = f"it has {', '.join(found)}{nearest(name, found)}" if found else "it has no prepared data set"
        raise UserError(f"{reason}; {holds}: give another --config.dataset.data_dir, or leave it out")
    if name.split("/")[0] not in MNIST_LIKE:
        raise UserError(f"{reason}; give --config.dataset.data_dir=DIR or, for a folder of images, .folder=DIR")
    if not config.embedded:
        raise UserError(f"{reason}; dataset.embedded=False forbids a stand-in: give --config.dataset.data_dir=DIR")
    return _stand_in(name, image_size, reason)


def find_data_dirs(data_dir: str | None) -> list[Path]:
    """Return the directories that may hold prepared data sets; a download goes to the first.

    Raises UserError if `data_dir` is a file.
    """
    if data_dir:
        given = Path(os.path.expanduser(data_dir)).absolute()  # Path.expanduser raises for an unknown user
        if given.exists() and not given.is_dir():
            raise UserError(f"dataset.data_dir {given} is not a directory: give one that holds prepared data sets")
        return [given]
    usual = Path("~/tensorflow_datasets").expanduser()
    if os.environ.get("TFDS_DATA_DIR"):
        return [Path(os.environ["TFDS_DATA_DIR"]).expanduser().absolute(), usual]
    return [usual]


def check_name(name: str, data_dirs: Sequence[Path]) -> None:
    """Raise UserError, with the nearest name, unless TFDS knows `name`; asks no network."""
    if name in BUILDERS:
        return
    import tensorflow_datasets as tfds

    found = tfds_source.prepared(data_dirs)
    builders = tfds.list_builders(with_community_datasets=False)
    base = name.split("/")[0]
    if base in builders:
        configurations = [f"{base}/{config.name}" for config in tfds.builder_cls(base).BUILDER_CONFIGS]
        configurations += [known for known in found if known.startswith(f"{base}/")]
        if name in (configurations or [base]):
            return
        if name == base:
            raise UserError(f"data set '{name}' has configurations: name one, such as '{configurations[-1]}'")
        raise UserError(f"data set '{base}' has no configuration '{name}'{nearest(name, configurations or [base])}")
    hint = nearest(name.lower(), [*FAMILIAR, *found]) or nearest(name.lower(), builders)
    places = " and ".join(map(str, data_dirs))
    raise UserError(
        f"no data set is called '{name}'{hint} and none is prepared in {places}: mend dataset.name, or give "
        "--config.dataset.data_dir=DIR (prepared by TFDS) or --config.dataset.folder=DIR (images)"
    )


def _stand_in(name: str, image_size: int | None, reason: str) -> Dataset:
    """The embedded digits in place of an MNIST-like set, announced."""
    title, difference = MNIST_LIKE[name.split("/")[0]]
    sentence = (
        f"{title} was not found: trained on the 1,797 embedded 8x8 digits of scikit-learn{difference}, "
        f"scaled to {image_size or 28}x{image_size or 28}"
    )
    logging.warning("%s. Why: %s. For the real set give --config.dataset.data_dir=DIR.", sentence, reason)
    return dataclasses.replace(embedded.digits(image_size or 28), requested=name, stand_in=sentence)
