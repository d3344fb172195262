"""What does tuning do to SAM's gain? Random search in one box, the same for all methods.

    python benchmarks/random_search.py [--splits 4] [--jobs 2] [--data-dir DIR] [--runs DIR]
    python benchmarks/random_search.py --show        # what results/random_search.json says, without training

A grid that is placed by hand decides much: too small a box, and a gain is a baseline's poor tuning. Here every method
draws its numbers from one box, log-uniformly, and is judged by what a user gets who tries n points and keeps the one
with the lowest validation error (best_of_n.py). A split is such a user: it has its own validation images (a quarter of
the training images, with labels as noisy as the rest), initial weights, batches, redrawn labels and points, the same
ones for every method. Beside it stands the papers' protocol on the same splits: weight decay 5e-4, the learning rate
that is best for Momentum, and of SAM rho alone is chosen. After each split all that is there is written.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from best_of_n import Rows, picture, report, seen
from grids import PAPERS_RATES, RADII_OF_PAPERS
from tune import points, split, unredrawn

from minisam.data import Dataset, load
from minisam.kernels import set_threads
from minisam.study.plots import png
from minisam.study.recipes import MATCHED, MLP, SAM, Problem, noisy
from minisam.study.sweep import run_all
from minisam.training.environment import environment
from minisam.training.files import replacing

RESULTS = Path(__file__).parent / "results" / "random_search.json"
PROBLEMS = (MLP, noisy(MLP))
_SHARED = {"lr": (1e-4, 1e-1), "weight_decay": (1e-4, 10.0)}
BOX: dict[str, dict[str, tuple[float, float]]] = {
    "Momentum": _SHARED,
    MATCHED: _SHARED,
    SAM: _SHARED | {"rho": (0.01, 1.0)},
    "ASAM(Momentum)": _SHARED | {"rho": (0.1, 10.0)},  # which counts in sizes of the weights
    "Adam": _SHARED,
}
TRIALS = 24  # a split and method
FIRST = 2000  # the first split's seed, above those of the grids and of the comparisons

Trial = tuple[str, dict[str, float]]  # a method and its numbers


def drawn(method: str, seed: int) -> list[Trial]:
    """A split's trials of a method; two methods share those numbers that both have."""
    low, high = np.array(list(BOX[method].values())).T
    uniform = np.random.default_rng(seed).random((TRIALS, 3))[:, : len(low)]
    values = low * (high / low) ** uniform
    return [(method, {name: float(f"{x:.4g}") for name, x in zip(BOX[method], row, strict=True)}) for row in values]


def judge(trials: list[Trial], problem: Problem, images: Dataset, seed: int, papers: bool, **how: Any) -> Rows:
    """Train every trial on one split, and note its errors on the split's validation images and on the test images.

    Both are predicted by the same weights; the test error plays no part in any choice.
    """
    held_out = split(images, problem.noise, seed)
    n = len(held_out.y_test)
    x, y = (np.concatenate([getattr(part, name) for part in (held_out, images)]) for name in ("x_test", "y_test"))
    todo = [unredrawn(problem, method, numbers, seed) for method, numbers in trials]
    rows = []
    for (method, numbers), outcome in zip(
        trials, run_all(todo, replace(held_out, x_test=x, y_test=y), **how), strict=True
    ):
        row: dict[str, Any] = {"noise": problem.noise, "split": seed, "papers": papers, "method": method}
        wrong = None if outcome.diverged else outcome.predictions != y
        errors = (None, None) if wrong is None else (float(wrong[:n].mean()), float(wrong[n:].mean()))
        rows.append(row | {"numbers": numbers, "validation": errors[0], "test": errors[1]})
    return rows


def search(problem: Problem, images: Dataset, seed: int, **how: Any) -> Rows:
    """All trials of one split: those in the box, and those of the papers' protocol."""
    rows = judge([trial for method in BOX for trial in drawn(method, seed)], problem, images, seed, False, **how)
    rates = [("Momentum", numbers) for numbers in points(PAPERS_RATES["Momentum"])]
    rows += (momentum := judge(rates, problem, images, seed, True, **how))
    start = min(momentum, key=lambda row: seen(row)[0])["numbers"]
    chosen = [(MATCHED, start), *((SAM, start | radius) for radius in points(RADII_OF_PAPERS))]
    return rows + judge(chosen, problem, images, seed, True, **how)


def write(record: dict[str, Any]) -> None:
    """Replace the stored results: a trial a line."""
    trials = ",\n".join(json.dumps(row) for row in record["trials"])
    text = json.dumps(record | {"trials": []}, indent=1).replace('"trials": []', f'"trials": [\n{trials}\n]')
    with replacing(RESULTS) as file:
        file.write((text + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", action="store_true", help="print the stored results, train nothing")
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-dir")
    parser.add_argument("--runs", type=Path, help="keep finished runs here; the same command continues with them")
    args = parser.parse_args()
    rows: Rows = []
    set_threads(args.threads)
    for seed in () if args.show else range(FIRST, FIRST + args.splits):
        for problem in PROBLEMS:
            images = load(problem.dataset, args.data_dir).first(problem.n_train)
            rows += search(problem, images, seed, jobs=args.jobs, folder=args.runs)
        write({"environment": environment(), "box": BOX, "trials": rows})
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    if not args.show:
        with replacing(RESULTS.with_suffix(".png")) as file:
            file.write(png(picture, record, synthetic=False))
    print(report(record))


if __name__ == "__main__":
    main()
