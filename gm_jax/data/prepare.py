"""Prepare a data set for gm_jax: `python -m gm_jax.data.prepare NAME --data_dir=DIR [--source=DIR]`."""

import argparse
import sys
from collections.abc import Sequence

from gm_jax.data import embedded, tfds_source
from gm_jax.data.download import Unavailable, prepare
from gm_jax.data.sources import check_name, find_data_dirs
from gm_jax.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the data set that the command line names; return the exit status: 0, or 2 after one line of error."""
    parser = argparse.ArgumentParser(prog="python -m gm_jax.data.prepare", description="Prepare a TFDS data set.")
    parser.add_argument("name", help="such as mnist, fashion_mnist or cycle_gan/horse2zebra")
    parser.add_argument("--data_dir", help="where to put it (default: $TFDS_DATA_DIR, then ~/tensorflow_datasets)")
    parser.add_argument("--source", help="a folder with the original files (the four idx files) instead of a download")
    options = parser.parse_args(arguments)
    try:
        data_dirs = find_data_dirs(options.data_dir)
        if options.name in embedded.NAMES:
            raise UserError(f"'{options.name}' is embedded in gm_jax: there is nothing to prepare")
        check_name(options.name, data_dirs)
        dataset = tfds_source.load(prepare(options.name, data_dirs[0], options.source), options.name, None)
    except (UserError, Unavailable) as error:
        print(f"'{options.name}' was not prepared: {error}", file=sys.stderr)
        return 2
    sizes = ", ".join(f"{size:,} {split}" for split, size in dataset.sizes.items())
    print(f"{dataset.name} is in {dataset.location}: {sizes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
