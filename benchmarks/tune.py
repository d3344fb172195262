"""Choose the hyper-parameters of `minisam reproduce`, without looking at a test image.

    python benchmarks/tune.py [mlp cnn …] [--jobs 2] [--data-dir DIR] [--runs DIR]

For every problem and method, every point of a grid is trained on three quarters of the training images and judged by
its error on the other quarter, whose labels are as noisy as the rest. The best three of each grid are then judged on
further splits (except for CIFAR-100), and the best of them is the recipe. All methods compared with each other get
grids of the same size, placed by hand; in the papers' protocol (`papers-mlp`) only rho has a grid. Each tuning seed has
its own split, initial weights, batches and redrawn labels, different from those of the comparison. Writes
benchmarks/results/tuning/NAME.json, and the winners of all files there to minisam/study/recipes.json.
"""

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minisam.data import Dataset, load, redraw_labels
from minisam.kernels import set_threads
from minisam.rng import Stream, keyed_rng
from minisam.study import recipes
from minisam.study.recipes import (
    BIG_BATCH,
    BUDGETS,
    CIFAR100,
    CNN,
    CNN_BN,
    FULL_BATCH,
    M_SHARPNESS,
    MAIN,
    MATCHED,
    MLP,
    NOISES,
    PAPERS_MLP,
    SAM,
    SIZES,
    VARIANTS,
    Problem,
    noisy,
)
from minisam.study.sweep import run_all
from minisam.training.config import Config
from minisam.training.environment import environment
from minisam.training.files import replacing

HERE = Path(__file__).parent
RESULTS, RECIPES = HERE / "results" / "tuning", Path(recipes.__file__).with_name("recipes.json")
Grid = dict[str, tuple[float, ...]]  # the values of each option; a grid has all combinations


FINALISTS = 3  # of each grid; more seeds then find the best of them


class Search(NamedTuple):
    """Methods to tune on some problems, by their errors with some seeds."""

    problems: tuple[Problem, ...]
    grids: dict[str, Grid]
    seeds: tuple[int, ...]
    start: str | None = None  # the method whose recipe fills in what the grids omit
    on: Problem | None = None  # the problem for which that recipe was found, if it is not each one's own
    finals: tuple[int, ...] = (1002, 1003)  # further seeds, for the finalists


def _mains(momentum: Grid, adam: Grid, gd: Grid, sam: Grid, sam_adam: Grid, asam: Grid) -> dict[str, Grid]:
    return dict(zip(MAIN, (gd, momentum, momentum, adam, sam, sam_adam, asam), strict=True))


