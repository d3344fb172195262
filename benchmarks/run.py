"""How fast minisam is, compared with the alternatives.

    python benchmarks/run.py                     all cases (about twenty minutes)
    python benchmarks/run.py --only "SAM.*step"  cases whose names match
    python benchmarks/run.py --keep              keep the numbers in results/speed, in this processor's file
    python benchmarks/run.py --show FILE         print a stored file again

The peers come with `pip install -e ".[bench]"`; a missing one is left out with a message.
Each system runs in a process of its own, all with the same number of threads. For each case their
results are compared first; then they are timed in turns, A B A B …, in three sweeps over all cases,
so that a slow minute of the machine affects every system. benchmarks/README.md says how to read the table.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import date
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
from cases import CASES, COLD, MEMORY, SYSTEMS
from tables import brief, table
from tqdm import tqdm
from workload import Case

from minisam.kernels.cores import available_cores

SWEEPS = 3
WORKER = Path(__file__).with_name("worker.py")
RESULTS = Path(__file__).with_name("results") / "speed"


class Worker:
    """The process of one system."""

    def __init__(self, system: str, threads: int) -> None:
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self.process = subprocess.Popen(
            [sys.executable, WORKER, system],
            env=os.environ | limits,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.version: dict[str, Any] = {}

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the worker's error message says why
        if line := self.process.stdout.readline():
            return json.loads(line)
        assert self.process.stderr
        raise ChildProcessError(self.process.stderr.read().strip().splitlines()[-1])

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def difference(expected: list[np.ndarray], got: list[np.ndarray]) -> float:
    """The largest |got - expected|, relative to the largest entry of its array."""
    return max(
        (float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in zip(expected, got, strict=True)),
        default=0.0,
    )


@contextmanager
def busy_core(busy: bool) -> Iterator[None]:
    """Beside another process, if there should be one."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if other:
            other.kill()
            other.wait()


