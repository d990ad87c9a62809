"""THE loop: restore, step, log, evaluate, draw, checkpoint. It knows no model."""

import contextlib
import functools
from typing import Any

import numpy as np
from absl import logging

from gm_jax import cluster, parallel
from gm_jax.data import pipeline
from gm_jax.errors import UserError
from gm_jax.evaluate import Measure
from gm_jax.figures.grid import save_animation, save_grid
from gm_jax.interrupt import Interrupt
from gm_jax.measure import During
from gm_jax.progress import Progress, print_parameters
from gm_jax.provenance import describe_data, describe_start, environment
from gm_jax.run import Run
from gm_jax.stages import examples_before, stage_at
from gm_jax.state import TrainState
from gm_jax.tasks.task import Trained
from gm_jax.window import Diverged, Window

IN_FLIGHT = 2  # calls that the host may be ahead of the devices


def check_intervals(config) -> None:
    """Raise UserError unless `steps_per_call` divides all that happens between calls."""
    k = config.steps_per_call
    for name in ("steps", "log_every", "evaluate_every", "checkpoint_every"):
        if config[name] % k:
            raise UserError(f"{name}={config[name]} is not divisible by steps_per_call={k}")


def restore_or_init(run: Run, shapes: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Return the newest sound state, or that of step 0, on all devices, and what the loop saved with it."""
    restored = cluster.hand_out(lambda: run.checkpoints.restore_newest(shapes), shapes)
    if restored is None:
        return run.init_state(), {"window": {}, "rollbacks": []}
    state, meta = restored
    return parallel.replicate(state), {"rollbacks": [], **meta}


def go_back(run: Run, shapes: TrainState, rollbacks: list, error: Diverged) -> tuple[TrainState, dict[str, Any]]:
    """Return the last good state, and what was saved with it, to go on at half the rates; `rollbacks` came before.

    All follows from (config, seed, step): a run that is killed in between diverges again, and goes back again.

    Raises:
        UserError: it may not go back any more.
    """
    run.checkpoints.wait()
    state, meta = restore_or_init(run, shapes)
    step = int(state.step)
    if len(rollbacks) >= run.config.rollbacks:
        raise UserError(
            f"{error} (gone back {len(rollbacks)} times; the last good checkpoint is of step {step}): let it go back "
            "there and halve the rates with --config.rollbacks=3, or lower optim.learning_rate or set optim.clip_norm, "
            "with another --workdir"
        ) from error
    meta["rollbacks"] = [*rollbacks, {"metric": error.metric, "step": error.step, "to": step}]
    logging.warning("%s: going back to step %d, with rates of %g", error, step, rate(meta))
    run.workdir.update_run(rollbacks=meta["rollbacks"])
    return state, meta


def rate(meta: dict[str, Any]) -> float:
    """Return what the learning rates are multiplied with."""
    return 0.5 ** len(meta["rollbacks"])


def train(run: Run, command: str, began: float) -> int:
    """Train up to `config.steps`, then draw the figures; return the exit status (0, or 128 + the signal that came).

    `command` continues the run: it is shown to a user who interrupts. `began` is the time when the process started.
    """
    config, experiment = run.config, run.experiment
    check_intervals(config)
    for stage in experiment.stages:
        parallel.check_batch_size(stage.batch_size)
    # A config or data that cannot work fail before anything is written.
    shapes = experiment.state_shapes()
    run.check()
    during = During(run)
    with run.workdir.locked():
        run.workdir.claim(config)
        warn_if_changed(run)
        run.workdir.update_run(config=run.name, dataset=describe_data(run), **describe_start(run, command))
        state, meta = restore_or_init(run, shapes)
        start = int(state.step)
        print_parameters(run.workdir, state.params)
        if start:
            print(f"continuing {run.workdir.path} from step {start}", flush=True)
        images = functools.partial(examples_before, experiment.stages)
        with (
            contextlib.closing(run.checkpoints),  # what is being saved when something goes wrong is saved
            Interrupt() as interrupt,
            Progress(run.workdir, start, config.steps, images, began) as progress,
        ):
            signal = None
            while signal is None:
                try:
                    state, signal = loop(run, during, state, meta, progress, interrupt)
                except Diverged as error:
                    state, meta = go_back(run, shapes, meta["rollbacks"], error)
        step = int(state.step)
        if signal:
            print(f"stopped at step {step}, saved. Continue with:\n  {command}", flush=True)
            return 128 + signal
        trained = run.trained(state)
        for draw in run.task.figures().values():
            draw(trained)
        frames = sorted(run.workdir.figures.glob("samples_*.png"))
        save_animation(run.workdir.figures / "samples.gif", frames, trained.caption)
        progress.record(step)
        print(f"done: {step} steps, figures in {run.workdir.figures}", flush=True)
    return 0


def loop(
    run: Run, during: During, state: TrainState, meta: dict[str, Any], progress: Progress, interrupt: Interrupt
) -> tuple[TrainState, int]:
    """Step until `config.steps` or a signal; log, evaluate, draw and save on the way. Return the signal, or 0."""
    config, k, start = run.config, run.config.steps_per_call, int(state.step)
    experiment, held_out, sources = run.experiment, run.held_out[0], run.sources()
    on_device = {name: parallel.replicate(dict(s.data) if s.resident else {}) for name, s in sources.items()}
    batches = pipeline.batches(
        sources,
        experiment.stages,
        seed=config.seed,
        calls=range(start // k, config.steps // k),
        steps_per_call=k,
        process=(cluster.index(), cluster.count()),
        transfer=parallel.split_batches,
    )
    validate = Measure(run.task, run.task.validate, run.validation())
    window = Window(meta["window"])
    file = run.workdir.open_metrics(start)
    in_flight: list[Any] = []

    def save(step: int, score: float | None) -> None:
        window.check_finite(step)
        file.sync()
        if run.workdir.writes:
            run.workdir.check_owner()
            run.checkpoints.save(step, state, {"window": window.values(), "rollbacks": meta["rollbacks"]}, score)

    stage, vote = None, None
    for step, batch in zip(range(start + k, config.steps + 1, k), batches, strict=True):
        if stage != stage_at(experiment.stages, step - k):
            stage = stage_at(experiment.stages, step - k)
            call = experiment.train_call(stage, rate(meta))
            position = parallel.positions(experiment.stages[stage].batch_size)
            if step - k == experiment.stages[stage].begin > 0:
                state = experiment.begin(stage, state)
        state, metrics = call(state, on_device, position, parallel.with_signal(batch, interrupt.signal or 0))
        metrics, voted = parallel.split_signal(metrics)
        window.append(metrics)
        in_flight.append((step, metrics, voted))
        if len(in_flight) > IN_FLIGHT or step == start + k:
            *ended, vote = in_flight.pop(0)
            progress.finished(*ended)
        score = None
        if step % config.log_every == 0:
            window.check_finite(step)
            means = window.close()
            if means:  # without phases there are none
                file.write(step, "train", means)
            progress.log(step, "train", means)
        if step % config.evaluate_every == 0:
            with progress.paused():
                trained = run.trained(state)
                scores = score_networks(run, during, validate, trained)
                score = scores[during.monitor or run.task.monitor[0]]
                file.write(step, held_out, scores)
                progress.log(step, held_out, scores)
                progress.watch({name: scores[name] for name in run.task.watched})
                draw_progress(run, trained)
        signal = parallel.agree(interrupt.signal or 0, vote)
        if step % config.checkpoint_every == 0 or step == config.steps or signal:
            with progress.paused():
                save(step, score)
            progress.record(step)
        if signal:
            break
    run.checkpoints.wait()
    file.close()
    return state, parallel.agree(interrupt.signal or 0, vote)


def score_networks(run: Run, during: During, validate: Measure, trained: Trained) -> dict[str, float]:
    """Return the scores of held-out images and of samples, by name; warn of what looks wrong about them."""
    scores = {name: float(np.mean(m.mean)) for name, m in validate(trained.variables).items()}
    scores |= during(trained)
    for warning in run.task.warnings(scores, validate.batch):
        logging.warning("step %d: %s", trained.step, warning)
    return scores


def draw_progress(run: Run, trained: Trained) -> None:
    """Draw the task's preview at this step, if it has one."""
    preview = run.task.preview(trained)
    if preview is not None:
        save_grid(run.workdir.figures / f"samples_{trained.step:07d}.png", *preview, trained.caption)


def warn_if_changed(run: Run) -> None:
    """Warn where the environment differs from that of the last start: then the bits may differ too."""
    now, before = environment(), run.workdir.run().get("environment")
    if before and before != now:
        changes = ", ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in now if before.get(key) != now[key])
        logging.warning("Another environment than at the last start (%s): the last bits may differ", changes)
