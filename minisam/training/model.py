"""A trained network on disk: one .npz file without pickle, replaced whole.

It has the weights, the choices they were trained with, and what it takes to classify an image: the
classes' names and the normalisation.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisam.checks import Array
from minisam.data import Dataset, Normalisation
from minisam.nn import Sequential, build
from minisam.training.config import Config
from minisam.training.files import Damaged, brief, parse_json, read_arrays, reason, require_plain, write_arrays

FORMAT = 2  # 1 had no stats


class Foreign(ValueError):
    """A file that is whole, but of a newer format or of another run."""


@dataclass(frozen=True)
class Model:
    """A network with trained weights, which takes images as data sets store them.

    >>> from minisam.nn import mlp
    >>> net = mlp((8, 8, 3), 2)
    >>> normalise = Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3)
    >>> model = Model(Config(), net, np.zeros(net.n_params, np.float32), net.init_stats(), ("cat", "dog"), normalise)
    >>> model.predict(np.zeros((1, 8, 8, 3), np.uint8)).tolist()
    [0]
    """

    config: Config
    net: Sequential
    theta: Array  # (P,) float32
    stats: Array  # running statistics, (0,) where there is no BatchNorm
    classes: tuple[str, ...]
    normalise: Normalisation

    def predict(self, images: Array) -> Array:
        """The class (N,) int64 of each uint8 image (N, H, W, C)."""
        return self.net.predict(self.theta, self.normalise(images), stats=self.stats)

    def require_classes(self, dataset: Dataset) -> None:
        """Raise ValueError unless the data set has the classes that the model was trained on."""
        if dataset.classes != self.classes:
            known, got = (f"{len(c)} classes ({c[0]}, …)" for c in (self.classes, dataset.classes))
            raise ValueError(f"the model knows {known}, {dataset.name} has {got}")

    def test_error(self, dataset: Dataset) -> float:
        """The fraction of the data set's test images classified wrongly.

        Raises:
            ValueError: a data set with other classes than the model was trained on.
        """
        self.require_classes(dataset)
        return float(np.mean(self.predict(dataset.x_test) != dataset.y_test))


def save_model(path: str | Path, model: Model) -> None:
    """Write a model to `path`, which should end in .npz; an old file is replaced whole or not.

    Raises:
        OSError: the file can't be written.
    """
    write(Path(path), model, {}, {})


def load_model(path: str | Path) -> Model:
    """Read a model that `save_model` or a checkpoint wrote.

    Raises:
        OSError: the file can't be read.
        ValueError: it is not a minisam model, or of a newer format.
    """
    return read(Path(path))[0]


def write(path: Path, model: Model, arrays: dict[str, Array], about: dict[str, Any]) -> None:
    """Write a model with further arrays and facts, which `read` returns beside it."""
    about = about | {"format": FORMAT, "config": model.config.record(), "input_shape": model.net.input_shape}
    about |= {"classes": model.classes, "normalisation": asdict(model.normalise)}
    write_arrays(path, arrays | {"theta": model.theta, "stats": model.stats, "about": np.array(json.dumps(about))})


def read(path: Path) -> tuple[Model, dict[str, Array], dict[str, Any]]:
    """A model, all arrays of its file and all facts: a checkpoint has more than the model's."""
    try:
        arrays = read_arrays(path)
        theta, stats, about = arrays["theta"], arrays["stats"], parse_json(str(arrays["about"]))
        if type(about["format"]) is int and about["format"] > FORMAT:
            raise Foreign(f"{path} has format {brief(about['format'])}, this minisam reads {FORMAT}")
        config = Config.of(about["config"])
        shape, classes = _tuple(about["input_shape"], int), _tuple(about["classes"], str)
        require_plain(about["classes"])
        mean, std = (_tuple(about["normalisation"][key], float) for key in ("mean", "std"))
        if len(shape) != 3 or min(shape) < 1 or not len(mean) == len(std) == shape[2]:
            raise ValueError(f"images of shape {shape} with mean {mean}, deviation {std}")
        if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise ValueError(f"mean {mean}, deviation {std}")
        net = build(config.model, shape, len(classes))
        expected = [(net.n_params,), (net.n_stats,), np.dtype(np.float32), np.dtype(np.float32)]
        if (found := [theta.shape, stats.shape, theta.dtype, stats.dtype]) != expected:
            raise ValueError(f"weights and statistics {found}, expected {expected}")
    except (Foreign, Damaged):
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{path} is not a minisam model, or it is damaged ({reason(error)})") from error
    return Model(config, net, theta, stats, classes, Normalisation(mean, std)), arrays, about


def _tuple(values: Any, kind: type) -> tuple:
    if not values or not isinstance(values, list) or any(type(value) is not kind for value in values):
        raise TypeError(f"expected a list of {kind.__name__}")
    return tuple(values)
