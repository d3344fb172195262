"""A trained model on disk: one .npz with the weights and what is needed to use them. No pickle."""

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from minisam.data import Dataset, Normalisation
from minisam.nn import Sequential, build
from minisam_study.config import Config
from minisam_study.files import replacing

FORMAT = 2  # 1 had no stats
_FLOAT32 = np.dtype(np.float32)


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
    theta: np.ndarray  # (P,) float32
    stats: np.ndarray  # running statistics, (0,) where there is no BatchNorm
    classes: tuple[str, ...]
    normalise: Normalisation

    def predict(self, images: np.ndarray) -> np.ndarray:
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
    about = {"format": FORMAT, "config": asdict(model.config), "input_shape": model.net.input_shape}
    about |= {"classes": model.classes, "normalisation": asdict(model.normalise)}
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez(file, theta=model.theta, stats=model.stats, about=np.array(json.dumps(about)))


def load_model(path: str | Path) -> Model:
    """Read a model that `save_model` wrote.

    Raises:
        OSError: the file can't be read.
        ValueError: it is not a minisam model, or of a newer format.
    """
    foreign = ValueError(f"{path} is not a minisam model, or it is damaged")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            theta, stats, about = arrays["theta"], arrays["stats"], json.loads(str(arrays["about"]))
        if about["format"] > FORMAT:
            raise ValueError(f"{path} has format {about['format']}, this minisam reads {FORMAT}")
        config = Config(**about["config"])
        net = build(config.model, tuple(about["input_shape"]), len(about["classes"]))
        normalise = Normalisation(**{key: tuple(value) for key, value in about["normalisation"].items()})
    except (KeyError, TypeError, AttributeError, EOFError, json.JSONDecodeError, zipfile.BadZipFile) as error:
        raise foreign from error
    except ValueError as error:  # NumPy's word for "that would need pickle": not an npz at all
        raise foreign if "pickle" in str(error) else error from None
    if [theta.shape, stats.shape] != [(net.n_params,), (net.n_stats,)] or {theta.dtype, stats.dtype} != {_FLOAT32}:
        raise foreign
    return Model(config, net, theta, stats, tuple(about["classes"]), normalise)
