"""What is compared, and with which hyper-parameters.

The numbers were chosen by `python benchmarks/tune.py`, for every optimizer from a grid of the same
size, by the error on a validation split of CIFAR-10's *training* images whose labels were as noisy
as the rest. Test images played no part. Its records are benchmarks/results/tuning-*.json.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from minisam.experiments.config import Config


class Recipe(NamedTuple):
    """One line of the table below. `passes` multiplies the preset's epochs."""

    label: str
    optimizer: str
    base: str
    passes: int
    clean: tuple[float, float, float]  # lr, weight decay, rho
    noisy: tuple[float, float, float]  # the same, at 40 % redrawn labels


MLP = (
    # passes; lr, weight decay, rho on clean labels; the same on noisy labels
    Recipe("GD", "gd", "gd", 1, (0.1, 0.02, 0), (0.05, 0.02, 0)),
    Recipe("Momentum", "momentum", "momentum", 1, (0.01, 0.02, 0), (0.03, 0.02, 0)),
    Recipe("Momentum, 2× epochs", "momentum", "momentum", 2, (0.03, 0.005, 0), (0.03, 0.02, 0)),
    Recipe("Adam", "adam", "adam", 1, (0.001, 3, 0), (0.001, 3, 0)),
    Recipe("SAM(Momentum)", "sam", "momentum", 1, (0.01, 0.02, 0.1), (0.01, 0.02, 0.1)),
    Recipe("SAM(Adam)", "sam", "adam", 1, (0.001, 0.3, 0.2), (0.001, 1, 0.1)),
)
CNN = (
    # passes; lr, weight decay, rho on clean labels; the same on noisy labels
    Recipe("GD", "gd", "gd", 1, (0.1, 0.005, 0), (0.03, 0.005, 0)),
    Recipe("Momentum", "momentum", "momentum", 1, (0.01, 0.005, 0), (0.01, 0.005, 0)),
    Recipe("Momentum, 2× epochs", "momentum", "momentum", 2, (0.01, 0.005, 0), (0.003, 0.005, 0)),
    Recipe("Adam", "adam", "adam", 1, (0.002, 0.3, 0), (0.002, 0.3, 0)),
    Recipe("SAM(Momentum)", "sam", "momentum", 1, (0.01, 0.005, 0.02), (0.01, 0.005, 0.02)),
    Recipe("SAM(Adam)", "sam", "adam", 1, (0.001, 0.3, 0.02), (0.001, 0.3, 0.02)),
)
RECIPES: dict[str, tuple[Recipe, ...]] = {"mlp": MLP, "cnn": CNN}
NOISY = 0.4


@dataclass(frozen=True)
class Preset:
    """How much work `minisam reproduce` does."""

    models: tuple[str, ...]
    n_train: int  # the first images of the training set
    epochs: int
    seeds: int
    batch_size: int = 64
    noise: tuple[float, ...] = (0.0, NOISY)
    n_test: int | None = None  # None: all of them


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
    for model in preset.models:
        for noise in preset.noise:
            for recipe in RECIPES[model]:
                lr, weight_decay, rho = recipe.noisy if noise else recipe.clean
                epochs, batch_size = preset.epochs * recipe.passes, preset.batch_size
                config = Config(model, recipe.optimizer, recipe.base, lr, rho, noise=noise)
                config = replace(config, weight_decay=weight_decay, epochs=epochs, batch_size=batch_size)
                runs += [(recipe.label, replace(config, seed=seed)) for seed in range(preset.seeds)]
    return runs