MLP_GRIDS = _mains(  # 12 points each
    momentum={"lr": (0.003, 0.01, 0.03), "weight_decay": (5e-4, 5e-3, 2e-2, 5e-2)},
    adam={"lr": (3e-4, 1e-3, 3e-3), "weight_decay": (0.1, 0.5, 2.0, 5.0)},
    gd={"lr": (0.03, 0.1, 0.3), "weight_decay": (5e-4, 5e-3, 2e-2, 5e-2)},
    sam={"lr": (0.01, 0.03), "weight_decay": (2e-2, 5e-2), "rho": (0.05, 0.1, 0.2)},
    sam_adam={"lr": (3e-4, 1e-3), "weight_decay": (2.0, 5.0), "rho": (0.05, 0.1, 0.2)},
    asam={"lr": (0.01, 0.03), "weight_decay": (5e-3, 2e-2), "rho": (1.0, 2.0, 4.0)},
)
CNN_GRIDS = _mains(  # 12 points each
    momentum={"lr": (0.003, 0.01, 0.03), "weight_decay": (1e-2, 2e-2, 5e-2, 1e-1)},
    adam={"lr": (1e-3, 3e-3, 1e-2), "weight_decay": (0.1, 0.5, 2.0, 5.0)},
    gd={"lr": (0.03, 0.1, 0.3), "weight_decay": (5e-3, 1e-2, 2e-2, 5e-2)},
    sam={"lr": (0.01, 0.03), "weight_decay": (1e-2, 2e-2), "rho": (0.01, 0.02, 0.05)},
    sam_adam={"lr": (1e-3, 3e-3), "weight_decay": (0.1, 0.5), "rho": (0.02, 0.05, 0.1)},
    asam={"lr": (0.01, 0.03), "weight_decay": (2e-3, 1e-2), "rho": (0.25, 0.5, 1.0)},
)
CNN_BN_GRIDS = _mains(  # a larger weight decay: scaling the weights before a BatchNorm changes nothing
    momentum={"lr": (0.003, 0.01, 0.03), "weight_decay": (1e-2, 2e-2, 5e-2, 1e-1)},
    adam={"lr": (1e-3, 3e-3, 1e-2), "weight_decay": (0.1, 0.5, 2.0, 5.0)},
    gd={"lr": (0.03, 0.1, 0.3), "weight_decay": (5e-3, 1e-2, 2e-2, 5e-2)},
    sam={"lr": (0.03, 0.1), "weight_decay": (3e-2, 5e-2), "rho": (0.01, 0.02, 0.05)},
    sam_adam={"lr": (1e-3, 3e-3), "weight_decay": (0.5, 2.0), "rho": (0.05, 0.1, 0.2)},
    asam={"lr": (0.01, 0.03), "weight_decay": (1e-2, 3e-2), "rho": (0.25, 0.5, 1.0)},
)
SMALL_GRIDS = _mains(  # 6 points each, for the side experiments
    momentum={"lr": (0.01, 0.03), "weight_decay": (5e-3, 2e-2, 5e-2)},
    adam={"lr": (3e-4, 1e-3), "weight_decay": (0.5, 2.0, 5.0)},
    gd={"lr": (0.1, 0.3), "weight_decay": (5e-3, 2e-2, 5e-2)},
    sam={"lr": (0.01,), "weight_decay": (5e-3, 2e-2), "rho": (0.05, 0.1, 0.2)},
    sam_adam={"lr": (1e-3,), "weight_decay": (0.5, 2.0), "rho": (0.05, 0.1, 0.2)},
    asam={"lr": (0.01,), "weight_decay": (5e-3, 2e-2), "rho": (1.0, 2.0, 4.0)},
)
FULL_BATCH_GRIDS: dict[str, Grid] = {  # 12 points each; few steps, so they are larger
    **{label: {"lr": (0.01, 0.03, 0.1), "weight_decay": (5e-3, 1e-2, 5e-2, 1e-1)} for label in ("Momentum", MATCHED)},
    SAM: {"lr": (0.01, 0.03, 0.1), "weight_decay": (1e-2, 5e-2), "rho": (0.05, 0.15)},
}
BUDGET_GRIDS: dict[str, Grid] = {  # 12 points each
    **{label: {"lr": (0.01, 0.03, 0.1), "weight_decay": (5e-3, 1e-2, 2e-2, 5e-2)} for label in ("Momentum", MATCHED)},
    SAM: {"lr": (0.01, 0.03), "weight_decay": (1e-2, 2e-2), "rho": (0.02, 0.05, 0.1)},
}
L1 = {"lr": (0.003, 0.01, 0.03), "l1": (1e-4, 5e-4, 1e-3, 3e-3)}
PENALTIES = {"L1 penalty": L1, "L1 penalty, 2× epochs": L1}  # 12 points each, as for weight decay
RADII = (0.05, 0.1, 0.2, 0.4)
VARIANT_GRIDS: dict[str, Grid] = {label: {"rho": RADII} for label in VARIANTS}
# A step with p = 1 moves only one weight, one with p = ∞ moves all P by rho: their balls differ in size. A random
# direction is tried up to lengths at which it does some harm.
VARIANT_GRIDS |= {"p = 1": {"rho": (0.05, 0.2, 0.8, 3.2)}, "p = ∞": {"rho": (5e-5, 1e-4, 2e-4, 4e-4)}}
VARIANT_GRIDS |= {"random direction": {"rho": (0.2, 0.8, 3.2, 12.8)}}

