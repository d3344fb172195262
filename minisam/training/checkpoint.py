"""A training run on disk: the model it made, and checkpoints from which an interrupted run goes on.

Both are one .npz file without pickle, replaced whole. A checkpoint is a model with what the next epoch depends on
beside it: what the optimizer remembers, and the history. Random numbers are keyed by seed, epoch and step, so there is
no generator to save.
"""

import json
import math
import re
import sys
from dataclasses import asdict, dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minisam.checks import Array, Checked, Count
from minisam.data import Dataset, Normalisation
from minisam.nn import Sequential, build
from minisam.optim import Optimizer, memory, recall
from minisam.training.config import Config
from minisam.training.environment import changes, environment
from minisam.training.files import Damaged, parse_json, read_arrays, reason, write_arrays

FORMAT = 2  # 1 had no stats
NOTHING = np.zeros(0)  # stands for None: a vector that an optimizer does not have yet


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
    _write(Path(path), model, {}, {})


def load_model(path: str | Path) -> Model:
    """Read a model that `save_model` or a checkpoint wrote.

    Raises:
        OSError: the file can't be read.
        ValueError: it is not a minisam model, or of a newer format.
    """
    return _read(Path(path))[0]


def _write(path: Path, model: Model, arrays: dict[str, Array], about: dict[str, Any]) -> None:
    about = about | {"format": FORMAT, "config": model.config.record(), "input_shape": model.net.input_shape}
    about |= {"classes": model.classes, "normalisation": asdict(model.normalise)}
    write_arrays(path, arrays | {"theta": model.theta, "stats": model.stats, "about": np.array(json.dumps(about))})


def _read(path: Path) -> tuple[Model, dict[str, Array], dict[str, Any]]:
    try:
        arrays = read_arrays(path)
        theta, stats, about = arrays["theta"], arrays["stats"], parse_json(str(arrays["about"]))
        if type(about["format"]) is int and about["format"] > FORMAT:
            raise Foreign(f"{path} has format {about['format']}, this minisam reads {FORMAT}")
        config = Config.of(about["config"])
        shape, classes = _tuple(about["input_shape"], int), _tuple(about["classes"], str)
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


@dataclass
class State:
    """A run after some of its epochs: all that the rest depends on, besides the data."""

    model: Model
    optimizer: Optimizer
    history: list[dict[str, Any]]  # a record an epoch
    path: list[Array]  # weights after each epoch, where somebody asked for them


def _checked(value: Array | None, at_start: Any, theta: Array, name: str) -> Any:
    """What an optimizer is to remember under this name: a vector like theta, or a number as at the start."""
    if value is not None and value.shape == NOTHING.shape and at_start is None:
        return None
    if value is not None and not value.shape and type(value.item()) is type(at_start):
        return value.item()
    if value is None or (value.shape, value.dtype) != (theta.shape, theta.dtype) or type(at_start) is int:
        raise TypeError(f"optimizer.{name}")
    return value


@dataclass(frozen=True)
class Checkpoints(Checked):
    """The last two states of a run, in files beside `file`: for m.npz they are m.epoch-0010.npz, …

    Raises:
        ValueError: every < 1.
    """

    file: Path
    every: Count  # epochs between two of them

    def paths(self) -> list[Path]:
        """Those that exist, the newest first: by their epoch, since clocks may go backwards."""
        name = re.compile(re.escape(self.file.stem) + r"\.epoch-(\d+)" + re.escape(self.file.suffix))
        found = ((name.fullmatch(path.name), path) for path in self.file.parent.glob("*.epoch-*"))
        return [path for _, path in sorted(((int(match[1]), path) for match, path in found if match), reverse=True)]

    def keep(self, state: State, run: dict[str, Any]) -> None:
        """Write a state of `run`, the record of what it computes; then delete all but the last two.

        Raises:
            OSError: it can't be written; those before it are still there.
        """
        held = memory(state.optimizer)
        arrays = {f"optimizer.{name}": NOTHING if v is None else np.asarray(v) for name, v in held.items()}
        if state.path:
            arrays["path"] = np.array(state.path)
        path = self.file.with_name(f"{self.file.stem}.epoch-{len(state.history):04}{self.file.suffix}")
        _write(path, state.model, arrays, {"run": run, "history": state.history, "environment": environment()})
        for old in self.paths()[2:]:
            old.unlink()

    def restore(self, state: State, run: dict[str, Any]) -> None:
        """Bring a state to the newest checkpoint of the same `run`; it stays as it is where there is none.

        A damaged checkpoint is passed over with a message, for the one before it; what a killed process was
        writing is deleted.

        Raises:
            OSError: a checkpoint can't be read.
            ValueError: a checkpoint of another run, or of a newer format; the text says what differs.
        """
        for leftover in self.file.parent.glob(f".{escape(self.file.stem)}.epoch-*"):
            leftover.unlink()
        for path in self.paths():
            try:
                self._restore(path, state, run)
            except Damaged as error:
                tqdm.write(f"{error}: passed over", file=sys.stderr)
            else:
                return

    def _restore(self, path: Path, state: State, run: dict[str, Any]) -> None:
        model, arrays, about = _read(path)
        try:
            before, history, theta = about["run"], list(about["history"]), model.theta
            if changed := changes(before, run):
                raise Foreign(f"{path} is of another run: {'; '.join(changed)}")
            remembered = {
                name: _checked(arrays.get(f"optimizer.{name}"), at_start, theta, name)
                for name, at_start in memory(state.optimizer).items()
            }
            moved = changes(about["environment"], environment())
            so_far = [
                (epoch["epoch"], type(epoch["gradient_evaluations"]), type(epoch["seconds"])) for epoch in history
            ]
            if (
                so_far != [(i + 1, int, float) for i in range(len(history))]
                or not 0 < len(history) <= model.config.epochs
            ):
                raise TypeError("another history")
            thetas = list(arrays["path"]) if state.path else []
        except (KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{path} is not a checkpoint, or it is damaged ({reason(error)})") from error
        state.model.theta[:], state.model.stats[:] = theta, model.stats
        state.history[:], state.path[:] = history, thetas
        recall(state.optimizer, remembered)
        hint = f"; last digits may differ from those of an uninterrupted run, since {'; '.join(moved)}" if moved else ""
        tqdm.write(f"resumed after epoch {len(history)}, from {path}{hint}", file=sys.stderr)
