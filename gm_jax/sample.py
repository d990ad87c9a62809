"""Draw samples and figures from a checkpoint."""

import os

import numpy as np

from gm_jax.errors import UserError
from gm_jax.figures.grid import save_grid
from gm_jax.run import Run

SHEET = 256  # samples in the picture at most


def sample(run: Run, checkpoint: str) -> int:
    """Write samples.npz (`images` uint8 NHWC, `labels` if conditional, whose they are) and a sheet, samples.png."""
    sampling, trained = run.config.sampling, run.restore(checkpoint)
    result = run.task.sample(trained.variables, sampling.n, sampling.seed)
    if result is None:
        raise UserError(f"the task {run.config.task} draws no samples; the other modes it knows")
    if not run.workdir.writes:
        return 0
    path = run.workdir.path / "samples.npz"
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    np.savez_compressed(temporary, **result, config=run.name, data=run.spec.name, step=trained.step)
    os.replace(temporary, path)
    caption = trained.caption.plus(*run.task.describe_samples())
    save_grid(path.with_suffix(".png"), result["images"][:SHEET], 8 if sampling.n <= 64 else 16, caption)
    print(f"{sampling.n} samples of step {trained.step}: {path} and samples.png", flush=True)
    return 0


def figures(run: Run, checkpoint: str) -> int:
    """Draw every figure of the task again."""
    trained = run.restore(checkpoint)
    for name, draw in run.task.figures().items():
        draw(trained)
        print(run.workdir.figures / f"{name}.png", flush=True)
    return 0
