"""SAM against its baselines: run an experiment, compare its methods, repeat a kept one.

Runs of one seed share their initial weights, batches and redrawn labels; comparisons are paired by
seed and by test image.
"""

import re
import reprlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minisam.data import Dataset
from minisam.study.experiments import Experiment
from minisam.study.geometry import GEOMETRY, require_geometry
from minisam.study.kinds import Comparison, require_name
from minisam.study.settings import Setting
from minisam.study.statistics import Interval, error_reduction, mean_error, ratio, resampled, spearman
from minisam.study.sweep import run_all
from minisam.study.tasks import Outcome, require_numbers
from minisam.training.environment import changes, together
from minisam.training.files import Damaged, parse_json, read_bytes, reason, require_plain
from minisam.training.loop import Diverged

MOST = 10_000  # runs in a results.json
IMAGES = 500  # training images on which the sharpness of every run is measured


def reproduce(
    experiment: Experiment, dataset: Dataset, name: str = "custom", **how: Any
) -> tuple[dict[str, Any], np.ndarray]:
    """Run an experiment. Returns the contents of results.json, and each run's test predictions.

    The predictions are (runs, test images), row i for results["runs"][i]. `how` goes to `run_all`:
    jobs, executor, folder.

    Raises:
        Diverged: a run's loss became NaN or infinite.
        OSError, RuntimeError: as in `run_all`.
    """
    runs = experiment.runs()
    dataset = dataset.first(max(run.n_train for run in runs), experiment.n_test)
    outcomes: dict[int, Outcome] = {}
    for n_train in dict.fromkeys(run.n_train for run in runs):
        some = [i for i, run in enumerate(runs) if run.n_train == n_train]
        configs = [runs[i].config for i in some]
        found = run_all(configs, dataset.first(n_train), experiment.evaluate_every, IMAGES, **how)
        outcomes |= dict(zip(some, found, strict=True))
    for outcome in outcomes.values():
        if outcome.diverged:
            raise Diverged(outcome.diverged)
    predictions = np.array([outcomes[i].predictions for i in range(len(runs))])
    records: list[dict[str, Any]] = []
    for i, run in enumerate(runs):
        about = run.setting.record() | {"seed": run.config.seed, "optimizer": run.label}
        records.append(about | outcomes[i].record)
    machines = [record.pop("environment") for record in records]
    wrong = predictions != dataset.y_test
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    data: dict[str, Any] = {key: getattr(dataset, key) for key in ("name", "source", "synthetic", "checksum")}
    data |= {"n_train": len(dataset.y_train), "n_test": len(dataset.y_test)}
    asked: dict[str, Any] = {"command": command, "preset": name, "kind": experiment.kind}
    asked |= {"seeds": len({run.config.seed for run in runs}), "evaluate_every": experiment.evaluate_every}
    asked["pairs"] = [list(pair) for pair in experiment.pairs]
    results: dict[str, Any] = {"dataset": data, "environment": together(machines), "config": asked, "runs": records}
    results |= {"summary": summarise(records, wrong), "comparisons": compare(records, wrong, experiment.pairs)}
    return results, predictions


class Repeat(NamedTuple):
    """The runs of a results.json, to be repeated."""

    before: dict[str, Any]
    experiment: Experiment
    name: str  # of the repetition, and of its folder

    @classmethod
    def of(cls, path: Path) -> "Repeat":
        """Read a results.json, and find whatever would be missed when its runs have been repeated.

        Raises:
            OSError: it can't be read.
            Damaged: it is not a results.json, or it is damaged.
        """
        raw = read_bytes(path, ".json")
        try:
            before = parse_json(raw)
            if len(before["runs"]) > MOST:
                raise ValueError(f"{len(before['runs']):,} runs, more than {MOST:,}")
            repeat = cls(before, Experiment.of(before), f"{_folder_name(before['config']['preset'])}-again")
            for run in before["runs"]:
                require_numbers(run)
                if len(run["history"]) != run["config"]["epochs"]:
                    raise ValueError(f"a history of {len(run['history'])} epochs of {run['config']['epochs']}")
                require_geometry(run["geometry"])
            if not isinstance(before["environment"], dict):
                raise ValueError(f"environment must be a record, got {type(before['environment']).__name__}")
            repeat.differences(before)
            require_plain(before["runs"])
        except Exception as error:  # a damaged file can fail in any way
            raise Damaged(f"{path} is not a results.json, or it is damaged ({reason(error)})") from error
        return repeat

    def require_same_images(self, dataset: Dataset) -> None:
        """Raise ValueError unless these are the images that the results were found on."""
        wanted, got = self.before["dataset"]["checksum"], dataset.checksum
        if wanted != got:
            found = f"the results are of images with checksum {wanted[:16]}…, these have {got[:16]}…"
            raise ValueError(f"{found}: name the folder of those with --data-dir")

    def differences(self, after: dict[str, Any]) -> list[str]:
        """A line for each run whose numbers, except times, are not the same to the last bit."""
        lines = []
        for old, new in zip(self.before["runs"], after["runs"], strict=True):
            numbers = _timeless(old)
            if found := changes(numbers, dict.fromkeys(numbers) | _timeless(new)):  # also those that are missing now
                where = f"{new['model']}, noise {new['noise']:g}, {new['optimizer']}, seed {new['seed']}"
                more = f"; and {len(found) - 2} more" if len(found) > 2 else ""
                lines.append(f"{where}: {'; '.join(found[:2])}{more}")
        return lines


