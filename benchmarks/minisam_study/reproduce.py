"""SAM against its baselines: many runs, one comparison, and the same runs once more.

Runs of one seed share their initial weights, batches and redrawn labels; comparisons are paired by
seed and by test image.
"""

import itertools
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minisam.data import Dataset
from minisam_study.config import Config
from minisam_study.environment import changes
from minisam_study.files import Damaged, parse_json, reason
from minisam_study.recipes import Preset, configs
from minisam_study.statistics import error_reduction, mean_error
from minisam_study.sweep import Outcome, run_all
from minisam_study.train import Diverged

IMAGES = 500  # on which the sharpness of every run is measured
GEOMETRY: dict[str, Callable[[dict[str, Any]], float]] = {
    "lambda_max": lambda found: found["eigenvalues"][0],
    "lambda_ratio": lambda found: found["eigenvalues"][0] / found["eigenvalues"][4],
    "worst_rise": lambda found: found["worst"][-1],
}


def reproduce(
    preset: Preset, dataset: Dataset, name: str = "custom", runs: Sequence[tuple[str, Config]] = (), **how: Any
) -> tuple[dict[str, Any], np.ndarray]:
    """Run a preset, or what stands in `runs`. Returns what results.json holds, and each run's test predictions.

    The predictions are (runs, test images) uint8, row i that of results["runs"][i]. `how` is `run_all`'s:
    jobs, executor, folder.

    Raises:
        Diverged: a run's loss became NaN or infinite.
        OSError, RuntimeError: what `run_all` raises.
    """
    dataset = dataset.first(n_train=preset.n_train, n_test=preset.n_test)
    labels, todo = zip(*(runs or configs(preset)), strict=True)
    outcomes = run_all(todo, dataset, max(1, preset.epochs // 3), IMAGES, **how)
    for outcome in outcomes:
        if outcome.diverged:
            raise Diverged(outcome.diverged)
    predictions = np.array([outcome.predictions for outcome in outcomes])
    records = [_record(label, outcome) for label, outcome in zip(labels, outcomes, strict=True)]
    machines = [record.pop("environment") for record in records]
    wrong = predictions != dataset.y_test
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    about = {key: getattr(dataset, key) for key in ("name", "source", "synthetic", "checksum")}
    about |= {"n_train": len(dataset.y_train), "n_test": len(dataset.y_test)}
    config = {"command": command, "preset": name} | asdict(preset)
    together = {key: ", ".join(dict.fromkeys(str(machine[key]) for machine in machines)) for key in machines[0]}
    results = {"dataset": about, "environment": together, "config": config, "runs": records}
    results |= {"summary": summarise(records, wrong), "comparisons": compare(records, wrong)}
    return results, predictions


def _record(label: str, outcome: Outcome) -> dict[str, Any]:
    config = outcome.record["config"]
    return {key: config[key] for key in ("model", "noise", "seed")} | {"optimizer": label} | outcome.record


class Repeat(NamedTuple):
    """What a results.json asks for, to be done once more."""

    before: dict[str, Any]
    preset: Preset
    runs: list[tuple[str, Config]]

    @classmethod
    def of(cls, path: Path) -> "Repeat":
        """Read a results.json.

        Raises:
            OSError: it can't be read.
            Damaged: it is none, or not whole.
        """
        try:
            before = parse_json(path.read_bytes())
            preset = Preset.of(before["config"])
            runs = [(str(run["optimizer"]), Config.of(run["config"])) for run in before["runs"]]
            for run in before["runs"]:
                _timeless(run)
            if not runs or any(type(before["dataset"][key]) is not str for key in ("name", "checksum")):
                raise ValueError("no runs" if not runs else "no data set")
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{path} is not a results.json, or it is damaged ({reason(error)})") from error
        return cls(before, preset, runs)

    def require_same_images(self, dataset: Dataset) -> None:
        """Raise ValueError unless these are the images that the results were found on."""
        wanted, got = self.before["dataset"]["checksum"], dataset.checksum
        if wanted != got:
            raise ValueError(f"the results are of images with checksum {wanted[:16]}…, these have {got[:16]}…")

    def differences(self, after: dict[str, Any]) -> list[str]:
        """A line for each run whose numbers, seconds excepted, are not to the last bit what they were."""
        lines = []
        for old, new in zip(self.before["runs"], after["runs"], strict=True):
            if found := changes(_timeless(old), _timeless(new)):
                where = f"{new['model']}, noise {new['noise']:g}, {new['optimizer']}, seed {new['seed']}"
                more = f"; and {len(found) - 2} more" if len(found) > 2 else ""
                lines.append(f"{where}: {'; '.join(found[:2])}{more}")
        return lines


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a run that are the same whenever it is repeated, in one level; only what stands there."""
    numbers = {key: record[key] for key in ("weights", "test_error", "train_error", "gradient_evaluations")}
    for epoch in record["history"]:
        numbers |= {f"{key} of epoch {epoch['epoch']}": epoch[key] for key in epoch if key not in ("epoch", "seconds")}
    return numbers | {f"geometry's {key}": value for key, value in (record["geometry"] or {}).items()}


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
