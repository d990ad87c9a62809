"""What a step costs beyond its work on several devices and in several processes of one machine, as ratios:
`python -m benchmarks.scaling [--config=configs/lenet_mnist.py] [--steps=200] [--batch_size=64]`.

The same global batch is divided over 1, 2, 4 and 8 virtual CPU devices of one process, and over 1, 2 and 4 processes.
They share the machine's cores, so an ideal division takes the CPU seconds of one device: what is more is what dividing,
adding up gradients and waiting (which spins) cost. Wall times say something only where cores are free.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

WAYS = ((1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4))  # devices of a process, processes
WARM = 20  # steps of a short run, whose time is start-up and compiling


def run(options: argparse.Namespace, folder: Path, devices: int, processes: int, steps: int) -> tuple[float, dict]:
    """Train so many steps; return CPU seconds of all processes, and what run.json says of the start."""
    keys = {"steps": steps, "batch_size": options.batch_size, "log_every": steps, "dataset.name": "digits"}
    keys |= {"evaluate_every": 10 * steps, "checkpoint_every": 10 * steps, "steps_per_call": 1}
    arguments = [f"--config={options.config}", f"--workdir={folder}", *(f"--config.{k}={v}" for k, v in keys.items())]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    several = [f"--processes={processes}"] if processes > 1 else []
    subprocess.run([sys.executable, "-m", "gm_jax.main", *arguments, *several], env=environment, check=True,
                   capture_output=True)  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, json.loads((folder / "run.json").read_text())["starts"][-1]


def main() -> None:
    """Measure all ways, each once with its programs compiled, and print them."""
    parser = argparse.ArgumentParser("python -m benchmarks.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/lenet_mnist.py")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=64)
    options = parser.parse_args()
    print("| devices x processes | CPU ms a step | of one device's | wall ms a step | s to the first step |")
    print("|---" * 5 + "|")
    first = None
    for devices, processes in WAYS:
        with tempfile.TemporaryDirectory() as name:
            short, _ = run(options, Path(name) / "compiling", devices, processes, WARM)
            short, _ = run(options, Path(name) / "short", devices, processes, WARM)
            used, start = run(options, Path(name) / "long", devices, processes, WARM + options.steps)
        each = 1000 * (used - short) / options.steps
        first = first or each
        wall = 1000 * options.batch_size / start["images_per_second"]
        until = start["seconds_to_first_step"]
        print(f"| {devices} x {processes} | {each:.1f} | {each / first:.2f} | {wall:.1f} | {until:.1f} |", flush=True)


if __name__ == "__main__":
    main()
