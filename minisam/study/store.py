"""Finished runs on disk: each is kept as soon as it is done, and found again by everything it depends on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minisam.data import Dataset
from minisam.study.tasks import Outcome, Task, require_outcome
from minisam.training.checkpoint import Checkpoints
from minisam.training.files import (
    Damaged,
    delete_leftovers,
    locked,
    parse_json,
    read_arrays,
    reason,
    require_no_link,
    say,
    write_arrays,
)


@dataclass(frozen=True)
class Store:
    """Finished tasks in a folder: one file per task, replaced as a whole."""

    folder: Path

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator["Store"]:
        """The store in a folder, which is made if missing and locked against other processes.

        Raises:
            OSError: the folder can't be written, or another process has it open.
        """
        require_no_link(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            delete_leftovers(folder)
            try:
                yield cls(folder)
            finally:
                delete_leftovers(folder)

    def load(self, task: Task, dataset: Dataset) -> Outcome | None:
        """The kept outcome of a task on its data; None if there is none, or (with a message) if its file is damaged.

        Raises:
            OSError: a folder is in its place.
        """
        path = self.folder / f"{task.name}.npz"
        if path.is_dir():  # nothing could take its place: better said before the training
            raise OSError(f"expected a kept run, or nothing, got the folder {path}: remove it")
        try:
            arrays = read_arrays(path)
            about = parse_json(str(arrays["about"]))
            outcome = Outcome(about["outcome"], arrays["predictions"])
            if about["task"] != parse_json(json.dumps(task.key)):
                raise Damaged(f"{path} holds another task's outcome")
            require_outcome(task, outcome, dataset)
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = error if isinstance(error, Damaged) else f"{path} is damaged ({reason(error)})"
            say(f"{problem}: the run is done again")
            return None
        return outcome

    def keep(self, task: Task, outcome: Outcome) -> None:
        """Write a finished task, and delete its checkpoints."""
        path = self.folder / f"{task.name}.npz"
        about = json.dumps({"task": task.key, "outcome": outcome.record})
        write_arrays(path, {"about": np.array(about), "predictions": outcome.predictions})
        checkpoints = Checkpoints(path, every=1)
        checkpoints.ours[:] = checkpoints.paths()  # whichever process wrote them
        checkpoints.delete()
