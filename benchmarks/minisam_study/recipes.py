"""What is compared, and with which hyper-parameters.

The numbers in recipes.json were chosen by `python benchmarks/tune.py`, for every optimizer from a
grid of the same size, by the error on a validation split of CIFAR-10's *training* images whose
labels were as noisy as the rest. Test images played no part. `passes` multiplies a preset's epochs.
"""

import itertools
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from minisam.checks import Checked, Count
from minisam_study.config import Config

RECIPES: dict[str, list[dict[str, Any]]] = json.loads(
    Path(__file__).with_name("recipes.json").read_text(encoding="utf-8")
)
NOISY = 0.4


@dataclass(frozen=True)
class Preset(Checked):
    """How much work `minisam reproduce` does.

    Raises:
        ValueError: a number out of its range.
    """

    models: tuple[str, ...]
    n_train: Count  # the first images of the training set
    epochs: Count
    seeds: Count
    batch_size: Count = 64
    noise: tuple[float, ...] = (0.0, NOISY)
    n_test: Count | None = None  # None: all of them

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Preset":
        """A preset from a record that has its fields.

        Raises:
            KeyError, TypeError, ValueError: it has not.
        """
        given = {option.name: record[option.name] for option in fields(cls)}
        return cls(**given | {"models": tuple(map(str, given["models"])), "noise": tuple(map(float, given["noise"]))})


PRESETS = {
    "smoke": Preset(("mlp",), n_train=1000, epochs=4, seeds=2, n_test=2000),
    "quick": Preset(("mlp",), n_train=4000, epochs=15, seeds=3),
    "full": Preset(("cnn",), n_train=4000, epochs=12, seeds=5),
}


def configs(preset: Preset) -> list[tuple[str, Config]]:
    """Every run of a preset, with the label of its optimizer.

    Runs of one seed share initial weights, batches and redrawn labels.
    """
    runs = []
    for model, noise in itertools.product(preset.models, preset.noise):
        for recipe in RECIPES[model]:
            numbers = recipe["noisy" if noise else "clean"] | {"batch_size": preset.batch_size}
            epochs = preset.epochs * recipe["passes"]
            base = recipe.get("base", "momentum")
            config = Config(model, recipe["optimizer"], base, noise=noise, epochs=epochs, **numbers)
            runs += [(recipe["label"], replace(config, seed=seed)) for seed in range(preset.seeds)]
    return runs
