"""The search spaces of tune.py: which points are tried for which methods on which problems.

They were placed by hand; minisam/study/recipes.py says when they were moved. Methods that are compared with each other
have grids of the same size, but in the papers' protocol, where rho alone has one.
"""

from typing import NamedTuple

from minisam.study.recipes import (
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
    PAPERS_CNN_BN,
    PAPERS_MLP,
    SAM,
    SIZES,
    VARIANTS,
    Problem,
    noisy,
)

Grid = dict[str, tuple[float, ...]]  # the values of each option; a grid has all combinations


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
PAPERS_CNN_RATES: dict[str, Grid] = {"Momentum": {"lr": (0.01, 0.02, 0.05, 0.1, 0.2), "weight_decay": (5e-4,)}}
PAPERS_GRIDS: dict[str, dict[str, Grid]] = {  # by the method whose learning rate they take
    "Momentum": {MATCHED: {}, SAM: RADII_OF_PAPERS, "ASAM(Momentum)": {"rho": (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)}},
    "Adam": {"SAM(Adam)": RADII_OF_PAPERS},
}

BOTH = (MLP, noisy(MLP))
NOISY_PAPERS = tuple(noisy(PAPERS_MLP, noise) for noise in NOISES)
NOISY_CNN_PAPERS = tuple(noisy(PAPERS_CNN_BN, noise) for noise in FEW_NOISES)
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
    "papers-cnn-bn": (
        Search((PAPERS_CNN_BN,), PAPERS_CNN_RATES, (1000,)),
        Search(
            NOISY_CNN_PAPERS, {"Momentum": {}, MATCHED: {}, SAM: RADII_OF_PAPERS}, (1000,), "Momentum", PAPERS_CNN_BN
        ),
    ),
    "m-sharpness": (
        Search(BIG_BATCHES, {label: SMALL_GRIDS[label] for label in (MATCHED, SAM)}, (1000,)),
        Search(BIG_BATCHES, {label: {"rho": (0.02, 0.05, 0.1)} for label in M_SHARPNESS}, (1000,), SAM),
    ),
}
