"""What a trained diffusion model does to a user's images, without training: fill holes, and make variations."""

import functools

import jax.numpy as jnp
import numpy as np

from gm_jax import images, random
from gm_jax.data.folder import read_images
from gm_jax.errors import UserError
from gm_jax.figures.grid import save_grid
from gm_jax.samplers import diffusion as samplers
from gm_jax.samplers.plans import Plan, row
from gm_jax.tasks.diffusion_settings import make_plan
from gm_jax.tasks.task import Task, Trained


def inpaint(task: Task, trained: Trained) -> int:
    """Paint anew what the mask has white, `inpaint.n` times for each image, and leave all else as it is.

    At every level the denoiser's answer is overruled where the image is known, so that the state there is always the
    image at that level of noise (the replacement of Song et al. 2021, appendix I.2, told in terms of x_0).

    Raises:
        UserError: no image, or a mask that does not go with it.
    """
    settings = task.config.inpaint
    names, given = open_images(task, "inpaint.input", settings.input)
    masks = read_images(required("inpaint.mask", settings.mask), 1, task.spec.image_shape[0])[1]
    if len(masks) not in (1, len(given)):
        raise UserError(f"inpaint.mask has {len(masks)} images, and inpaint.input {len(given)}: give one, or as many")
    known = np.broadcast_to(masks < 128, (*given.shape[:3], 1))
    made = edit(task, trained, functools.partial(repaint, task), settings.n, image=given, known=known)
    shown = np.where(known, given, 128).astype(np.uint8)
    return save(trained, "inpainted", names, [given, shown], made, "the image, what is known of it, and fillings")


def repaint(task: Task, variables, batch, keys):
    """Return samples that are the batch's "image" where it is "known"."""
    x0 = images.to_model(batch["image"])
    answer = functools.partial(task.denoise, variables.params, batch.get("label"))

    def denoise(x, level):
        said = answer(x, level)
        return said._replace(x0=jnp.where(batch["known"], x0, jnp.clip(said.x0, -1.0, 1.0)))

    x = samplers.prior(task.plan, random.fold_in(keys, 0), task.spec.image_shape)
    return images.to_uint8(samplers.sample(denoise, task.plan, random.fold_in(keys, 1), x).x)


def vary(task: Task, trained: Trained) -> int:
    """Make variations: noise images, so that `vary.strength` of the mixture is noise, and denoise them (SDEdit).

    Meng et al. (2022). Strength 1 forgets the image.
    """
    settings = task.config.vary
    names, given = open_images(task, "vary.input", settings.input)
    plan = make_plan(task.process, task.config.sampling, settings.strength)
    made = edit(task, trained, functools.partial(go_on, task, plan), settings.n, image=given)
    return save(trained, "varied", names, [given], made, f"the image, and variations of strength {settings.strength}")


def go_on(task: Task, plan: Plan, variables, batch, keys):
    """Noise the batch's "image" to the first level of a plan, and run it."""
    x0 = images.to_model(batch["image"])
    x = samplers.diffuse(row(plan.level, 0), x0, random.normal(random.fold_in(keys, 0), x0.shape[1:]))
    denoise = functools.partial(task.denoise, variables.params, batch.get("label"))
    return images.to_uint8(samplers.sample(denoise, plan, random.fold_in(keys, 1), x).x)


def edit(task: Task, trained: Trained, function, n: int, **given: np.ndarray) -> np.ndarray:
    """Return n versions of each image, uint8 [images, n, H, W, C], under the class asked for, or any."""
    batch = {name: np.repeat(x, n, axis=0) for name, x in given.items()}
    count = len(batch["image"])
    batch["position"] = np.arange(count, dtype=np.int32)
    if task.classes:
        asked = task.asked()
        batch["label"] = np.full(count, task.classes if asked is None else asked, np.int32)
    made = task.apply(function, trained.variables, batch, task.config.sampling.seed)
    return made.reshape(-1, n, *made.shape[1:])


def open_images(task: Task, key: str, path: str | None) -> tuple[list[str], np.ndarray]:
    """Return the names and images of a file or folder, as large as the task's."""
    height, width, channels = task.spec.image_shape
    if height != width:
        raise UserError(f"{key}: images of {height}x{width} pixels are not square, and only those are read")
    return read_images(required(key, path), channels, height)


def required(key: str, value: str | None) -> str:
    """Return a setting that this mode needs; UserError if it is not there."""
    if value is None:
        raise UserError(f"this mode needs --config.{key}=FILE or FOLDER")
    return value


def save(
    trained: Trained, folder: str, names: list[str], before: list[np.ndarray], made: np.ndarray, words: str
) -> int:
    """Write a row of pictures for each image, and all versions as <folder>/images.npz."""
    if not trained.workdir.writes:
        return 0
    path = trained.workdir.path / folder
    path.mkdir(exist_ok=True)
    np.savez_compressed(path / "images.npz", images=made, names=names)
    rows = np.concatenate([np.stack(before, 1), made], axis=1)
    save_grid(path / "sheet.png", rows.reshape(-1, *rows.shape[2:]), rows.shape[1], trained.caption.plus(words))
    print(f"{made.shape[1]} versions of {len(names)} images: {path}/images.npz and sheet.png", flush=True)
    return 0
