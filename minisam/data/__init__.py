"""What a network learns from: CIFAR as its authors distribute it, or an embedded stand-in."""

import os

from minisam.data.batches import Batches, Normalisation, augment, redraw_labels, stratified
from minisam.data.cifar import LABELS, available, cache_dir, find_cifar, load_cifar
from minisam.data.dataset import Dataset
from minisam.data.download import fetch
from minisam.data.synthetic import synthetic

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


__all__ = [
    "DATASETS", "Batches", "Dataset", "Normalisation", "augment", "available", "cache_dir", "fetch", "find_cifar",
    "load", "load_cifar", "redraw_labels", "stratified", "synthetic",
]  # fmt: skip
