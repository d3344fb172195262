"""Which images a run uses: CIFAR if it is found, otherwise the embedded stand-in."""

import os

from minisam.data.cifar import LABELS, find_cifar, load_cifar
from minisam.data.dataset import Dataset
from minisam.data.shapes import synthetic

DATASETS = (*LABELS, "synthetic")


def load(name: str | None = None, data_dir: str | os.PathLike | None = None) -> Dataset:
    """A data set by name; without a name, CIFAR-10 if it is found, otherwise the synthetic set.

    CIFAR is looked for in data_dir if that is given, otherwise in MINISAM_DATA and then in the user's
    cache. With a data_dir, missing images are an error and never replaced by synthetic ones.

    Raises:
        FileNotFoundError: the named data set is not there.
        ValueError: an unknown name, or damaged files.

    >>> load("synthetic").x_train.shape
    (4000, 32, 32, 3)
    """
    if name == "synthetic" or (name is None and data_dir is None and find_cifar("cifar10") is None):
        return synthetic()
    return load_cifar(name or "cifar10", data_dir)
