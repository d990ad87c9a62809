"""One training step and one sampling step of every shipped network: gm_jax, Flax's own layers, PyTorch.

    python -m benchmarks.compare [--only=ddpm_mnist,cnn_cifar10:modern] [--rounds=5] [--seconds=2] [--patience=60]
                                 [--batch_size=N] [--json=PATH] [--markdown=PATH] [--against=OLD.json]

Runs unchanged on a CPU and on one GPU; see benchmarks/README.md for what is compared and how to read the tables.
"""

import gc
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks import jax_ways, tables
from benchmarks.jax_ways import RandomExperiment
from benchmarks.machine import describe_cpu
from benchmarks.peers_flax import stock
from benchmarks.timing import Timing, Way, matrix_product, ratios, round_robin, time_calls
from gm_jax import backend
from gm_jax.provenance import environment

EXPERIMENTS = (  # every shipped network once, and a gradient penalty
    "ddpm_mnist",
    "vae_mnist",
    "vae_mnist:modern",
    "vae_faces64",
    "gan_mnist",
    "dcgan_mnist:report",
    "dcgan_mnist:modern",
    "dcgan_shapes",
    "dcgan_faces64",
    "cyclegan_shapes",
    "cyclegan_faces64",
    "cyclegan_horse2zebra",
    "stylegan_shapes@0",  # all resolutions once they are stable: 8, 16, 32 pixels
    "stylegan_shapes@2",
    "stylegan_shapes@4",
    "stylegan_faces64@6",
    "fnn_mnist",
    "fnn_cifar10",
    "lenet_mnist",
    "cnn_cifar10",
    "cnn_cifar10:modern",
    "alexnet_cifar10",
    "resnet50_cifar10",
    "resnet50_cifar10:modern",
)
EXTRACTORS = ("lenet_mnist",)  # classifiers by whose features metrics compare images
DISPATCH = ("fnn_mnist", "ddpm_mnist")  # small enough that the work of the host may be the limit
STEPS_PER_CALL = (1, 4, 16, 64)
FEW = 4  # images a device: as few as StyleGAN compares
OURS, STOCK, SCANNED, TORCH, COMPILED = "gm_jax", "Flax", "Flax, scanned", "PyTorch", "PyTorch, compiled"
BARE = {  # how a task's sampling step is called without gm_jax
    "classifier": jax_ways.prediction,
    "diffusion": jax_ways.bare_sampling,
    "gan": jax_ways.generation,
    "stylegan": jax_ways.generation,
    "vae": jax_ways.generation,
}

FLAGS = flags.FLAGS
flags.DEFINE_list("only", None, "Compare these: config, config:variant, config@stage (default: every shipped network).")
flags.DEFINE_integer("rounds", 5, "Measurements of each way; they are taken in turn.", lower_bound=1)
flags.DEFINE_float("seconds", 2.0, "What one measurement takes about, if one call takes less.")
flags.DEFINE_float("patience", 60.0, "What all measurements of one way may take; beyond it, there are fewer.")
flags.DEFINE_integer("batch_size", None, "Instead of the config's, for a quick look; also the number of samples.")
flags.DEFINE_string("against", None, "A file that --json wrote: tell what has become slower, and exit with 1 then.")
flags.DEFINE_string("json", None, "Write all numbers to this file.")
flags.DEFINE_string("markdown", None, "Write the tables to this file.")


def measure(ways: list[Way]) -> dict[str, Timing]:
    """Time ways in turn as the flags say, and among them a large matrix product."""
    product, _ = matrix_product()
    return round_robin([*ways, product], FLAGS.rounds, FLAGS.seconds, FLAGS.patience)


def torch_peer(run: RandomExperiment) -> tuple[Any, str]:
    """Return the experiment's PyTorch peer, or None and the reason why there is none."""
    if importlib.util.find_spec("torch") is None:
        return None, "PyTorch is not installed"
    import torch

    from benchmarks.peers_torch import Torch

    device = "cuda" if jax.default_backend() == "gpu" else jax.default_backend()
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        return None, f"this PyTorch cannot use the {jax.default_backend()}"
    try:
        peer = Torch(run, run.data, device)
    except NotImplementedError as error:
        return None, str(error)
    if peer.parameters != jax_ways.parameters(run):
        raise AssertionError(
            f"{run.name}: {jax_ways.parameters(run)} parameters, but {peer.parameters} in the PyTorch peer"
        )
    return peer, ""


