"""Read what `python -m gm_jax.metrics mnist:test mnist:train --json=runs/FILE.json` wrote of real images."""

from pathlib import Path
from typing import Any

from gm_jax.report.checked import Unreadable, get, read_object
from gm_jax.report.records import Fault, Reference
from gm_jax.report.workdirs import sound_results

ABOUT = ("n_real", "n_generated", "extractor", "weights", "convention", "seed")  # what each number is of


def read_references(folder: Path) -> tuple[list[Reference], list[Fault]]:
    """Return the references that lie in a folder of runs as JSON files, and which of these files are none."""
    references, faults = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            references.append(read_reference(path))
        except Unreadable as error:
            faults.append(Fault(path.name, str(error)))
    return references, faults


def read_reference(path: Path) -> Reference:
    """Return a reference.

    Raises:
        Unreadable: the file is damaged, none of gm_jax.metrics', or compares other images than two splits of one set.
    """
    content = read_object(path.parent, path.name)
    about, results = (get(content, path.name, key, dict) for key in ("about", "results"))
    real, generated = (get(about, path.name, key, str) for key in ("real", "generated"))
    name, _, split = real.partition(":")
    if not split or generated == real or generated.partition(":")[0] != name:
        raise Unreadable(f"compares {generated} with {real}: a reference is of two splits of one set")
    of: dict[str, Any] = {key: about[key] for key in ABOUT if about.get(key) is not None}
    whole = {name: {**result, **of, "split": split} for name, result in sound_results(results).items()}
    return Reference(path.name, name, generated, whole)