class Timings:
    """The timings of one case: its systems in turns, in several sweeps over all cases."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.differences: dict[str, float] = {}
        self.turns: dict[str, list[list[float]]] = {}

    def measure(self, workers: dict[str, Worker], rounds: int, seconds: float) -> None:
        """Time the systems in turns; the first time, compare their results too."""
        results = prepare(self.case, workers)
        if not self.turns:
            self.differences = compare(self.case, results)
            self.turns = {system: [] for system in results}
        began = time.monotonic()
        with busy_core(self.case.busy):
            for _ in range(rounds):
                for system, turns in self.turns.items():
                    turns.append(workers[system].ask(seconds=seconds)["times"])
                if time.monotonic() - began > 12:  # slow cases get fewer rounds
                    break

    def record(self) -> dict[str, Any]:
        """Medians, quartiles and ratios."""
        record: dict[str, Any] = {"case": self.case.name, "flop": self.case.flop, "bytes": self.case.bytes}
        record["systems"] = {}
        for system, by_turn in self.turns.items():
            times = np.concatenate(by_turn)
            low, median, high = np.percentile(times, [25, 50, 75])
            numbers = {"median": median, "minimum": times.min(), "quartiles": [low, high], "timings": len(times)}
            record["systems"][system] = numbers | {"difference": self.differences[system]}
            if system != "ours" and "ours" in self.turns:
                # Round by round, so that a slow minute affects both.
                ratios = [np.median(b) / np.median(a) for a, b in zip(self.turns["ours"], by_turn, strict=True)]
                low, median, high = np.percentile(ratios, [25, 50, 75])
                record["systems"][system]["ratio"] = {"median": median, "quartiles": [low, high]}
        return record


def prepare(case: Case, workers: dict[str, Worker]) -> dict[str, list[np.ndarray]]:
    """The results of every system that has the case; each is then ready to be timed."""
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for system, worker in workers.items():
            file = Path(folder) / f"{system}.npz"
            if worker.ask(case=asdict(case), arrays=str(file))["known"]:
                with np.load(file) as arrays:
                    results[system] = list(arrays.values())
    return results


def compare(case: Case, results: dict[str, list[np.ndarray]]) -> dict[str, float]:
    """How far each system's results are from the first one's, relative to the largest entry."""
    first = next(iter(results.values()))
    differences = {system: difference(first, arrays) for system, arrays in results.items()}
    for system, value in differences.items():
        # Float32 rounding; a ReLU whose input is 0 up to rounding, or a tie of max, may go either way, which moves
        # a deep network's gradient by more than rounding does. A wrong layer is off by as much as the gradient.
        if not value < 1e-2:
            raise ArithmeticError(f"{case.name}: {SYSTEMS[system]} differs by {value:.1e} of the largest entry")
    return differences


def once(system: str, mode: str, threads: int, **environ: str) -> tuple[float, float]:
    """Seconds from start to end of a process, and the number it printed."""
    start = time.perf_counter()
    command = [sys.executable, str(WORKER), system, mode]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)} | environ
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, float(done.stdout)


def processes(systems: list[str], threads: int, rounds: int) -> dict[str, Any]:
    """Cold start, import, first compilation and peak memory, a fresh process each time."""
    systems = [system for system in systems if system in ("ours", "pytorch")]
    found: dict[str, Any] = {system: {"start": [], "import": [], "memory": []} for system in systems}
    compiling = []
    for i in tqdm(range(rounds), "new processes", leave=False):
        for system in systems:
            seconds, importing = once(system, "cold", threads)
            if i:  # the first round fills the caches
                found[system]["start"].append(seconds)
                found[system]["import"].append(importing)
                found[system]["memory"].append(once(system, "memory", threads)[1])
        if i < 3 and "ours" in systems:
            with tempfile.TemporaryDirectory() as empty:
                compiling.append(once("ours", "cold", threads, NUMBA_CACHE_DIR=empty)[0])
    record = {system: {k: float(np.median(v)) for k, v in lists.items()} for system, lists in found.items()}
    if compiling:
        record["ours"]["first start"] = float(np.median(compiling))
    return record


def start(threads: int) -> dict[str, Worker]:
    """A worker for each system that is installed."""
    workers = {}
    for system, name in SYSTEMS.items():
        worker = Worker(system, threads)
        try:
            worker.version = worker.ask()
            workers[system] = worker
        except ChildProcessError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            worker.close()
    return workers


def run(pattern: str, threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure every case whose name contains the regular expression."""
    found = [Timings(case) for case in CASES if re.search(pattern, case.name)]
    new = re.search(pattern, COLD) or re.search(pattern, MEMORY)
    workers = start(threads)
    alone = start(1) if any(timings.case.alone for timings in found) else {}
    try:
        # Several sweeps, so that cases that are compared with each other share the machine's good and bad minutes.
        for timings in tqdm(found * SWEEPS, "cases", leave=False):
            timings.measure(alone if timings.case.alone else workers, -(-rounds // SWEEPS), seconds)
    finally:
        for worker in (*workers.values(), *alone.values()):
            worker.close()
    versions = {system: worker.version for system, worker in workers.items() if worker.version}
    return {
        "date": date.today().isoformat(),
        "environment": versions.pop("ours", {}),
        "peers": {system: next(iter(version.values())) for system, version in versions.items()},
        "rounds": rounds,
        "cases": [timings.record() for timings in found],
        "processes": processes(list(workers), threads, rounds) if new else {},
    }


def processor() -> str:
    """A name for this processor's file: its own, and on Linux its family and model, which virtual machines show."""
    facts = re.findall(r"(?:model name|cpu family|model)\s*: (.+)", _cpuinfo()) or [platform.processor()]
    return re.sub(r"\W+", "-", " ".join(dict.fromkeys(facts)).lower()).strip("-")


def _cpuinfo() -> str:
    with suppress(OSError):
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help="only cases whose names match")
    parser.add_argument("--keep", action="store_true", help="write the numbers to results/speed")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print a stored file, measure nothing")
    parser.add_argument("--brief", action="store_true", help="one line per case, as in the README")
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of each system")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each system, for each case")
    parser.add_argument("--seconds", type=float, default=0.2, help="least duration of a turn")
    args = parser.parse_args()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    if args.show:
        found = json.loads(args.show.read_text(encoding="utf-8"))
    else:
        found = run(args.only, args.threads, args.rounds, args.seconds)
    print(brief(found) if args.brief else table(found))
    if args.keep:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{processor()}.json"
        file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"Kept: {file}")


if __name__ == "__main__":
    main()
