"""What a network learns from: CIFAR as its authors distribute it or a synthetic stand-in, cut into minibatches."""

from minisam.data.batches import Batches, Normalisation, augment, redraw_labels
from minisam.data.cifar import LABELS, available, cache_dir, find_cifar, load_cifar
from minisam.data.dataset import Dataset
from minisam.data.shapes import synthetic
from minisam.data.sources import DATASETS, load

__all__ = [
    "DATASETS", "LABELS", "Batches", "Dataset", "Normalisation", "augment", "available", "cache_dir", "find_cifar",
    "load", "load_cifar", "redraw_labels", "synthetic",
]  # fmt: skip
