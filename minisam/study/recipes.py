"""Problems, methods, and the hyper-parameters of each method on each problem.

The numbers in recipes.json were chosen by `python benchmarks/tune.py`, for every method of a problem from a grid of the
same size, by the error on a validation split of the *training* images whose labels were as noisy as the rest. Test
images played no part in the choice within a grid. The grids themselves were placed by hand, and widened once after the
test errors of a first study were known; those of Momentum and SAM with the CNNs were moved once more, since their best
points lay at an end.

In the papers' protocol less is chosen: the learning rate, for Momentum (and for Adam) on clean labels, and then rho for
each of SAM's kind. Weight decay is 5e-4 for everybody.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from minisam.checks import Checked, Count, Fraction
from minisam.training.config import Config

RECIPES: dict[str, dict[str, dict[str, float]]] = json.loads(
    Path(__file__).with_name("recipes.json").read_text(encoding="utf-8")
)  # by problem and method


class Method(NamedTuple):
    """A way to learn: the options of a `Config` that are not tuned, and how many times a problem's epochs it gets."""

    options: dict[str, Any]
    passes: int = 1


MAIN = {  # the main comparison
    "GD": Method({"optimizer": "gd"}),
    "Momentum": Method({}),
    "Momentum, 2× epochs": Method({}, passes=2),
    "Adam": Method({"optimizer": "adam"}),
    "SAM(Momentum)": Method({"optimizer": "sam"}),
    "SAM(Adam)": Method({"optimizer": "sam", "base": "adam"}),
    "ASAM(Momentum)": Method({"optimizer": "asam"}),
}
PENALTIES = {
    "L1 penalty": Method({"weight_decay": 0.0}),
    "L1 penalty, 2× epochs": Method({"weight_decay": 0.0}, passes=2),
}
# Each variant has the learning rate and weight decay of SAM(Momentum), and its own rho.
VARIANTS = {
    "SAM, p = 2": Method({"optimizer": "sam"}),
    "p = 1": Method({"optimizer": "sam", "p": 1.0}),
    "p = ∞": Method({"optimizer": "sam", "p": math.inf}),
    "random direction": Method({"optimizer": "random-sam"}),
    "2 ascent steps": Method({"optimizer": "sam", "ascent_steps": 2}),
    "3 ascent steps": Method({"optimizer": "sam", "ascent_steps": 3}),
    "5 ascent steps": Method({"optimizer": "sam", "ascent_steps": 5}),
    "last half only": Method({"optimizer": "sam", "late": 0.5}),
    "last quarter only": Method({"optimizer": "sam", "late": 0.75}),
    "with second-order term": Method({"optimizer": "exact-sam"}),
}
M_SHARPNESS = {f"m = {m or 'batch'}": Method({"optimizer": "sam", "m": m}) for m in (1, 4, 16, 64, 0)}
METHODS = MAIN | PENALTIES | VARIANTS | M_SHARPNESS
PAPERS = tuple(label for label in MAIN if label != "GD")  # what the papers compare
BASELINES = ("GD", "Momentum", "Momentum, 2× epochs", "Adam")
MATCHED = "Momentum, 2× epochs"  # as many gradients as SAM
SAM = "SAM(Momentum)"
SAM_AND_MOMENTA = ("Momentum", MATCHED, SAM)
WARMUP = 7  # one seventh of the epochs; without it, SAM may ruin a network in its first steps


@dataclass(frozen=True)
class Problem(Checked):
    """What is to be learnt, from how many images and for how long: everything but the method.

    Raises:
        ValueError: a number out of its range.

    >>> Problem("cnn", noise=0.4).name
    'cnn, 4000 images of cifar10, noise 0.4, 15 epochs, batch 64'
    """

    model: str = "mlp"
    noise: Fraction = 0.0
    n_train: Count = 4000  # the first images of the training set
    epochs: Count = 15
    batch_size: Count = 64
    dataset: str = "cifar10"
    augment: bool = False  # with random flips and crops
    papers: bool = False  # tuned as in SAM's papers, not equally for all

    @property
    def name(self) -> str:
        """The name under which its recipes are kept."""
        images = f"{self.n_train} images of {self.dataset}"
        name = f"{self.model}, {images}, noise {self.noise:g}, {self.epochs} epochs, batch {self.batch_size}"
        return name + ", flips and crops" * self.augment + ", papers' protocol" * self.papers

    def config(self, label: str, seed: int = 0, numbers: dict[str, float] | None = None) -> Config:
        """The Config of a method on this problem: with its recipe, or with other numbers.

        Raises:
            KeyError: an unknown method, or one without a recipe for this problem.
        """
        method = METHODS[label]
        numbers = RECIPES[self.name][label] if numbers is None else numbers
        epochs = self.epochs * method.passes
        shared: dict[str, Any] = {"noise": self.noise, "batch_size": self.batch_size, "seed": seed}
        shared |= {"augment": self.augment}
        shared |= {"epochs": epochs, "warmup": 0 if self.papers else min(max(1, epochs // WARMUP), epochs - 1)}
        return Config(self.model, **shared, **(method.options | numbers))


def noisy(problem: Problem, noise: float = 0.4) -> Problem:
    """The same problem with redrawn labels."""
    return replace(problem, noise=noise)


MLP = Problem()
PAPERS_MLP = Problem(epochs=20, papers=True)
PAPERS_CNN_BN = Problem("cnn-bn", epochs=60, augment=True, papers=True)
NOISES = (0.0, 0.2, 0.4, 0.6, 0.8)  # of the papers
FEW_NOISES = NOISES[::2]  # for networks that take long
CNN = Problem("cnn")
CNN_BN = Problem("cnn-bn")
# The same number of steps for every number of images.
SIZES = tuple(replace(MLP, n_train=n, epochs=15 * 4000 // n) for n in (250, 500, 1000, 2000, 4000))
BUDGETS = tuple(replace(CNN, n_train=1000, epochs=epochs) for epochs in (15, 30, 60))
BIG_BATCH = replace(MLP, batch_size=128, n_train=2000, epochs=20)  # m = 64 is part of a batch; m = 1 is slow
FULL_BATCH = replace(MLP, n_train=1000, batch_size=1000, epochs=300)  # every step sees all images
CIFAR100 = {name: replace(MLP, dataset=name, n_train=5000) for name in ("cifar100", "cifar100-coarse")}
