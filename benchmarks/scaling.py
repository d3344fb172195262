"""How much faster is a sweep with more workers, and how long would a large one take?

    pip install -e ".[dask]"
    python benchmarks/scaling.py              # about five minutes; writes results/scaling.json
    python benchmarks/scaling.py --show       # prints the stored measurement again

One worker, then two, of a Dask cluster on this machine do the same runs, in turns; each has one core.
Their results must agree to the last bit with each other and with those of this process. The cost of a run
(core seconds, bytes sent, work of the machine that hands out the runs) then tells how long larger sweeps
would take on machines like this one.
"""

import argparse
import json
import math
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minisam.data import Dataset, load
from minisam.kernels import set_threads
from minisam.study.comparison import IMAGES
from minisam.study.executors import dask_executor
from minisam.study.recipes import MATCHED, MLP, SAM, noisy
from minisam.study.store import Store
from minisam.study.sweep import run_all
from minisam.study.tasks import Outcome, Task
from minisam.training.config import Config
from minisam.training.environment import environment
from minisam.training.files import replacing

RESULTS = Path(__file__).parent / "results" / "scaling.json"
ROUNDS = 2
BANDWIDTH = 125e6  # bytes per second between machines: assumed (1 Gbit/s), all else is measured
EMPTY = 200  # tasks without work, to measure the overhead of one
CORES = (2, 16, 128, 1024)


@contextmanager
def cluster(n_workers: int) -> Iterator[str]:
    """The address of a Dask scheduler on this machine with this many single-threaded workers."""
    from distributed import Client

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, dask = f"tcp://127.0.0.1:{port}", [sys.executable, "-m", "dask"]
    one_core = os.environ | {"OMP_NUM_THREADS": "1"}  # for minisam and for BLAS
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:

        def start(*words: str) -> subprocess.Popen:
            return subprocess.Popen([*dask, *words], cwd=folder, env=one_core, stdout=log, stderr=log)

        processes = [start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")]
        for _ in range(n_workers):
            words = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", folder)
            processes.append(start("worker", address, *words))
        try:
            with Client(address, timeout=60) as client:
                client.wait_for_workers(n_workers, timeout=60)
            yield address
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


def numbers(outcomes: Sequence[Outcome]) -> list[Any]:
    """The results that must not depend on the worker."""
    return [(record["weights"], record["geometry"], predictions.tobytes()) for record, predictions in outcomes]


def measure(dataset: Dataset, todo: list[Config]) -> dict[str, Any]:
    """Time the sweep on one and on two workers, in turns; measure the bytes and seconds of a run besides computing."""
    about: dict[str, Any] = {"runs": len(todo), "epochs": MLP.epochs, "n_train": len(dataset.y_train)}
    set_threads(1)
    expected = run_all(todo, dataset, MLP.epochs // 3, IMAGES)
    walls: dict[str, list[float]] = {"1": [], "2": []}
    for _ in range(ROUNDS):
        for n in walls:
            with cluster(int(n)) as address, dask_executor(address) as (executor, threads):
                started = time.perf_counter()
                found = run_all(todo, dataset, MLP.epochs // 3, IMAGES, jobs=threads, executor=executor)
                walls[n].append(time.perf_counter() - started)
                assert numbers(found) == numbers(expected), "the workers' results differ"
                if threads == 1:
                    started = time.perf_counter()
                    for future in [executor.submit(abs, i) for i in range(EMPTY)]:
                        future.result()
                    about["task_seconds"] = (time.perf_counter() - started) / EMPTY
    task = Task(todo[0], 0, IMAGES, dataset.name, len(dataset.y_train), len(dataset.y_test), dataset.checksum)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        for config, outcome in zip(todo, found, strict=True):
            Store(Path(folder)).keep(task._replace(config=config), outcome)
        about["keep_seconds"] = (time.perf_counter() - started) / len(todo)
    sizes = {"task_bytes": task, "outcome_bytes": found[0], "data_bytes": dataset}
    return about | {"wall": walls} | {name: len(pickle.dumps(thing)) for name, thing in sizes.items()}


def estimate(found: dict[str, Any], runs: int, cores: int, with_data: bool) -> float:
    """Seconds this many runs would take: first the data, then the runs in waves, or the driver if it takes longer."""
    waves = math.ceil(runs / cores) * float(np.median(found["wall"]["1"])) / found["runs"]
    travel = (found["task_bytes"] + found["outcome_bytes"]) / BANDWIDTH
    driver = runs * (found["task_seconds"] + found["keep_seconds"] + travel)
    data = 0.0 if with_data else min(runs, cores) * found["data_bytes"] / BANDWIDTH
    return data + max(waves, driver)


def duration(seconds: float) -> str:
    """Seconds in a readable unit."""
    for unit, size, least in (("days", 86400, 2), ("h", 3600, 1), ("min", 60, 2)):
        if seconds >= least * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def report(found: dict[str, Any]) -> str:
    """The text in benchmarks/README.md."""
    one, two = (float(np.median(found["wall"][n])) for n in ("1", "2"))
    ends = {n: f"{min(times):.1f} to {max(times):.1f}" for n, times in found["wall"].items()}
    lines = [
        f"{found['runs']} runs of an MLP ({found['n_train']:,} images, {found['epochs']} epochs), with curvature:",
        f"  1 worker   {one:6.1f} s  ({ends['1']})",
        f"  2 workers  {two:6.1f} s  ({ends['2']})   {one / two:.2f} times as fast",
        "",
        f"A run takes {one / found['runs']:.1f} s of a core; {found['task_bytes']:,} bytes go to its worker and"
        f" {found['outcome_bytes']:,} come back.",
        f"Handing it out and back takes {1000 * found['task_seconds']:.1f} ms, keeping it on disk"
        f" {1000 * found['keep_seconds']:.1f} ms.",
        f"A worker without the images is sent {found['data_bytes'] / 1e6:.0f} MB, once.",
        "",
        "cores         100 runs      10,000 runs      10,000 runs, images sent to every core",
    ]
    for cores in CORES:
        cases = ((100, cores, True), (10_000, cores, True), (10_000, cores, False))
        times = [duration(estimate(found, *case)) for case in cases]
        lines.append(f"{cores:>5,}{times[0]:>17}{times[1]:>17}{times[2]:>20}")
    here = found["environment"]
    lines += ["", f"Measured on {here['cpu']}, {here['cores']} cores, {here['system']};"]
    lines += [f"Python {here['python']}, NumPy {here['numpy']}, Numba {here['numba']}, Dask {here['dask']}."]
    lines += [f"Times between machines assume {BANDWIDTH * 8 / 1e9:g} Gbit/s."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", action="store_true", help="print the stored measurement, measure nothing")
    parser.add_argument("--data-dir")
    args = parser.parse_args()
    if not args.show:
        import distributed

        dataset = load("cifar10", args.data_dir).first(MLP.n_train)
        like = (MATCHED, SAM)  # equally many gradients, so that runs take equally long
        todo = [noisy(MLP).config(label, seed) for label in like for seed in range(4)]
        found = measure(dataset, todo)
        found["environment"] = environment() | {"dask": distributed.__version__}
        with replacing(RESULTS) as file:
            file.write(json.dumps(found, indent=1, ensure_ascii=False).encode())
    print(report(json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
