"""What was measured, as text: a table for the README, one with everything, and the targets."""

import math
from typing import Any

from cases import (
    BUSY,
    COLD,
    CONVOLUTIONS,
    COPIES,
    EPOCH,
    MEMORY,
    PLAIN,
    PREDICTIONS,
    SGEMM,
    STEPS,
    SYSTEMS,
    UPDATES,
)  # fmt: skip
from workload import Case

Row = tuple[str, float, str, bool]  # a label, a number, its bound, and whether it is met


class Found:
    """The numbers of a stored run, by case and system."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.systems = {record["case"]: record["systems"] for record in found["cases"]}
        self.new = found["processes"]

    def seconds(self, case: Case, system: str = "ours") -> float:
        return self.systems.get(case.name, {}).get(system, {"median": math.nan})["median"]

    def peer(self, case: Case) -> float:
        """How many times as long PyTorch takes."""
        return self.systems.get(case.name, {}).get("pytorch", {"ratio": {"median": math.nan}})["ratio"]["median"]

    def process(self, system: str, what: str) -> float:
        return self.new.get(system, {}).get(what, math.nan)


def targets(stored: dict[str, Any]) -> list[Row]:
    """minisam's targets, as far as they were measured."""
    found, rows = Found(stored), []

    def row(label: str, number: float, least: float = -math.inf, most: float = math.inf) -> None:
        bounds = [f"≥ {least:g}"] * (least > -math.inf) + [f"≤ {most:g}"] * (most < math.inf)
        if not math.isnan(number):
            rows.append((label, number, " ".join(bounds), least <= number <= most))

    for case in STEPS:
        row(f"PyTorch / minisam: {case.name}", found.peer(case), 1.1 if case.what == "mlp" else 1.2)
    for case in (*PREDICTIONS, EPOCH):
        row(f"PyTorch / minisam: {case.name}", found.peer(case), 1.2)
    for case in BUSY:
        row(f"PyTorch / minisam: {case.name}", found.peer(case), 1.5)
    sgemm = SGEMM.flop / found.seconds(SGEMM, "machine")
    for case in CONVOLUTIONS:
        row(f"rate / sgemm's: {case.name}", case.flop / found.seconds(case) / sgemm, 0.85)
    for case in PLAIN:
        sam = found.seconds(Case("step", case.what, "sam", case.n))
        row(f"SAM step / {case.name}", sam / found.seconds(case), most=2.05)
    for case in UPDATES:
        copy = next(copy for copy in COPIES if copy.n == case.n)
        bandwidth = copy.bytes / found.seconds(copy, "machine")
        row(f"bandwidth / a copy's: {case.name}", case.bytes / found.seconds(case) / bandwidth, 0.7)
    start, first = (found.process("ours", what) for what in ("start", "first start"))
    row(f"PyTorch / minisam: {COLD}", found.process("pytorch", "start") / start, 2.5)
    row("seconds, import minisam", found.process("ours", "import"), most=0.5)
    row("seconds, compilation at the first start ever", first - start, most=20)
    row(f"minisam / PyTorch: {MEMORY}", found.process("ours", "memory") / found.process("pytorch", "memory"), most=0.6)
    return rows


def _time(seconds: float) -> str:
    unit, scale = ("s", 1) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    return f"{seconds * scale:.3g} {unit}"


def _conditions(found: dict[str, Any]) -> str:
    """Date, hardware, versions and number of rounds."""
    facts = found["environment"]
    return (
        f"{found['date']}: {facts['cpu']}, {facts['threads']} threads, {facts['system']};\nPython {facts['python']}, "
        f"NumPy {facts['numpy']}, Numba {facts['numba']}"
        + "".join(f", {SYSTEMS[system]} {version}" for system, version in found["peers"].items())
        + f".\nUp to {found['rounds']} rounds in turns; ratios are medians over rounds (quartiles)."
    )


def _ratio(systems: dict[str, Any]) -> str:
    ratio = systems["pytorch"]["ratio"]
    low, high = ratio["quartiles"]
    return f"{ratio['median']:.2f} ({low:.2f} to {high:.2f})"


def brief(found: dict[str, Any]) -> str:
    """The README's table: minisam and PyTorch, one line per case."""
    chosen = {case.name for case in (*STEPS, *PREDICTIONS, *BUSY) if case.n in (64, 2000)}
    lines = [("", "minisam", "PyTorch", "PyTorch / minisam")]
    for record in found["cases"]:
        systems = record["systems"]
        if record["case"] in chosen and {"ours", "pytorch"} <= systems.keys():
            ours, peer = (_time(systems[system]["median"]) for system in ("ours", "pytorch"))
            lines.append((record["case"], ours, peer, _ratio(systems)))
    new = found["processes"]
    for label, key, unit in ((COLD, "start", "s"), ("import", "import", "s"), (MEMORY, "memory", "MB")):
        if {"ours", "pytorch"} <= new.keys():
            ours, peer = new["ours"][key], new["pytorch"][key]
            lines.append((label, f"{ours:.3g} {unit}", f"{peer:.3g} {unit}", f"{peer / ours:.2f}"))
    first = max(len(line[0]) for line in lines)
    rows = (f"{label:<{first}}{ours:>10}{peer:>10}   {ratio}" for label, ours, peer, ratio in lines)
    return "\n".join([*rows, "", _conditions(found)])


def table(found: dict[str, Any]) -> str:
    """Everything that was measured, and then the targets."""
    first = max(len(record["case"]) for record in found["cases"])
    names = "".join(f"{name:>18}" for name in SYSTEMS.values())
    lines = [f"{'median (minimum)':<{first}}{names}   PyTorch / minisam"]
    for record in found["cases"]:
        systems = record["systems"]
        cells = [systems.get(system) for system in SYSTEMS]
        times = [f"{_time(c['median'])} ({_time(c['minimum'])})" if c else "–" for c in cells]
        line = f"{record['case']:<{first}}" + "".join(f"{text:>18}" for text in times)
        lines.append(line + (f"   {_ratio(systems)}" if cells[0] and cells[1] else ""))
    for system, numbers in found["processes"].items():
        seconds = ", ".join(f"{key} {value:.2f} s" for key, value in numbers.items() if key != "memory")
        lines.append(f"new process, {SYSTEMS[system]}: {seconds}; peak memory {numbers['memory']:.0f} MB")
    lines.append("\ntargets")
    for label, number, bound, met in targets(found):
        lines.append(f"  {'✓' if met else '✗'} {number:6.2f}  {bound:<13}{label}")
    return "\n".join([*lines, "", _conditions(found)])
