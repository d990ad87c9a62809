"""What the large configs ask of a cluster, calculated: `python -m benchmarks.cluster [--compile] [NAME ...]`.

Nothing here is measured. FLOPs are those of all matrix products and convolutions of a step, traced at full size; bytes
are those of the state; the rest follows from makers' data sheets. --compile adds what XLA says that a step wants beside
the state on the devices of this machine; that takes minutes a config.
"""

import argparse
import math
from typing import NamedTuple

import jax

from benchmarks.jax_ways import RandomExperiment, Training, open_experiment, step_flops
from gm_jax import backend

CONFIGS = ("resnet50_cifar10", "wgan_gp_cifar10", "dcgan_faces64", "ddpm_cifar10", "edm_cifar10", "ddpm_faces64",
           "cyclegan_horse2zebra")  # fmt: skip
REACHED = 0.4  # of the peak; small batches reach less
STORAGE = 1e9  # bytes a second at which checkpoints are written
WHOLE = 2**20


class Machine(NamedTuple):
    """Devices and the links between them.

    Attributes:
        name: what it is.
        devices: how many.
        flops: a second at most of one device, in the precision in which JAX multiplies float32 there by default.
        memory: bytes of one device.
        link: bytes a second that one device sends to the others.
    """

    name: str
    devices: int
    flops: float
    memory: float
    link: float


MACHINES = (
    Machine("8 H100 SXM (TF32, NVLink)", 8, 494e12, 80e9, 450e9),
    Machine("16 TPU v5e (bfloat16, ICI)", 16, 197e12, 16e9, 200e9),
)


def size(tree) -> int:
    """Return the bytes of a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def all_reduce_seconds(content: float, machine: Machine) -> float:
    """Return how long a ring takes to add up so many bytes: each device sends 2 (n - 1) / n of them."""
    return 2 * (machine.devices - 1) / machine.devices * content / machine.link


class Work(NamedTuple):
    """What a step of a config is, on any machine; bytes, FLOPs, and the images of one batch and of a step."""

    name: str
    state: int
    parameters: int
    gradients: float
    flops: float
    batch: int
    images: int


def work_of(experiment: RandomExperiment) -> Work:
    """Trace a step at full size."""
    state, stage = experiment.state_shapes(), experiment.stage
    gradients = sum(
        size([state.params[net] for net in phase.nets]) * phase.repeats / phase.every for phase in stage.phases
    )
    images = stage.batch_size * stage.batches
    about = size(state), size(state.params), gradients, step_flops(experiment), stage.batch_size, images
    return Work(experiment.name, *about)


def row(work: Work, machine: Machine) -> list[str]:
    """Return what a config asks of a machine, as the cells of a table; its batch is rounded up to divide."""
    share = -(-work.batch // machine.devices)
    larger = share * machine.devices / work.batch
    compute = work.flops * larger / machine.devices / machine.flops / REACHED
    exchange = all_reduce_seconds(work.gradients, machine)
    return [
        work.name,
        f"{share * machine.devices} / {share}",
        f"{(work.state + work.parameters) / WHOLE:,.0f}",
        f"{work.flops * larger / 1e12:,.3f}",
        f"{work.gradients / WHOLE:,.0f}",
        f"{1e3 * compute:,.2f}",
        f"{1e3 * exchange:,.2f}",
        f"{work.images * larger / (compute + exchange):,.0f}",
        f"{work.state / STORAGE:,.2f}",
    ]


HEADER = ("config", "batch / a device", "state and gradients, MiB a device", "TFLOP a step", "gradients, MiB a step",
          "ms to compute", "ms to add up", "images/s", "s to save")  # fmt: skip


def table(rows: list[list[str]], header: tuple[str, ...]) -> str:
    """Return rows as Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows))


def main() -> None:
    """Print a table for each machine."""
    parser = argparse.ArgumentParser("python -m benchmarks.cluster", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=CONFIGS)
    parser.add_argument("--compile", action="store_true", help="ask XLA for the memory of a step, on this machine")
    options = parser.parse_args()
    backend.configure()
    experiments = [open_experiment(name) for name in options.names]
    works = [work_of(experiment) for experiment in experiments]
    for machine in MACHINES:
        print(f"\nCalculated, not measured: {machine.name}, {REACHED:.0%} of {machine.flops / 1e12:.0f} TFLOP/s\n")
        print(table([row(work, machine) for work in works], HEADER), flush=True)
    for experiment in experiments if options.compile else ():
        memory = Training(experiment).compiled.memory_analysis()
        wanted, kind = memory.temp_size_in_bytes / WHOLE, f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        print(f"{experiment.name}: {wanted:,.0f} MiB beside the state, on {kind}", flush=True)


if __name__ == "__main__":
    main()
