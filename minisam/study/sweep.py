"""Many runs, on the cores of this machine or wherever an executor takes them; each is kept as soon as it is done.

A run is a pure function of its Config and the data. So runs can be computed in any order, in any process, on any
machine, and once more where a worker was lost; and one that is on disk need not be computed again. `work` is what
travels to a worker: a plain function, for whatever `concurrent.futures.Executor` there is.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import minisam
from minisam.checks import Array, Count, require
from minisam.data import Dataset, load, redraw_labels
from minisam.kernels import get_threads, set_threads
from minisam.kernels.compiled import compile_all
from minisam.study.geometry import mean_loss, measure
from minisam.training.checkpoint import Checkpoints
from minisam.training.config import FAMILY, Config
from minisam.training.environment import environment
from minisam.training.files import Damaged, locked, parse_json, read_arrays, write_arrays
from minisam.training.loop import Diverged, Prepared, network, train

RHO = 0.05  # the radius within which sharpness is measured
EFFORT: dict[str, Any] = {"samples": 5, "slices": 0, "steps": 8, "starts": 1, "directions": 1, "tolerance": 3e-3}
SAVES = 5  # checkpoints a run


class Outcome(NamedTuple):
    """What a sweep keeps of a run."""

    record: dict[str, Any]  # its config and its numbers, or "diverged" and why; nothing that JSON has not
    predictions: Array  # (N_test,) uint8 or uint16; (0,) where it diverged

    @property
    def diverged(self) -> str | None:
        """Why there are no numbers, or None."""
        return self.record.get("diverged")


class Task(NamedTuple):
    """One run, and what is to be found out about it."""

    config: Config
    evaluate_every: int  # epochs between looks at the test images
    images: int  # training images on which curvature and sharpness are measured; 0: not at all
    dataset: str  # the data's name, size and checksum: a worker that has them needs no copy
    n_train: int
    n_test: int
    checksum: str

    @property
    def key(self) -> dict[str, Any]:
        """All that the outcome depends on."""
        versions = {"minisam": minisam.__version__}  # another one may have other numbers
        return versions | {"rho": RHO, "effort": EFFORT} | self._asdict() | {"config": asdict(self.config)}

    @property
    def name(self) -> str:
        """Of the files that are kept of it."""
        digest = hashlib.sha256(json.dumps(self.key).encode()).hexdigest()
        return f"{self.config.model}-{self.config.optimizer}-seed{self.config.seed}-{digest[:16]}"


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
    """Do one task, here; None if this process has not the data and none were shipped with it.

    In `folder`, if there is one, checkpoints are kept, from which the task goes on when it is done again.
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
    numbers = ("test_error", "train_error", "gradient_evaluations", "seconds", "history")
    record |= {key: getattr(run, key) for key in numbers}
    record["weights"] = hashlib.sha256(run.theta.tobytes() + run.stats.tobytes()).hexdigest()
    record["geometry"] = None
    if task.images:
        y = redraw_labels(data.y_train, config.noise, len(data.classes), config.seed)  # as it was trained on
        objective = mean_loss(network(config, data), data.x_train[: task.images], y[: task.images], run.stats)
        record["geometry"] = measure(objective, run.theta, RHO, **EFFORT)
    return Outcome(record, run.test_predictions.astype(np.min_scalar_type(len(data.classes) - 1)))


