"""What the training loop and the scanned sampler cost beyond the compiled functions that they call.

    python -m benchmarks.loop --config=configs/ddpm_mnist.py [--config.any.key=value ...]

Prints (1) the median time of a call in the real loop (data pipeline, metrics, bar; no evaluation, drawing or saving)
and of the same compiled call by itself, in blocks taken in turn, and (2) for a diffusion config, the time of a step
of the scanned sampler and of a Python loop over the jitted denoiser.
"""

import functools
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, logging

from gm_jax import backend, cli, parallel, progress, train
from gm_jax.run import Run, open_training
from gm_jax.samplers import diffusion as samplers
from gm_jax.samplers import plans
from gm_jax.workdir import Workdir

STEPS = 200
BLOCKS = 4


class Stopwatch(progress.Progress):
    """The real progress bar, which also notes when each call was finished."""

    times: list[float] = []  # noqa: RUF012

    def finished(self, step, metrics):
        super().finished(step, metrics)
        self.times.append(time.perf_counter())


def time_loop(run: Run) -> np.ndarray:
    """Train for some calls through the real loop; return the seconds between the ends of calls."""
    Stopwatch.times = []
    original, train.Progress = train.Progress, Stopwatch
    try:
        train.train(run, "", time.time())
    finally:
        train.Progress = original
    return np.diff(Stopwatch.times)[3:]


def time_calls(run: Run, calls: int) -> np.ndarray:
    """Call the same compiled function on one batch again and again; return the seconds of each call."""
    data = {name: parallel.replicate(dict(source.data)) for name, source in run.sources().items()}
    stage = run.experiment.stages[0]
    shape = (run.config.steps_per_call, stage.batches, stage.batch_size)
    numbers = np.arange(np.prod(shape), dtype=np.int32).reshape(shape) % 1000
    batch = parallel.split_batches({name: {"index": numbers} for name in data})
    call, position = run.experiment.train_call(), parallel.positions(stage.batch_size)
    state, times = run.init_state(), []
    for _ in range(calls + 3):
        began = time.perf_counter()
        state, metrics = call(state, data, position, batch)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - began)
    return np.asarray(times[3:])


def time_sampler(run: Run, n: int = 64, steps: int = 1000) -> tuple[float, float]:
    """Return seconds a step: the scanned ancestral sampler, and a Python loop over the jitted denoiser, n images."""
    task, variables = run.task, run.trained(run.init_state()).variables
    task.plan = plans.ddim(task.process.evenly(steps), eta=1.0)
    for _ in range(2):  # the first compiles
        began = time.perf_counter()
        task.sample(variables, n, seed=0)
        scanned = (time.perf_counter() - began) / steps
    label = np.arange(n, dtype=np.int32) % max(task.classes, 1)
    keys = jax.random.split(jax.random.key(0), n)
    plan = samplers.in_float32(task.plan)

    @jax.jit
    def one_step(params, todo, number, state):  # with guidance, as in the scanned sampler
        return samplers.step(functools.partial(task.denoise, params, label), todo, number, keys, state)

    state = samplers.begin(samplers.prior(plan, keys, run.spec.image_shape))
    count = steps // 10 + 3
    for i in range(count):
        if i == 3:
            began = time.perf_counter()
        todo = jax.tree.map(lambda column, i=i: column[i], plan)
        state = jax.block_until_ready(one_step(variables.params, todo, i, state))
    return scanned, (time.perf_counter() - began) / (count - 3)


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    backend.configure()
    config = cli.CONFIG.value
    k = config.steps_per_call
    per_block = STEPS // BLOCKS // k
    loops, calls = [], []
    with tempfile.TemporaryDirectory() as folder:
        for block in range(BLOCKS):
            never = (per_block + 4) * k
            config.update(steps=never, log_every=20 * k, evaluate_every=100 * never, checkpoint_every=100 * never)
            workdir = Workdir(Path(folder) / str(block))
            workdir.create()
            run = open_training(cli.experiment_name(), config, workdir)
            run.task.figures = dict
            loops.append(time_loop(run))
            calls.append(time_calls(run, per_block))
        loop, call = np.median(np.concatenate(loops)), np.median(np.concatenate(calls))
        spread = [np.median(a) / np.median(b) - 1 for a, b in zip(loops, calls, strict=True)]
        print(f"loop {1e3 * loop:.2f} ms a call, compiled call alone {1e3 * call:.2f} ms, {STEPS} steps, {k} a call")
        print(f"overhead {100 * (loop / call - 1):+.1f} % (by block: {', '.join(f'{100 * s:+.1f}' for s in spread)})")
        if config.task == "diffusion":
            scanned, looped = time_sampler(run)
            print(f"sampler, 64 images, 1000 steps in one call: {1e3 * scanned:.1f} ms a step; ", end="")
            print(f"Python loop over the jitted denoiser: {1e3 * looped:.1f} ms a step")


if __name__ == "__main__":
    app.run(main, flags_parser=cli.parse)
