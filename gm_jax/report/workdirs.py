"""Read what runs left in their workdirs, whatever else lies there: what cannot be read is a fault with a reason.

Nothing here raises because of what a folder holds, and nothing in it is executed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gm_jax.defaults.table import flatten
from gm_jax.report.checked import Unreadable, are_numbers, get, is_number, read_lines, read_object
from gm_jax.report.pictures import read_figures
from gm_jax.report.records import Data, Evaluation, Fault, Run

DEPTH = 3  # folders below the given one in which runs are looked for
FILES = ("config.json", "run.json")  # by which a workdir is recognised
COUNTS = ("n", "n_real", "n_generated", "standard_error", "standard_deviation")  # of a result
TEXTS = ("note", "unit", "split", "judge", "extractor", "convention")


def scan(folder: Path) -> tuple[list[Run], list[Fault]]:
    """Return the runs below a folder, and what there is none or only a part of one."""
    runs: list[Run] = []
    faults: list[Fault] = []
    for path, members in _folders(folder, folder, DEPTH, faults):
        name = _name(path, folder)
        try:
            run, found = read_run(path, name, *members)
        except Unreadable as error:
            faults.append(Fault(name, str(error)))
        else:
            runs.append(run)
            faults += found
    return runs, faults


def read_run(path: Path, name: str, family: str = "", values: dict[str, Any] | None = None) -> tuple[Run, list[Fault]]:
    """Return a run, and the faults of those of its files without which it is still one.

    Raises:
        Unreadable: there is no run in the folder, or not enough of one.
    """
    faults: list[Fault] = []
    config, record = read_object(path, "config.json"), read_object(path, "run.json")
    for key, kind in (("task", str), ("seed", int), ("steps", int)):
        get(config, "config.json", key, kind)
    starts = get(record, "run.json", "starts", list, [])
    if not starts:
        raise Unreadable("training has begun, but nothing is saved yet: start it again")
    data, last = get(record, "run.json", "dataset", dict), starts[-1]
    optional = {}
    parts = {"metrics": _metrics, "evaluation": _evaluation, "evaluations": _evaluations, "figures": read_figures}
    for part, read in parts.items():
        optional[part], damaged = read(path)
        faults += [Fault(name, reason) for reason in damaged]
    run = Run(
        path=path,
        name=name,
        config=get(record, "run.json", "config", str),
        settings=flatten(config),
        overrides=get(record, "run.json", "overrides", dict, {}),
        rows=tuple(row for row in get(record, "run.json", "rows", list, []) if isinstance(row, str)),
        command=get(record, "run.json", "command", str, ""),
        data=_data(data),
        environment=get(record, "run.json", "environment", dict, {}),
        parameters=sum(n for n in get(record, "run.json", "parameters", dict, {}).values() if isinstance(n, int)),
        step=get(last, "run.json", "to_step", int),
        seconds=float(get(record, "run.json", "wall_time", int | float, 0.0)),
        images=get(last, "run.json", "images", int | None, None),
        began=get(last, "run.json", "began", str, ""),
        values=values or {},
        family=family,
        **optional,
    )
    return run, faults


def _folders(folder: Path, root: Path, depth: int, faults: list[Fault]) -> Iterator[tuple[Path, tuple]]:
    """Yield the workdirs below a folder, with the family and the values of those that are members of one."""
    for path in _children(folder):
        members = _members(path, root, faults) if (path / "sweep.json").exists() else []
        if any((path / file).exists() for file in FILES):
            yield path, ()
        elif members:
            yield from members
        elif depth > 1 and any(child.name != "figures" for child in _children(path)):
            yield from _folders(path, root, depth - 1, faults)
        elif not (path / "sweep.json").exists():
            yield path, ()  # reading it will say what is missing


def _children(folder: Path) -> list[Path]:
    """Return the folders in a folder; none if it may not be read, which reading a run there will say."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _members(family: Path, root: Path, faults: list[Fault]) -> list[tuple[Path, tuple]]:
    """Return the members that sweep.json lists; none if it is damaged, which is a fault."""
    try:
        listed = get(read_object(family, "sweep.json"), "sweep.json", "members", list)
        names = {get(m, "sweep.json", "workdir", str): get(m, "sweep.json", "values", dict) for m in listed}
        if len({frozenset(values) for values in names.values()}) > 1:
            raise Unreadable("sweep.json is not what gm_jax writes: its members are of different keys")
        names = {name: {key: _swept(value) for key, value in values.items()} for name, values in names.items()}
    except Unreadable as error:
        faults.append(Fault(_name(family, root), str(error)))
        return []
    return [(family / Path(name).name, (_name(family, root), values)) for name, values in names.items()]


