"""SAM against its baselines: many runs, one comparison.

Every run is a pure function of (config, data), so the runs can be computed in any order and in any
process. Runs of one seed share their initial weights, batches and redrawn labels; comparisons are
paired by seed and by test image.
"""

import multiprocessing
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minisam.checks import require_count
from minisam.data import Dataset
from minisam.experiments.config import Config
from minisam.experiments.environment import environment
from minisam.experiments.recipes import Preset, configs
from minisam.experiments.statistics import error_reduction, mean_error
from minisam.experiments.train import Diverged, Prepared, Run, train
from minisam.kernels import get_threads, set_threads
from minisam.kernels.compiled import compile_all

_data: Prepared  # of a worker process


def _start_worker(dataset: Dataset, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    tqdm.set_lock(threading.RLock())  # tqdm's own, for several processes, outlives a terminated one
    set_threads(threads)
    global _data
    _data = Prepared.of(dataset)


def _work(config: Config, evaluate_every: int) -> Run | Diverged:
    return _attempt(config, _data, evaluate_every)


def _attempt(
    config: Config, data: Prepared, evaluate_every: int, progress: str | bool = False
) -> Run | Diverged:
    try:
        return train(config, data, evaluate_every, progress)
    except Diverged as failure:
        return failure


def run_all(todo: list[Config], dataset: Dataset, evaluate_every: int, jobs: int) -> list[Run | Diverged]:
    """Train every config; `jobs` processes share the threads. Results do not depend on jobs.

    A run that diverges is no reason to lose the others: its place is taken by the exception.

    Raises:
        ValueError: jobs < 1.
    """
    require_count("jobs", jobs)
    compile_all(np.dtype(np.float32))  # once, here: workers load the result from disk
    work = [config.epochs * (2 if config.optimizer == "sam" else 1) for config in todo]
    runs: dict[int, Run | Diverged] = {}
    with tqdm(total=sum(work), desc="all runs", unit="epoch", leave=False) as bar:
        for i, run in _finished(todo, dataset, evaluate_every, min(jobs, len(todo))):
            runs[i] = run
            bar.update(work[i])
            bar.set_postfix_str(f"{len(runs)}/{len(todo)} runs")
    return [runs[i] for i in range(len(todo))]


def _finished(
    todo: list[Config], dataset: Dataset, evaluate_every: int, jobs: int
) -> Iterator[tuple[int, Run | Diverged]]:
    """(index, run) of each config as soon as it is trained."""
    if jobs == 1:
        data = Prepared.of(dataset)
        for i, config in enumerate(todo):
            yield i, _attempt(config, data, evaluate_every, progress=f"{config.label:<14}")
        return
    pool = ProcessPoolExecutor(
        jobs,
        # A fresh interpreter on every system: a fork would copy locks that threads hold.
        multiprocessing.get_context("spawn"),
        _start_worker,
        (dataset, max(1, get_threads() // jobs)),
    )
    try:
        futures = {pool.submit(_work, todo[i], evaluate_every): i for i in range(len(todo))}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown()  # and wait, so that its semaphores are returned


def reproduce(
    preset: Preset, dataset: Dataset, jobs: int = 1, name: str = "custom"
) -> tuple[dict[str, Any], np.ndarray]:
    """Run a preset. Returns what results.json holds, and each run's test predictions.

    The predictions are (runs, test images) uint8, row i that of results["runs"][i].

    Raises:
        Diverged: a run's loss became NaN or infinite.
    """
    dataset = dataset.first(n_train=preset.n_train, n_test=preset.n_test)
    labels, todo = zip(*configs(preset), strict=True)
    runs = []
    for outcome in run_all(list(todo), dataset, max(1, preset.epochs // 3), jobs):
        if isinstance(outcome, Diverged):
            raise outcome
        runs.append(outcome)
    predictions = np.array([run.test_predictions for run in runs], np.uint8)
    records = [_record(label, run) for label, run in zip(labels, runs, strict=True)]
    wrong = predictions != dataset.y_test
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    results = {
        "dataset": {key: getattr(dataset, key) for key in ("name", "source", "synthetic", "checksum")}
        | {"n_train": len(dataset.y_train), "n_test": len(dataset.y_test)},
        "environment": environment() | {"jobs": jobs},
        "config": {"command": command, "preset": name} | asdict(preset),
        "runs": records,
        "summary": summarise(records, wrong),
        "comparisons": compare(records, wrong),
    }
    return results, predictions


def _record(label: str, run: Run) -> dict[str, Any]:
    config = asdict(run.config)
    numbers = ("test_error", "train_error", "gradient_evaluations", "seconds", "history")
    return (
        {key: config[key] for key in ("model", "noise", "seed")}
        | {"optimizer": label, "config": config}
        | {key: getattr(run, key) for key in numbers}
    )


def _groups(records: list[dict[str, Any]]) -> dict[tuple[str, float, str], list[int]]:
    """Indices of the runs, by seed, of each (model, noise, optimizer)."""
    groups: dict[tuple[str, float, str], list[int]] = {}
    for i, record in enumerate(records):
        key = (record["model"], record["noise"], record["optimizer"])
        groups.setdefault(key, []).append(i)
    return groups


def summarise(records: list[dict[str, Any]], wrong: np.ndarray) -> list[dict[str, Any]]:
    """Mean test error with its interval for every (model, noise, optimizer).

    wrong is (runs, test images), true where a run misclassified an image.
    """
    summary = []
    for (model, noise, optimizer), rows in _groups(records).items():
        mean = {
            key: float(np.mean([records[i][key] for i in rows]))
            for key in ("train_error", "gradient_evaluations", "seconds")
        }
        error = mean_error(wrong[rows])
        summary.append(
            {"model": model, "noise": noise, "optimizer": optimizer, "seeds": len(rows)}
            | mean
            | {"test_error": error.estimate, "ci_low": error.low, "ci_high": error.high}
        )
    return summary


def compare(records: list[dict[str, Any]], wrong: np.ndarray) -> list[dict[str, Any]]:
    """The relative error reduction of every SAM against every other optimizer, paired."""
    groups = _groups(records)
    comparisons = []
    for (model, noise, candidate), rows in groups.items():
        if not candidate.startswith("SAM"):
            continue
        for (other_model, other_noise, baseline), base in groups.items():
            if (other_model, other_noise) != (model, noise) or baseline.startswith("SAM"):
                continue
            estimate, low, high = error_reduction(wrong[base], wrong[rows])
            costs = {records[i]["gradient_evaluations"] for i in (base[0], rows[0])}
            comparisons.append(
                {"model": model, "noise": noise, "baseline": baseline, "candidate": candidate}
                | {"matched": "gradients" if len(costs) == 1 else "epochs"}
                | {"error_reduction": estimate, "ci_low": low, "ci_high": high}
            )
    return comparisons
