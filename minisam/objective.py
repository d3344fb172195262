"""The objective: the one thing that passes between a network and an optimizer.

An objective is a pure function of theta: the same bits for the same theta, however often it is
called. An optimizer calls it as often as it likes, wherever it likes (SAM: at θ and at θ + ε̂), and
never learns what a network or a batch is. Wrappers add penalties or average several objectives; they
are objectives themselves, so they work with every optimizer.

What is not finite: data (x, y) and directions (v) with a NaN or an infinity are refused, by a ValueError, where
they come in. Weights are not: a theta that is not finite is a training that has diverged, its loss is NaN or
infinite, and whoever trains looks at the loss. `Sequential.predict`, whose classes could not tell, refuses it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minisam.checks import Array, Checked, NonNegative

HessianMap = Callable[[Array], Array]  # v to H v

__all__ = ["Evaluation", "Mean", "Objective", "Penalised"]


class Evaluation(NamedTuple):
    """An objective at one theta."""

    loss: float
    grad: Array  # (P,), the caller's own: SAM holds two at once
    accuracy: float = math.nan  # fraction of examples classified correctly; NaN without classes
    stats: Array = np.empty(0)  # BatchNorm's statistics of this batch, for the training loop


class Objective:
    """A differentiable function of theta, averaged over n examples (a surface counts as one)."""

    @property
    def n(self) -> int:
        """Examples it averages over."""
        return 1

    def __call__(self, theta: Array) -> Evaluation:
        """Loss and gradient at theta (P,)."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def value(self, theta: Array) -> float:
        """The loss alone: cheaper if there is no need for a gradient."""
        return self(theta).loss

    def hessian(self, theta: Array) -> HessianMap:
        """The map v ↦ H v with H = ∇²L(θ), for vectors v (P,). It stays at this theta even if theta moves."""
        raise NotImplementedError(f"{type(self).__name__} has no second derivatives")

    def split(self, m: int) -> "Sequence[Objective]":
        """The same objective as micro-batches of m examples (the last may be smaller)."""
        return [self]


def weighted_sum(terms: Iterable[tuple[float, Sequence]]) -> list:
    """Σ weight · record, entry by entry, for example of Evaluations, in one pass.

    >>> weighted_sum([(0.5, (1.0, 2.0)), (0.25, (4.0, 0.0))])
    [1.5, 1.0]
    """
    total: list = []
    for weight, record in terms:
        scaled = [weight * entry for entry in record]
        total = [a + b for a, b in zip(total, scaled, strict=True)] if total else scaled
    return total


@dataclass(frozen=True)
class Mean(Objective):
    """The mean of several objectives, weighted by their examples: gradient accumulation.

    Mean(batch.split(m)) is `batch` again, up to rounding, in the memory that m examples need. (But
    each part has its own BatchNorm statistics and its own Dropout masks.) For products with its Hessian
    every part keeps its forward and backward pass, unless `recompute` is set: then each product computes
    them anew, and the memory of one part is enough.

    Raises:
        ValueError: no objectives.
    """

    objectives: Sequence[Objective]
    recompute: bool = False

    def __post_init__(self) -> None:
        if not self.objectives:
            raise ValueError("Mean expected at least one objective, got none")

    @property
    def n(self) -> int:
        return sum(objective.n for objective in self.objectives)

    def __call__(self, theta: Array) -> Evaluation:
        return Evaluation(*weighted_sum((objective.n / self.n, objective(theta)) for objective in self.objectives))

    def value(self, theta: Array) -> float:
        return sum(objective.n / self.n * objective.value(theta) for objective in self.objectives)

    def hessian(self, theta: Array) -> HessianMap:
        theta = theta.copy()
        kept = None if self.recompute else [objective.hessian(theta) for objective in self.objectives]
        shares = [objective.n / self.n for objective in self.objectives]

        def product(v: Array) -> Array:
            products = kept or (objective.hessian(theta) for objective in self.objectives)
            return weighted_sum((share, [of_part(v)]) for share, of_part in zip(shares, products, strict=True))[0]

        return product

    def split(self, m: int) -> list[Objective]:
        return [part for objective in self.objectives for part in objective.split(m)]


@dataclass(frozen=True)
class Penalised(Checked, Objective):
    """L(θ) + l1 ‖θ‖₁ + ½ l2 ‖θ‖₂², over all parameters, biases included.

    l2 adds l2 θ to the gradient, as PyTorch's `weight_decay` does, but inside the objective: both
    of SAM's passes see it (google-research/sam's convention). |θ| has derivative 0 at 0.

    Raises:
        ValueError: a coefficient that is negative or not finite.
    """

    objective: Objective
    l1: NonNegative = 0.0
    l2: NonNegative = 0.0

    @property
    def n(self) -> int:
        return self.objective.n

    def __call__(self, theta: Array) -> Evaluation:
        inner = self.objective(theta)
        l1, l2 = float(self.l1), float(self.l2)  # a NumPy scalar would promote float32
        # In float64, so that a float32 sum over a million parameters keeps its digits.
        l1_norm = float(np.abs(theta).sum(dtype=np.float64))
        loss = inner.loss + l1 * l1_norm + 0.5 * l2 * float(np.square(theta, dtype=np.float64).sum())
        return inner._replace(loss=loss, grad=inner.grad + l1 * np.sign(theta) + l2 * theta)

    def hessian(self, theta: Array) -> HessianMap:
        product = self.objective.hessian(theta)
        return lambda v: product(v) + float(self.l2) * v  # |θ| has no curvature

    def split(self, m: int) -> "list[Penalised]":
        return [Penalised(part, self.l1, self.l2) for part in self.objective.split(m)]
