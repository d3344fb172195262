"""Many runs: in this process, in several, or wherever an executor takes them; each is kept as soon as it is done."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minisam.checks import Count, Natural, require
from minisam.data import Dataset
from minisam.kernels import compile_all
from minisam.study.executors import local_pool
from minisam.study.store import Store
from minisam.study.tasks import Outcome, Task, work
from minisam.training.config import FAMILY, Config
from minisam.training.files import reason, say


def run_all(
    configs: Sequence[Config],
    dataset: Dataset,
    evaluate_every: int = 0,
    images: int = 0,
    *,
    jobs: int = 1,
    executor: Executor | None = None,
    folder: Path | None = None,
) -> list[Outcome]:
    """Train every config. The outcomes do not depend on where they are computed.

    At most `jobs` runs are under way at a time: in this process, in that many local ones that share its threads, or
    wherever `executor` takes them. With `images` the curvature and sharpness of each run are measured on that many of
    the first training images, or on all if there are fewer. With a `folder` every finished run is kept there at once,
    and not done again by the next call; unfinished ones leave checkpoints there, if their worker is on this machine.

    A run that diverges does not stop the others: its outcome says so.

    Raises:
        ValueError: jobs < 1, or evaluate_every or images below 0.
        OSError: the folder can't be written, or another process uses it.
        RuntimeError: a worker failed.
    """
    require("jobs", jobs, Count)
    require("evaluate_every", evaluate_every, Natural)
    require("images", images, Natural)
    about = (dataset.name, len(dataset.y_train), len(dataset.y_test), dataset.checksum)
    asked = [Task(config, evaluate_every, images, *about) for config in configs]
    todo = dict.fromkeys(asked)  # a config given twice is trained once
    outcomes: dict[Task, Outcome] = {}
    with ExitStack() as stack:
        store = None
        if folder is not None:
            store = stack.enter_context(Store.open(folder))
            outcomes = {task: found for task in todo if (found := store.load(task, dataset))}
            if outcomes:
                say(f"{len(outcomes)} of {len(todo)} runs are in {folder} already")
        left = [task for task in todo if task not in outcomes]
        total, done = sum(map(_epochs, todo)), sum(map(_epochs, outcomes))
        bar = stack.enter_context(
            tqdm(None, "all runs", total, initial=done, unit="epoch", leave=False, disable=not left)
        )
        jobs = min(jobs, len(left))
        finished: Iterator[tuple[Task, Outcome]]
        if executor is not None:  # its workers may have other disks
            finished = _finished(left, executor, jobs, dataset, None)
        elif jobs > 1:
            compile_all(np.dtype(np.float32))  # once, here: workers load the result from disk
            finished = _finished(left, stack.enter_context(local_pool(jobs)), jobs, dataset, folder)
        else:
            finished = ((task, _here(task, dataset, folder)) for task in left)
        for task, outcome in finished:
            if store:
                store.keep(task, outcome)
            outcomes[task] = outcome
            bar.update(_epochs(task))
            bar.set_postfix_str(f"{len(outcomes)}/{len(todo)} runs")
    return [outcomes[task] for task in asked]


def _epochs(task: Task) -> int:
    """Passes over the data, twice as many for methods that take two gradients per step: for the progress bar."""
    return task.config.epochs * (2 if task.config.optimizer in FAMILY else 1)


def _here(task: Task, dataset: Dataset, folder: Path | None) -> Outcome:
    outcome = work(task, dataset, folder, progress=f"{task.config.label:<14}")
    assert outcome is not None  # None would mean that the data are missing
    return outcome


def _finished(
    tasks: Sequence[Task], executor: Executor, most: int, dataset: Dataset, folder: Path | None
) -> Iterator[tuple[Task, Outcome]]:
    """Each task and its outcome as soon as it is done. The data travel only to workers that do not have them."""
    waiting: dict[Future, Task] = {}
    queue = iter(tasks)
    try:
        while True:
            new = islice(queue, most - len(waiting))
            waiting |= {executor.submit(work, task, None, folder): task for task in new}
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                task = waiting.pop(future)
                try:
                    outcome = future.result()
                except (ValueError, OSError, ArithmeticError):
                    raise
                except Exception as error:  # each executor has its own exception for "the worker is gone"
                    what = f"a worker failed with {task.config.label}, seed {task.config.seed}"
                    why = f"{type(error).__name__} {reason(error)}"
                    raise RuntimeError(
                        f"{what}: {why}; finished runs are kept, and the same command goes on"
                    ) from error
                if outcome is None:
                    waiting[executor.submit(work, task, dataset, folder)] = task
                else:
                    yield task, outcome
    finally:
        for future in waiting:
            future.cancel()
