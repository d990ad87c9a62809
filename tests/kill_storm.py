"""Kill runs at random moments, from start-up to the last figure: `python -m tests.kill_storm [--kills=20] [NAME ...]`.

Each shrunk config is trained once in peace, and then killed (SIGKILL) and started again and again; whenever it comes to
its end, its last checkpoint, metrics and figures must have the bits of the first, and another run begins.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from tests.tiny import flags, gm_jax

CHANGES = dict(steps=12, steps_per_call=2, log_every=4, checkpoint_every=2, evaluate_every=6)
NAMES = ("ddpm_mnist", "cgan_mnist:modern", "cyclegan_shapes")


def content(workdir: Path) -> dict[str, object]:
    """Return what must not depend on kills: the arrays' checksums, window and score, metrics, and every picture."""
    meta = json.loads((workdir / "checkpoints" / str(CHANGES["steps"]) / "meta" / "metadata").read_text())["content"]
    pictures = {path.name: path.read_bytes() for path in (workdir / "figures").glob("*.png")}
    return {"checkpoint": meta, "metrics.jsonl": (workdir / "metrics.jsonl").read_bytes(), **pictures}


def moment(workdir: Path) -> str:
    """Return what a run was at when it was killed, as far as its folder tells."""
    if not (workdir / "run.json").exists():
        return "starting"
    if list((workdir / "checkpoints").glob("*tmp*")):
        return "saving"
    if (workdir / "checkpoints" / str(CHANGES["steps"])).exists():
        return "drawing"
    return "training"


def storm(name: str, folder: Path, kills: int, rng: np.random.Generator) -> Counter:
    """Kill a config so often; return how often at what. AssertionError: a run ended with other bits."""
    began = time.monotonic()
    assert gm_jax(*flags(name, folder / "whole", **CHANGES)).returncode == 0
    seconds, whole = time.monotonic() - began, content(folder / "whole")
    number, killed = 0, Counter()
    while True:
        run = folder / f"run{number}"
        last = sum(killed.values()) >= kills
        after = 10**8 if last else int(1000 * rng.uniform(0, seconds))
        started = time.monotonic()
        result = gm_jax(*flags(name, run, **CHANGES), script=f"-m tests.interrupted SIGKILL after {after}")
        if result.returncode == 0:
            seconds = min(seconds, time.monotonic() - started)  # the first one compiled
            found = content(run)
            differ = [part for part in whole.keys() | found.keys() if whole.get(part) != found.get(part)]
            assert not differ, f"{run} differs from {folder / 'whole'} in {differ}"
            number += 1
            if last:
                return killed
        else:
            assert result.returncode == -9, result.stderr
            killed[moment(run)] += 1


def main() -> None:
    """Run the storm over every config named."""
    parser = argparse.ArgumentParser("python -m tests.kill_storm", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.names:
        with tempfile.TemporaryDirectory(prefix="gm_jax_storm_") as folder:
            killed = storm(name, Path(folder), options.kills, np.random.default_rng(options.seed))
        print(f"{name}: the same bits after {killed.total()} kills: {dict(killed)}", flush=True)


if __name__ == "__main__":
    from tests import conftest

    conftest.pytest_configure()
    main()
