"""The experiments of `minisam reproduce`, by name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from minisam.checks import Checked, Count, Natural, require
from minisam.study.kinds import Arm, Comparison, require_kind, require_name
from minisam.study.recipes import (
    BASELINES,
    BIG_BATCH,
    BUDGETS,
    CIFAR100,
    CNN,
    CNN_BN,
    FEW_NOISES,
    FULL_BATCH,
    M_SHARPNESS,
    MAIN,
    MATCHED,
    MLP,
    NOISES,
    PAPERS,
    PAPERS_CNN_BN,
    PAPERS_MLP,
    RECIPES,
    SAM,
    SAM_AND_MOMENTA,
    SIZES,
    VARIANTS,
    Problem,
    noisy,
)
from minisam.training.config import Config


@dataclass(frozen=True)
class Experiment(Checked):
    """Methods to compare.

    Runs of one seed share initial weights, batches and redrawn labels. `pairs` are (baseline, candidate) labels, to
    be compared wherever both ran on the same problem.

    Raises:
        ValueError: a number out of its range, or runs of which no report of this kind could be made.
    """

    kind: str  # of kinds.NEEDS: how the report shows it
    arms: tuple[Arm, ...]
    pairs: tuple[Comparison, ...]
    dataset: str | None = None  # None: whichever the user has
    seeds: Count = 5
    n_test: Count | None = None  # the first test images; None: all of them
    evaluate_every: Natural = 0  # epochs between looks at the test images, for a curve

    def __post_init__(self) -> None:
        super().__post_init__()
        require_kind(self.kind, self.runs(), self.pairs)

    def runs(self) -> list[Arm]:
        """Every arm with each of its seeds."""
        return [
            arm._replace(config=replace(arm.config, seed=arm.config.seed + seed))
            for arm in self.arms
            for seed in range(self.seeds)
        ]

    @classmethod
    def of(cls, results: dict[str, Any]) -> "Experiment":
        """The experiment that repeats the runs of a results.json, one arm per run.

        Raises:
            KeyError, TypeError, ValueError: this is not a results.json.
        """
        about, arms = results["config"], []
        for run in results["runs"]:
            require("n_train", run["n_train"], Count)
            require("papers", papers := run.get("papers", False), bool)
            arms.append(Arm(run["optimizer"], run["n_train"], Config.of(run["config"]), papers))
        if not arms:
            raise ValueError("no runs")
        data = results["dataset"]
        for key in ("name", "checksum"):
            require_name(key, data[key])
        pairs = tuple((baseline, candidate) for baseline, candidate in about["pairs"])
        how = {"n_test": data["n_test"], "evaluate_every": about["evaluate_every"]}
        return cls(about["kind"], tuple(arms), pairs, data["name"], seeds=1, **how)


def arms(problems: Iterable[Problem], labels: Iterable[str]) -> tuple[Arm, ...]:
    """Every method on every problem, each with its recipe."""
    return tuple(Arm(label, one.n_train, one.config(label), one.papers) for one, label in product(problems, labels))


def methods(made: tuple[Arm, ...], epochs: int, **how: Any) -> Experiment:
    """SAM and its baselines."""
    labels = dict.fromkeys(arm.label for arm in made)
    baselines = [label for label in BASELINES if label in labels]
    pairs = tuple(product(baselines, [label for label in labels if label not in baselines]))
    return Experiment("methods", made, pairs, evaluate_every=max(1, epochs // 3), **how)


def optimizers(*problems: Problem, **how: Any) -> Experiment:
    """The main comparison."""
    return methods(arms(problems, MAIN), problems[0].epochs, **how)


def quick() -> Experiment:
    """SAM and its baselines, equally tuned; beside them SAM's gain in the papers' protocol, where labels are wrong."""
    equally_tuned = arms((MLP, noisy(MLP)), (*BASELINES, SAM))
    return methods((*equally_tuned, *arms([noisy(PAPERS_MLP)], SAM_AND_MOMENTA)), MLP.epochs, seeds=3)


def papers(problem: Problem, noises: Iterable[float] = NOISES, labels: Iterable[str] = PAPERS) -> Experiment:
    """The comparison that SAM's papers make, without and with wrong labels."""
    return methods(arms([noisy(problem, noise) for noise in noises], labels), problem.epochs)


def smoke(n_train: int = 1000, epochs: int = 4, **how: Any) -> Experiment:
    """The main comparison on fewer images, with the recipes for all of them."""
    made = []
    for whole, label in product((MLP, noisy(MLP)), MAIN):
        small = replace(whole, n_train=n_train, epochs=epochs)
        made.append(Arm(label, n_train, small.config(label, numbers=RECIPES[whole.name][label])))
    return methods(tuple(made), epochs, **how)


