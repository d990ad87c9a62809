"""Make the pages of a folder of runs: `python -m gm_jax.report runs --out=report`; then open report/index.html.

Everything comes from the workdirs' files; the reports' own numbers are in reports.toml. JAX is not needed.
"""

import argparse
import collections
from pathlib import Path

from gm_jax.errors import run_command
from gm_jax.report.collection import collect
from gm_jax.report.kept import read_record
from gm_jax.report.pages import Site
from gm_jax.report.results import write_results


def build(runs: Path, out: Path, results: Path | None = None) -> str:
    """Write the pages of a folder of runs, and results.md or another such file; return what they hold, in a line.

    The pages and their results.md are of these runs alone; the other file keeps what earlier ones showed.
    """
    collection = collect(runs)
    earlier = read_record(results.parent) if results else None  # before anything is written: it may be damaged
    known = Site(out, collection).write()
    write_results(results or out / "results.md", collection, known, earlier)
    states = collections.Counter(result.state for result in collection.results)
    return (
        f"{out / 'index.html'}: {len(collection.runs)} runs; of {len(collection.results)} rows {states['done']} are "
        f"done, {states['partly']} partly, {states['not run']} not run; {len(collection.faults)} remarks on folders"
    )


def main(arguments: list[str]) -> int:
    """Build the pages that the command line asks for."""
    parser = argparse.ArgumentParser("python -m gm_jax.report", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="the folder of the runs' workdirs")
    parser.add_argument("--out", type=Path, default=Path("report"), help="the folder of the pages (report)")
    parser.add_argument(
        "--results",
        type=Path,
        help="a Markdown file that grows (OUT/results.md, of these runs alone); pictures and record: docs/results/",
    )
    options = parser.parse_args(arguments)
    print(build(options.runs, options.out, options.results))
    return 0


if __name__ == "__main__":
    run_command(main)
