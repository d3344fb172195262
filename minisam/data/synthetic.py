"""Ten kinds of shapes, drawn by formula: a data set that needs no file and no network.

Photographs are better (`minisam.data.cifar`), but somebody has to have them. These pictures have
the size and the types of CIFAR's and none of its contents; what they share with photographs is what
makes training worth watching. The class is the outline of the largest shape, which a convolution
finds wherever it lies; colours only hint at it, and a network on flattened pixels leans on them.
Four thousand pictures are few enough to be learnt by heart: overfitting shows in a minute.

A picture is painted back to front: a rippled background, a small shape of any class as a
distraction, the shape that counts, a bar across it, grain. All of it is arithmetic on whole blocks
of pictures, whose canvas is [-1, 1]² with y pointing down.
"""

from collections.abc import Callable

import numpy as np

from minisam.checks import require_count
from minisam.data.dataset import Dataset

Array = np.ndarray  # float32, except for labels, hues and finished pictures
SIDE = 32  # pixels
BLOCK = 100  # pictures drawn from one stream of random numbers; their arrays fit in a cache


def synthetic(n_train: int = 4000, n_test: int = 10_000, seed: int = 0) -> Dataset:
    """Draw a training set and a test set of ten kinds of shapes, the same for the same seed.

    x_train (n_train, 32, 32, 3) and x_test (n_test, 32, 32, 3) are uint8, y_train and y_test int64.
    Picture i of a split does not depend on how many are asked for, and every ten in a row are one
    of each class in random order. Another processor or release of NumPy may round a sine otherwise,
    so that a few pixels differ by 1: `Dataset.checksum` tells.

    Raises ValueError if n_train or n_test is below 1 or seed below 0.

    >>> data = synthetic(n_train=20, n_test=10)
    >>> data.x_train.shape, data.classes[:3]
    ((20, 32, 32, 3), ('disc', 'ring', 'crescent'))
    >>> sorted(data.y_train[:10].tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    for name, value, least in (("n_train", n_train, 1), ("n_test", n_test, 1), ("seed", seed, 0)):
        require_count(f"synthetic {name}", value, least)
    train, test = _split(n_train, (seed, 0)), _split(n_test, (seed, 1))
    return Dataset("synthetic", "embedded", tuple(SHAPES), *train, *test)


def _split(n: int, key: tuple[int, int]) -> tuple[Array, Array]:
    x = np.empty((n, SIDE, SIDE, 3), np.uint8)
    y = np.empty(n, np.int64)
    for start in range(0, n, BLOCK):
        # A block is always drawn whole: its pictures are then the same if the last ones are cut.
        pictures, labels = _block(np.random.default_rng([*key, start // BLOCK]))
        x[start : start + BLOCK] = pictures[: n - start]
        y[start : start + BLOCK] = labels[: n - start]
    return x, y


def _box(u: Array, v: Array, a: float, b: float) -> Array:
    return np.maximum(np.abs(u) - a, np.abs(v) - b)


def _length(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v)  # several times faster than np.hypot


# The distance from each outline, roughly, in units of the shape's radius: negative inside. A union
# is a minimum, an intersection a maximum, a complement -d; |d| - w is a line along d = 0, 2w wide.
SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": lambda u, v: _length(u, v) - 0.9,
    "ring": lambda u, v: np.abs(_length(u, v) - 0.75) - 0.2,
    "crescent": lambda u, v: np.maximum(_length(u, v) - 1, 0.8 - _length(u - 0.5, v)),
    "square": lambda u, v: _box(u, v, 0.8, 0.8),
    "frame": lambda u, v: np.abs(_box(u, v, 0.65, 0.65)) - 0.19,
    "bars": lambda u, v: np.maximum(_box(u, v, 0.9, 0.8), 0.18 - np.abs(np.abs(u) - 0.36)),
    "triangle": lambda u, v: np.maximum(0.87 * np.abs(u) - 0.5 * v, v) - 0.55,
    "cross": lambda u, v: np.minimum(_box(u, v, 0.95, 0.28), _box(u, v, 0.28, 0.95)),
    "corner": lambda u, v: np.maximum(_box(u, v, 0.8, 0.8), -_box(u - 0.5, v + 0.5, 0.8, 0.8)),
    "flower": lambda u, v: _length(u, v) - 0.72 - 0.33 * np.cos(5 * np.arctan2(u, v)),
}


def _block(rng: np.random.Generator) -> tuple[Array, Array]:
    """Paint BLOCK pictures and return them with their labels."""
    tens = np.tile(np.arange(len(SHAPES), dtype=np.int64), (BLOCK // len(SHAPES), 1))
    labels = rng.permuted(tens, axis=1).ravel()
    hint = labels / len(SHAPES)  # a hue

    canvas = _background(rng, hint + 0.5)  # hints too, by the opposite hue
    x, y = _uniform(rng, -0.25, 0.25), _uniform(rng, -0.25, 0.25)
    way, strangers = _uniform(rng, 0, 2 * np.pi), rng.integers(len(SHAPES), size=BLOCK)
    stranger = _turned(rng, x + 0.85 * np.cos(way), y + 0.85 * np.sin(way), np.pi)
    _draw(canvas, strangers, *stranger, _uniform(rng, 0.2, 0.35), _colour(rng, rng.random(BLOCK)))
    _draw(canvas, labels, *_turned(rng, x, y, 0.5), _uniform(rng, 0.5, 0.7), _colour(rng, hint))
    u, _ = _turned(rng, x + _uniform(rng, -0.3, 0.3), y + _uniform(rng, -0.3, 0.3), np.pi)
    _cover(canvas, np.abs(u) - _uniform(rng, 0, 0.1), _colour(rng, rng.random(BLOCK)))
    canvas += 0.04 * rng.standard_normal((BLOCK, 1, SIDE, SIDE), np.float32)

    pictures = (255 * canvas.clip(0, 1)).astype(np.uint8)
    return pictures.transpose(0, 2, 3, 1), labels  # NHWC: painting was faster on whole planes


def _background(rng: np.random.Generator, hue: Array) -> Array:
    """Let one colour fade into another along two crossing waves; returns (BLOCK, 3, SIDE, SIDE)."""
    waves = np.zeros((BLOCK, SIDE, SIDE), np.float32)
    for _ in range(2):
        u, _ = _turned(rng, _uniform(rng, -1, 1), _uniform(rng, -1, 1), np.pi)
        waves += np.sin(_uniform(rng, 1, 3) * u)
    one, other = _colour(rng, hue), _colour(rng, hue)
    return one + (other - one) * (0.5 + 0.25 * waves[:, None])


def _draw(canvas: Array, kinds: Array, u: Array, v: Array, r: Array, colour: Array) -> None:
    """Draw on each picture the shape of its kind, of radius r around u = v = 0."""
    u, v = u / r, v / r
    distance = np.empty_like(u)
    for kind, shape in enumerate(SHAPES.values()):
        of_kind = kinds == kind
        distance[of_kind] = shape(u[of_kind], v[of_kind])
    _cover(canvas, r * distance, colour)


def _cover(canvas: Array, distance: Array, colour: Array) -> None:
    """Paint in place where distance < 0, with an edge one pixel wide: a pixel is 2 / SIDE."""
    alpha = np.clip(0.5 - SIDE / 2 * distance, 0, 1)[:, None]
    canvas += alpha * (colour - canvas)


def _turned(rng: np.random.Generator, x: Array, y: Array, turn: float) -> tuple[Array, Array]:
    """Every pixel's coordinates (BLOCK, SIDE, SIDE) about (x, y), turned by up to ±turn radians."""
    axis = (2 * np.arange(SIDE, dtype=np.float32) + 1) / SIDE - 1  # centres of pixels
    dx, dy = axis - x, axis[:, None] - y  # (BLOCK, 1, SIDE), (BLOCK, SIDE, 1)
    angle = _uniform(rng, -turn, turn)
    c, s = np.cos(angle), np.sin(angle)
    return c * dx + s * dy, c * dy - s * dx


def _colour(rng: np.random.Generator, hue: Array) -> Array:
    """A colour a picture, (BLOCK, 3, 1, 1), near the hue given in turns of the colour wheel."""
    turns = hue[:, None] + 0.2 * rng.standard_normal((BLOCK, 1)) + np.array([0, 1 / 3, 2 / 3])
    wheel = np.cos(2 * np.pi * turns)[:, :, None, None].astype(np.float32)
    return _uniform(rng, 0.2, 0.8)[:, None] + _uniform(rng, 0.05, 0.3)[:, None] * wheel


def _uniform(rng: np.random.Generator, low: float, high: float) -> Array:
    """One number a picture, (BLOCK, 1, 1)."""
    return rng.uniform(low, high, (BLOCK, 1, 1)).astype(np.float32)
