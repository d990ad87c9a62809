"""The rows of the reports with what there is for them, and what that lacks."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from gm_jax.report.entries import Entry, Family, make_families
from gm_jax.report.records import Fault
from gm_jax.report.reports import Report, Row, Sweep
from gm_jax.report.shipped import Experiment


@dataclasses.dataclass(frozen=True)
class RowResult:
    """A row of a report and what there is for it.

    Attributes:
        entries: whole ones first; for a row that is a sweep there are none.
        families: sweeps, for a row that is one.
        missing: shipped experiments for it of which there is no whole entry.
    """

    report: Report
    row: Row
    entries: list[Entry]
    families: list[Family]
    missing: list[Experiment]

    @property
    def state(self) -> str:
        """ "done", "partly" or "not run"."""
        if self.row.comparison:
            return "done" if not self.uncompared else "partly" if self.entries else "not run"
        whole = [*(e.is_whole for e in self.entries), *(not f.lacks(self.row.sweep) for f in self.families)]
        return "done" if any(whole) else "partly" if whole else "not run"

    @property
    def uncompared(self) -> list[str]:
        """The tasks of a comparison of which no run is whole."""
        return [task for task in self.row.comparison if all(e.first.task != task or e.lacks for e in self.entries)]


def put_to_rows(
    reports: Sequence[Report], entries: Sequence[Entry], experiments: Mapping[str, Experiment]
) -> tuple[list[RowResult], list[Entry]]:
    """Return every row with what there is for it, and the single entries that belong to none."""
    families, results, used = make_families(entries), [], set()
    for report in reports:
        for row in report.rows:
            mine = [entry for entry in entries if _is_for(entry, row)]
            swept = [family for family in families if row.sweep and _is_of(family, row.sweep)]
            done = {entry.name for entry in mine if entry.is_whole}
            missing = [e for e in experiments.values() if row.id in e.rows and e.label not in done and not row.sweep]
            results.append(RowResult(report, row, mine, swept, missing))
            used |= {id(entry) for family in swept for entry in family.entries}
            used |= {id(entry) for entry in mine if not row.comparison}
    return results, [entry for entry in entries if id(entry) not in used]


def _is_for(entry: Entry, row: Row) -> bool:
    if entry.family or row.sweep:
        return False
    return entry.is_scored if row.comparison else row.id in rows_of(entry)


def _is_of(family: Family, sweep: Sweep) -> bool:
    return family.entries[0].first.config == sweep.config and sweep.key in family.keys


def rows_of(entry: Entry) -> tuple[str, ...]:
    """Return the rows of the reports that an entry is for: those of the shipped config, else those of its run.json."""
    return entry.experiment.rows if entry.experiment else entry.first.rows


def describe_faults(entries: Iterable[Entry]) -> list[Fault]:
    """Return what single runs lack, and evaluations of an earlier step than the newest."""
    faults = []
    for entry in entries:
        for run in entry.runs:
            reasons = [] if entry.family else list(entry.lacks)
            if entry.family and run.step < run.steps:
                reasons.append(f"at step {run.step:,} of {run.steps:,}: start the sweep again, unless it is running")
            if entry.family and run.evaluation and run.evaluation.step != run.step:
                reasons.append(f"its evaluation is of step {run.evaluation.step:,}, not of {run.step:,}")
            faults += [Fault(run.name, reason) for reason in reasons]
    return faults
