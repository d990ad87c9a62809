"""What a user sees of a run: the parameter table, the progress bar, TensorBoard, and the times in run.json."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from tqdm import tqdm

from gm_jax.window import mean
from gm_jax.workdir import Workdir

STARTS = 100  # of which run.json tells, the last ones


def print_parameters(workdir: Workdir, params: dict[str, Any]) -> None:
    """Print each network's table of parameters, and record their number in run.json."""
    from clu import parameter_overview

    for network, tree in params.items():
        print(f"{network}\n{parameter_overview.get_parameter_overview(tree, include_stats=False)}", flush=True)
    counts = {network: int(parameter_overview.count_parameters(tree)) for network, tree in params.items()}
    workdir.update_run(parameters=counts)


class Progress:
    """The bar with loss, images/s and time left; TensorBoard event files; one entry a start in run.json."""

    def __init__(self, workdir: Workdir, start: int, steps: int, images: Callable[[int], int], began: float):
        """The run goes from step `start` to `steps`; this process began its work at the time `began`.

        `images` tells how many of a data source the first so many steps consume.
        """
        from tensorboardX import SummaryWriter

        self._workdir, self._images, self._start, self._began = workdir, images, start, began
        self._writer = SummaryWriter(str(workdir.path), purge_step=start + 1, write_to_disk=workdir.writes)
        self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True, disable=not workdir.writes)
        record = workdir.run()
        self._earlier, self._before = record.get("starts", [])[1 - STARTS :], record.get("wall_time", 0.0)
        self._zero = time.monotonic() - max(time.time() - began, 0.0)  # the machine's clock may be set back later on
        self._first: tuple[int, float] | None = None  # step and seconds of work when the first call was done
        self._watched = ""  # scores of held-out images
        self._paused = 0.0  # seconds of evaluation, drawing and saving since then

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()
        self._writer.close()

    def finished(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Wait for the metrics of the call that ended with `step`, and move the bar there."""
        jax.block_until_ready(metrics)
        if self._first is None:
            self._first = (step, self._seconds())
        if not self._bar.disable and time.time() - self._bar.last_print_t > self._bar.mininterval:
            # To the host first: a mean on the device would queue up behind the steps in flight.
            values = {name: mean(value) for name, value in jax.device_get(metrics).items() if "/" not in name}
            losses = ", ".join(f"{name} {value:.4f}" for name, value in values.items() if value is not None)
            speed = f"{self.images_per_second(step):.0f} images/s"
            self._bar.set_postfix_str(f"{losses}, {self._watched}{speed}", refresh=False)
        self._bar.update(step - self._bar.n)

    def watch(self, scores: dict[str, float]) -> None:
        """Show these scores of held-out images in the bar from now on."""
        self._watched = "".join(f"{name} {value:.4f}, " for name, value in scores.items())

    def images_per_second(self, step: int) -> float:
        """The speed since the first call, which compiles, without evaluation, drawing and saving; 0 before that."""
        if self._first is None or step <= self._first[0]:
            return 0.0
        images = self._images(step) - self._images(self._first[0])
        return images / (self._seconds() - self._first[1] - self._paused)

    def _seconds(self) -> float:
        """Return for how long this process has worked."""
        return time.monotonic() - self._zero

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Write metrics and the speed to TensorBoard."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"{split}/{name}", value, step)
        self._writer.add_scalar("images_per_second", self.images_per_second(step), step)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens inside out of the speed."""
        began = self._seconds()
        yield
        self._paused += self._seconds() - began

    def record(self, step: int) -> None:
        """Write what this start has done and how long it took to run.json; times add up over restarts."""
        now = {
            "began": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self._began)),
            "from_step": self._start,
            "to_step": step,
            "images": self._images(step),
            "seconds": round(self._seconds(), 2),
            "seconds_to_first_step": round(self._first[1], 2) if self._first else None,
            "images_per_second": round(self.images_per_second(step), 1),
        }
        self._workdir.update_run(starts=[*self._earlier, now], wall_time=round(self._before + now["seconds"], 2))
