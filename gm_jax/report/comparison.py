"""The comparison of runs by what mode evaluate said of them (W9): tables, plots, and what has to be said beside them.

A run is a dict here, as in comparison.json. Numbers of features stand in one table only if they were measured alike.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gm_jax.report.entries import QUALITY
from gm_jax.report.records import Reference, Run
from gm_jax.report.words import cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OF_FEATURES = (*QUALITY, "kid_", "kernel_", "inception_score_", "precision_", "recall_", "density_", "coverage_",
               "memorisation_")  # fmt: skip
OTHERS = ("judged_accuracy", "similar_pairs", "bits_per_dimension", "elbo", "importance_weighted_bound",
          "log_likelihood")  # fmt: skip
REAL = "frechet,kernel,inception_score,precision_recall,density_coverage"  # metrics of a reference
IN_TRAINING = ("validation", "seen")  # what scores of training are logged under


class Way(NamedTuple):
    """How numbers of features were measured: by whose features, of how many images, against how many of which split."""

    extractor: str
    weights: str
    n_generated: int | None
    n_real: int | None
    split: str

    def __str__(self) -> str:
        weights = f" ({self.weights[:8]})" if self.weights not in ("", self.extractor) else ""
        real = f"{self.n_real:,} real images" if self.n_real else "real images"
        return f"Features of {self.extractor}{weights}: {self.n_generated or 0:,} samples, {real} of {self.split}"


class Table(NamedTuple):
    """A table of the comparison; every row begins with the run's name."""

    title: str
    head: list[str]
    body: list[list[str]]


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
    extractor = str(result.get("extractor", name.removeprefix(start)))
    n, n_real = result.get("n_generated", result.get("n")), result.get("n_real")
    return Way(extractor, str(result.get("weights", "")), n, n_real, str(result.get("split", "")))


def ways(runs: Iterable[dict[str, Any]]) -> list[Way]:
    """Return the ways in which the runs' numbers of features were measured, that of the most runs first."""
    shared: dict[Way, int] = {}
    for run in runs:
        mine = dict.fromkeys(how for name, result in run["results"].items() if (how := way(name, result)))
        shared |= {how: shared.get(how, 0) + is_trained(run) for how in mine}
    return sorted(shared, key=lambda how: -shared[how])


def measured(run: dict[str, Any], how: Way) -> dict[str, dict[str, Any]]:
    """Return the numbers of a run that were measured in one way."""
    return {name: result for name, result in run["results"].items() if way(name, result) == how}


def tables(runs: Sequence[dict[str, Any]]) -> list[Table]:
    """Return a table of what the runs cost, one for each way of measuring by features, and one of all other numbers."""
    trained = [run for run in runs if is_trained(run)]
    head = ["run", "family", "data", "step", "training, s", "parameters", "a sample, s"]
    costs = [
        [run["run"], run["family"], run["data"], f"{run['step']:,}", f"{run['training_seconds']:.0f}"]
        + [f"{run['parameters']:,}", number(run["results"].get("sampling_time"))]
        for run in trained
    ]
    found = [Table("What they cost", head, costs)]
    for how in ways(runs):
        mine = {run["run"]: measured(run, how) for run in runs}
        names = sorted({name for numbers in mine.values() for name in numbers}, key=_place)
        body = [[name, *(number(numbers.get(n)) for n in names)] for name, numbers in mine.items() if numbers]
        found.append(Table(str(how), ["run", *(_short(name, how) for name in names)], body))
    names = [name for name in OTHERS if any(name in run["results"] for run in trained)]
    body = [[run["run"], *(number(run["results"].get(name), count=True) for name in names)] for run in trained]
    return [*found, *([Table("Without features", ["run", *names], body)] if names else [])]


def _place(name: str) -> tuple[int, str]:
    return next(i for i, start in enumerate(OF_FEATURES) if name.startswith(start)), name


def _short(name: str, how: Way) -> str:
    """Return a number's name without its extractor, which the table's title has; FID and KID keep their convention."""
    published = name.startswith(("fid_", "kid_"))
    return (name if published else name.replace(f"_{how.extractor}", "", 1)).replace("_", " ")


