"""Checkpoints, from which an interrupted run goes on.

A checkpoint is a model together with everything else that the next epoch depends on: what the optimizer
remembers, and the history. Random numbers are keyed by seed, epoch and step, so there is no
generator to save.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from minisam.checks import Array, Checked, Count, Fraction, Natural, NonNegative, require
from minisam.optim import Optimizer, memory, recall
from minisam.training.config import current
from minisam.training.environment import changes, environment
from minisam.training.files import Damaged, delete_leftovers, locked, reason, require_no_link, require_plain, say
from minisam.training.model import Foreign, Model, read, write

# what the history of a training has for every epoch, besides what was asked for
EPOCH: dict[str, Any] = dict.fromkeys(("epoch", "gradient_evaluations"), Natural)
EPOCH |= dict.fromkeys(("lr", "seconds", "loss", "accuracy"), NonNegative)
NOTHING = np.zeros(0)  # stands for None: a vector that an optimizer does not have yet


@dataclass
class State:
    """A run after some of its epochs: all that the rest depends on, besides the data."""

    model: Model
    optimizer: Optimizer
    history: list[dict[str, Any]]  # a record an epoch
    path: list[Array]  # weights after each epoch, if they were asked for


def _checked(value: Array | None, at_start: Any, theta: Array, name: str) -> Any:
    """A remembered value read from a file: a vector like theta, or a number of the same type as at the start."""
    if value is None:
        raise TypeError(f"optimizer.{name} is missing")
    if value.shape == NOTHING.shape and at_start is None:
        return None  # a vector that did not exist yet
    if not value.shape and type(number := value.item()) is type(at_start):
        if type(number) is int and not at_start <= number < 1 << 53:  # a count of steps
            raise TypeError(f"optimizer.{name} is {number}")
        return number
    if (value.shape, value.dtype) != (theta.shape, theta.dtype) or type(at_start) is int:
        raise TypeError(f"optimizer.{name} is neither a number nor a vector like theta")
    return value


def _require_same(model: Model, other: Model) -> None:
    """A checkpoint's network must be the run's, whatever its record of the run says."""
    for name in ("config", "classes", "normalise"):
        if getattr(model, name) != getattr(other, name):
            raise TypeError(f"its {name} is that of another run")
    if model.net.shapes != other.net.shapes:
        raise TypeError(f"its network takes images of shape {model.net.input_shape}")


def require_history(history: Any) -> None:
    """Raise TypeError, ValueError or KeyError unless a training could have written this history."""
    require_plain(history)
    if [epoch["epoch"] for epoch in history] != list(range(1, len(history) + 1)):
        raise TypeError("the epochs of its history do not count from 1")
    for epoch in history:
        for name, type_ in EPOCH.items():
            require(f"{name} of epoch {epoch['epoch']}", epoch[name], type_)
        if others := epoch.keys() - EPOCH.keys() - {"test_error", "diagnostics"}:
            raise TypeError(f"its history has {', '.join(sorted(others))}")
        if epoch["gradient_evaluations"] >= 1 << 53:
            raise TypeError(f"its history has {epoch['gradient_evaluations']:,} gradients")
        require("test_error", epoch.get("test_error", 0.0), Fraction)


def _checked_history(history: Any, epochs: int, run: dict[str, Any]) -> list[dict[str, Any]]:
    require_history(history)
    if not 0 < len(history) <= epochs:
        raise TypeError("the epochs of its history do not count from 1")
    every = run["evaluate_every"]
    if any(("test_error" in epoch) != (every > 0 and epoch["epoch"] % every == 0) for epoch in history[: epochs - 1]):
        raise TypeError("its history has the test error of other epochs")
    if run["diagnostics"] and not all(_are_diagnostics(epoch["diagnostics"]) for epoch in history):
        raise TypeError("its history has no diagnostics")
    return list(history)


def _are_diagnostics(found: Any) -> bool:
    """Whether these are numbers by name, and in "share" those of the layers."""
    if not isinstance(found, dict) or not isinstance(shares := found.get("share", {}), dict):
        return False
    if len(found) + len(shares) > 100:  # of which there would be a picture
        return False
    numbers = [number for name, number in found.items() if name != "share"]
    return all(type(number) is float for number in (*numbers, *shares.values()))


def _checked_path(arrays: dict[str, Array], epochs: int, theta: Array) -> list[Array]:
    path = arrays["path"]
    if (path.shape, path.dtype) != ((epochs + 1, *theta.shape), theta.dtype):
        raise TypeError(f"its path has shape {path.shape}")
    return list(path)


def _free(name: str) -> Path:
    """A path that is not in use: this name, or the same with a number."""
    paths = (Path(name if i == 1 else f"{name}-{i}") for i in count(1))
    return next(path for path in paths if not os.path.lexists(path))


@dataclass(frozen=True)
class Checkpoints(Checked):
    """The last two states of a run, in a folder beside its `file`: for m.npz these are m.checkpoints/epoch-0010.npz, …

    Raises:
        ValueError: every < 1.
    """

    file: Path
    every: Count  # epochs between two of them; the last epoch always has one
    ours: list[Path] = field(default_factory=list, init=False)  # those that this run wrote or read, oldest first

    @property
    def folder(self) -> Path:
        """Where they are. Nothing else is kept there."""
        return self.file.with_name(f"{self.file.stem}.checkpoints")

    def paths(self) -> list[Path]:
        """The existing files, newest first: by their epoch, since clocks may go backwards."""
        found = ((re.fullmatch(r"epoch-(\d+)\.npz", path.name), path) for path in self.folder.glob("epoch-*.npz"))
        numbered = ((int(match[1]), path) for match, path in found if match and not path.is_dir())
        return [path for _, path in sorted(numbered, reverse=True)]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out of the folder, and leave none behind that is empty.

        Raises:
            OSError: the folder can't be made, or another process is at work there.
        """
        require_no_link(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / ".lock"
        try:
            with locked(lock):
                try:
                    yield
                finally:
                    if not self.paths():
                        with suppress(OSError):  # Windows lets nobody delete it before its release
                            lock.unlink()
        finally:
            with suppress(OSError):  # not empty
                self.folder.rmdir()

    def delete(self) -> None:
        """Delete them, and nobody else's: the run has ended, and its outcome is kept elsewhere.

        Raises:
            OSError: the folder is a link, through which files elsewhere would be deleted.
        """
        require_no_link(self.folder)
        while self.ours:
            self.ours.pop().unlink(missing_ok=True)
        with suppress(OSError):  # the lock's owner deletes the folder
            self.folder.rmdir()

    def keep(self, state: State, run: dict[str, Any]) -> None:
        """Write the state of a run, which the record `run` identifies; then delete all but the last two of its own.

        Raises:
            OSError: it can't be written; the earlier ones are still there.
        """
        require_no_link(self.folder)
        held = memory(state.optimizer)
        arrays = {f"optimizer.{name}": NOTHING if v is None else np.asarray(v) for name, v in held.items()}
        if state.path:
            arrays["path"] = np.array(state.path)
        path = self.folder / f"epoch-{len(state.history):04}.npz"
        write(path, state.model, arrays, {"run": run, "history": state.history, "environment": environment()})
        self.ours[:] = [*(other for other in self.ours if other != path), path]
        while len(self.ours) > 2:
            self.ours.pop(0).unlink(missing_ok=True)

    def restore(self, state: State, run: dict[str, Any]) -> None:
        """Load the newest checkpoint of the same `run` into the state; without one, leave it as it is.

        A damaged checkpoint is renamed and passed over, with a message, for the one before it. A file that a
        killed process was still writing is deleted.

        Raises:
            OSError: a checkpoint can't be read.
            ValueError: a checkpoint of another run, or of a newer format; the text says what differs.
        """
        require_no_link(self.folder)
        delete_leftovers(self.folder)
        self.ours.clear()
        for path in self.paths():
            try:
                if self.ours:
                    self._require_run(path, read(path)[2], run)
                else:
                    self._restore(path, state, run)
                self.ours.insert(0, path)
            except Damaged as error:
                aside = _free(f"{path}.damaged")  # it may be somebody's, and its name will be needed
                path.rename(aside)
                say(f"{error}: passed over, and now called {aside.name}")
            except Foreign:
                if not self.ours:
                    raise

    def _require_run(self, path: Path, about: dict[str, Any], run: dict[str, Any]) -> None:
        try:
            changed = changes(current(about["run"]), run)
        except (KeyError, AttributeError) as error:
            raise Damaged(f"{path} is not a checkpoint, or it is damaged ({reason(error)})") from error
        if changed:
            cure = "repeat the options that it was made with, or choose another name"
            raise Foreign(f"{path} is of another run: {'; '.join(changed)}; {cure}")

    def _restore(self, path: Path, state: State, run: dict[str, Any]) -> None:
        model, arrays, about = read(path)
        self._require_run(path, about, run)
        try:
            _require_same(model, state.model)
            history = _checked_history(about["history"], model.config.epochs, run)
            thetas = _checked_path(arrays, len(history), model.theta) if state.path else []
            remembered = {
                name: _checked(arrays.get(f"optimizer.{name}"), at_start, model.theta, name)
                for name, at_start in memory(state.optimizer).items()
            }
            moved = changes(about["environment"], environment())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Damaged(f"{path} is not a checkpoint, or it is damaged ({reason(error)})") from error
        state.model.theta[:], state.model.stats[:] = model.theta, model.stats
        state.history[:], state.path[:] = history, thetas
        recall(state.optimizer, remembered)
        hint = f"; last digits may differ from those of an uninterrupted run, since {'; '.join(moved)}" if moved else ""
        say(f"resumed after epoch {len(history)}, from {path}{hint}")
