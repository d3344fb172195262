"""How fast minisam is, compared with the alternatives.

    python benchmarks/run.py                     all cases (about ten minutes)
    python benchmarks/run.py --only "SAM.*step"  cases whose names match
    python benchmarks/run.py --json speed.json   keep the numbers, with versions and hardware
    python benchmarks/run.py --show speed.json   print a stored file again

The peers come with `pip install -e ".[bench]"`; a missing one is left out with a message.
Each system runs in a process of its own, all with the same number of threads. For each case their
results are compared first; then they are timed in turns, A B A B …, in three sweeps over all cases,
so that a slow minute of the machine affects every system. benchmarks/README.md says how to read the table.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from workload import Case

from minisam.kernels.threads import available_cores

SWEEPS = 3
WORKER = Path(__file__).with_name("worker.py")
SYSTEMS = {"ours": "minisam", "pytorch": "PyTorch", "numpyml": "numpy-ml", "machine": "machine"}
SGEMM, COPIES = Case("sgemm"), [Case("copy", n=n) for n in (10**5, 10**7)]

STEPS = [Case("step", m, o, n) for m in ("cnn", "mlp") for n in (128, 32) for o in ("sam", "momentum", "adam")]
PASSES = ("forward", "input gradient", "weight gradient", "both gradients")
LAYERS = ((3, 32, 32), (32, 32, 32), (32, 64, 16), (64, 64, 8))
CONVOLUTIONS = [Case("conv", what, n=128, shape=shape) for shape in LAYERS for what in PASSES]
UPDATES = [Case("update", what, n=n) for what in ("GD", "Momentum", "Adam") for n in (10**5, 10**7)]
BATCHES = [Case("step", "cnn", "momentum", n) for n in (8, 16, 64, 256, 512)]
WIDTHS = [Case("step", "cnn", "momentum", 64, width=width) for width in (16, 64)]
OTHERS = [Case("epoch", n=4000), Case("predict", "cnn", n=2000), Case("predict", "mlp", n=2000)]
CASES = [SGEMM, *COPIES, *STEPS, *CONVOLUTIONS, *UPDATES, *OTHERS, *BATCHES, *WIDTHS]

COLD, MEMORY = "first SAM step of a new process, CNN, batch 32", "peak memory, SAM steps, CNN, batch 128"


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
        # Float32 rounding; a ReLU whose input is 0 up to rounding, or a tie of max, may go either way.
        # In float64 all agree; in float32 PyTorch is 3e-3 from that on the deeper networks, minisam 4e-4.
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


def exponent(cases: list[Case], of: str, records: dict[str, Any], system: str) -> float | None:
    """The slope of log time against log batch size or width, by least squares."""
    known = [case for case in cases if system in records.get(case.name, {"systems": {}})["systems"]]
    if len(known) < 3:
        return None
    x = [math.log(getattr(case, of)) for case in known]
    y = [math.log(records[case.name]["systems"][system]["median"]) for case in known]
    return float(np.polyfit(x, y, 1)[0])


def targets(found: dict[str, Any]) -> list[tuple[str, float, str, bool]]:
    """minisam's targets: a label, a number, its bound, and whether it is met."""
    records = {record["case"]: record["systems"] for record in found["cases"]}
    new = found["processes"]
    rows = []

    def seconds(case: Case, system: str = "ours") -> float:
        return records.get(case.name, {}).get(system, {"median": math.nan})["median"]

    def peer(case: Case) -> float:
        return records.get(case.name, {}).get("pytorch", {"ratio": {"median": math.nan}})["ratio"]["median"]

    def process(system: str, what: str) -> float:
        return new.get(system, {}).get(what, math.nan)

    def row(label: str, number: float, least: float = -math.inf, most: float = math.inf) -> None:
        bounds = [f"≥ {least:g}"] * (least > -math.inf) + [f"≤ {most:g}"] * (most < math.inf)
        if not math.isnan(number):  # it was measured
            rows.append((label, number, " ".join(bounds), least <= number <= most))

    for model, least in (("cnn", 1.2), ("mlp", 1.5)):
        for n in (128, 32):
            case = Case("step", model, "sam", n)
            row(f"PyTorch / minisam: {case.name}", peer(case), least)
    row(f"PyTorch / minisam: {OTHERS[0].name}", peer(OTHERS[0]), 1.2)
    sgemm = SGEMM.flop / seconds(SGEMM, "machine")
    for case in CONVOLUTIONS:
        if case.shape[0] >= 32 and case.what != "both gradients":
            row(f"rate / sgemm's: {case.name}", case.flop / seconds(case) / sgemm, 0.85)
    for model in ("cnn", "mlp"):
        for n in (128, 32):
            sam, plain = (seconds(Case("step", model, optimizer, n)) for optimizer in ("sam", "momentum"))
            row(f"SAM step / Momentum step: {model.upper()}, batch {n}", sam / plain, most=2.05)
    for case in UPDATES:
        copy = Case("copy", n=case.n)
        bandwidth = copy.bytes / seconds(copy, "machine")
        row(f"bandwidth / a copy's: {case.name}", case.bytes / seconds(case) / bandwidth, 0.7)
    start = process("ours", "start")
    row(f"PyTorch / minisam: {COLD}", process("pytorch", "start") / start, 2.5)
    row("seconds, import minisam", process("ours", "import"), most=0.5)
    row("seconds, compilation at the first start ever", process("ours", "first start") - start, most=20)
    row(f"minisam / PyTorch: {MEMORY}", process("ours", "memory") / process("pytorch", "memory"), most=0.6)
    large, small = (seconds(Case("step", "cnn", "momentum", n)) / n for n in (512, 64))
    row("time per image, Momentum step, CNN: batch 512 / batch 64", large / small, 0.9, 1.1)
    return rows


