"""Which images a run uses: CIFAR if it is found, otherwise the embedded stand-in."""

import os

from minisam.data.cifar import LABELS, find_cifar, load_cifar
from minisam.data.dataset import Dataset
from minisam.data.shapes import synthetic

DATASETS = (*LABELS, "synthetic")


def load(name: str | None = None, data_dir: str | os.PathLike | None = None) -> Dataset:
    """A data set by name; without a name, CIFAR-10 if it is found, otherwise the synthetic set.

    CIFAR is looked for in data_dir if that is given, otherwise in MINISAM_DATA and then in the user's
    cache. If either names a place, missing images are an error and never replaced by synthetic ones.

    Raises:
        FileNotFoundError: the named data set is not there, or the folder that MINISAM_DATA names.
        ValueError: an unknown name, or damaged files.

    >>> load("synthetic").x_train.shape
    (4000, 32, 32, 3)
    """
    named_a_place = data_dir is not None or os.environ.get("MINISAM_DATA")
    if name == "synthetic" or (name is None and not named_a_place and find_cifar("cifar10") is None):
        return synthetic()
    return load_cifar(name or "cifar10", data_dir)
