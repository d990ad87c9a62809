"""THE loop: restore, step, log, evaluate, draw, checkpoint. It knows no model."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging

from gm_jax import parallel
from gm_jax.data import pipeline
from gm_jax.errors import UserError
from gm_jax.evaluate import Measure
from gm_jax.figures.grid import save_animation, save_grid
from gm_jax.interrupt import Interrupt
from gm_jax.optim import ema_decays
from gm_jax.progress import Progress, print_parameters
from gm_jax.run import Run, describe_dataset, environment
from gm_jax.state import TrainState
from gm_jax.step import batches_per_step, make_train_call, make_train_step
from gm_jax.workdir import MetricsFile

IN_FLIGHT = 2  # calls that the host may be ahead of the devices


class Window:
    """Metrics of the steps since the last log line, by step; part of a checkpoint, so that no mean is cut in two."""

    def __init__(self, values: dict[str, list[float]]):
        self._values = {name: list(v) for name, v in values.items()}
        self._pending: list[dict[str, jax.Array]] = []

    def append(self, metrics: dict[str, jax.Array]) -> None:
        """Add a call's metrics, each [steps]; they stay on the device until they are needed."""
        self._pending.append(metrics)

    def values(self) -> dict[str, list[float]]:
        """Return every metric of every step in the window."""
        for metrics in jax.device_get(self._pending):
            for name, values in metrics.items():
                self._values.setdefault(name, []).extend(np.ravel(values).tolist())
        self._pending.clear()
        return self._values

    def check_finite(self, step: int) -> None:
        """Raise UserError if a metric of the steps up to `step` is NaN or infinite."""
        for name, values in self.values().items():
            bad = np.flatnonzero(~np.isfinite(values))
            if bad.size:
                at = step - len(values) + int(bad[0]) + 1
                raise UserError(
                    f"{name} is {values[bad[0]]} at step {at}: training has diverged; lower optim.learning_rate or set "
                    "optim.clip_norm, with another --workdir (checkpoints before that step are intact)"
                )

    def close(self) -> dict[str, float]:
        """Return the means and start anew."""
        means = {name: float(np.mean(values)) for name, values in self.values().items()}
        self._values = {}
        return means


def check_intervals(config) -> None:
    """Raise UserError unless `steps_per_call` divides all that happens between calls."""
    k = config.steps_per_call
    if k < 1:
        raise UserError(f"steps_per_call={k} must be at least 1")
    for name in ("steps", "log_every", "evaluate_every", "checkpoint_every"):
        if config[name] < 1:
            raise UserError(f"{name}={config[name]} must be at least 1")
        if config[name] % k:
            raise UserError(f"{name}={config[name]} is not divisible by steps_per_call={k}")


def compile_call(run: Run) -> Callable:
    """Return the mapped train function: (state, resident data, batches) -> (state, metrics)."""
    networks = list(jax.eval_shape(run.task.init, jax.random.key(0)))
    step = make_train_step(
        run.task.phases(),
        run.optimizers(networks),
        ema_decays(run.config, networks),
        run.config.seed,
    )
    return parallel.map_training(make_train_call(step))


