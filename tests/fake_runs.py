"""Workdirs as gm_jax leaves them, without any training: what the report reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gm_jax.figures.caption import Caption
from gm_jax.figures.grid import save_grid
from gm_jax.figures.sprite import save_sprite
from tests.tiny import load

EVALUATED = "2026-01-02T03:04:05+0000"


def write_run(path: Path, experiment: str = "fnn_mnist", step: int = 40, **about: Any) -> Path:
    """Write a workdir; `about` are overrides of the config, with dots as double underscores, and these keys.

    `results`: name to value or to a whole result (None: not evaluated). `metrics`: the lines of metrics.jsonl.
    `steps` (40): of the config, as the data settled them. `record`: further keys of run.json. `sprites`: to be drawn.
    """
    results, metrics = about.pop("results", {"accuracy": 0.98}), about.pop("metrics", training(step))
    record, steps, sprites = about.pop("record", {}), about.pop("steps", 40), about.pop("sprites", ())
    overrides = {key.replace("__", "."): value for key, value in about.items()}
    config = load(experiment)
    config.update_from_flattened_dict({"steps": steps, **overrides})
    (path / "figures").mkdir(parents=True)
    (path / "config.json").write_text(config.to_json())
    name, rows = experiment.replace(":", "_"), list(config.rows)
    dataset = {"name": "mnist", "origin": "tfds", "stand_in": None, "fingerprint": "f", "trained_on": {"n": 100}}
    start = {"began": "2026-01-02T03:00:00+0000", "to_step": step, "images": 10 * step}
    machine = {"devices": "1 x cpu", "cpu_cores": 2}
    found = {"config": name, "rows": rows, "command": "python -m x", "overrides": overrides, "environment": machine}
    found |= {"dataset": dataset, "starts": [start], "wall_time": 30.0, "parameters": {"net": 7}, **record}
    (path / "run.json").write_text(json.dumps(found))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    if results is not None:
        write_evaluation(path, step, results)
    caption = Caption(name, "mnist", step)
    save_grid(path / "figures" / "samples.png", np.zeros((4, 8, 8, 1), np.uint8), 2, caption)
    if "latent_plane" in sprites:
        tiles = np.arange(9, dtype=np.uint8).repeat(64).reshape(9, 8, 8, 1) * 28
        save_sprite(path / "figures" / "latent_plane.png", tiles, 3, caption, {"along": [-1.0, 0.0, 1.0]})
    if "reverse_film" in sprites:
        frames = np.arange(4, dtype=np.uint8).repeat(16 * 16 * 3).reshape(4, 16, 16, 3) * 60
        save_sprite(path / "figures" / "reverse_film.png", frames, 1, caption, {"noise": [1.0, 0.6, 0.2, 0.0]})
    return path


def write_evaluation(path: Path, step: int, results: dict[str, Any]) -> None:
    """Write evaluation.json and a line of evaluations.jsonl."""
    about = {"n": 10000, "split": "test", "standard_error": 0.001}
    whole = {name: r if isinstance(r, dict) else {"value": r, **about} for name, r in results.items()}
    content = {"config": "x", "step": step, "time": EVALUATED, "results": whole}
    (path / "evaluation.json").write_text(json.dumps(content))
    (path / "evaluations.jsonl").write_text(json.dumps(content) + "\n")


def training(step: int, **values: float) -> list[dict[str, Any]]:
    """Lines of metrics of four epochs, one a line, and their validation."""
    lines = []
    for i in range(1, 5):
        at = {"step": step * i // 4}
        lines.append({**at, "split": "train", "loss": 4.0 / i, **values})
        lines.append({**at, "split": "validation", "loss": 5.0 / i, "accuracy": 0.2 * i})
    return lines


def write_family(
    path: Path, experiment: str, key: str, members: dict[Any, dict[str, Any] | None], sweep: Any = None, **about: Any
) -> Path:
    """Write a sweep: a run for every value of a key, with its results; with a row's `sweep` as that has it, whole."""
    listed = []
    for value, results in members.items():
        mine = {key.replace(".", "__"): value, **about}
        if sweep is not None:
            given = {name: v for name, v in sweep.overrides.items() if not name.startswith("evaluation.")}
            mine |= {name.replace(".", "__"): v for name, v in given.items()}
            mine |= {"step": given["steps"], "record": {"overrides": {**given, key: value}}}
        write_run(path / f"{key}={value}", experiment, results=results, **mine)
        listed.append({"values": {key: value}, "workdir": f"{key}={value}"})
    (path / "sweep.json").write_text(json.dumps({"config": experiment, "keys": [key], "members": listed}))
    (path / "figures").mkdir()
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(path / "figures" / "samples.png")
    return path
