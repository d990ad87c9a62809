"""Compare finished runs: `python -m gm_jax.compare runs/a runs/b ... --out=comparison` (W9 of the reports).

Reads what mode evaluate left in the workdirs, and writes comparison.md, comparison.json and plots: quality over the
time that a sample takes, and quality over training time.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gm_jax.errors import UserError, run_command
from gm_jax.figures.caption import Caption
from gm_jax.workdir import Workdir, read_json, read_metrics

LIKELIHOODS = ("bits_per_dimension", "elbo", "importance_weighted_bound", "log_likelihood")
QUALITY = ("fid_", "frechet_")  # how the number begins that the plots show
OTHERS = ("kid_", "kernel_", "inception_score_", "precision_", "recall_", "density_", "coverage_", "memorisation_",
          "judged_accuracy", "similar_pairs")  # fmt: skip


def read_run(path: Path) -> dict[str, Any]:
    """Return what is known of one run.

    Raises:
        UserError: it is none, or was not evaluated.
    """
    workdir = Workdir(path)
    config, record, evaluation = workdir.saved_config(), workdir.run(), read_json(path / "evaluation.json")
    if evaluation is None:
        raise UserError(f"{path} has no evaluation.json: run mode evaluate there first")
    results = {name: r for name, r in evaluation["results"].items() if isinstance(r["value"], int | float)}
    return {
        "run": path.name,
        "config": evaluation["config"],
        "family": config.task,
        "data": record["dataset"]["name"],
        "fingerprint": record["dataset"]["fingerprint"],
        "stand_in": record["dataset"]["stand_in"],
        "step": evaluation["step"],
        "training_seconds": training_time(record, evaluation["step"]),
        "environment": record["environment"],
        "parameters": sum(record["parameters"].values()),
        "results": results,
        "history": history(workdir, record),
    }


def training_time(record: dict[str, Any], step: int) -> float:
    """Return how long it took to train up to a step: the run's whole time, in proportion."""
    return record["wall_time"] * step / max(record["starts"][-1]["to_step"], 1)


def history(workdir: Workdir, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every number of quality by training time: those that training logged, and those of all evaluations."""
    found = []
    for line in read_metrics(workdir.metrics):
        found += [(line["step"], name, value, "validation") for name, value in line.items() if name.startswith(QUALITY)]
    for line in read_metrics(workdir.evaluations):
        scores = {name: r["value"] for name, r in line["results"].items() if name.startswith(QUALITY)}
        found += [(line["step"], name, value, "test") for name, value in scores.items()]
    return [
        {"step": step, "seconds": training_time(record, step), "name": name, "value": value, "split": split}
        for step, name, value, split in found
    ]


def columns(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the numbers of the table: of quality and variety, likelihoods, and the time that a sample takes."""
    names = list(dict.fromkeys(name for run in runs for name in run["results"]))
    wanted = [
        n for start in (*QUALITY, *OTHERS) for n in names if n.startswith(start) and not n.endswith("_of_real_images")
    ]
    return [*dict.fromkeys([*wanted, *(n for n in LIKELIHOODS if n in names), "sampling_time"])]


def cell(result: dict[str, Any] | None) -> str:
    """Return a number with its error, as the table shows it."""
    if result is None:
        return ""
    error = result.get("standard_error", result.get("standard_deviation"))
    text = f"{result['value']:.4g}" + (f" ± {error:.2g}" if error and not math.isnan(error) else "")
    return text + (" (!)" if "note" in result else "")


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the comparison as Markdown."""
    names = columns(runs)
    head = ["run", "family", "data", "step", "training, s", "parameters", *names]
    body = [
        [
            run["run"],
            run["family"],
            run["data"],
            str(run["step"]),
            f"{run['training_seconds']:.0f}",
            f"{run['parameters']:,}",
        ]
        + [cell(run["results"].get(name)) for name in names]
        for run in runs
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)]
    return "\n".join([*lines, "", *remarks(runs)]) + "\n"


def describe(result: dict[str, Any]) -> str:
    """Return what a number is of."""
    keys = ("n_real", "n_generated", "split", "weights", "convention", "unit")
    n = {} if "n_real" in result else {"n": result.get("n")}
    return ", ".join(f"{key}={value}" for key, value in {**n, **{k: result[k] for k in keys if k in result}}.items())


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
    machines = {f"{run['environment']['devices']}, {run['environment']['cpu_cores']} cores" for run in runs}
    said.append(f"- Trained on {'; '.join(sorted(machines))}.")
    return said


def plot(out: Path, runs: Sequence[dict[str, Any]]) -> list[Path]:
    """Draw, for every number of quality, its value over sampling time and over training time."""
    import matplotlib.figure

    from gm_jax.figures.curves import save_figure

    written = []
    for name in [n for n in columns(runs) if n.startswith(QUALITY)]:
        figure = matplotlib.figure.Figure(figsize=(13, 5), layout="constrained")
        left, right = figure.subplots(1, 2)
        for run in (run for run in runs if name in run["results"]):
            value = run["results"][name]["value"]
            left.plot(run["results"]["sampling_time"]["value"], value, "o", label=run["run"])
            points = sorted((p["seconds"], p["value"]) for p in run["history"] if p["name"] == name)
            right.plot(*zip(*points, strict=True), "o-", label=run["run"])
        left.set(xlabel="seconds to draw an image", ylabel=name, xscale="log", yscale="log")
        right.set(xlabel="seconds of training", ylabel=name, xscale="log", yscale="log")
        for axes in (left, right):
            axes.grid(alpha=0.3)
        left.legend(fontsize=8)
        written.append(out / f"{name}.png")
        caption = Caption("comparison", ", ".join(sorted({run["data"] for run in runs})), 0)
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
