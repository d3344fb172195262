"""Choose the hyper-parameters of `minisam reproduce`, without looking at a test image.

    python benchmarks/tune.py [mlp cnn …] [--jobs 2] [--data-dir DIR] [--runs DIR]

For every problem and method, every point of a grid is trained on three quarters of the training images and judged by
its error on the other quarter, whose labels are as noisy as the rest. The best three of each grid are then judged on
further splits (except for CIFAR-100), and the best of them is the recipe. The grids are in grids.py. Each tuning seed
has its own split, initial weights, batches and redrawn labels, different from those of the comparison. Writes
benchmarks/results/tuning/NAME.json, and the winners of all files there to minisam/study/recipes.json.
"""

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from grids import SEARCHES, Grid, Search

from minisam.data import Dataset, load, redraw_labels
from minisam.kernels import set_threads
from minisam.rng import Stream, keyed_rng
from minisam.study import recipes
from minisam.study.recipes import Problem
from minisam.study.sweep import run_all
from minisam.training.config import Config
from minisam.training.environment import environment
from minisam.training.files import replacing

HERE = Path(__file__).parent
RESULTS, RECIPES = HERE / "results" / "tuning", Path(recipes.__file__).with_name("recipes.json")
FINALISTS = 3  # of each grid; more seeds then find the best of them


def points(grid: Grid) -> Iterator[dict[str, float]]:
    """Every point of a grid."""
    return (dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values()))


def split(dataset: Dataset, noise: float, seed: int) -> Dataset:
    """The training images as a new data set: a quarter of them, drawn by seed, is its test set."""
    y = redraw_labels(dataset.y_train, noise, len(dataset.classes), seed)
    order = keyed_rng(seed, Stream.SUBSET).permutation(len(y))
    held_out, kept = order[: len(y) // 4], order[len(y) // 4 :]
    x = dataset.x_train
    return replace(dataset, x_train=x[kept], y_train=y[kept], x_test=x[held_out], y_test=y[held_out])


def tune(search: Search, known: list[dict[str, Any]], data_dir: str | None, **how: Any) -> list[dict[str, Any]]:
    """Train every point of a search; one record per point, with its errors (None if it diverged).

    `known` has the points of earlier searches, among them the recipe from which this one may start. `how` goes to
    `run_all`: jobs, and a folder that keeps finished runs, which are not done again.
    """
    rows: list[dict[str, Any]] = []
    for problem in search.problems:
        found = winners(known)
        fixed = found[(search.on or problem).name][search.start] if search.start else {}
        new: list[dict[str, Any]] = [
            {"problem": problem.name, "method": label, "numbers": fixed | point, "errors": []}
            for label, grid in search.grids.items()
            for point in points(grid)
            if point or label not in found.get(problem.name, {})  # the start was found here, perhaps
        ]
        dataset = load(problem.dataset, data_dir).first(problem.n_train, 1)
        grids = [group for group in by_method(new) if len(group) > 1]  # of one point there is nothing to choose
        judge([row for group in grids for row in group], problem, dataset, search.seeds, **how)
        judge([row for group in grids for row in best(group)[:FINALISTS]], problem, dataset, search.finals, **how)
        rows += new
    return rows


def judge(rows: list[dict[str, Any]], problem: Problem, dataset: Dataset, seeds: Iterable[int], **how: Any) -> None:
    """Train every row's point once for each seed, and note its validation error (None if it diverged)."""
    for seed in seeds if rows else ():
        todo = [unredrawn(problem, row["method"], row["numbers"], seed) for row in rows]
        print(f"{problem.name}, seed {seed}: {len(todo)} runs", flush=True)
        for row, outcome in zip(rows, run_all(todo, split(dataset, problem.noise, seed), **how), strict=True):
            row["errors"].append(outcome.record.get("test_error"))


def unredrawn(problem: Problem, label: str, numbers: dict[str, float], seed: int) -> Config:
    """A config for the images of `split`, which has redrawn their labels and kept three quarters of them."""
    config, kept = problem.config(label, seed, numbers), problem.n_train - problem.n_train // 4
    return replace(config, noise=0.0, batch_size=min(config.batch_size, kept))


def by_method(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The points grouped by problem and method."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["problem"], row["method"]), []).append(row)
    return list(groups.values())


def best(group: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points of one method, best first: those judged most often, by mean error, then the rest."""
    return sorted(
        group, key=lambda row: (-len(row["errors"]), np.mean([1.0 if e is None else e for e in row["errors"] or [1.0]]))
    )


def winners(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """The best point of every problem and method, as in recipes.json."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for first, *_ in map(best, by_method(rows)):
        found.setdefault(first["problem"], {})[first["method"]] = first["numbers"]
    return found


def stored() -> list[dict[str, Any]]:
    """Every point of every search that is in benchmarks/results/tuning."""
    files = (RESULTS / f"{name}.json" for name in SEARCHES)
    kept = (json.loads(path.read_text(encoding="utf-8")) for path in files if path.exists())
    return [row for record in kept for row in record["grid"]]


def write(path: Path, record: Any) -> None:
    """Write a record as JSON, replacing the whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write((json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(SEARCHES)} (default: all)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-dir")
    parser.add_argument("--runs", type=Path, help="keep finished runs here; the same command continues with them")
    args = parser.parse_args()
    if unknown := set(args.names) - set(SEARCHES):
        parser.error(f"unknown {', '.join(sorted(unknown))}, expected some of {', '.join(SEARCHES)}")
    set_threads(args.threads)
    for name in args.names or SEARCHES:
        rows: list[dict[str, Any]] = []
        for search in SEARCHES[name]:
            rows += tune(search, rows, args.data_dir, jobs=args.jobs, folder=args.runs)
        write(RESULTS / f"{name}.json", {"environment": environment(), "grid": rows})
        write(RECIPES, winners(stored()))


if __name__ == "__main__":
    main()
