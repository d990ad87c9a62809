"""Many small pictures in one PNG, for pages that show one of them at a time: what moves without a server.

The PNG's text field "sprite" is JSON: `columns` and `rows` of pictures, the `width` and `height` of each in pixels, and
what else a page must know.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from gm_jax.figures.caption import Caption
from gm_jax.figures.grid import save_atomically


def save_sprite(path: Path, pictures: np.ndarray, columns: int, caption: Caption, about: dict[str, Any]) -> None:
    """Write pictures uint8 [n, H, W, C] edge to edge, row by row; n is a multiple of `columns`, `about` goes along."""
    from PIL import Image  # takes time to import; training starts without it

    n, height, width, channels = pictures.shape
    rows = n // columns
    sheet = pictures.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * height, columns * width, channels)
    place = {"columns": columns, "rows": rows, "width": width, "height": height}
    image = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    save_atomically(image, path, caption, sprite=json.dumps({**place, **about}))