def number(result: dict[str, Any] | None, count: bool = False) -> str:
    """Return a number with its error, and its n if asked for; of pairs their share, as their count grows with n."""
    if result is None:
        return ""
    n = f" (n = {result['n']:,})" if count and result.get("n") else ""
    if result.get("pairs"):
        return f"{result['value'] / result['pairs']:.4g} of pairs{n}"
    error = result.get(spread(result))
    return f"{result['value']:.4g}" + (f" ± {error:.2g}" if error else "") + n + (" (!)" if "note" in result else "")


def spread(result: dict[str, Any]) -> str | None:
    """Return the name of what stands after a number's ±; None: nothing does."""
    return next((kind for kind in ("standard_error", "standard_deviation") if result.get(kind)), None)


def markdown(runs: Sequence[dict[str, Any]]) -> str:
    """Return the comparison as Markdown."""
    lines = []
    for title, head, body in tables(runs):
        rows = [[cell(text) for text in row] for row in (head, *body)]
        rows.insert(1, ["---"] * len(head))
        lines += [f"**{cell(title)}**", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join([*lines, *(f"- {cell(remark)}" for remark in remarks(runs))]) + "\n"


def remarks(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return what has to be said below the tables: what numbers are of, stand-ins, data and machines that differ."""
    of: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for run in runs for name in run["results"]):
        about = {_about(name, run["results"][name]) for run in runs if name in run["results"]}
        if (name in OTHERS or way(name, {})) and about != {""}:
            of.setdefault("; ".join(sorted(about)), []).append(name)
    said = [f"{', '.join(names)}: {about}." for about, names in of.items()]
    if len({how.extractor for how in ways(runs)}) < len(ways(runs)):
        said.append("By the same features, but of other n or weights: numbers compare within one table only.")
    trained = [run for run in runs if is_trained(run)]
    said += [f"{run['run']}: NOTE: {run['stand_in']}." for run in trained if run["stand_in"]]
    notes = {r["note"] for run in runs for r in run["results"].values() if "note" in r}
    said += [f"(!) {note}." for note in sorted(notes)]
    if len({run["fingerprint"] for run in trained}) > 1:
        said.append("The runs were trained on different data: their numbers cannot be compared.")
    lacking = [how for how in ways(trained) if how not in ways(run for run in runs if not is_trained(run))]
    if lacking:
        command = reference_command(lacking[0], trained[0]["data"])
        said.append(f"Of real images there is no line for: {lacking[0]}. {command} makes one.")
    return [*said, f"Trained on {'; '.join(sorted({run['environment'] for run in trained}))}."]


def reference_command(how: Way, data: str) -> str:
    """Return what measures real images that are not of the split in the samples' place, in the same way."""
    convention = how.extractor.removeprefix("inception_")
    where = how.extractor if how.extractor == "pixels" else f"runs/{how.extractor}"
    where = f"inception --convention={convention}" if convention in ("tf", "pytorch", "clean") else where
    sizes = [f"--n={how.n_real}"] if how.n_real else []
    sizes += [f"--n_generated={how.n_generated}"] if how.n_generated else []
    start = f"python -m gm_jax.metrics {data}:{how.split} {data}:train --extractor={where}"
    return " ".join([start, *sizes, f"--metrics={REAL}", f"--json=runs/real_{data}_{how.extractor}.json"])


def _about(name: str, result: dict[str, Any]) -> str:
    keys = ("convention",) if way(name, result) else ("split", "judge", "unit")
    kind = spread(result)
    said = [f"{key}={result[key]}" for key in keys if key in result]
    return ", ".join([*said, *([f"± the {kind.replace('_', ' ')}"] if kind else [])])


def draw(
    figure: "Figure", name: str, how: Way, runs: Sequence[dict[str, Any]], colours: Sequence[str] | None = None
) -> None:
    """Draw a number of quality over the time that a sample takes (left) and over training time (right).

    Only numbers that were measured in one way; scores of training, of other and fewer images, are dashed. References
    are dotted lines across.
    """
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
