"""The comparison in tables, each of numbers that were measured alike, and what has to be said below them."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from gm_jax.report.comparison import OF_FEATURES, Way, is_trained, measured, way, ways
from gm_jax.report.words import cell

OTHERS = {  # numbers that are not of features, which have an n each, by the title of their table
    "Judged, and beside each other": ("judged_accuracy", "similar_pairs"),
    "Likelihoods": ("bits_per_dimension", "elbo", "importance_weighted_bound", "log_likelihood"),
}
BETTER = (
    "Lower is better of frechet and kernel, higher of inception score, precision, recall, density and coverage; "
    "memorisation is 1 of new images, 0 of copies."
)
REAL = "frechet,kernel,inception_score,precision_recall,density_coverage"  # metrics of a reference


class Table(NamedTuple):
    """A table of the comparison; every row begins with the run's name."""

    title: str
    head: list[str]
    body: list[list[str]]


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
        mine = [(run["run"], measured(run, how)) for run in runs]
        names = sorted({name for _, numbers in mine for name in numbers}, key=_place)
        body = [[name, *(number(numbers.get(n)) for n in names)] for name, numbers in mine if numbers]
        found.append(Table(str(how), ["run", *(_short(name, how) for name in names)], body))
    for title, wanted in OTHERS.items():
        names = [name for name in wanted if any(name in run["results"] for run in trained)]
        body = [[run["run"], *(number(run["results"].get(name), count=True) for name in names)] for run in trained]
        rows = [row for row in body if any(row[1:])]
        found += [Table(title, ["run", *(name.replace("_", " ") for name in names)], rows)] if rows else []
    return found


def is_shown(name: str) -> bool:
    """True for a number that has a place in some table."""
    return name == "sampling_time" or name in itertools.chain(*OTHERS.values()) or way(name, {}) is not None


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


def markdown(runs: Sequence[dict[str, Any]], more: Sequence[str] = ()) -> str:
    """Return the comparison as Markdown, with further remarks."""
    lines = []
    for title, head, body in tables(runs):
        rows = [[cell(text) for text in row] for row in (head, *body)]
        rows.insert(1, ["---"] * len(head))
        lines += [f"**{cell(title)}**", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join([*lines, *(f"- {cell(remark)}" for remark in (*remarks(runs), *more))]) + "\n"


def remarks(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return what has to be said below the tables: what numbers are of, stand-ins, data and machines that differ."""
    of: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for run in runs for name in run["results"]):
        about = {_about(name, run["results"][name]) for run in runs if name in run["results"]}
        if (name in itertools.chain(*OTHERS.values()) or way(name, {})) and about != {""}:
            of.setdefault("; ".join(sorted(about)), []).append(name)
    said = [BETTER, *(f"{', '.join(names)}: {about}." for about, names in of.items())]
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
