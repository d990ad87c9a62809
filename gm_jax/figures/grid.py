"""Grids of images."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gm_jax.figures.caption import Caption

MARGIN = 2  # pixels between images, before enlarging
FRAMES = 60  # of an animation at most


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Lay images uint8 [n, H, W, C] out in rows of `columns`: uint8 [rows * (H + margin) ..., 3], on mid-grey."""
    n, height, width, _ = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + MARGIN) + MARGIN, columns * (width + MARGIN) + MARGIN, 3), 128, np.uint8)
    for i, image in enumerate(images):
        top = (i // columns) * (height + MARGIN) + MARGIN
        left = (i % columns) * (width + MARGIN) + MARGIN
        sheet[top : top + height, left : left + width] = image  # one channel spreads over three
    return sheet


def save_grid(path: Path, images: np.ndarray, columns: int, caption: Caption) -> None:
    """Write a grid of images uint8 [n, H, W, C] as a PNG, small images enlarged, with a caption below."""
    from PIL import Image  # takes time to import; training starts without it

    sheet = Image.fromarray(grid(images, columns))
    scale = max(1, round(900 / max(sheet.size)))
    save_sheet(path, sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST), caption)


def save_strips(path: Path, strips: np.ndarray, caption: Caption) -> None:
    """Write strips of images uint8 [rows, columns, H, W, C] as one grid."""
    save_grid(path, strips.reshape(-1, *strips.shape[2:]), strips.shape[1], caption)


def save_versions(path: Path, versions: Sequence[np.ndarray], columns: int, caption: Caption) -> None:
    """Write versions of the same images, each uint8 [n, H, W, C], one below the other in every row of `columns`.

    Images that do not fill a row are left out.
    """
    columns = min(columns, len(versions[0]))
    whole = len(versions[0]) // columns * columns
    rows = np.stack([images[:whole].reshape(-1, columns, *images.shape[1:]) for images in versions], axis=1)
    save_strips(path, rows.reshape(-1, *rows.shape[2:]), caption)


def save_labelled_grid(path: Path, images: np.ndarray, labels: Sequence[str], columns: int, caption: Caption) -> None:
    """Write a grid of images uint8 [n, H, W, C], each with its label below it, as a PNG with a caption."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(12)
    scale = max(1, round(96 / max(images.shape[1:3], default=1)))
    cell = max([images.shape[2] * scale, *(int(font.getlength(label)) + 1 for label in labels)]) + 8
    line = images.shape[1] * scale + 24
    rows = max(1, -(-len(images) // columns))
    sheet = Image.new("RGB", (columns * cell, rows * line), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        centre, top = (i % columns) * cell + cell // 2, (i // columns) * line
        picture = Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)))
        picture = picture.resize((image.shape[1] * scale, image.shape[0] * scale), Image.Resampling.NEAREST)
        sheet.paste(picture, (centre - picture.width // 2, top + 4))
        draw.text((centre, top + picture.height + 5), label, fill="black", font=font, anchor="ma")
    save_sheet(path, sheet, caption)


def save_sheet(path: Path, sheet, caption: Caption) -> None:
    """Save a Pillow image with a caption below it."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(14)
    lines = _wrap(str(caption), font, max(sheet.width - 12, 200))
    page = Image.new("RGB", (max(sheet.width, 212), sheet.height + 18 * len(lines) + 8), "white")
    page.paste(sheet, (0, 0))
    ImageDraw.Draw(page).multiline_text((6, sheet.height + 4), "\n".join(lines), fill="black", font=font, spacing=4)
    save_atomically(page, path, caption)


def save_animation(path: Path, frames: Sequence[Path], caption: Caption) -> None:
    """Write pictures that were saved before, at most `FRAMES` of them, as an animated GIF; one or none make no file.

    The caption stands in its comment.
    """
    from PIL import Image

    if len(frames) < 2:
        return
    shown = np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))
    save_film(path, [Image.open(frames[i]).convert("RGB") for i in shown], caption)


def enlarged(frames: np.ndarray, least: int = 256) -> list:
    """Return images uint8 [n, H, W, C] as Pillow's, at least so many pixels high."""
    from PIL import Image

    scale = -(-least // frames.shape[1])
    larger = np.repeat(np.repeat(frames, scale, 1), scale, 2)
    return [Image.fromarray(np.broadcast_to(frame, (*frame.shape[:2], 3)).copy()) for frame in larger]


def save_film(path: Path, frames: Sequence, caption: Caption) -> None:
    """Write Pillow images as an animated GIF, with the caption in its comment."""
    first, *others = frames
    times = [200] * len(others) + [2000]  # milliseconds; the last stays
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    comment = str(caption).encode()
    first.save(temporary, save_all=True, append_images=others, duration=times, loop=0, comment=comment)
    os.replace(temporary, path)


def save_atomically(image, path: Path, caption: Caption, **fields: str) -> None:
    """Save a Pillow image as a PNG, under a temporary name first, so that a viewer never meets half a picture.

    What drew it stands in its text fields, and further `fields`.
    """
    from PIL.PngImagePlugin import PngInfo

    about = PngInfo()
    for name, text in {**caption.fields(), **fields}.items():
        about.add_itxt(name, text)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    image.save(temporary, pnginfo=about)
    os.replace(temporary, path)


def _wrap(text: str, font, width: int) -> list[str]:
    """Break a caption into lines no wider than `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