def torch_ways(peer: Any, reason: str, kind: str) -> tuple[list[Way], dict[str, Timing]]:
    """Return the PyTorch ways of a `kind` of step, "training" or "sampling", and what is said of those missing."""
    if peer is None:
        return [], {TORCH: Timing(note=reason), COMPILED: Timing(note=reason)}
    make = getattr(peer, kind)
    if peer.device != "cuda":
        return [make(TORCH)], {COMPILED: Timing(note="on GPUs only")}
    return [make(TORCH), make(COMPILED, compiled=True)], {}


def scanned_training(run: RandomExperiment, fits: int) -> tuple[list[Way], dict[str, Timing]]:
    """Return the scanned step of Flax's layers, or an estimate of it where it would take too long.

    XLA's own gradients of convolutions are up to a hundred times slower inside a loop on a CPU. So two steps of a few
    images say first how many steps of the whole batch fit into a call; if not even two do, the step's time is estimated
    as proportional to the batch.
    """
    batch = run.stage.batch_size
    small = min(batch, FEW * jax.device_count())
    with stock():
        probe = jax_ways.Training(jax_ways.open_experiment(run.name, small), 2).way(SCANNED)
    seconds = time_calls(probe, 1)
    if seconds < 1.0:  # then what only the first call does may count
        seconds = time_calls(probe, 1)
    seconds *= batch / small / 2
    if max(2, run.cycle) * seconds > FLAGS.patience:
        note = f"estimated from a batch of {small}"
        return [], {SCANNED: Timing(note=note, estimate=seconds, steps_per_call=2)}
    with stock():
        steps = whole(run, max(2, min(fits, int(FLAGS.patience / FLAGS.rounds / seconds))))
        return [jax_ways.Training(run, steps).way(SCANNED)], {}


def whole(run: RandomExperiment, most: int) -> int:
    """Return the most steps, up to `most`, whose calls fill a cycle of the phases, or are filled by cycles."""
    return max(n for n in range(1, most + 1) if n % run.cycle == 0 or run.cycle % n == 0)


def training_row(run: RandomExperiment, peer: Any, reason: str) -> dict[str, Any]:
    """Time one training step in every way."""
    k = run.config.steps_per_call
    with stock():
        bare = jax_ways.Training(run, make_call=jax_ways.bare_call)
        flops = jax_ways.step_flops(run)
    time_calls(bare.way(STOCK), 1)
    # As many steps in a call as the config says, if all rounds then fit into the patience.
    fits = int(FLAGS.patience / FLAGS.rounds / time_calls(bare.way(STOCK), 1))
    steps = whole(run, min(k, max(2, fits)))
    ours = jax_ways.Training(run, steps)
    again = jax_ways.Training(run, steps)  # now its program is in the cache
    compiling = {**ours.compile_seconds, "from_cache": again.compile_seconds["compile"]}
    del again
    ways, missing = torch_ways(peer, reason, "training")
    scanned = ([], {SCANNED: Timing(note="the config does not scan")}) if k == 1 else scanned_training(run, steps)
    timings = measure([ours.way(OURS), bare.way(STOCK), *scanned[0], *ways]) | scanned[1] | missing
    return row(run, "training", run.stage.batch_size, flops, timings) | {"compile_seconds": compiling}


def sampling_row(run: RandomExperiment, peer: Any, reason: str) -> dict[str, Any] | None:
    """Time one sampling step (a classifier: the logits of a batch) in every way; None where there is neither.

    Samples are those of a whole training, so that they belong to its last stage.
    """
    task = run.config.task
    if task not in BARE or run.stage is not run.stages[-1]:
        return None
    what, batch = ("prediction", run.config.batch_size) if task == "classifier" else ("sampling", run.config.sampling.n)
    ours = jax_ways.prediction(run, OURS)[0] if task == "classifier" else jax_ways.sampling(run, OURS)
    other = jax_ways.open_experiment(run.name, FLAGS.batch_size)  # a task keeps its compiled sampler
    with stock():
        bare, flops = BARE[task](other, STOCK)
        scanned = [jax_ways.sampling(other, SCANNED)] if task == "diffusion" else []
    torch, missing = torch_ways(peer, reason, "sampling")
    if not scanned:
        missing[SCANNED] = Timing(note="nothing to scan")
    return row(run, what, batch, flops, measure([ours, bare, *scanned, *torch]) | missing)


