"""The model card of an export: what was trained, on which data, how good it is, how it is called, what is left open."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gm_jax.defaults.table import flatten
from gm_jax.run import Run
from gm_jax.workdir import read_json

CARD = "README.md"
PLACES = re.compile(r" --(workdir|config\.dataset\.(data_dir|folder))[= ]('[^']*'|\S+)")  # of the machine that trained

LICENCE = (
    "None is given. Whoever passes these files on chooses one, and looks first at what the data allow: "
    "gm_jax does not know it."
)


def write_card(folder: Path, about: Mapping[str, Any], run: Run) -> None:
    """Write README.md into an export's folder, from what export.json says and what lies in the workdir."""
    record, evaluation = run.workdir.run(), read_json(run.workdir.path / "evaluation.json")
    sections = {
        f"{about['config']}, step {about['step']}": summary(about, record["dataset"]),
        "Numbers": numbers(about["step"], evaluation, sampled_otherwise(run, about["sampling"], evaluation)),
        "Use": use(about),
        "Where it comes from": origin(record, about),
        "Licence": LICENCE,
    }
    parts = [f"{'#' if not i else '##'} {title}\n\n{text}" for i, (title, text) in enumerate(sections.items())]
    (folder / CARD).write_text("\n\n".join(parts) + "\n")


def summary(about: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Return what was trained, and on what."""
    sentences = [
        f"A model of the task `{about['task']}`, trained on {data['name']} ({data['origin']}: "
        f"{' x '.join(map(str, data['image_shape']))}; {counts(data['trained_on'])}).",
        *([f"NOTE: {about['stand_in']}."] if about["stand_in"] else []),
        f"`{about['weights']['file']}` has the averaged weights; `export.json` says what each program takes and gives.",
    ]
    return "\n".join(sentences)


def counts(trained_on: Mapping[str, Any]) -> str:
    """Return which examples were trained on; of several sources, of each."""
    sources = [trained_on] if "split" in trained_on else list(trained_on.values())
    return ", ".join(f"{source['n']} examples of the split {source['split']}" for source in sources)


def sampled_otherwise(run: Run, names: Iterable[str], evaluation: Mapping[str, Any] | None) -> list[str]:
    """Return the keys of sampling, of these, by which the samples evaluated differ from a run's, and their values."""
    exported = flatten(run.config.sampling, "sampling.")
    evaluated = {**flatten(run.workdir.saved_config()), **(evaluation or {}).get("overrides", {})}
    keys = [f"sampling.{name}" for name in names]
    return [f"{key}={evaluated[key]}" for key in keys if evaluated[key] != exported[key]]


def numbers(step: int, evaluation: Mapping[str, Any] | None, otherwise: Sequence[str] = ()) -> str:
    """Return a table of the numbers that mode evaluate found of the same checkpoint."""
    if evaluation is None or evaluation["step"] != step:
        return "This checkpoint has not been evaluated: `--mode=evaluate`, then `--mode=export` again."
    rows = ["| | value | standard error | n | split |", "|---|---|---|---|---|"]
    for name, result in evaluation["results"].items():
        if np.ndim(result["value"]) == 0:
            error = f"{result['standard_error']:.3g}" if "standard_error" in result else ""
            unit = f" ({result['unit']})" if "unit" in result else ""
            rows.append(
                f"| {name}{unit} | {result['value']:.6g} | {error} | {result['n']} | {result.get('split', '')} |"
            )
    told = [f"NOTE: their samples were drawn otherwise than here, by {', '.join(otherwise)}.", ""] if otherwise else []
    notes = [f"- {name}: {result['note']}." for name, result in evaluation["results"].items() if "note" in result]
    return "\n".join([*told, *rows, *(["", *notes] if notes else [])])


def use(about: Mapping[str, Any]) -> str:
    """Return how each program is called from Python, with JAX and safetensors alone."""
    lines = [
        "```python",
        "import numpy as np",
        "from jax import export",
        "from safetensors.numpy import load_file",
        "",
        f'weights = load_file("{about["weights"]["file"]}")',
    ]
    for name, program in about["programs"].items():
        given = ", ".join(f"{key}={example(key, value)}" for key, value in program["inputs"].items())
        lines += [
            f'with open("{program["file"]}", "rb") as file:',
            f"    {name} = export.deserialize(bytearray(file.read()))",
            f"made = {name}.call(weights, {given})  # {', '.join(program['outputs'])}",
        ]
    where = f"They run on {', '.join(about['platforms'])}. JAX {about['jax']} wrote them; by its promise versions of"
    return "\n".join([*lines, "```", "", f"{where} the six months after it read them, too."])


def example(name: str, value: Mapping[str, Any]) -> str:
    """Return Python for an input of two examples."""
    shape = tuple(2 if n == "batch" else n for n in value["shape"])
    if name == "number":
        return f"np.arange({shape[0]}, dtype=np.{value['dtype']})"
    return f"np.zeros({shape}, np.{value['dtype']})" if shape else f"np.{value['dtype']}(0)"


def origin(record: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Return command, seed, code and versions; where data and run lay is nobody's business."""
    versions = ", ".join(f"{name} {version}" for name, version in record["environment"].items() if version)
    sampling = ", ".join(f"{key}={value}" for key, value in about["sampling"].items() if value not in (None, (), []))
    code = " ".join(f"{name} {value}" for name, value in record["code"].items())
    return "\n".join(
        [
            f"- Command: `{PLACES.sub('', record['command'])}`",
            f"- Seed: {record['seed']}",
            f"- Code: gm_jax, {code}",
            f"- Environment: {versions}",
            *([f"- Sampling: {sampling}"] if sampling else []),
        ]
    )
