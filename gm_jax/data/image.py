"""One picture to one uint8 array: orientation, channels, centre crop, size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def is_grey(image: Image.Image) -> bool:
    """Whether a picture has no colour by its mode; palettes count as colour."""
    return image.mode in ("1", "L", "LA")


def to_array(image: Image.Image, channels: int, size: int | None) -> np.ndarray:
    """Return uint8 [H, W, channels], cropped to the central square and resized to [size, size] if `size` is given.

    Transparent pixels are laid over white where the result has no alpha channel.
    """
    from PIL import Image

    if channels < 4 and (image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info):
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert(MODES[channels])
    if size is not None and image.size != (size, size):
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        image = square.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(image.height, image.width, channels)
