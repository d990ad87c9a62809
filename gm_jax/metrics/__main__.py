"""Compare anybody's images: `python -m gm_jax.metrics REAL GENERATED [--extractor=...] [--metrics=...]` (--help).

REAL and GENERATED are each a folder of images, a .npz of `images` uint8 [n, H, W, C], a data set with its split such as
mnist:test, or, REAL alone, a .npz of statistics (`mu`, `sigma`). FOLDER:SPLIT takes one split of a divided folder.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from gm_jax import backend, data
from gm_jax.data.dataset import Split
from gm_jax.data.pipeline import choose
from gm_jax.errors import UserError, run_command
from gm_jax.extractors import open_extractor
from gm_jax.measure import describe, kept, look
from gm_jax.metrics import evaluators
from gm_jax.metrics.evaluators import EVALUATORS, Comparison, Seen
from gm_jax.metrics.resize import CONVENTIONS
from gm_jax.metrics.store import DAMAGED, read_statistics


class Given(NamedTuple):
    """A set of images that the user named.

    Attributes:
        what: how the user named it.
        images: uint8 [n, H, W, C]; None: only statistics are given.
        key: a checksum, under which features are kept.
        statistics: the file of the statistics, if that is what was given.
    """

    what: str
    images: np.ndarray | None
    key: str = ""
    statistics: Path | None = None


def open_images(text: str, options: argparse.Namespace) -> Given:
    """Find the images that a text names.

    Raises:
        UserError: there are none, or they are not uint8 images of one size.
    """
    path, _, split = text.partition(":")
    if Path(path).suffix == ".npz":
        return open_archive(Path(text))
    is_folder = Path(path).is_dir()
    config = ConfigDict({"name": path, "data_dir": options.data_dir, "folder": path if is_folder else None})
    config.update({"embedded": False, "image_size": options.image_size})
    if is_folder:
        config.name = "folder"
    elif not split:
        raise UserError(f"{text} is neither a folder nor a .npz: name a data set with its split, such as mnist:test")
    dataset = data.load(config)
    if not split and "all" not in dataset.sizes:
        raise UserError(f"{text} is divided into {', '.join(dataset.sizes)}: name one, such as {path}:test")
    name = split or "all"
    return Given(text, dataset.split(name).images, dataset.fingerprint(name))


def open_archive(path: Path) -> Given:
    """Read a .npz of images or of statistics; nothing in it is executed."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "mu" in arrays and "sigma" in arrays:
                return Given(str(path), None, statistics=path)
            name = next((name for name in ("images", "arr_0") if name in arrays), None)
            images = None if name is None else arrays[name]
    except DAMAGED as error:
        raise UserError(f"{path} cannot be read as a .npz ({error})") from error
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        found = "no `images`" if images is None else f"{images.dtype} {images.shape}"
        raise UserError(f"{path} has {found}: it should have `images` uint8 [n, H, W, 1 or 3], or `mu` and `sigma`")
    return Given(str(path), images, Split(images, None, {}).fingerprint())


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what the command line asks for; return all numbers by name, with what each is of."""
    asked = options.metrics.split(",")
    evaluators.check_evaluators("--metrics", asked)
    real, generated = open_images(options.real, options), open_images(options.generated, options)
    training = open_images(options.training, options) if options.training else None
    if generated.images is None:
        raise UserError(f"{generated.what} has statistics alone: the generated images themselves are needed")
    shapes = {given.images.shape[1:] for given in (real, generated, training) if given and given.images is not None}
    if len(shapes) > 1 and options.extractor != "inception":
        sizes = " and ".join("x".join(map(str, shape)) for shape in sorted(shapes))
        raise UserError(f"images of {sizes} cannot be compared by {options.extractor}: give --image_size")
    extractor = open_extractor(options.extractor, options.convention, generated.images.shape[1:], options.weights)

    def see(given: Given | None, n: int | None = None) -> Seen | None:
        if given is None:
            return None
        if given.images is None:
            return Seen(read_statistics(given.statistics))
        numbers = choose(len(given.images), n)
        path = kept(f"{given.key[:16]}_{len(numbers)}")
        return look(extractor, lambda i, j: np.asarray(given.images[numbers[i:j]]), len(numbers), path)

    comparison = Comparison(
        see(real, options.n), see(generated, options.n_generated or options.n), see(training), options.seed
    )
    results = evaluators.run(asked, comparison, extractor.name, extractor.published)
    about = {
        "real": real.what,
        "n_real": comparison.real.statistics.n or None,  # which published statistics do not tell
        "generated": generated.what,
        "n_generated": len(comparison.generated.features),
        "training": options.training,
        "seed": options.seed,
        **describe(extractor, options.convention),
    }
    return {"about": about, "results": results}


def main(arguments: list[str]) -> int:
    """Print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser("python -m gm_jax.metrics", description=__doc__.splitlines()[0])
    parser.add_argument("real")
    parser.add_argument("generated")
    parser.add_argument("--training", help="what the model was trained on, for memorisation")
    parser.add_argument("--extractor", default="pixels", help="pixels, inception, or a classifier's workdir")
    parser.add_argument("--convention", default="pytorch", choices=CONVENTIONS, help="of resizing for inception")
    parser.add_argument("--weights", help="the file of the published weights, for inception")
    parser.add_argument("--metrics", default=",".join(EVALUATORS), help=f"of {', '.join(EVALUATORS)}")
    parser.add_argument("--n", type=int, help="images of either set, always the same; by default all")
    parser.add_argument("--n_generated", type=int, help="images of GENERATED, if they are to be others than --n")
    parser.add_argument("--image_size", type=int, help="crop and resize images of folders and data sets")
    parser.add_argument("--data_dir", help="where data sets lie, as TFDS prepares them")
    parser.add_argument("--seed", type=int, default=0, help="of random subsets")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args(arguments)
    for name in ("n", "n_generated"):
        if (n := getattr(options, name)) is not None and n < 2:
            raise UserError(f"--{name}={n}: a comparison needs two images or more")
    if options.json and not options.json.parent.is_dir():
        raise UserError(f"--json={options.json}: there is no folder {options.json.parent}")
    backend.configure()
    found = compare(options)
    for name, result in found["results"].items():
        spread = f" ± {result['standard_deviation']:.6f}" if "standard_deviation" in result else ""
        print(f"{name:32s} {result['value']:.6f}{spread}{'  NOTE: ' + result['note'] if 'note' in result else ''}")
    print(", ".join(f"{key}={value}" for key, value in found["about"].items() if value is not None))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run_command(main)
