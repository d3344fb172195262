"""From images to minibatches: label noise, normalisation, augmentation, shuffling.

Everything random is keyed (see `minisam.rng`): a minibatch depends on (seed, epoch, step) and on
nothing that happened before, so two optimizers with the same seed see the same batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minisam.checks import Array, Checked, Count, Fraction, Natural, require
from minisam.rng import Stream, keyed_rng


def redraw_labels(y: Array, fraction: float, n_classes: int, seed: int = 0) -> Array:
    """A copy of y (N,) with a fraction of the labels redrawn uniformly from all classes.

    Exactly round(fraction · N) labels, chosen at random, are redrawn; one in n_classes of them
    stays right by chance.

    Raises:
        ValueError: fraction outside [0, 1], fewer classes than y has.

    >>> y = np.zeros(1000, np.int64)
    >>> int(np.count_nonzero(redraw_labels(y, 0.4, n_classes=10) == 0)) > 600
    True
    """
    require("label-noise fraction", fraction, Fraction)
    require("n_classes", n_classes, Count)
    if n_classes <= y.max(initial=0):
        raise ValueError(f"expected more than {y.max()} n_classes (the largest label), got {n_classes}")
    rng = keyed_rng(seed, Stream.LABEL_NOISE)
    chosen = rng.permutation(len(y))[: round(fraction * len(y))]
    noisy = y.copy()
    noisy[chosen] = rng.integers(n_classes, size=len(chosen))
    return noisy


@dataclass(frozen=True)
class Normalisation:
    """(x - mean) / std per channel, from uint8 images (N, H, W, C) to float32.

    Raises:
        ValueError: mean and std that are not finite numbers, as many of one as of the other, or a std not above 0.

    >>> images = np.array([[[[0]], [[255]]]], np.uint8)
    >>> Normalisation.of(images)(images).ravel().tolist()
    [-1.0, 1.0]
    """

    mean: tuple[float, ...]  # in grey levels, 0 to 255
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        with np.errstate(over="ignore"):  # in the numbers that images are normalised with
            mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        if mean.shape != std.shape or not np.isfinite([mean, std]).all() or min(std, default=1) <= 0:
            raise ValueError(f"expected finite means, and as many stds above 0, got {self.mean} and {self.std}")

    @classmethod
    def of(cls, images: Array) -> "Normalisation":
        """The normalisation that gives these images mean 0 and variance 1 per channel (a constant one becomes 0)."""
        mean = images.mean(axis=(0, 1, 2), dtype=np.float64)
        square = np.mean([np.square(x, dtype=np.float64).mean(axis=(0, 1)) for x in images], axis=0)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        std[std == 0] = 1  # a constant channel has nothing to scale
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    def __call__(self, images: Array) -> Array:
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        x = images.astype(np.float32)
        x -= mean
        x /= std
        return x


def augment(x: Array, rng: np.random.Generator, pad: int = 4) -> Array:
    """Flip each image with probability ½ and shift it by up to `pad` pixels, zeros filling the gap.

    x (N, H, W, C) is not changed. This is the flip and padded crop of CIFAR training (He et al.
    2016); zero is the mean colour of normalised images.

    >>> augment(np.ones((2, 8, 8, 3), np.float32), np.random.default_rng(0)).shape
    (2, 8, 8, 3)
    """
    N, H, W, _ = x.shape
    flips = np.asarray(rng.random(N)) < 0.5
    tops, lefts = rng.integers(0, 2 * pad + 1, size=(2, N)).tolist()
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = np.empty_like(x)
    for n in range(N):
        crop = padded[n, tops[n] : tops[n] + H, lefts[n] : lefts[n] + W]
        out[n] = crop[:, ::-1] if flips[n] else crop
    return out


@dataclass(frozen=True)
class Batches(Checked):
    """Shuffled minibatches of x (N, …) and y (N, …); the last one of an epoch may be smaller.

    Raises:
        ValueError: x and y of different lengths, or batch_size not from 1 to N.

    >>> batches = Batches(np.arange(5.0), np.arange(5), batch_size=2, seed=0)
    >>> [len(x) for x, y in batches.epoch(0)], len(batches)
    ([2, 2, 1], 3)
    """

    x: Array
    y: Array
    batch_size: Count
    seed: Natural = 0
    augmented: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.x) != len(self.y):
            raise ValueError(f"expected as many x as y, got {len(self.x)} and {len(self.y)}")
        if self.batch_size > len(self.x):
            raise ValueError(f"batch_size must be 1 to {len(self.x)}, got {self.batch_size}")

    def __len__(self) -> int:
        """Minibatches in an epoch."""
        return -(-len(self.x) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[tuple[Array, Array]]:
        """The minibatches of one epoch: a keyed permutation, cut in order."""
        order = keyed_rng(self.seed, Stream.SHUFFLE, epoch).permutation(len(self.x))
        for step in range(len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            x = self.x[chosen]
            if self.augmented:
                x = augment(x, keyed_rng(self.seed, Stream.AUGMENT, epoch, step))
            yield x, self.y[chosen]