@dataclass(frozen=True)
class Store:
    """Finished tasks on disk: a file each, replaced whole."""

    folder: Path

    def load(self, task: Task) -> Outcome | None:
        """What was kept of a task; None if nothing was. A damaged file counts as none, with a message."""
        path = self.folder / f"{task.name}.npz"
        try:
            arrays = read_arrays(path)
            about = parse_json(str(arrays["about"]))
            outcome = Outcome(about["outcome"], arrays["predictions"])
            if about["task"] != parse_json(json.dumps(task.key)) or (
                outcome.diverged is None and outcome.predictions.shape != (task.n_test,)
            ):
                raise Damaged(f"{path} holds something else")
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            tqdm.write(f"{error if isinstance(error, Damaged) else f'{path} is damaged'}: done again", file=sys.stderr)
            return None
        return outcome

    def keep(self, task: Task, outcome: Outcome) -> None:
        """Write a finished task, and delete the checkpoints on the way to it."""
        path = self.folder / f"{task.name}.npz"
        about = json.dumps({"task": task.key, "outcome": outcome.record})
        write_arrays(path, {"about": np.array(about), "predictions": outcome.predictions})
        for checkpoint in Checkpoints(path, every=1).paths():
            checkpoint.unlink()


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
    """Train every config. What comes out does not depend on who computes it.

    At most `jobs` runs are under way at a time: in this process, in as many local ones that share its
    threads, or wherever `executor` takes them. With `images` the curvature and sharpness of each run are
    measured on its first training images. In `folder` every finished run is kept at once, and not done
    again by the next call; unfinished ones leave checkpoints there, if their worker is on this machine.

    A run that diverges is no reason to lose the others: its outcome says so.

    Raises:
        ValueError: jobs < 1.
        OSError: the folder can't be written, or is another process's.
        RuntimeError: a worker failed.
    """
    require("jobs", jobs, Count)
    about = (dataset.name, len(dataset.y_train), len(dataset.y_test), dataset.checksum)
    asked = [Task(config, evaluate_every, images, *about) for config in configs]
    todo = dict.fromkeys(asked)  # the same twice is done once
    outcomes: dict[Task, Outcome] = {}
    with ExitStack() as stack:
        store = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / ".lock"))
            _clean(folder)
            stack.callback(_clean, folder)
            store = Store(folder)
            outcomes = {task: found for task in todo if (found := store.load(task))}
            if outcomes:
                tqdm.write(f"{len(outcomes)} of {len(todo)} runs are in {folder} already", file=sys.stderr)
        left = [task for task in todo if task not in outcomes]
        total, done = sum(map(_epochs, todo)), sum(map(_epochs, outcomes))
        bar = stack.enter_context(
            tqdm(None, "all runs", total, initial=done, unit="epoch", leave=False, disable=not left)
        )
        jobs = min(jobs, len(left))
        finished: Iterator[tuple[Task, Outcome]]
        if executor is not None:  # whose workers may have other disks
            finished = _finished(left, executor, jobs, dataset, None)
        elif jobs > 1:
            compile_all(np.dtype(np.float32))  # once, here: workers load the result from disk
            finished = _finished(left, stack.enter_context(_local_pool(jobs)), jobs, dataset, folder)
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
    """Passes over the data, twice as many for those that take two gradients a step: for the progress bar."""
    return task.config.epochs * (2 if task.config.optimizer in FAMILY else 1)


def _clean(folder: Path) -> None:
    """Delete what a process was writing when it was killed."""
    for leftover in folder.glob(".*-*.npz"):
        leftover.unlink()


def _here(task: Task, dataset: Dataset, folder: Path | None) -> Outcome:
    outcome = work(task, dataset, folder, progress=f"{task.config.label:<14}")
    assert outcome is not None  # which says that the data are missing
    return outcome


def _finished(
    tasks: Sequence[Task], executor: Executor, most: int, dataset: Dataset, folder: Path | None
) -> Iterator[tuple[Task, Outcome]]:
    """Each task and its outcome as soon as it is done. The data travel only to workers that have not got them."""
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
                except Exception as error:  # whatever an executor has for "the worker is gone"
                    what = f"a worker failed with {task.config.label}, seed {task.config.seed}"
                    raise RuntimeError(f"{what}: {type(error).__name__} {error}; what is finished is kept") from error
                if outcome is None:
                    waiting[executor.submit(work, task, dataset, folder)] = task
                else:
                    yield task, outcome
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def _local_pool(jobs: int) -> Iterator[Executor]:
    pool = ProcessPoolExecutor(
        jobs,
        # A fresh interpreter on every system: a fork would copy locks that threads hold.
        multiprocessing.get_context("spawn"),
        _start_worker,
        (max(1, get_threads() // jobs),),
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown()  # and wait, so that its semaphores are returned


def _start_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    tqdm.set_lock(threading.RLock())  # tqdm's own, for several processes, outlives a terminated one
    set_threads(threads)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def dask_executor(address: str) -> Iterator[tuple[Executor, int]]:
    """An executor on the workers of a Dask scheduler, and how many threads they have now.

    Raises:
        OSError: there is no scheduler at this address.
        ValueError: Dask is not installed, or the scheduler has no workers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError("--dask needs Dask: pip install 'minisam[dask]'") from error
    with Client(address) as client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise ValueError(f"the Dask scheduler at {address} has no workers")
        with client.get_executor(pure=False) as executor:
            yield executor, threads