def _folder_name(preset: Any) -> str:
    require_name("preset", preset)
    if not re.fullmatch(r"[\w .,+-]+", preset):
        raise ValueError(f"preset must be letters, digits, spaces and any of _.,+-, got {reprlib.repr(preset)}")
    return preset


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a run that do not depend on when it is done, as one flat dictionary."""
    numbers = {key: record[key] for key in ("weights", "test_error", "train_error", "gradient_evaluations")}
    for epoch in record["history"]:
        numbers |= {f"{key} of epoch {epoch['epoch']}": epoch[key] for key in epoch if key not in ("epoch", "seconds")}
    return numbers | {f"geometry's {key}": value for key, value in record["geometry"].items()}


def _groups(records: list[dict[str, Any]]) -> dict[Setting, dict[str, list[int]]]:
    """Indices of each optimizer's runs, one per seed, in each setting."""
    groups: dict[Setting, dict[str, list[int]]] = {}
    for i, record in enumerate(records):
        groups.setdefault(Setting.of(record), {}).setdefault(record["optimizer"], []).append(i)
    return groups


def summarise(records: list[dict[str, Any]], wrong: np.ndarray) -> list[dict[str, Any]]:
    """Mean test error with its interval for every optimizer in every setting.

    wrong is (runs, test images), true where a run misclassified an image.
    """
    summary = []
    for setting, optimizers in _groups(records).items():
        for optimizer, runs in optimizers.items():
            row = setting.record() | {"optimizer": optimizer, "seeds": len(runs)}
            for key in ("train_error", "gradient_evaluations"):
                row[key] = float(np.mean([records[i][key] for i in runs]))
            row["test_error"], row["ci_low"], row["ci_high"] = mean_error(wrong[runs])
            for key, number in GEOMETRY.items():
                found = [number(records[i]["geometry"]) for i in runs]
                row[key] = [float(np.mean(found)), min(found), max(found)]
            summary.append(row)
    return summary


def compare(records: list[dict[str, Any]], wrong: np.ndarray, pairs: Sequence[Comparison]) -> list[dict[str, Any]]:
    """How much better, and how much flatter, each candidate is than its baseline in each setting.

    Paired by seed and test image: the relative error reduction, and for each of GEOMETRY how many times smaller it is.
    """
    comparisons = []
    for setting, optimizers in _groups(records).items():
        for baseline, candidate in pairs:
            if baseline not in optimizers or candidate not in optimizers:
                continue
            base, new = optimizers[baseline], optimizers[candidate]
            if not wrong[base].any():  # nothing to reduce
                continue
            row = setting.record() | {"baseline": baseline, "candidate": candidate}
            row["error_reduction"], row["ci_low"], row["ci_high"] = error_reduction(wrong[base], wrong[new])
            for key, number in GEOMETRY.items():
                old, now = (np.array([number(records[i]["geometry"]) for i in runs]) for runs in (base, new))
                row[key] = list(ratio(old, now)) if min(old.min(), now.min()) > 0 else None
            comparisons.append(row)
    return comparisons


def correlate(records: list[dict[str, Any]], key: str) -> tuple[Interval, Interval]:
    """Rank correlation of one of GEOMETRY with the test error of a setting's runs: within methods, and across all runs.

    The first is the mean over the methods.
    """
    runs = sorted(records, key=lambda run: (run["optimizer"], run["seed"]))
    shape = -1, len({run["seed"] for run in runs})  # (methods, seeds)
    errors = np.array([run["test_error"] for run in runs]).reshape(shape)
    sharpness = np.array([GEOMETRY[key](run["geometry"]) for run in runs]).reshape(shape)
    within, across = (resampled(how, sharpness, errors, np.random.default_rng(0)) for how in (_within, _across))
    return within, across


def _within(x: np.ndarray, y: np.ndarray) -> float:
    return float(spearman(x, y).mean())


def _across(x: np.ndarray, y: np.ndarray) -> float:
    return float(spearman(x.ravel(), y.ravel()))
