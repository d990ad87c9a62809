"""The comparison of runs by what mode evaluate said of them (W9): how each number was measured, and plots.

A run is a dict here, as in comparison.json. Numbers of features compare only if they were measured alike.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gm_jax.report.entries import QUALITY
from gm_jax.report.records import Reference, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OF_FEATURES = (*QUALITY, "kid_", "kernel_", "inception_score_", "precision_", "recall_", "density_", "coverage_",
               "memorisation_")  # fmt: skip
IN_TRAINING = ("validation", "seen")  # what scores of training are logged under


class Way(NamedTuple):
    """How numbers of features were measured: by whose features, of how many images, against how many of which split.

    `weights` are the first digits of a hash, all that tables print of it; "": the extractor has no others.
    """

    extractor: str
    weights: str
    n_generated: int | None
    n_real: int | None
    split: str

    def __str__(self) -> str:
        weights = f" ({self.weights})" if self.weights else ""
        real = f"{self.n_real:,} real images" if self.n_real else "real images"
        return f"Features of {self.extractor}{weights}: {self.n_generated or 0:,} samples, {real} of {self.split}"


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
        "date": run.began[:10],
        "environment": run.device,
        "parameters": run.parameters,
        "results": results,
        "history": history(run),
    }


def describe_reference(reference: Reference) -> dict[str, Any]:
    """Return what the comparison says of real images in the samples' place."""
    return {"run": f"real images, {reference.generated}", "data": reference.data, "results": reference.results}


def is_trained(run: dict[str, Any]) -> bool:
    """True for a run, False for a reference."""
    return "training_seconds" in run


def training_time(run: Run, step: int) -> float:
    """Return how long it took to train up to a step: the run's whole time, in proportion."""
    return run.seconds * step / max(run.step, 1)


def history(run: Run) -> list[dict[str, Any]]:
    """Return every number of quality by training time: those that training logged, and those of all evaluations."""
    found = []
    for line in run.metrics:
        scores = [name for name in line if name.startswith(QUALITY)]
        found += [(line["step"], name, line[name], line["split"], None) for name in scores]
    for evaluation in run.evaluations:
        results = {name: result for name, result in evaluation.results.items() if name.startswith(QUALITY)}
        found += [(evaluation.step, name, r["value"], r.get("split", ""), way(name, r)) for name, r in results.items()]
    return [
        {"step": step, "seconds": training_time(run, step), "name": name, "value": value, "split": split, "way": how}
        for step, name, value, split, how in found
    ]


def way(name: str, result: dict[str, Any]) -> Way | None:
    """Return how a number was measured; None: it is not one of features."""
    start = next((start for start in OF_FEATURES if name.startswith(start)), None)
    if start is None or name.endswith("_of_real_images"):
        return None
    extractor, weights = str(result.get("extractor", name.removeprefix(start))), str(result.get("weights", ""))
    n, n_real = result.get("n_generated", result.get("n")), result.get("n_real")
    return Way(extractor, "" if weights == extractor else weights[:8], n, n_real, str(result.get("split", "")))


def ways(runs: Iterable[dict[str, Any]]) -> list[Way]:
    """Return the ways in which the runs' numbers of features were measured, that of the most runs and images first."""
    shared: dict[Way, int] = {}
    for run in runs:
        mine = dict.fromkeys(how for name, result in run["results"].items() if (how := way(name, result)))
        shared |= {how: shared.get(how, 0) + is_trained(run) for how in mine}
    return sorted(shared, key=lambda how: (-shared[how], -(how.n_generated or 0)))


def measured(run: dict[str, Any], how: Way) -> dict[str, dict[str, Any]]:
    """Return the numbers of a run that were measured in one way."""
    return {name: result for name, result in run["results"].items() if way(name, result) == how}


def draw(
    figure: "Figure", name: str, how: Way, runs: Sequence[dict[str, Any]], colours: Sequence[str] | None = None
) -> None:
    """Draw a number of quality over the time that a sample takes (left) and over training time (right).

    Only numbers that were measured in one way; scores of training, of other and fewer images, are dashed. References
    are dotted lines across.
    """
    figure.suptitle(str(how), fontsize=10)
    left, right = figure.subplots(1, 2)
    for i, run in enumerate(run for run in runs if name in measured(run, how)):
        look = {"label": run["run"], "color": colours[i % len(colours)] if colours else f"C{i % 10}"}
        if not is_trained(run):
            for axes in (left, right):
                axes.axhline(run["results"][name]["value"], linestyle=":", **look)
            continue
        if "sampling_time" in run["results"]:
            left.plot(run["results"]["sampling_time"]["value"], run["results"][name]["value"], "o", **look)
        history = [point for point in run["history"] if point["name"] == name]
        logged = [point for point in history if point["split"] in IN_TRAINING]
        for points, style in ((logged, ".--"), ([point for point in history if point["way"] == how], "o-")):
            if points:
                places = sorted((point["seconds"], point["value"]) for point in points)
                right.plot(*zip(*places, strict=True), style, **look)
    left.set(xlabel="seconds to draw an image", ylabel=name, xscale="log", yscale="log")
    right.set(xlabel="seconds of training", ylabel=name, xscale="log", yscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    (left if left.has_data() else right).legend(fontsize=8)


def drawn(runs: Sequence[dict[str, Any]]) -> list[tuple[str, Way]]:
    """Return the numbers of quality that are drawn, each with its way of measuring: those that some run has."""
    trained = [run for run in runs if is_trained(run)]
    of_way = {how: dict.fromkeys(name for run in trained for name in measured(run, how)) for how in ways(trained)}
    return [(name, how) for how, names in of_way.items() for name in names if name.startswith(QUALITY)]
