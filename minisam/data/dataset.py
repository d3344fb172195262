"""A data set: images, labels, and where they came from.

Readers and generators return a `Dataset`; training code sees nothing else. Its checksum identifies
the numbers that were used, not the file that held them. So two people can tell whether they ran the
same experiment, even if one has the full archive and the other a subset.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minisam.checks import require_array


@dataclass(frozen=True, eq=False)  # eq=False: comparing arrays gives an array, not a truth value
class Dataset:
    """Training and test images with their labels.

    x_train (N, 32, 32, 3) and x_test (M, 32, 32, 3) are uint8, NHWC; y_train (N,) and y_test (M,)
    are int64 indices into `classes`. `source` names the files, or is "embedded" if there were none.

    Raises:
        TypeError: images or labels that are no arrays.
        ValueError: shapes that do not fit, or no images.

    >>> x, y = np.zeros((3, 32, 32, 3), np.uint8), np.arange(3)
    >>> data = Dataset("synthetic", "embedded", ("a", "b", "c"), x, y, x[:2], y[:2])
    >>> data.first(n_train=2).y_train
    array([0, 1])
    >>> data.first(n_test=5)
    Traceback (most recent call last):
    ValueError: expected n_test between 1 and 2 (all there are), got 5
    """

    name: str
    source: str
    classes: tuple[str, ...]
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        for part in ("train", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            require_array(f"x_{part}", x)
            require_array(f"y_{part}", y)
            if x.ndim != 4 or x.shape[1:] != self.x_train.shape[1:] or y.shape != x.shape[:1] or not len(y):
                expected = f"x_{part} (N, H, W, C), like x_train, and y_{part} (N,) with N ≥ 1"
                raise ValueError(f"expected {expected}, got {x.shape} and {y.shape}")

    @property
    def synthetic(self) -> bool:
        """Whether the images were generated rather than photographed."""
        return self.name == "synthetic"

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of all images and labels, in hexadecimal: the same numbers have the same checksum."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            # Shapes go in, too, or moving records from one part to the next would go unnoticed.
            # Little-endian, or the checksum would depend on the machine.
            digest.update(repr(array.shape).encode())
            digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()

    def first(self, n_train: int | None = None, n_test: int | None = None) -> "Dataset":
        """Return the first n_train and n_test records as views; None keeps them all.

        Raises ValueError for a number below 1 or above the number of records.
        """
        for argument, n, y in (("n_train", n_train, self.y_train), ("n_test", n_test, self.y_test)):
            if n is not None and not 1 <= n <= len(y):
                raise ValueError(f"expected {argument} between 1 and {len(y)} (all there are), got {n}")
        parts = self.x_train[:n_train], self.y_train[:n_train], self.x_test[:n_test], self.y_test[:n_test]
        return Dataset(self.name, self.source, self.classes, *parts)
