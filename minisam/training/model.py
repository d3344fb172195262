"""A trained network on disk: one .npz file without pickle, replaced whole.

It has the weights, the choices they were trained with, and what it takes to classify an image: the
classes' names and the normalisation.
"""

import json
import reprlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import numpy as np

from minisam.checks import Array
from minisam.data import Dataset, Normalisation
from minisam.nn import Sequential, build
from minisam.training.config import Config
from minisam.training.files import LARGEST, Damaged, brief, parse_json, read_arrays, reason, require_plain, write_arrays

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
        """The class (N,) int64 of each uint8 image (N, H, W, C).

        Raises:
            TypeError: images that are not uint8, such as normalised ones.
        """
        if images.dtype != np.uint8:
            raise TypeError(f"expected images as data sets have them, uint8, got {images.dtype}")
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
        TypeError, ValueError: a model that could not be read again, such as one whose `config` names another network.
    """
    write(Path(path), model, {}, {})


def load_model(path: str | Path) -> Model:
    """Read a model that `save_model` or a checkpoint wrote.

    Raises:
        OSError: the file can't be read.
        ValueError: it is not a minisam model, or of a newer format.
    """
    return read(Path(path))[0]


def require_whole(model: Model) -> None:
    """Raise TypeError or ValueError, naming the field, unless a file can hold this model, and tell all of it."""
    for name, kind in get_type_hints(Model).items():
        if not isinstance(getattr(model, name), get_origin(kind) or kind):
            raise TypeError(f"model.{name} must be {kind.__name__}, got {type(getattr(model, name)).__name__}")
    shape, classes, normalise = model.net.input_shape, model.classes, model.normalise
    if not classes or any(type(name) is not str for name in classes):
        raise TypeError(f"model.classes must be names, got {reprlib.repr(classes)}")
    require_plain(list(classes))
    if len(shape) != 3 or len(normalise.mean) != shape[2]:
        raise ValueError(f"model.normalise must be for images of shape {shape}, got {normalise}")
    if model.net.layers != build(model.config.model, shape, len(classes), model.config.width).layers:
        raise ValueError(f"model.net must be the {model.config.model} that model.config names, got other layers")
    for name, n in (("theta", model.net.n_params), ("stats", model.net.n_stats)):
        if ((array := getattr(model, name)).shape, array.dtype) != ((n,), np.float32):
            raise ValueError(f"expected model.{name} ({n},) float32, got {array.shape} {array.dtype}")


def write(path: Path, model: Model, arrays: dict[str, Array], about: dict[str, Any]) -> None:
    """Write a model with further arrays and facts, which `read` returns beside it."""
    require_whole(model)
    about = about | {
        "format": FORMAT,
        "config": model.config.record(),
        "input_shape": list(map(int, model.net.input_shape)),
    }
    about |= {"classes": model.classes, "normalisation": asdict(model.normalise)}
    arrays = arrays | {"theta": model.theta, "stats": model.stats, "about": np.array(json.dumps(about))}
    if (size := sum(array.nbytes + 1000 for array in arrays.values())) > LARGEST:
        raise OSError(f"{path} would have {size:,} bytes, more than the {LARGEST:,} that are read")
    write_arrays(path, arrays)


def read(path: Path) -> tuple[Model, dict[str, Array], dict[str, Any]]:
    """A model, all arrays of its file and all facts: a checkpoint has more than the model's."""
    arrays = read_arrays(path)
    try:
        about = parse_json(str(arrays["about"]))
        if type(about["format"]) is int and about["format"] > FORMAT:
            raise Foreign(f"{path} has format {brief(about['format'])}, this minisam reads {FORMAT}")
        config = Config.of(about["config"])
        shape, classes = _tuple(about["input_shape"], int), _tuple(about["classes"], str)
        normalise = Normalisation(*(_tuple(about["normalisation"][key], float) for key in ("mean", "std")))
        model = Model(
            config,
            build(config.model, shape, len(classes), config.width),
            arrays["theta"],
            arrays["stats"],
            classes,
            normalise,
        )
        require_whole(model)
    except Foreign:
        raise
    except (LookupError, TypeError, ValueError) as error:
        raise Damaged(f"{path} is not a minisam model, or it is damaged ({reason(error)})") from error
    return model, arrays, about


def _tuple(values: Any, kind: type) -> tuple:
    if not values or not isinstance(values, list) or any(type(value) is not kind for value in values):
        raise TypeError(f"expected a list of {kind.__name__}")
    return tuple(values)