def rho() -> Experiment:
    """Test error against rho, up to the collapse of training; rho = 0 is Momentum with SAM's other numbers."""
    radii = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
    made = []
    for problem, radius in product((MLP, noisy(MLP)), radii):
        config = replace(problem.config(SAM), rho=radius)
        made.append(Arm(f"rho = {radius:g}", problem.n_train, config))
    baselines = arms((MLP, noisy(MLP)), (MATCHED,))
    return Experiment("rho", (*baselines, *made), tuple((MATCHED, f"rho = {radius:g}") for radius in radii))


def ingredients() -> Experiment:
    """What makes SAM work: one change at a time."""
    problems = (MLP, noisy(MLP))
    first, *others = VARIANTS
    penalties = ("Momentum", MATCHED, "L1 penalty", "L1 penalty, 2× epochs")
    changes: dict[str, tuple[str, dict[str, Any]]] = {
        "random direction, SAM's length": (first, {"optimizer": "random-sam"}),
        "SAM, no weight decay": (first, {"weight_decay": 0.0}),
        "Momentum, no weight decay": ("Momentum", {"weight_decay": 0.0}),
    }
    made = list(arms(problems, (*VARIANTS, *penalties)))
    for one, (label, (like, change)) in product(problems, changes.items()):
        made.append(Arm(label, one.n_train, replace(one.config(like), **change)))
    pairs = [(first, label) for label in (*others, *penalties, *changes)]
    pairs.append(("Momentum, no weight decay", "SAM, no weight decay"))
    return Experiment("ingredients", tuple(made), tuple(pairs))


def m_sharpness() -> Experiment:
    """Whether it matters how many images climb together."""
    problems = (BIG_BATCH, noisy(BIG_BATCH))
    whole = "m = batch"
    pairs = [(whole, label) for label in M_SHARPNESS if label != whole] + [(MATCHED, label) for label in M_SHARPNESS]
    return Experiment("ingredients", arms(problems, (MATCHED, *M_SHARPNESS)), tuple(pairs))


def full_batch() -> Experiment:
    """SAM without the noise of minibatches."""
    problems = (FULL_BATCH, noisy(FULL_BATCH))
    pairs = ((MATCHED, SAM), ("Momentum", SAM))
    return Experiment("ingredients", arms(problems, SAM_AND_MOMENTA), pairs)


def size() -> Experiment:
    """How SAM's gain depends on the number of training images."""
    problems = [problem for one in SIZES for problem in (one, noisy(one))]
    return Experiment("size", arms(problems, SAM_AND_MOMENTA), ((MATCHED, SAM), ("Momentum", SAM)))


def budget() -> Experiment:
    """How long the CNN without normalisation must be trained before SAM pays."""
    last = BUDGETS[-1]
    made = [Arm(f"Momentum, {2 * last.epochs} epochs", last.n_train, last.config(MATCHED))]
    pairs: list[Comparison] = []
    for problem in BUDGETS:
        made += [
            Arm(f"{label}, {problem.epochs} epochs", problem.n_train, problem.config(label))
            for label in ("Momentum", SAM)
        ]
        candidate = f"{SAM}, {problem.epochs} epochs"
        pairs += [(f"Momentum, {passes * problem.epochs} epochs", candidate) for passes in (2, 1)]
    return Experiment("budget", tuple(made), tuple(pairs))


def both(dataset: str) -> tuple[Problem, Problem]:
    """The same problem with clean and with redrawn labels."""
    return CIFAR100[dataset], noisy(CIFAR100[dataset])


PRESETS: dict[str, Callable[[], Experiment]] = {
    "smoke": lambda: smoke(seeds=2, n_test=2000),
    "quick": quick,
    "optimizers-mlp": lambda: optimizers(*(noisy(MLP, noise) for noise in (0.0, 0.2, 0.4, 0.6))),
    "optimizers-cnn": lambda: optimizers(CNN, noisy(CNN)),
    "optimizers-cnn-bn": lambda: optimizers(CNN_BN, noisy(CNN_BN)),
    "papers-mlp": lambda: papers(PAPERS_MLP),
    "papers-cnn-bn": lambda: papers(PAPERS_CNN_BN, FEW_NOISES, SAM_AND_MOMENTA),
    "rho": rho,
    "ingredients": ingredients,
    "size": size,
    "budget": budget,
    "m-sharpness": m_sharpness,
    "full-batch": full_batch,
    "cifar100": lambda: optimizers(*both("cifar100"), dataset="cifar100"),
    "cifar100-coarse": lambda: optimizers(*both("cifar100-coarse"), dataset="cifar100-coarse"),
}
FULL = tuple(name for name in PRESETS if name not in ("smoke", "quick"))  # the parts of the study
