"""Numbers as the pages print them: with their errors, units and what they are of."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from gm_jax.report.entries import Entry
from gm_jax.report.records import Run
from gm_jax.report.reports import Number


@dataclasses.dataclass(frozen=True)
class Measured:
    """What an entry says of a number of a row.

    Attributes:
        value: a number, or a list of them; in percent where the row wants that.
        error: a standard error, or with several seeds their standard deviation; None: not known.
        of: what the error is: "standard error", or "standard deviation of 3 seeds".
        n: how many images it is of; None: it is no number of images'.
        about: split, judge and the like.
        against: how many real images, and by which weights it was measured; of one way only numbers are averaged.
        apart: seeds that are not in it because they were measured differently, in words.
    """

    value: float | list[float]
    error: float | None
    of: str
    n: int | None
    about: str
    against: tuple = ()
    apart: str = ""

    def __str__(self) -> str:
        return with_error(self.value, self.error)

    @property
    def said(self) -> str:
        """What the number is of, in words."""
        n = f"n = {self.n:,}" if self.n else ""
        return ", ".join(filter(None, [n, self.about, f"± {self.of}" if self.of else "", self.apart]))


def measure(entry: Entry, number: Number) -> Measured | None:
    """Return what an entry's runs say of a number, averaged over the seeds that were measured alike; None: nothing.

    These are those of the way in which most were measured; the others are named.
    """
    ways: dict[tuple, dict[int, Measured]] = {}
    for run in entry.runs:
        if (one := _of_run(run, number)) is not None:
            ways.setdefault((one.n, one.about, one.against), {})[run.seed] = one
    if not ways:
        return None
    alike, *others = sorted(ways.values(), key=len, reverse=True)
    apart = "; ".join(f"seed {seed} apart: {one} of {one.said}" for way in others for seed, one in way.items())
    first, values = next(iter(alike.values())), [one.value for one in alike.values()]
    if len(values) < 2 or isinstance(first.value, list):
        return dataclasses.replace(first, apart=apart)
    spread, error = f"standard deviation of {len(values)} seeds", statistics.stdev(values)
    return dataclasses.replace(first, value=statistics.mean(values), error=error, of=spread, apart=apart)


def _of_run(run: Run, number: Number) -> Measured | None:
    scale = 100.0 if number.unit == "%" else 1.0
    if number.logged:
        values = [line[number.logged] for line in run.metrics if line["split"] == "train" and number.logged in line]
        if not values:
            return None
        return Measured(scale * (min(values) if number.take == "min" else values[-1]), None, "", None, "in training")
    result = run.evaluation.results.get(number.ours) if run.evaluation else None
    if result is None:
        return None
    value, against = result["value"], (result.get("n_real"), result.get("weights"))
    if isinstance(value, list):
        return Measured(value, None, "", _count(result), _about(result), against)
    kind = next((key for key in ("standard_error", "standard_deviation") if _positive(result.get(key))), None)
    error, of = (scale * result[kind], kind.replace("_", " ")) if kind else (None, "")
    return Measured(scale * value, error, of, _count(result), _about(result), against)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < 1e300


def _count(result: dict[str, Any]) -> int | None:
    n = result.get("n_generated", result.get("n"))
    return n if isinstance(n, int) else None


def _about(result: dict[str, Any]) -> str:
    keys = ("split", "judge", "extractor", "convention", "unit")
    return ", ".join(str(result[key]) for key in keys if isinstance(result.get(key), str))


def plain(value: float) -> str:
    """Return a number with four significant digits, whole ones with commas between thousands."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.4g}" if 1e-4 <= abs(value) < 1e5 else f"{value:.3e}"


def printed(value: float) -> str:
    """Return a number as a report prints it, with commas between thousands."""
    return f"{value:,}"


def with_error(value: float | Sequence[float], error: float | None) -> str:
    """Return a number and its error to the same place, or a list of numbers to four digits after the point."""
    if isinstance(value, list):
        return ", ".join(f"{v:.4f}" if isinstance(v, int | float) else str(v) for v in value)
    if error is None:
        return plain(value)
    digits = max(0, 1 - _exponent(error))
    return f"{value:,.{min(digits, 8)}f} ± {error:,.{min(digits, 8)}f}"


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def duration(seconds: float) -> str:
    """Return a time in the unit that fits: "35 s", "11 min", "3.2 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def minutes(value: float | None) -> str:
    """Return expected minutes; "a GPU" where they are not known."""
    return "not known, wants a GPU" if value is None else duration(60.0 * value)


def cell(text: str) -> str:
    """Return a text that can stand in a Markdown table or between its code marks."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("`", "'")
