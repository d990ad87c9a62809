"""Compare finished runs: `python -m gm_jax.compare runs/a runs/b ... --out=comparison` (W9 of the reports).

Reads what mode evaluate left in the workdirs, and writes comparison.md, comparison.json and plots: quality over the
time that a sample takes, and quality over training time.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gm_jax.errors import UserError, run_command
from gm_jax.figures.caption import Caption
from gm_jax.report import workdirs
from gm_jax.report.checked import Unreadable
from gm_jax.report.entries import QUALITY
from gm_jax.report.records import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIKELIHOODS = ("bits_per_dimension", "elbo", "importance_weighted_bound", "log_likelihood")
IN_TRAINING = ("validation", "seen")  # what scores of training are logged under
OTHERS = ("kid_", "kernel_", "inception_score_", "precision_", "recall_", "density_", "coverage_", "memorisation_",
          "judged_accuracy", "similar_pairs")  # fmt: skip


def read_run(path: Path) -> dict[str, Any]:
    """Return what the comparison says of one run.

    Raises:
        UserError: it is none, or was not evaluated.
    """
    try:
        run, _ = workdirs.read_run(path, path.name)
    except Unreadable as error:
        raise UserError(f"{path}: {error}") from error
    if run.evaluation is None:
        raise UserError(f"{path} has no evaluation.json: run mode evaluate there first")
    return describe_run(run)


def describe_run(run: Run) -> dict[str, Any]:
    """Return what the comparison says of a run that was evaluated."""
    results = {name: r for name, r in run.evaluation.results.items() if isinstance(r["value"], int | float)}
    return {
        "run": run.name,
        "config": run.config,
        "family": run.task,
        "data": run.data.name,
        "fingerprint": run.data.fingerprint,
        "stand_in": run.data.stand_in,
        "step": run.evaluation.step,
        "training_seconds": training_time(run, run.evaluation.step),
        "environment": run.device,
        "parameters": run.parameters,
        "results": results,
        "history": history(run),
    }


def training_time(run: Run, step: int) -> float:
    """Return how long it took to train up to a step: the run's whole time, in proportion."""
    return run.seconds * step / max(run.step, 1)


def history(run: Run) -> list[dict[str, Any]]:
    """Return every number of quality by training time: those that training logged, and those of all evaluations."""
    found = []
    for line in run.metrics:
        scores = [name for name in line if name.startswith(QUALITY)]
        found += [(line["step"], name, line[name], line["split"]) for name in scores]
    for evaluation in run.evaluations:
        results = {name: result for name, result in evaluation.results.items() if name.startswith(QUALITY)}
        found += [(evaluation.step, name, r["value"], r.get("split", "test")) for name, r in results.items()]
    return [
        {"step": step, "seconds": training_time(run, step), "name": name, "value": value, "split": split}
        for step, name, value, split in found
    ]


