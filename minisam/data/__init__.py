"""What a network learns from: CIFAR as its authors distribute it, cut into keyed minibatches."""

from minisam.data.batches import Batches, Normalisation, augment, redraw_labels, stratified
from minisam.data.cifar import LABELS, available, cache_dir, find_cifar, load_cifar
from minisam.data.dataset import Dataset

__all__ = [
    "LABELS", "Batches", "Dataset", "Normalisation", "augment", "available", "cache_dir", "find_cifar", "load_cifar",
    "redraw_labels", "stratified",
]  # fmt: skip