def restore_or_init(run: Run, shapes: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Return the newest sound state, or that of step 0, on all devices, and what the loop saved with it."""
    restored = run.checkpoints.restore_newest(shapes)
    if restored is None:
        return run.init_state(), {"window": {}}
    state, meta = restored
    return parallel.replicate(state), meta


def train(run: Run, command: str, began: float) -> int:
    """Train up to `config.steps`, then draw the figures; return the exit status (0, or 128 + the signal that came).

    `command` continues the run: it is shown to a user who interrupts. `began` is the time when the process started.
    """
    config = run.config
    check_intervals(config)
    parallel.check_batch_size(config.batch_size)
    # A config or data that cannot work fail before anything is written.
    shapes = run.state_shapes()
    for split in (config.dataset.split, config.evaluation.split):
        run.split(split)
    with run.workdir.locked():
        run.workdir.claim(config)
        run.workdir.update_run(config=run.name, dataset=describe_dataset(run))
        state, meta = restore_or_init(run, shapes)
        start = int(state.step)
        warn_if_changed(run)
        print_parameters(run.workdir, state.params)
        if start:
            print(f"continuing {run.workdir.path} from step {start}", flush=True)
        with Interrupt() as interrupt, Progress(run.workdir, start, config.steps, config.batch_size, began) as progress:
            state = loop(run, state, meta, progress, interrupt)
        step = int(state.step)
        if interrupt.signal:
            print(f"stopped at step {step}, saved. Continue with:\n  {command}", flush=True)
            return 128 + interrupt.signal
        trained = run.trained(state)
        for draw in run.task.figures().values():
            draw(trained)
        save_animation(run.workdir.figures / "samples.gif", sorted(run.workdir.figures.glob("samples_*.png")))
        progress.record(step)
        print(f"done: {step} steps, figures in {run.workdir.figures}", flush=True)
    return 0


def loop(run: Run, state: TrainState, meta: dict[str, Any], progress: Progress, interrupt: Interrupt) -> TrainState:
    """Step until `config.steps` or an interrupt; log, evaluate, draw and save on the way."""
    config, k, start = run.config, run.config.steps_per_call, int(state.step)
    data, (held_out, validation) = run.split(config.dataset.split), run.validation()
    resident = pipeline.fits_on_device(data)
    on_device = parallel.replicate({name: np.asarray(x) for name, x in data.items()} if resident else {})
    batches = pipeline.batches(
        data,
        run.partition[0],
        batch_size=config.batch_size,
        seed=config.seed,
        calls=range(start // k, config.steps // k),
        steps_per_call=k,
        batches_per_step=batches_per_step(run.task.phases()),
        resident=resident,
        process=(jax.process_index(), jax.process_count()),
        transfer=parallel.split_batches,
    )
    call = compile_call(run)
    validate = Measure(run, run.task.validate, validation)
    window = Window(meta["window"])
    file = MetricsFile(run.workdir.metrics, start)
    in_flight: list[Any] = []

    def save(step: int, scores: dict[str, float] | None) -> None:
        window.check_finite(step)
        file.sync()
        run.checkpoints.save(step, state, {"window": window.values()}, scores)

    saved = start
    for step, batch in zip(range(start + k, config.steps + 1, k), batches, strict=True):
        state, metrics = call(state, on_device, batch)
        window.append(metrics)
        in_flight.append((step, metrics))
        if len(in_flight) > IN_FLIGHT or step == start + k:
            progress.finished(*in_flight.pop(0))
        scores = None
        if step % config.log_every == 0:
            window.check_finite(step)
            means = window.close()
            if means:  # without phases there are none
                file.write(step, "train", means)
            progress.log(step, "train", means)
        if step % config.evaluate_every == 0:
            with progress.paused():
                trained = run.trained(state)
                scores = {name: float(np.mean(values)) for name, values in validate(trained).items()}
                file.write(step, held_out, scores)
                progress.log(step, held_out, scores)
                progress.watch({name: scores[name] for name in run.task.watched})
                for warning in run.task.warnings(scores, validation):
                    logging.warning("step %d: %s", step, warning)
                draw_progress(run, trained)
        if step % config.checkpoint_every == 0 or step == config.steps or interrupt.signal:
            with progress.paused():
                save(step, scores)
            saved = step
            progress.record(step)
        if interrupt.signal:
            break
    if interrupt.signal and saved < int(state.step):
        save(int(state.step), None)
    run.checkpoints.wait()
    run.checkpoints.close()
    file.close()
    return state


def draw_progress(run: Run, trained) -> None:
    """Draw the grid of samples at this step, if the task can sample."""
    result = run.task.sample(trained, run.config.sampling.n, run.config.sampling.seed)
    if result is not None:
        save_grid(run.workdir.figures / f"samples_{trained.step:07d}.png", result["images"], 8, trained.caption)


def warn_if_changed(run: Run) -> None:
    """Record the environment; warn where it differs from that of the last start: then the bits may differ too."""
    now, before = environment(), run.workdir.run().get("environment")
    if before and before != now:
        changes = ", ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in now if before.get(key) != now[key])
        logging.warning("Another environment than at the last start (%s): the last bits may differ", changes)
    run.workdir.update_run(environment=now)
