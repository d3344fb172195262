"""Choose the hyper-parameters of `minisam reproduce`, without a look at a test image.

    python benchmarks/tune.py mlp [--jobs 2] [--data-dir DIR] [--runs DIR]

For every optimizer and noise level, every point of a grid is trained on three quarters of the
first 4,000 training images of CIFAR-10 and judged by its error on the other quarter, whose labels
are as noisy as the rest. All optimizers get grids of the same size. Each tuning seed
has a split, initial weights, batches and redrawn labels of its own, other than those of the
comparison. Writes benchmarks/results/tuning-MODEL.json and prints the winners, which stand in
benchmarks/minisam_study/recipes.json (a test compares the two).
"""

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from minisam_study.config import Config
from minisam_study.datasets import load
from minisam_study.environment import environment
from minisam_study.files import replacing
from minisam_study.recipes import NOISY, PRESETS
from minisam_study.sweep import run_all

from minisam.data import Dataset, redraw_labels
from minisam.kernels import set_threads
from minisam.rng import Stream, keyed_rng

SEEDS = {"mlp": (1000, 1001, 1002), "cnn": (1000,)}
RESULTS = Path(__file__).parent / "results"


class Grid(NamedTuple):
    """One optimizer's points: every lr with every weight decay with every rho."""

    label: str
    optimizer: str
    base: str
    passes: int
    lr: tuple[float, ...]
    weight_decay: tuple[float, ...]
    rho: tuple[float, ...] = (0.0,)


GRIDS = {
    "mlp": (  # 12 points each
        Grid("GD", "gd", "gd", 1, (0.02, 0.05, 0.1), (0, 5e-4, 5e-3, 2e-2)),
        Grid("Momentum", "momentum", "momentum", 1, (0.003, 0.01, 0.03), (0, 5e-4, 5e-3, 2e-2)),
        Grid("Momentum, 2× epochs", *("momentum", "momentum", 2), *((0.003, 0.01, 0.03), (0, 5e-4, 5e-3, 2e-2))),
        Grid("Adam", "adam", "adam", 1, (3e-4, 1e-3, 3e-3), (0, 0.3, 1.0, 3.0)),
        Grid("SAM(Momentum)", "sam", "momentum", 1, (0.003, 0.01), (5e-3, 2e-2), (0.05, 0.1, 0.2)),
        Grid("SAM(Adam)", "sam", "adam", 1, (3e-4, 1e-3), (0.3, 1.0), (0.05, 0.1, 0.2)),
    ),
    "cnn": (  # 3 points each: a run costs ten times as much
        Grid("GD", "gd", "gd", 1, (0.03, 0.1, 0.2), (5e-3,)),
        Grid("Momentum", "momentum", "momentum", 1, (0.003, 0.01, 0.02), (5e-3,)),
        Grid("Momentum, 2× epochs", "momentum", "momentum", 2, (0.003, 0.01, 0.02), (5e-3,)),
        Grid("Adam", "adam", "adam", 1, (5e-4, 1e-3, 2e-3), (0.3,)),
        Grid("SAM(Momentum)", "sam", "momentum", 1, (0.01,), (5e-3,), (0.02, 0.05, 0.1)),
        Grid("SAM(Adam)", "sam", "adam", 1, (1e-3,), (0.3,), (0.02, 0.05, 0.1)),
    ),
}
PRESET_OF = {"mlp": "quick", "cnn": "full"}


def split(dataset: Dataset, noise: float, seed: int) -> Dataset:
    """The training images as a data set of their own: a quarter of them, drawn by seed, tests."""
    y = redraw_labels(dataset.y_train, noise, len(dataset.classes), seed)
    order = keyed_rng(seed, Stream.SUBSET).permutation(len(y))
    held_out, kept = order[: len(y) // 4], order[len(y) // 4 :]
    x = dataset.x_train
    return replace(dataset, x_train=x[kept], y_train=y[kept], x_test=x[held_out], y_test=y[held_out])


def tune(model: str, dataset: Dataset, jobs: int, folder: Path | None) -> list[dict[str, Any]]:
    """Train the whole grid of a model; one record a point, with its errors (None: it diverged).

    Finished runs are kept in `folder`, and not done again.
    """
    preset = PRESETS[PRESET_OF[model]]
    rows = [
        {"optimizer": grid.label, "noise": noise, "lr": lr, "weight_decay": wd, "rho": rho}
        | {"passes": grid.passes, "config": {"optimizer": grid.optimizer, "base": grid.base}}
        for noise in (0.0, NOISY)
        for grid in GRIDS[model]
        for lr, wd, rho in itertools.product(grid.lr, grid.weight_decay, grid.rho)
    ]
    for row in rows:
        row["errors"] = []
    for noise, seed in itertools.product((0.0, NOISY), SEEDS[model]):
        chosen = [row for row in rows if row["noise"] == noise]
        todo = [
            Config(
                **row["config"],
                model=model,
                epochs=preset.epochs * row["passes"],
                batch_size=preset.batch_size,
                seed=seed,
                **{key: row[key] for key in ("lr", "weight_decay", "rho")},
            )
            for row in chosen
        ]
        print(f"{model}, noise {noise:g}, seed {seed}: {len(todo)} runs")
        outcomes = run_all(todo, split(dataset, noise, seed), jobs=jobs, folder=folder)
        for row, outcome in zip(chosen, outcomes, strict=True):
            row["errors"].append(outcome.record.get("test_error"))
    return rows


def winners(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The point with the lowest mean error of every optimizer and noise level."""
    best: dict[tuple[str, float], tuple[float, dict[str, Any]]] = {}
    for row in rows:
        mean = float(np.mean([1.0 if e is None else e for e in row["errors"]]))
        key = (row["optimizer"], row["noise"])
        if key not in best or mean < best[key][0]:
            best[key] = (mean, row)
    return [row | {"mean_error": mean} for mean, row in best.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=GRIDS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-dir")
    parser.add_argument("--runs", type=Path, help="keep finished runs here; the same again goes on where it was")
    args = parser.parse_args()
    set_threads(args.threads)
    preset = PRESETS[PRESET_OF[args.model]]
    dataset = load("cifar10", args.data_dir).first(n_train=preset.n_train, n_test=1)
    rows = tune(args.model, dataset, args.jobs, args.runs)
    best = winners(rows)
    record = {
        "environment": environment(),
        "data": {"name": dataset.name, "checksum": dataset.checksum, "seeds": SEEDS[args.model]},
        "epochs": preset.epochs,
        "batch_size": preset.batch_size,
        "winners": best,
        "grid": rows,
    }
    with replacing(RESULTS / f"tuning-{args.model}.json") as path:
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    for row in sorted(best, key=lambda row: row["noise"]):
        print(
            f"noise {row['noise']:<4} {row['optimizer']:<20} lr {row['lr']:<7g}"
            f"weight decay {row['weight_decay']:<8g}rho {row['rho']:<6g}"
            f"validation error {row['mean_error']:.3f}"
        )


if __name__ == "__main__":
    main()
