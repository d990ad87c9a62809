"""Compare finished runs: `python -m gm_jax.compare runs/a runs/b ... --out=comparison` (W9 of the reports).

Reads what mode evaluate left in the workdirs, and references: what `python -m gm_jax.metrics mnist:test mnist:train
--json=FILE` wrote of real images. Writes comparison.md, comparison.json and plots: quality over the time that a sample
takes, and quality over training time.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gm_jax.errors import UserError, run_command
from gm_jax.figures.caption import Caption
from gm_jax.report import comparison, workdirs
from gm_jax.report.checked import Unreadable
from gm_jax.report.references import read_reference
from gm_jax.report.tables import markdown


def read_run(path: Path) -> dict[str, Any]:
    """Return what the comparison says of one run, or of one reference.

    Raises:
        UserError: it is neither, or was not evaluated.
    """
    try:
        if path.suffix == ".json":
            return comparison.describe_reference(read_reference(path))
        run, _ = workdirs.read_run(path, path.name)
    except Unreadable as error:
        raise UserError(f"{path}: {error}") from error
    if run.evaluation is None:
        raise UserError(f"{path} has no evaluation.json: run mode evaluate there first")
    return comparison.describe_run(run)


def plot(out: Path, runs: Sequence[dict[str, Any]]) -> list[Path]:
    """Draw, for every number of quality, its value over sampling time and over training time."""
    import matplotlib.figure

    from gm_jax.figures.curves import save_figure

    trained = [run for run in runs if comparison.is_trained(run)]
    stand_in = "; ".join(sorted({run["stand_in"] for run in trained if run["stand_in"]})) or None
    caption = Caption("comparison", ", ".join(sorted({run["data"] for run in runs})), 0, stand_in)
    written: list[Path] = []
    for name, how in comparison.drawn(runs):
        figure = matplotlib.figure.Figure(figsize=(13, 5), layout="constrained")
        comparison.draw(figure, name, how, runs)
        again = sum(path.stem.partition("-")[0] == name for path in written)  # measured in another way
        written.append(out / f"{name}{f'-{again + 1}' if again else ''}.png")
        save_figure(written[-1], figure, caption.plus(f"{name}, lower is better"))
    return written


def main(arguments: list[str]) -> int:
    """Write the comparison of the runs that the command line names."""
    parser = argparse.ArgumentParser("python -m gm_jax.compare", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="workdirs, and files of gm_jax.metrics --json")
    parser.add_argument("--out", type=Path, default=Path("comparison"))
    options = parser.parse_args(arguments)
    runs = [read_run(path) for path in options.runs]
    if not any(map(comparison.is_trained, runs)):
        raise UserError("references alone: name a run to compare with them")
    options.out.mkdir(parents=True, exist_ok=True)
    text = markdown(runs)
    (options.out / "comparison.md").write_text(text)
    (options.out / "comparison.json").write_text(json.dumps(runs, indent=1) + "\n")
    pictures = plot(options.out, runs)
    print(text)
    print(f"{options.out / 'comparison.md'}, comparison.json and {len(pictures)} plots")
    return 0


if __name__ == "__main__":
    run_command(main)
