"""Everything that the pages are of: the reports, the shipped experiments, and what a folder of runs has for them."""

import dataclasses
from pathlib import Path

from gm_jax.errors import UserError
from gm_jax.report.entries import Entry, make_entries, make_families
from gm_jax.report.pictures import read_figures
from gm_jax.report.records import Fault, Figure, Reference, Run
from gm_jax.report.references import read_references
from gm_jax.report.reports import Report, read_reports
from gm_jax.report.rows import RowResult, describe_faults, put_to_rows
from gm_jax.report.shipped import Experiment, read_experiments
from gm_jax.report.workdirs import scan

CORNERS = {"latent_plane": "along", "reverse_film": "noise"}  # sprites to move in, and what the page must know of them


@dataclasses.dataclass(frozen=True)
class Corner:
    """A sprite that the page moves in: its picture, the run that drew it, and what the entry is called."""

    title: str
    run: Run
    figure: Figure


@dataclasses.dataclass(frozen=True)
class Collection:
    """What a folder of runs has for the reports.

    Attributes:
        results: every row, in the reports' order.
        others: single runs that no report asks for.
        references: real images measured in the place of samples.
        family_figures: pictures of the sweeps, by the family's name.
        faults: what was left out, and what is there only in part, with the reason.
    """

    reports: list[Report]
    experiments: dict[str, Experiment]
    runs: list[Run]
    entries: list[Entry]
    results: list[RowResult]
    others: list[Entry]
    references: list[Reference]
    family_figures: dict[str, dict[str, Figure]]
    faults: list[Fault]

    def corners(self) -> dict[str, list[Corner]]:
        """Return the sprites to move in, by the name of their figure."""
        found: dict[str, list[Corner]] = {name: [] for name in CORNERS}
        for entry in (entry for entry in self.entries if not entry.family):
            for name, needed in CORNERS.items():
                figure = entry.first.figures.get(name)
                if figure is not None and needed in (figure.sprite or {}):
                    found[name].append(Corner(entry.name, entry.first, figure))
        return found


def collect(folder: Path) -> Collection:
    """Read a folder of runs.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the one that holds the runs, such as runs")
    reports, experiments = read_reports(), read_experiments()
    runs, faults = scan(folder)
    entries, duplicates = make_entries(runs, experiments)
    results, others = put_to_rows(reports, entries, experiments)
    references, strange = read_references(folder)
    families = {}
    for family in make_families(entries):
        families[family.name], damaged = read_figures(folder / family.name)
        faults += [Fault(family.name, reason) for reason in damaged]
    lacking = [
        Fault(family.name, reason)
        for result in results
        for family in result.families
        for reason in family.lacks(result.row.sweep)
    ]
    everything = [*faults, *strange, *duplicates, *describe_faults(entries), *lacking]
    faults = sorted(dict.fromkeys(everything), key=lambda fault: (fault.name, fault.reason))
    return Collection(reports, experiments, runs, entries, results, others, references, families, faults)
