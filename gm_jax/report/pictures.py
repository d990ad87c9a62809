"""Read the pictures of a run."""

from pathlib import Path
from typing import Any

from gm_jax.report.checked import Unreadable, get, is_number, parse
from gm_jax.report.records import Figure

PROGRESS = "samples_"  # figures/samples_0001000.png and the like are of the way, not of the end


def read_figures(path: Path) -> tuple[dict[str, Figure], list[str]]:
    """Return the pictures in a run's or a sweep's folder figures/ by name, and which are damaged."""
    figures, damaged = {}, []
    for file in sorted((path / "figures").glob("*.png")):
        if file.name.startswith((".", PROGRESS)):
            continue
        try:
            figures[file.stem] = read_figure(file)
        except Unreadable as error:
            damaged.append(str(error))
    return figures, damaged


def read_figure(file: Path) -> Figure:
    """Return a picture.

    Raises:
        Unreadable: it is none, or a damaged one.
    """
    from PIL import Image

    try:
        with Image.open(file) as picture:
            picture.load()
            (width, height), text = picture.size, picture.info
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Unreadable(f"figures/{file.name} is no whole picture: draw it again with --mode=figures") from error
    sprite = _sprite(file, text["sprite"], (width, height)) if "sprite" in text else None
    return Figure(file.stem, file, width, height, str(text.get("Description", "")), sprite)


def _sprite(file: Path, text: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Return what a page must know of a sprite; a list in it has a number for each of the columns or rows."""
    name, sprite = f"the sprite figures/{file.name}", parse(str(text))
    columns, rows, width, height = (get(sprite, name, key, int) for key in ("columns", "rows", "width", "height"))
    lists = {"along": columns, "noise": rows}
    fit = all(len(get(sprite, name, key, list)) == n for key, n in lists.items() if key in sprite)
    if min(columns, rows, width, height) < 1 or (columns * width, rows * height) != size or not fit:
        raise Unreadable(f"{name} does not fit what it says of itself: draw it again with --mode=figures")
    if not all(is_number(number) for key in lists for number in sprite.get(key, [])):
        raise Unreadable(f"{name} has no sound numbers: draw it again with --mode=figures")
    return sprite
