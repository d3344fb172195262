"""SAM against its baselines: many runs, one comparison.

Every run is a pure function of (config, data), so the runs can be computed in any order and in any
process. Runs of one seed share their initial weights, batches and redrawn labels; comparisons are
paired by seed and by test image.
"""

import itertools
import multiprocessing
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minisam.checks import Count, require
from minisam.data import Dataset, redraw_labels
from minisam.kernels import get_threads, set_threads
from minisam.kernels.compiled import compile_all
from minisam_study.config import FAMILY, Config
from minisam_study.environment import environment
from minisam_study.geometry import mean_loss, measure
from minisam_study.recipes import Preset, configs
from minisam_study.statistics import error_reduction, mean_error
from minisam_study.train import Diverged, Prepared, Run, network, train

IMAGES, RHO = 500, 0.05  # on which, and within which, the sharpness of every run is measured
EFFORT: dict[str, Any] = {"samples": 0, "steps": 8, "starts": 1, "directions": 1, "tolerance": 3e-3}
GEOMETRY: dict[str, Callable[[dict[str, Any]], float]] = {
    "lambda_max": lambda found: found["eigenvalues"][0],
    "lambda_ratio": lambda found: found["eigenvalues"][0] / found["eigenvalues"][4],
    "worst_rise": lambda found: found["worst"][-1],
}

_data: Prepared  # of a worker process


def _start_worker(dataset: Dataset, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    tqdm.set_lock(threading.RLock())  # tqdm's own, for several processes, outlives a terminated one
    set_threads(threads)
    global _data
    _data = Prepared.of(dataset)


def _work(config: Config, evaluate_every: int, images: int) -> Run | Diverged:
    return _attempt(config, _data, evaluate_every, images)


def _attempt(
    config: Config, data: Prepared, evaluate_every: int, images: int, progress: str | bool = False
) -> Run | Diverged:
    try:
        run = train(config, data, evaluate_every, progress)
    except Diverged as failure:
        return failure
    if not images:
        return run
    labels = redraw_labels(data.y_train, config.noise, len(data.classes), config.seed)  # as it was trained on
    objective = mean_loss(network(config, data), data.x_train[:images], labels[:images], run.stats)
    return replace(run, geometry=measure(objective, run.theta, RHO, **EFFORT))


def run_all(
    todo: list[Config], dataset: Dataset, evaluate_every: int, jobs: int, images: int = 0
) -> list[Run | Diverged]:
    """Train every config; `jobs` processes share the threads. Results do not depend on jobs.

    A run that diverges is no reason to lose the others: its place is taken by the exception. With
    `images` the curvature and sharpness of each run are measured on its first training images.

    Raises:
        ValueError: jobs < 1.
    """
    require("jobs", jobs, Count)
    compile_all(np.dtype(np.float32))  # once, here: workers load the result from disk
    work = [config.epochs * (2 if config.optimizer in FAMILY else 1) for config in todo]
    runs: dict[int, Run | Diverged] = {}
    with tqdm(total=sum(work), desc="all runs", unit="epoch", leave=False) as bar:
        for i, run in _finished(todo, dataset, evaluate_every, min(jobs, len(todo)), images):
            runs[i] = run
            bar.update(work[i])
            bar.set_postfix_str(f"{len(runs)}/{len(todo)} runs")
    return [runs[i] for i in range(len(todo))]


def _finished(
    todo: list[Config], dataset: Dataset, evaluate_every: int, jobs: int, images: int
) -> Iterator[tuple[int, Run | Diverged]]:
    """(index, run) of each config as soon as it is trained."""
    if jobs == 1:
        data = Prepared.of(dataset)
        for i, config in enumerate(todo):
            yield i, _attempt(config, data, evaluate_every, images, progress=f"{config.label:<14}")
        return
    pool = ProcessPoolExecutor(
        jobs,
        # A fresh interpreter on every system: a fork would copy locks that threads hold.
        multiprocessing.get_context("spawn"),
        _start_worker,
        (dataset, max(1, get_threads() // jobs)),
    )
    try:
        futures = {pool.submit(_work, todo[i], evaluate_every, images): i for i in range(len(todo))}
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
    runs: list[Any] = run_all(list(todo), dataset, max(1, preset.epochs // 3), jobs, IMAGES)
    for failure in (run for run in runs if isinstance(run, Diverged)):
        raise failure
    predictions = np.array([run.test_predictions for run in runs], np.uint8)
    records = [_record(label, run) for label, run in zip(labels, runs, strict=True)]
    wrong = predictions != dataset.y_test
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    about = {key: getattr(dataset, key) for key in ("name", "source", "synthetic", "checksum")}
    about |= {"n_train": len(dataset.y_train), "n_test": len(dataset.y_test)}
    config = {"command": command, "preset": name} | asdict(preset)
    results = {"dataset": about, "environment": environment() | {"jobs": jobs}, "config": config, "runs": records}
    results |= {"summary": summarise(records, wrong), "comparisons": compare(records, wrong)}
    return results, predictions


def _record(label: str, run: Run) -> dict[str, Any]:
    config = asdict(run.config)
    record = {key: config[key] for key in ("model", "noise", "seed")} | {"optimizer": label, "config": config}
    numbers = ("test_error", "train_error", "gradient_evaluations", "seconds", "history", "geometry")
    return record | {key: getattr(run, key) for key in numbers}


def _groups(records: list[dict[str, Any]]) -> dict[tuple[str, float, str], list[int]]:
    """Indices of the runs, by seed, of each (model, noise, optimizer)."""
    groups: dict[tuple[str, float, str], list[int]] = {}
    for i, record in enumerate(records):
        groups.setdefault((record["model"], record["noise"], record["optimizer"]), []).append(i)
    return groups


def summarise(records: list[dict[str, Any]], wrong: np.ndarray) -> list[dict[str, Any]]:
    """Mean test error with its interval for every (model, noise, optimizer).

    wrong is (runs, test images), true where a run misclassified an image.
    """
    summary = []
    for (model, noise, optimizer), runs in _groups(records).items():
        row = {"model": model, "noise": noise, "optimizer": optimizer, "seeds": len(runs)}
        for key in ("train_error", "gradient_evaluations", "seconds"):
            row[key] = float(np.mean([records[i][key] for i in runs]))
        row["test_error"], row["ci_low"], row["ci_high"] = mean_error(wrong[runs])
        for key, number in GEOMETRY.items():
            found = [number(records[i]["geometry"]) for i in runs]
            row[key] = [float(np.mean(found)), min(found), max(found)]
        summary.append(row)
    return summary


def compare(records: list[dict[str, Any]], wrong: np.ndarray) -> list[dict[str, Any]]:
    """The relative error reduction of every SAM against every other optimizer, paired."""
    comparisons = []
    for (key, sam), (other, base) in itertools.permutations(_groups(records).items(), 2):
        (model, noise, candidate), baseline = key, other[2]
        if other[:2] != (model, noise) or not candidate.startswith("SAM") or baseline.startswith("SAM"):
            continue
        row = {"model": model, "noise": noise, "baseline": baseline, "candidate": candidate}
        costs = {records[i]["gradient_evaluations"] for i in (base[0], sam[0])}
        row["matched"] = "gradients" if len(costs) == 1 else "epochs"
        row["error_reduction"], row["ci_low"], row["ci_high"] = error_reduction(wrong[base], wrong[sam])
        comparisons.append(row)
    return comparisons