def columns(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the numbers of the table: of quality and variety, likelihoods, and the time that a sample takes."""
    names = list(dict.fromkeys(name for run in runs for name in run["results"]))
    wanted = [
        n for start in (*QUALITY, *OTHERS) for n in names if n.startswith(start) and not n.endswith("_of_real_images")
    ]
    return [*dict.fromkeys([*wanted, *(n for n in (*LIKELIHOODS, "sampling_time") if n in names)])]


def cell(result: dict[str, Any] | None) -> str:
    """Return a number with its error, as the table shows it; of pairs their share, as their count grows with n."""
    if result is None:
        return ""
    if result.get("pairs"):
        return f"{result['value'] / result['pairs']:.4g} of pairs"
    error = result.get(spread(result))
    text = f"{result['value']:.4g}" + (f" ± {error:.2g}" if error else "")
    return text + (" (!)" if "note" in result else "")


def spread(result: dict[str, Any]) -> str | None:
    """Return the name of what stands after a number's ±; None: nothing does."""
    return next((kind for kind in ("standard_error", "standard_deviation") if result.get(kind)), None)


def cells(runs: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the heads of the table's columns, and a row of texts for each run."""
    names = columns(runs)
    head = ["run", "family", "data", "step", "training, s", "parameters", *names]
    body = []
    for run in runs:
        about = [run["run"], run["family"], run["data"], str(run["step"]), f"{run['training_seconds']:.0f}"]
        numbers = [cell(run["results"].get(name)) for name in names]
        body.append([*about, f"{run['parameters']:,}", *numbers])
    return head, body


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the comparison as Markdown."""
    head, body = cells(runs)
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
    return "\n".join([*lines, "", *remarks(runs)]) + "\n"


def describe(result: dict[str, Any]) -> str:
    """Return what a number is of."""
    keys = ("n_real", "n_generated", "split", "weights", "convention", "judge", "unit")
    n = {} if "n_real" in result else {"n": result.get("n")}
    said = [f"{key}={value}" for key, value in {**n, **{k: result[k] for k in keys if k in result}}.items()]
    kind = spread(result)
    return ", ".join([*said, *([f"± the {kind.replace('_', ' ')}"] if kind else [])])


def remarks(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return what has to be said below the table: sizes, extractors, stand-ins, data and machines that differ."""
    of: dict[str, list[str]] = {}
    for name in columns(runs):
        about = {describe(run["results"][name]) for run in runs if name in run["results"]}
        of.setdefault("; ".join(sorted(about)), []).append(f"`{name}`")
    said = [f"- {', '.join(names)}: {about}." for about, names in of.items()]
    said += [f"- `{run['run']}`: NOTE: {run['stand_in']}." for run in runs if run["stand_in"]]
    notes = {r["note"] for run in runs for r in run["results"].values() if "note" in r}
    said += [f"- (!) {note}." for note in sorted(notes)]
    if len({run["fingerprint"] for run in runs}) > 1:
        said.append("- The runs were trained on different data: their numbers cannot be compared.")
    machines = {run["environment"] for run in runs}
    said.append(f"- Trained on {'; '.join(sorted(machines))}.")
    return said


def draw(figure: "Figure", name: str, runs: Sequence[dict[str, Any]], colours: Sequence[str] | None = None) -> None:
    """Draw a number of quality over the time that a sample takes (left) and over training time (right).

    Scores of training, of other and fewer images, are dashed: they make no line with those of mode evaluate.
    """
    left, right = figure.subplots(1, 2)
    for i, run in enumerate(run for run in runs if name in run["results"]):
        look = {"label": run["run"], "color": colours[i % len(colours)] if colours else f"C{i % 10}"}
        if "sampling_time" in run["results"]:
            left.plot(run["results"]["sampling_time"]["value"], run["results"][name]["value"], "o", **look)
        history = [point for point in run["history"] if point["name"] == name]
        for in_training, style in ((True, ".--"), (False, "o-")):
            chosen = [point for point in history if (point["split"] in IN_TRAINING) == in_training]
            points = sorted((point["seconds"], point["value"]) for point in chosen)
            if points:
                right.plot(*zip(*points, strict=True), style, **look)
    left.set(xlabel="seconds to draw an image", ylabel=name, xscale="log", yscale="log")
    right.set(xlabel="seconds of training", ylabel=name, xscale="log", yscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    (left if left.has_data() else right).legend(fontsize=8)


def plot(out: Path, runs: Sequence[dict[str, Any]]) -> list[Path]:
    """Draw, for every number of quality, its value over sampling time and over training time."""
    import matplotlib.figure

    from gm_jax.figures.curves import save_figure

    written = []
    for name in [n for n in columns(runs) if n.startswith(QUALITY)]:
        figure = matplotlib.figure.Figure(figsize=(13, 5), layout="constrained")
        draw(figure, name, runs)
        written.append(out / f"{name}.png")
        stand_in = "; ".join(sorted({run["stand_in"] for run in runs if run["stand_in"]})) or None
        caption = Caption("comparison", ", ".join(sorted({run["data"] for run in runs})), 0, stand_in)
        save_figure(written[-1], figure, caption.plus(f"{name} of {len(runs)} runs, lower is better"))
    return written


def main(arguments: list[str]) -> int:
    """Write the comparison of the runs that the command line names."""
    parser = argparse.ArgumentParser("python -m gm_jax.compare", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("comparison"))
    options = parser.parse_args(arguments)
    runs = [read_run(path) for path in options.runs]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "comparison.md").write_text(table(runs))
    (options.out / "comparison.json").write_text(json.dumps(runs, indent=1) + "\n")
    pictures = plot(options.out, runs)
    print(table(runs))
    print(f"{options.out / 'comparison.md'}, comparison.json and {len(pictures)} plots")
    return 0


if __name__ == "__main__":
    run_command(main)