def features_row(run: RandomExperiment, peer: Any, reason: str) -> dict[str, Any] | None:
    """Time the features of a chunk of images in every way; None where metrics use no features of this network."""
    if run.name not in EXTRACTORS:
        return None
    ours = jax_ways.extraction(run, OURS)
    with stock():
        bare, flops = jax_ways.bare_extraction(jax_ways.open_experiment(run.name, FLAGS.batch_size), STOCK)
    torch, missing = torch_ways(peer, reason, "features")
    missing[SCANNED] = Timing(note="nothing to scan")
    return row(run, "features", run.config.evaluation.batch_size, flops, measure([ours, bare, *torch]) | missing)


def row(run: RandomExperiment, what: str, batch: int, flops: float, timings: dict[str, Timing]) -> dict[str, Any]:
    """Put together what is known of one experiment's step."""
    ours, product = timings[OURS], timings.pop("product")
    rate = matrix_product()[1] / np.median(product.rounds)
    return {
        "experiment": run.name,
        "what": what,
        "batch": batch,
        "dtype": run.config.model.get("dtype") or "float32",
        "parameters": jax_ways.parameters(run),
        "flops": flops,
        "product_rate": rate,
        "share_of_product_rate": flops / np.median(ours.rounds) / rate if flops else None,
        "ways": {name: timing.summary() for name, timing in timings.items()},
        "ratios": {name: ratios(timing, ours) for name, timing in timings.items() if name != OURS},
    }


def dispatch_row(experiment: str) -> dict[str, Any]:
    """Time gm_jax's training step with 1, 4, 16 and 64 steps in a call, the data on the device."""
    run = jax_ways.open_experiment(experiment, FLAGS.batch_size)
    ways = [jax_ways.Training(run, k).way(str(k)) for k in STEPS_PER_CALL]
    timings = round_robin(ways, FLAGS.rounds, FLAGS.seconds, FLAGS.patience)
    batch = run.config.batch_size
    rates = {k: [batch / seconds for seconds in timing.rounds] for k, timing in timings.items()}
    return {"experiment": experiment, "batch": batch, "images_per_second": rates}


def about() -> dict[str, Any]:
    """Return machine, versions and flags."""
    cpu = describe_cpu()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"WARNING: the machine is busy (load {load:.1f}): PyTorch's threads suffer more than JAX's", flush=True)
    known = {**environment(), "cpu": cpu, "load": load, "rounds": FLAGS.rounds, "seconds": FLAGS.seconds}
    if importlib.util.find_spec("torch") is not None:
        import torch

        known["torch"] = torch.__version__
    return known


def compare(experiments: list[str]) -> dict[str, Any]:
    """Measure all tables; print each row as it comes, and write what there is."""
    results = {"about": about(), "rows": [], "dispatch": []}
    for experiment in experiments:
        run = jax_ways.open_experiment(experiment, FLAGS.batch_size)
        peer, reason = torch_peer(run)
        for make in (training_row, sampling_row, features_row):
            result = make(run, peer, reason)
            if result is not None:
                results["rows"].append(result)
                print(tables.line(result), flush=True)
                write(results)
            gc.collect()  # states and programs of the last row
    results["dispatch"] = [dispatch_row(experiment) for experiment in DISPATCH if experiment in experiments]
    write(results)
    return results


def write(results: dict[str, Any]) -> None:
    """Write the files that the flags ask for."""
    if FLAGS.json:
        Path(FLAGS.json).write_text(json.dumps(results, indent=1))
    if FLAGS.markdown:
        Path(FLAGS.markdown).write_text(tables.markdown(results))


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f"stray argument {arguments[1]!r}")
    before = json.loads(Path(FLAGS.against).read_text()) if FLAGS.against else None
    backend.set_xla_flags()
    # JAX would take three quarters of a GPU's memory at once, and PyTorch needs some.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if jax.device_count() > 1:
        raise app.UsageError("the comparison is for one device: hide the others (CUDA_VISIBLE_DEVICES=0)")
    with tempfile.TemporaryDirectory() as cache:  # so that the first compilation is cold
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        results = compare(FLAGS.only or list(EXPERIMENTS))
    print(f"\n{tables.markdown(results)}")
    if before is not None:
        sys.exit(judge(before, results))


def judge(before: dict[str, Any], results: dict[str, Any]) -> int:
    """Print which rows have become slower than they were; return 1 if any, else 0."""
    if before["about"].get("cpu") != results["about"]["cpu"]:
        print(f"WARNING: {FLAGS.against} is of another CPU: {before['about'].get('cpu')}")
    slower = tables.regressions(before, results)
    print("\n".join(slower) if slower else f"nothing is slower than in {FLAGS.against}, beyond its spread")
    return 1 if slower else 0


if __name__ == "__main__":
    app.run(main)
