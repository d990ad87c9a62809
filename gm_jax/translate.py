"""Mode translate: a folder of images through a trained generator, one image for each, under its name."""

import functools
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gm_jax.data.folder import list_images, open_picture
from gm_jax.data.image import to_array
from gm_jax.errors import UserError
from gm_jax.tasks.task import Task, Trained

TOGETHER = 16  # images of one size that are translated at once
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
    cropped = written = 0
    render = functools.partial(task.render, settings.direction)
    pictures = readable(source, files, task.spec.image_shape[2], failed)
    for (_, shrunk), group in itertools.groupby(pictures, key=lambda picture: (picture[1].shape, picture[2])):
        while part := list(itertools.islice(group, TOGETHER)):
            images = np.stack([image for _, image, _ in part])
            batch = {"image": images, "position": np.arange(len(images), dtype=np.int32)}
            made = task.apply(render, trained.variables, batch)
            for (name, *_), image in zip(part, made, strict=True):
                save(output / name, image)
            written, cropped = written + len(images), cropped + shrunk * len(images)
    if cropped:
        print(f"{cropped} images lost up to {MULTIPLE - 1} pixels at their borders: sides must divide by {MULTIPLE}")
    for message in failed:
        print(f"gm_jax: {message}", file=sys.stderr)
    print(f"{written} images of {source} translated {settings.direction}, {len(failed)} skipped: {output}", flush=True)
    return 1 if failed else 0


def readable(root: Path, files: list[str], channels: int, failed: list[str]) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Yield name, image uint8 [H, W, C] and whether it was cropped, of files that can be read; note the others."""
    for name in files:
        try:
            image = open_picture(root / name, lambda picture: to_array(picture, channels, None))
            height, width = (side // MULTIPLE * MULTIPLE for side in image.shape[:2])
            if min(height, width) < LEAST:
                raise UserError(f"image {root / name} has less than {LEAST} pixels a side")
        except UserError as error:
            failed.append(str(error))
            continue
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        part = image[top : top + height, left : left + width]
        yield name, part, part.shape != image.shape


def save(path: Path, image: np.ndarray) -> None:
    """Write an image uint8 [H, W, C] in the format that its name says."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path, quality=95)
