"""Which images a run uses: CIFAR where it is found, else the embedded stand-in."""

import os

from minisam.data.cifar import LABELS, find_cifar, load_cifar
from minisam.data.dataset import Dataset
from minisam.data.shapes import synthetic

DATASETS = (*LABELS, "synthetic")


def load(name: str | None = None, data_dir: str | os.PathLike | None = None) -> Dataset:
    """A data set by name; without a name, CIFAR-10 where it is found, else the synthetic set.

    CIFAR is searched in data_dir, else in MINISAM_DATA and then in the user's cache. A data_dir
    that was asked for is never replaced by synthetic images.

    Raises:
        FileNotFoundError: the named data set is not there.
        ValueError: an unknown name, or damaged files.

    >>> load("synthetic").x_train.shape
    (4000, 32, 32, 3)
    """
    if name == "synthetic" or (name is None and data_dir is None and find_cifar("cifar10") is None):
        return synthetic()
    return load_cifar(name or "cifar10", data_dir)
