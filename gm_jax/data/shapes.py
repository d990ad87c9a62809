"""The drawn data set `shapes`: coloured circles, squares and triangles whose attributes are known exactly.

Example i of a split is a function of (split, i) alone: the same on every machine, however many are drawn.
"""

import functools
import itertools

import numpy as np

ATTRIBUTES = {
    "shape": ("circle", "square", "triangle"),
    "colour": ("red", "green", "blue", "yellow", "magenta", "cyan"),
    "size": ("small", "large"),
    "horizontal": ("left", "right"),
    "vertical": ("top", "bottom"),
}
COLOURS = np.array(
    [(220, 50, 40), (40, 160, 70), (50, 90, 220), (240, 200, 40), (200, 60, 190), (50, 190, 210)], np.float32
)
BACKGROUND = 235.0
NEAR = 13.5  # grey levels: the distance of an image to its nearest drawing, at most; of 8,000 of the set 13.4996
_STREAMS = {"train": 0, "test": 1}


def place(attributes: dict[str, np.ndarray], jitter: np.ndarray) -> np.ndarray:
    """Return the geometry [count, 4] that attributes mean, for a jitter [count, 4] in [-1, 1]: see `describe`."""
    x = np.where(attributes["horizontal"] == 0, 0.35, 0.65) + 0.03 * jitter[:, 0]
    y = np.where(attributes["vertical"] == 0, 0.35, 0.65) + 0.03 * jitter[:, 1]
    radius = np.where(attributes["size"] == 0, 0.135, 0.21) + 0.012 * jitter[:, 2]
    return np.stack([x, y, radius, 0.25 * jitter[:, 3]], axis=1).astype(np.float32)


def describe(split: str, count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the attributes (int32 [count] each) and the geometry [count, 4]: centre x and y, radius, turn.

    Lengths are in units of the image side, the turn is in radians.
    """
    columns = len(ATTRIBUTES) + 4
    # Raw words of PCG64 are the same in every NumPy, and row by row a longer split begins with the shorter one.
    words = np.random.PCG64([20240229, _STREAMS[split]]).random_raw(count * columns)
    uniform = (words >> np.uint64(11)).reshape(count, columns) * 2.0**-53
    attributes = {
        name: (uniform[:, i] * len(values)).astype(np.int32) for i, (name, values) in enumerate(ATTRIBUTES.items())
    }
    jitter = 2 * uniform[:, len(ATTRIBUTES) :] - 1
    return attributes, place(attributes, jitter)


def draw(images: np.ndarray, attributes: dict[str, np.ndarray], geometry: np.ndarray) -> None:
    """Fill `images` uint8 [N, S, S, 3] with antialiased shapes."""
    side = images.shape[1]
    for shape in range(len(ATTRIBUTES["shape"])):
        members = np.flatnonzero(attributes["shape"] == shape)
        for start in range(0, len(members), 256):  # small chunks stay in the processor's cache
            rows = members[start : start + 256]
            distance = _distance(shape, geometry[rows], side)
            coverage = np.clip(0.5 - side * distance, 0, 1)[..., None]  # a soft edge, one pixel wide
            colour = COLOURS[attributes["colour"][rows]][:, None, None, :]
            images[rows] = np.rint(BACKGROUND + coverage * (colour - BACKGROUND)).astype(np.uint8)


def _distance(shape: int, geometry: np.ndarray, side: int) -> np.ndarray:
    """Signed distance [N, side, side] to the outline (negative inside), in units of the image side."""
    centre_x, centre_y, radius, turn = (column[:, None, None] for column in geometry.T)
    grid = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = grid[None, None, :] - centre_x, grid[None, :, None] - centre_y
    if shape == 0:
        return np.sqrt(x * x + y * y) - radius
    cosine, sine = np.cos(turn), np.sin(turn)
    x, y = cosine * x + sine * y, cosine * y - sine * x
    if shape == 1:
        return np.maximum(np.abs(x), np.abs(y)) - 0.89 * radius  # the area of the circle
    # An equilateral triangle pointing up: the largest of the distances to its three sides.
    return np.maximum(y, np.float32(np.sqrt(0.75)) * np.abs(x) - 0.5 * y) - 0.65 * radius


@functools.lru_cache(maxsize=2)
def _templates(side: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Attributes and images float32 [n, pixels] of every combination, jittered by a few even steps."""
    values = [range(len(names)) for names in ATTRIBUTES.values()]
    steps = [(-0.67, 0.0, 0.67), (-0.67, 0.0, 0.67), (0.0,), (-0.8, -0.4, 0.0, 0.4, 0.8)]
    table = np.array(list(itertools.product(*values, *steps)))
    attributes = {name: table[:, i].astype(np.int32) for i, name in enumerate(ATTRIBUTES)}
    images = np.empty((len(table), side, side, 3), np.uint8)
    draw(images, attributes, place(attributes, table[:, len(ATTRIBUTES) :]))
    return attributes, images.reshape(len(table), -1).astype(np.float32)


def read(images: np.ndarray) -> list[frozenset[str]]:
    """Return the attributes of each of the images uint8 [n, S, S, 3] as words: those of the nearest drawing."""
    attributes, nearest, _ = _match(images)
    return [frozenset(names[attributes[name][i]] for name, names in ATTRIBUTES.items()) for i in nearest]


def accepted(images: np.ndarray) -> np.ndarray:
    """Return which of the images uint8 [n, S, S, 3] show one shape of one colour: bool [n].

    They are as near to some drawing as nearly all images of the data set are, whose geometry lies between drawings.
    """
    return _match(images)[2] <= NEAR


def _match(images: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return all drawings' attributes, the number of each image's nearest, [n], and its distance, [n], in grey levels.

    That is the root mean square over pixels and channels.
    """
    n, side = images.shape[:2]
    block = side // 32 if side % 32 == 0 else 1  # 32 pixels tell enough
    attributes, known = _templates(side // block)
    asked = images.reshape(n, side // block, block, side // block, block, 3).mean((2, 4), np.float32).reshape(n, -1)
    half = (known * known).sum(1) / 2.0
    nearest = np.empty(n, np.int64)
    for start in range(0, n, 1000):  # the distances of all to all would be large
        part = slice(start, start + 1000)
        nearest[part] = np.argmin(half - asked[part] @ known.T, axis=1)
    return attributes, nearest, np.sqrt(np.mean(np.square(asked - known[nearest]), axis=1))


def centres(images: np.ndarray) -> np.ndarray:
    """Return the centre of mass, column and row in pixels, of what is not background, [n, 2]; the middle if nothing is.

    How much of a pixel is not background is how far it is from it; a tenth of the way counts as noise.
    """
    side = images.shape[1]
    distance = np.abs(images.astype(np.float32) - BACKGROUND).max(-1)
    weight = np.where(distance > 0.1 * BACKGROUND, distance, 0.0) + 1e-6
    total, grid = weight.sum((1, 2)), np.arange(side)
    return np.stack([(weight.sum(1) @ grid) / total, (weight.sum(2) @ grid) / total], axis=1)
