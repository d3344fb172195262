"""One run as a task: a plain function and its argument, which travel to a worker, and the outcome that comes back.

A run is a pure function of its Config and the data. So runs can be computed in any order, in any process, on any
machine, and again if a worker was lost; and a run that is on disk need not be computed again. `work` computes one, in
this process or in a worker of any `concurrent.futures.Executor`.
"""

import hashlib
import json
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import minisam
from minisam.checks import Array, Fraction, Natural, NonNegative, require
from minisam.data import Dataset, load, redraw_labels
from minisam.study.geometry import mean_loss, measure, require_geometry
from minisam.training.checkpoint import Checkpoints, require_history
from minisam.training.config import Config
from minisam.training.environment import environment
from minisam.training.files import require_plain
from minisam.training.loop import Diverged, Prepared, network, train

RHO = 0.05  # the radius within which sharpness is measured
# of measuring curvature and sharpness, once per run
EFFORT: dict[str, Any] = {"samples": 5, "slices": 0, "steps": 8, "starts": 1, "directions": 1, "tolerance": 3e-3}
SAVES = 5  # checkpoints per run, about evenly spread


class Outcome(NamedTuple):
    """The result of a run, as a sweep keeps it."""

    record: dict[str, Any]  # its config and its numbers, or "diverged" and why; only values that JSON can hold
    predictions: Array  # (N_test,) uint8 or uint16; (0,) if it diverged

    @property
    def diverged(self) -> str | None:
        """Why there are no numbers, or None."""
        return self.record.get("diverged")


NUMBERS = ("test_error", "train_error", "gradient_evaluations", "seconds", "history")  # of a Run, in its outcome


class Task(NamedTuple):
    """One run, and how to measure it."""

    config: Config
    evaluate_every: int  # epochs between evaluations on the test images
    images: int  # training images on which curvature and sharpness are measured; 0: not at all
    dataset: str  # the data's name, size and checksum: a worker that has them needs no copy
    n_train: int
    n_test: int
    checksum: str

    @property
    def key(self) -> dict[str, Any]:
        """Everything that the outcome depends on."""
        versions = {"minisam": minisam.__version__}  # another version may give other numbers
        return versions | {"rho": RHO, "effort": EFFORT} | self._asdict() | {"config": asdict(self.config)}

    @property
    def name(self) -> str:
        """The stem of its files' names."""
        digest = hashlib.sha256(json.dumps(self.key).encode()).hexdigest()
        return f"{self.config.model}-{self.config.optimizer}-seed{self.config.seed}-{digest[:16]}"


def require_outcome(task: Task, outcome: Outcome, dataset: Dataset) -> None:
    """Raise ValueError, TypeError or KeyError unless this could be the outcome of the task, as `work` returns it."""
    record, predictions = outcome.record, outcome.predictions
    require_plain(record)
    json.dumps(record, allow_nan=False)
    found = set(record) - {"config", "environment"}
    if record["config"] != task.config.record() or not isinstance(record["environment"], dict):
        raise ValueError("another config, or no environment")
    where = f"{task.config.label} on {task.config.model}, seed {task.config.seed}: "
    if found == {"diverged"} and str(outcome.diverged).startswith(where):  # it is shown as a reason
        return
    if found != {*NUMBERS, "weights", "geometry"} or type(record["weights"]) is not str:
        raise ValueError(f"it has {', '.join(sorted(found))}")
    require_numbers(record)
    require("seconds", record["seconds"], NonNegative)
    every, epochs = task.evaluate_every, task.config.epochs
    if len(record["history"]) != epochs:  # which may be any number
        raise ValueError(f"a history of {len(record['history'])} epochs")
    looks = [n == epochs or (every > 0 and n % every == 0) for n in range(1, epochs + 1)]
    if ["test_error" in epoch for epoch in record["history"]] != looks:
        raise ValueError("a history of other epochs, or with the test error of others")
    if predictions.shape != (task.n_test,) or predictions.dtype.kind != "u":
        raise ValueError(f"predictions {predictions.dtype} of shape {predictions.shape}")
    if predictions.max() >= len(dataset.classes) or np.mean(predictions != dataset.y_test) != record["test_error"]:
        raise ValueError("predictions of other classes, or with another test error than it says")
    if task.images:
        require_geometry(record["geometry"])
    elif record["geometry"] is not None:
        raise ValueError("geometry that was not asked for")


def require_numbers(record: dict[str, Any]) -> None:
    """Raise ValueError, TypeError or KeyError unless a run could have these numbers (besides times)."""
    for name, type_ in {"test_error": Fraction, "train_error": Fraction, "gradient_evaluations": Natural}.items():
        require(name, record[name], type_)
    require_history(record["history"])


_prepared: dict[str, Prepared] = {}  # the data of this process, by checksum
_preparing = threading.Lock()


def _data(task: Task, shipped: Dataset | None) -> Prepared | None:
    global _prepared
    with _preparing:  # Dask may run several tasks in the threads of one process
        if task.checksum not in _prepared:
            dataset = shipped
            if dataset is None:
                with suppress(FileNotFoundError, ValueError):
                    found = load(task.dataset).first(task.n_train, task.n_test)
                    dataset = found if found.checksum == task.checksum else None
            if dataset is None:
                return None
            _prepared = {task.checksum: Prepared.of(dataset)}
        return _prepared[task.checksum]


def work(
    task: Task, shipped: Dataset | None = None, folder: Path | None = None, progress: bool | str = False
) -> Outcome | None:
    """Do one task in this process; None if the process has no access to the data and none were shipped with the task.

    With a `folder`, checkpoints are kept there, and the same task resumes from them.
    """
    data = _data(task, shipped)
    if data is None:
        return None
    config, checkpoints = task.config, None
    if folder is not None:
        checkpoints = Checkpoints(folder / f"{task.name}.npz", every=max(1, config.epochs // SAVES))
    record: dict[str, Any] = {"config": config.record(), "environment": environment()}
    try:
        run = train(config, data, task.evaluate_every, progress, checkpoints=checkpoints)
    except Diverged as failure:
        return Outcome(record | {"diverged": str(failure)}, np.empty(0, np.uint8))
    record |= {key: getattr(run, key) for key in NUMBERS}
    record["weights"] = hashlib.sha256(run.theta.tobytes() + run.stats.tobytes()).hexdigest()
    record["geometry"] = None
    if task.images:
        y = redraw_labels(data.y_train, config.noise, len(data.classes), config.seed)  # the labels it was trained on
        objective = mean_loss(network(config, data), data.x_train[: task.images], y[: task.images], run.stats)
        record["geometry"] = measure(objective, run.theta, RHO, **EFFORT)
    return Outcome(record, run.test_predictions.astype(np.min_scalar_type(len(data.classes) - 1)))
