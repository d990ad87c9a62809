"""Grids of images."""

import os
from pathlib import Path

import numpy as np

MARGIN = 2  # pixels between images, before enlarging


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


def save_grid(path: Path, images: np.ndarray, columns: int, caption: str) -> None:
    """Write a grid of images uint8 [n, H, W, C] as a PNG, small images enlarged, with a caption below."""
    from PIL import Image, ImageDraw, ImageFont  # takes time to import; training starts without it

    sheet = Image.fromarray(grid(images, columns))
    scale = max(1, round(900 / max(sheet.size)))
    sheet = sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)
    font = ImageFont.load_default(14)
    lines = _wrap(caption, font, max(sheet.width - 12, 200))
    page = Image.new("RGB", (max(sheet.width, 212), sheet.height + 18 * len(lines) + 8), "white")
    page.paste(sheet, (0, 0))
    ImageDraw.Draw(page).multiline_text((6, sheet.height + 4), "\n".join(lines), fill="black", font=font, spacing=4)
    save_atomically(page, path)


def save_atomically(image, path: Path) -> None:
    """Save a Pillow image under a temporary name first, so that a viewer never meets half a picture."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    image.save(temporary)
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
