"""Mode translate: a folder of images through a trained generator, one image for each, under its name."""

import collections
import functools
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gm_jax.data.folder import list_images, open_picture
from gm_jax.data.image import to_array
from gm_jax.errors import UserError
from gm_jax.tasks.task import Task, Trained

if TYPE_CHECKING:
    import PIL.Image

PIXELS = 16 * 256 * 256  # that are translated at once, in images of one size
MULTIPLE, LEAST = 4, 8  # sides that the networks take


def translate(task: Task, trained: Trained) -> int:
    """Translate the images of `translate.input` in `translate.direction`; return 1 if some could not be read, else 0.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    settings = task.config.translate
    if settings.input is None or not Path(settings.input).is_dir():
        raise UserError(f"translate.input={settings.input} is not a folder: give --config.translate.input=FOLDER")
    source, output = Path(settings.input), Path(settings.output or trained.workdir.path / "translated")
    files = list_images(source)
    if not files:
        raise UserError(f"translate.input={source} has no images")
    if output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"translate.output={output} lies in the folder of the input: give another one")
    failed: list[str] = []
    changed, written = collections.Counter(), 0
    render = functools.partial(task.render, settings.direction)
    pictures = readable(source, files, task.spec.image_shape[2], failed)
    for shape, group in itertools.groupby(pictures, key=lambda picture: picture[1].shape):
        while part := list(itertools.islice(group, max(PIXELS // (shape[0] * shape[1]), 1))):
            images = np.stack([image for _, image, _ in part])
            batch = {"image": images, "position": np.arange(len(images), dtype=np.int32)}
            made = task.apply(render, trained.variables, batch)
            for (name, _, how), image in zip(part, made, strict=True):
                if trained.workdir.writes:
                    save(output / name, image)
                changed.update(how)
            written += len(images)
    for how, count in changed.items():
        print(f"{count} images {how}")
    for message in failed:
        print(f"gm_jax: {message}", file=sys.stderr)
    print(f"{written} images of {source} translated {settings.direction}, {len(failed)} skipped: {output}", flush=True)
    return 1 if failed else 0


def readable(
    root: Path, files: list[str], channels: int, failed: list[str]
) -> Iterator[tuple[str, np.ndarray, tuple[str, ...]]]:
    """Yield name, image uint8 [H, W, C] and what was done to fit it, of files that can be read; note the others."""
    for name in files:
        try:
            yield name, *open_picture(root / name, lambda picture: fitted(picture, channels))
        except UserError as error:
            failed.append(str(error))


def fitted(picture: "PIL.Image.Image", channels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a picture as uint8 [H, W, channels] with sides that the networks take, and what was done for that."""
    done = ()
    if min(picture.size) < LEAST:
        factor = LEAST / min(picture.size)
        picture = picture.resize([round(side * factor) for side in picture.size])
        done += (f"were enlarged: sides must have {LEAST} pixels",)
    image = to_array(picture, channels, None)
    height, width = (side // MULTIPLE * MULTIPLE for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    part = image[top : top + height, left : left + width]
    if part.shape != image.shape:
        done += (f"lost up to {MULTIPLE - 1} pixels at their borders: sides must divide by {MULTIPLE}",)
    return part, done


def save(path: Path, image: np.ndarray) -> None:
    """Write an image uint8 [H, W, C] in the format that its name says."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path, quality=95)
