"""Sharpness-aware minimization: descend on the worst loss nearby (Foret et al. 2021)."""

from dataclasses import dataclass, field

import numpy as np

from minisam import kernels
from minisam.checks import NonNegative
from minisam.objective import Array, Evaluation, Objective
from minisam.optim.gd import Optimizer
from minisam.optim.schedules import Schedule, value_at


@dataclass
class SAM(Optimizer):
    """A step of `base` along the gradient at the worst point within rho: ∇L(θ + ε̂(θ)).

        ε̂(θ) = ρ ∇L(θ) / ‖∇L(θ)‖₂      (Foret et al. 2021, arXiv 2010.01412, eq. 2, algorithm 1)

    One norm over all parameters jointly; ε̂ = 0 where the gradient vanishes. Both passes see the
    same objective. theta itself is never perturbed: θ + ε̂ is a second vector. The base's moments
    see only ∇L(θ + ε̂), and its weight decay acts at θ (davda54/sam's convention; `Penalised` has
    google-research/sam's). rho is an L2 radius in weight space; at 0 the second pass is skipped,
    and SAM is its base, bit for bit. theta is (P,).

    Raises:
        ValueError: a rho that is negative or not finite.

    >>> from minisam.optim import GD
    >>> from minisam.analysis.toy import Bowl
    >>> theta = np.array([1.0, 0.0])
    >>> at_theta = SAM(GD(lr=0.1), rho=0.5).step(theta, Bowl([2.0, 1.0]))  # ∇L(1.5, 0) = (3, 0)
    >>> at_theta.loss, theta.round(12).tolist()
    (1.0, [0.7, 0.0])
    """

    base: Optimizer
    rho: NonNegative | Schedule = 0.05
    t: int = field(default=0, init=False)  # steps taken

    def gradient(self, theta: Array, objective: Objective) -> tuple[Evaluation, Array]:
        at_theta = objective(theta)
        rho = value_at(self.rho, self.t)
        norm = kernels.norm(at_theta.grad) if rho else 0.0
        if norm == 0:
            return at_theta, at_theta.grad
        perturbed = kernels.add_scaled(theta, rho / norm, at_theta.grad, out=np.empty_like(theta))
        return at_theta, objective(perturbed).grad

    def update(self, theta: Array, g: Array) -> None:
        self.t += 1
        self.base.update(theta, g)
