"""Paths between images through the noise that makes them: DDIM inversion (Song et al. 2021, section 5.3)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images, random
from gm_jax.figures.interpolation import save_interpolation, slerp
from gm_jax.samplers import diffusion as samplers
from gm_jax.samplers.plans import Plan, ddim, first, row
from gm_jax.samplers.processes import Level, Process, karras
from gm_jax.tasks.task import Task, Trained

STEPS = 30  # there and back
# Of noise to signal, where inversion begins, with that much noise on the image: below it many objectives teach a
# network little, and its errors, divided by a small noise, would be taken for noise of many times the size.
LEAST_RATIO = 0.1
PATH_STEPS = 8


def levels_to_walk(process: Process) -> Level:
    """Return levels from the prior down to the last that is as noisy as LEAST_RATIO, and the clean image's."""
    levels = karras(process, STEPS)
    kept = levels.noise >= LEAST_RATIO * levels.signal
    kept[[0, 1, -1]] = True
    return Level(*(column[kept] for column in levels))


def there(levels: Level) -> Plan:
    """Return the plan from an image at the least noise to the prior: the way of `ddim`, walked backwards."""
    return ddim(Level(*(column[::-1] for column in first(levels))))


def follow(task: Task, plan: Plan, variables, batch, keys) -> samplers.Samples:
    """Follow a plan from the batch's "x", without guidance and under no label, so that the way back is the same."""
    label = jnp.full(len(batch["x"]), task.classes) if task.classes else None
    denoise = functools.partial(task.see, variables.params, label)
    return samplers.sample(denoise, plan, keys, batch["x"])


def invert(task: Task, levels: Level, variables, batch, keys) -> jax.Array:
    """Return the noise [B, H, W, C] that makes the batch's "image"."""
    x0, plan = images.to_model(batch["image"]), there(levels)
    x = samplers.diffuse(row(plan.level, 0), x0, random.normal(keys, x0.shape[1:]))
    return follow(task, plan, variables, {"x": x}, keys).x


def decode(task: Task, levels: Level, variables, batch, keys) -> jax.Array:
    """Return the images uint8 [B, H, W, C] that the noise "x" of a batch makes."""
    return images.to_uint8(follow(task, ddim(levels), variables, batch, keys).x)


def draw_interpolation(task: Task, trained: Trained) -> None:
    """Draw paths between `sampling.inversions` pairs of test images, on great circles between their noises."""
    examples, levels = trained.examples(2 * task.config.sampling.inversions), levels_to_walk(task.process)
    given = {name: examples[name] for name in ("image", "position")}
    noise = task.apply(functools.partial(invert, task, levels), trained.variables, given, task.config.sampling.seed)
    rows, shape = len(noise) // 2, noise.shape[1:]
    start, end = slice(rows), slice(rows, 2 * rows)
    flat = noise.reshape(len(noise), -1)

    def make(z: np.ndarray) -> np.ndarray:
        batch = {"x": z.reshape(-1, *shape), "position": np.arange(len(z), dtype=np.int32)}
        return task.apply(functools.partial(decode, task, levels), trained.variables, batch)

    caption = trained.caption.plus(
        f"between the test images at both ends, each given noise of {LEAST_RATIO} of its signal, inverted by DDIM in "
        f"{len(levels.noise) - 2} steps and made again in {len(levels.noise) - 1}, without labels"
    )
    paths, ends = slerp(flat[start], flat[end], PATH_STEPS), (examples["image"][start], examples["image"][end])
    save_interpolation(trained.workdir.figures / "interpolation.png", paths, make, caption, ends)