def _time(seconds: float) -> str:
    unit, scale = ("s", 1) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    return f"{seconds * scale:.3g} {unit}"


def _conditions(found: dict[str, Any]) -> str:
    """Hardware, versions and number of rounds."""
    facts = found["environment"]
    return (
        f"{facts['cpu']}, {facts['threads']} threads, {facts['system']};\nPython {facts['python']}, "
        f"NumPy {facts['numpy']}, Numba {facts['numba']}, {facts['blas']}"
        + "".join(f", {SYSTEMS[system]} {version}" for system, version in found["peers"].items())
        + f".\nUp to {found['rounds']} rounds in turns; ratios are medians over rounds (quartiles)."
    )


def brief(found: dict[str, Any]) -> str:
    """The README's table: minisam and PyTorch, one line per case."""
    chosen = {case.name for case in (*STEPS, *OTHERS) if case.optimizer == "sam"}
    lines = [f"{'':<47}{'minisam':>9}{'PyTorch':>9}   PyTorch / minisam"]
    for record in found["cases"]:
        if record["case"] in chosen and {"ours", "pytorch"} <= record["systems"].keys():
            ours, peer = (record["systems"][system] for system in ("ours", "pytorch"))
            low, high = peer["ratio"]["quartiles"]
            times = f"{_time(ours['median']):>9}{_time(peer['median']):>9}"
            lines.append(f"{record['case']:<47}{times}   {peer['ratio']['median']:.2f} ({low:.2f} to {high:.2f})")
    new = found["processes"]
    for label, key, unit in ((COLD, "start", "s"), ("import", "import", "s"), (MEMORY, "memory", "MB")):
        if not {"ours", "pytorch"} <= new.keys():
            continue
        ours, peer = new["ours"][key], new["pytorch"][key]
        lines.append(f"{label:<47}{f'{ours:.3g} {unit}':>9}{f'{peer:.3g} {unit}':>9}   {peer / ours:.2f}")
    return "\n".join([*lines, "", _conditions(found)])


def table(found: dict[str, Any]) -> str:
    """Everything that was measured, and then the targets."""
    lines = [f"{'median (minimum)':<47}" + "".join(f"{name:>18}" for name in SYSTEMS.values()) + "   PyTorch / minisam"]
    for record in found["cases"]:
        cells = [record["systems"].get(system) for system in SYSTEMS]
        times = [f"{_time(c['median'])} ({_time(c['minimum'])})" if c else "–" for c in cells]
        line = f"{record['case']:<47}" + "".join(f"{text:>18}" for text in times)
        if cells[0] and cells[1]:
            ratio = cells[1]["ratio"]
            low, high = ratio["quartiles"]
            line += f"   {ratio['median']:.2f}  ({low:.2f} to {high:.2f})"
        lines.append(line)
    for system, numbers in found["processes"].items():
        seconds = ", ".join(f"{key} {value:.2f} s" for key, value in numbers.items() if key != "memory")
        lines.append(f"new process, {SYSTEMS[system]}: {seconds}; peak memory {numbers['memory']:.0f} MB")
    for name, exponents in found["exponents"].items():
        values = ", ".join(f"{SYSTEMS[system]} {value:.2f}" for system, value in exponents.items())
        lines.append(f"time grows with {name} to the power: {values}")
    lines.append("\ntargets")
    for label, number, bound, met in targets(found):
        lines.append(f"  {'✓' if met else '✗'} {number:6.2f}  {bound:<13}{label}")
    return "\n".join([*lines, "", _conditions(found)])


def run(pattern: str, threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure every case whose name contains the regular expression."""
    chosen = [case for case in CASES if re.search(pattern, case.name)]
    new = re.search(pattern, COLD) or re.search(pattern, MEMORY)
    workers, peers, facts = {}, {}, {}
    try:
        for system, name in SYSTEMS.items():
            worker = Worker(system, threads)
            try:
                versions = worker.ask()
            except ChildProcessError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
                worker.close()
                continue
            workers[system] = worker
            if system == "ours":
                facts = versions
            elif versions:
                peers[system] = next(iter(versions.values()))
        found = [Timings(case) for case in chosen]
        # Several sweeps, so that cases that are compared with each other share the machine's good and bad minutes.
        for timings in tqdm(found * SWEEPS, "cases", leave=False):
            timings.measure(workers, -(-rounds // SWEEPS), seconds)
        records = [timings.record() for timings in found]
    finally:
        for worker in workers.values():
            worker.close()
    by_name = {record["case"]: record for record in records}
    growth = {"batch size": (BATCHES, "n"), "width": ([*WIDTHS, BATCHES[2]], "width")}
    exponents = {
        name: {
            system: value
            for system in ("ours", "pytorch")
            if (value := exponent(cases, of, by_name, system)) is not None
        }
        for name, (cases, of) in growth.items()
    }
    return {
        "environment": facts,
        "peers": peers,
        "rounds": rounds,
        "cases": records,
        "exponents": {name: values for name, values in exponents.items() if values},
        "processes": processes(list(workers), threads, rounds) if new else {},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help="only cases whose names match")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")
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
    if args.json:
        args.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