def _swept(value: Any) -> int | float | str:
    """Return a swept value, a number or a text: of others, such as lists, their text."""
    return value if is_number(value) else str(value)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _data(record: dict[str, Any]) -> Data:
    of = get(record, "run.json", "trained_on", dict, {})
    sources = [of] if "n" in of else list(of.values())  # by source, where there are several
    return Data(
        name=get(record, "run.json", "name", str),
        origin=get(record, "run.json", "origin", str, ""),
        stand_in=get(record, "run.json", "stand_in", str | None, None),
        fingerprint=get(record, "run.json", "fingerprint", str, ""),
        examples=max((get(source, "run.json", "n", int) for source in sources), default=0),
    )


def _sound(name: str, lines: list[Any | None]) -> tuple[list[Any], list[str]]:
    """Return the lines that are not None, and how many are."""
    damaged = [number for number, line in enumerate(lines, 1) if line is None]
    said = f"{name}: {len(damaged)} of {len(lines)} lines are damaged and left out, the first is line "
    return [line for line in lines if line is not None], [f"{said}{damaged[0]}"] if damaged else []


def _metrics(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return each whole line of metrics.jsonl: its step, split and finite numbers."""
    lines, faults = read_lines(path, "metrics.jsonl")
    if not lines:
        return [], [*faults, "metrics.jsonl is not there or empty: no curves"]
    found, damaged = _sound("metrics.jsonl", [_metrics_line(line) for line in lines])
    return found, damaged


def _metrics_line(content: Any) -> dict[str, Any] | None:
    try:
        step, split = get(content, "", "step", int), get(content, "", "split", str)
    except Unreadable:
        return None
    return {**{name: value for name, value in content.items() if is_number(value)}, "step": step, "split": split}


def _evaluations(path: Path) -> tuple[list[Evaluation], list[str]]:
    """Return all evaluations."""
    lines, faults = read_lines(path, "evaluations.jsonl")
    found, damaged = _sound("evaluations.jsonl", [_evaluation_of(line) for line in lines])
    return found, faults + damaged


def _evaluation(path: Path) -> tuple[Evaluation | None, list[str]]:
    """Return the last evaluation, and what is wrong with it; None: there is none."""
    if not (path / "evaluation.json").exists():
        return None, []
    try:
        content = read_object(path, "evaluation.json")
    except Unreadable as error:
        return None, [str(error)]
    evaluation = _evaluation_of(content)
    if evaluation is None:
        return None, ["evaluation.json is not what gm_jax writes: run --mode=evaluate again"]
    strange = sorted(content["results"].keys() - evaluation.results.keys())
    return evaluation, [f"evaluation.json: no finite value of {', '.join(strange)}: left out"] if strange else []


def _evaluation_of(content: Any) -> Evaluation | None:
    """Return an evaluation with its finite results; None: it is none."""
    try:
        results, step = get(content, "", "results", dict), get(content, "", "step", int)
        time, overrides = get(content, "", "time", str, ""), get(content, "", "overrides", dict, {})
        seconds = get(content, "", "seconds", int | float | None, None)
    except Unreadable:
        return None
    return Evaluation(step, time, seconds, overrides, sound_results(results))


def sound_results(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the finite results of a measurement, with what can be printed of each."""
    return {name: _cleaned(result) for name, result in results.items() if _is_result(result)}


def _cleaned(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result with what can be printed: its value, and texts and finite numbers where they belong."""
    checks = {"value": are_numbers, **dict.fromkeys(COUNTS, is_number), **dict.fromkeys(TEXTS, _is_text)}
    return {key: x for key, x in result.items() if checks.get(key, lambda x: _is_text(x) or is_number(x))(x)}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_result(result: Any) -> bool:
    value = result.get("value") if isinstance(result, dict) else None
    return are_numbers(value) and value != []
