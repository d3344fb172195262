"""Ten kinds of shapes, drawn by formula: a data set that needs no file and no network.

Photographs are better (`minisam.data.cifar`), but they have to be downloaded. These pictures have the
size and types of CIFAR's, and none of its contents. They share with photographs what makes training
worth watching. The class is the outline of the largest shape, which a convolution finds wherever it
lies; colours only hint at it, and a network on flattened pixels relies on them. Four thousand
pictures are few enough to be learnt by heart, so overfitting shows in a minute.

A picture is painted back to front: a plain background, a small shape of any class as a distraction,
the shape that counts, grain. All of it is arithmetic on whole blocks of pictures, whose canvas is
[-1, 1]² with y pointing down.
"""

from collections.abc import Callable

import numpy as np

from minisam.checks import Array, Count, Natural, require
from minisam.data.dataset import Dataset

SIDE = 32  # pixels
WARNING = "These are SYNTHETIC images, not CIFAR. `minisam data --fetch cifar10` downloads the real ones (162 MB)."
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
    for name, value, type_ in (("n_train", n_train, Count), ("n_test", n_test, Count), ("seed", seed, Natural)):
        require(f"synthetic {name}", value, type_)
    train, test = _split(n_train, (seed, 0)), _split(n_test, (seed, 1))
    return Dataset("synthetic", "embedded", CLASSES, *train, *test)


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
CLASSES = tuple(SHAPES)


def _block(rng: np.random.Generator) -> tuple[Array, Array]:
    """Paint BLOCK pictures and return them with their labels."""

    def uniform(low: float, high: float, *shape: int) -> Array:
        return rng.uniform(low, high, (BLOCK, *shape, 1, 1)).astype(np.float32)

    def colour() -> Array:
        turns = hue + 0.2 * rng.standard_normal((BLOCK, 1)) + np.array([0, 1 / 3, 2 / 3])  # of the colour wheel
        wheel = np.cos(2 * np.pi * turns)[..., None, None].astype(np.float32)
        return uniform(0.2, 0.8, 1) + uniform(0.1, 0.3, 1) * wheel

    tens = np.tile(np.arange(len(SHAPES), dtype=np.int64), (BLOCK // len(SHAPES), 1))
    labels = rng.permuted(tens, axis=1).ravel()
    hue = labels[:, None] / len(SHAPES)
    canvas = 1 - colour() + np.zeros((SIDE, SIDE), np.float32)  # whole planes: NHWC only at the end
    axis = (2 * np.arange(SIDE, dtype=np.float32) + 1) / SIDE - 1  # centres of pixels
    for kinds, least, most, turn in ((rng.permutation(labels), 0.2, 0.35, np.pi), (labels, 0.5, 0.7, 0.5)):
        dx, dy = axis - uniform(-0.3, 0.3), axis[:, None] - uniform(-0.3, 0.3)
        angle, r = uniform(-turn, turn), uniform(least, most)
        u, v = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
        _draw(canvas, kinds, u, v, r, colour())
    canvas += 0.1 * rng.standard_normal((BLOCK, 1, SIDE, SIDE), np.float32)  # grain
    return (255 * canvas.clip(0, 1)).astype(np.uint8).transpose(0, 2, 3, 1), labels


def _draw(canvas: Array, kinds: Array, u: Array, v: Array, r: Array, colour: Array) -> None:
    """Draw in place the shape of each picture's kind, of radius r around u = v = 0."""
    distance = r * np.array([SHAPES[CLASSES[kind]](*at) for kind, *at in zip(kinds, u / r, v / r, strict=True)])
    canvas += np.clip(0.5 - SIDE / 2 * distance, 0, 1)[:, None] * (colour - canvas)  # an edge of one pixel, 2 / SIDE