# The papers' protocol: Foret et al. and Kwon et al. choose rho alone, from six or more values; the learning rate is
# Momentum's (or Adam's), chosen once.
RADII_OF_PAPERS = {"rho": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)}
PAPERS_RATES: dict[str, Grid] = {
    "Momentum": {"lr": (0.001, 0.003, 0.01, 0.03), "weight_decay": (5e-4,)},
    "Adam": {"lr": (1e-4, 3e-4, 1e-3, 3e-3), "weight_decay": (5e-4,)},
}
PAPERS_GRIDS: dict[str, dict[str, Grid]] = {  # by the method whose learning rate they take
    "Momentum": {MATCHED: {}, SAM: RADII_OF_PAPERS, "ASAM(Momentum)": {"rho": (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)}},
    "Adam": {"SAM(Adam)": RADII_OF_PAPERS},
}

BOTH = (MLP, noisy(MLP))
NOISY_PAPERS = tuple(noisy(PAPERS_MLP, noise) for noise in NOISES)
BIG_BATCHES = (BIG_BATCH, noisy(BIG_BATCH))
SEARCHES: dict[str, tuple[Search, ...]] = {
    "mlp": (Search(BOTH, MLP_GRIDS | PENALTIES, (1000, 1001)), Search(BOTH, VARIANT_GRIDS, (1000,), SAM)),
    "cnn-bn": (Search((CNN_BN, noisy(CNN_BN)), CNN_BN_GRIDS, (1000,)),),
    "cnn": (Search((CNN, noisy(CNN)), CNN_GRIDS, (1000,)),),
    "mlp-noise": (Search((noisy(MLP, 0.2), noisy(MLP, 0.6)), MLP_GRIDS, (1000,)),),
    "size": tuple(
        Search((one, noisy(one)), {label: SMALL_GRIDS[label] for label in ("Momentum", MATCHED, SAM)}, (1000,))
        for one in SIZES
        if one != MLP
    ),
    **{name: (Search((one, noisy(one)), SMALL_GRIDS, (1000,), finals=()),) for name, one in CIFAR100.items()},
    "budget": tuple(
        Search(
            (one,),
            {label: BUDGET_GRIDS[label] for label in ("Momentum", SAM) + (MATCHED,) * (one == BUDGETS[-1])},
            (1000,),
        )
        for one in BUDGETS
    ),
    "full-batch": (Search((FULL_BATCH, noisy(FULL_BATCH)), FULL_BATCH_GRIDS, (1000,)),),
    "papers-mlp": (
        Search((PAPERS_MLP,), PAPERS_RATES, (1000, 1001)),
        *(
            Search(NOISY_PAPERS, {start: {}} | grids, (1000, 1001), start, PAPERS_MLP)
            for start, grids in PAPERS_GRIDS.items()
        ),
    ),
    "m-sharpness": (
        Search(BIG_BATCHES, {label: SMALL_GRIDS[label] for label in (MATCHED, SAM)}, (1000,)),
        Search(BIG_BATCHES, {label: {"rho": (0.02, 0.05, 0.1)} for label in M_SHARPNESS}, (1000,), SAM),
    ),
}


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
        fixed = winners(known)[(search.on or problem).name][search.start] if search.start else {}
        new: list[dict[str, Any]] = [
            {"problem": problem.name, "method": label, "numbers": fixed | point, "errors": []}
            for label, grid in search.grids.items()
            for point in points(grid)
        ]
        dataset = load(problem.dataset, data_dir).first(problem.n_train, 1)
        judge(new, problem, dataset, search.seeds, **how)
        judge(
            [row for group in by_method(new) for row in best(group)[:FINALISTS]], problem, dataset, search.finals, **how
        )
        rows += new
    return rows


def judge(rows: list[dict[str, Any]], problem: Problem, dataset: Dataset, seeds: Iterable[int], **how: Any) -> None:
    """Train every row's point once for each seed, and note its validation error (None if it diverged)."""
    for seed in seeds:
        todo = [_unredrawn(problem, row["method"], row["numbers"], seed) for row in rows]
        print(f"{problem.name}, seed {seed}: {len(todo)} runs", flush=True)
        for row, outcome in zip(rows, run_all(todo, split(dataset, problem.noise, seed), **how), strict=True):
            row["errors"].append(outcome.record.get("test_error"))


def _unredrawn(problem: Problem, label: str, numbers: dict[str, float], seed: int) -> Config:
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
        group, key=lambda row: (-len(row["errors"]), np.mean([1.0 if e is None else e for e in row["errors"]]))
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
