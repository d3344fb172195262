"""Loss surfaces in a few dimensions: the optimizers run on them unchanged."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minisam.analysis.diagnostics import Recorded
from minisam.checks import Array
from minisam.objective import Evaluation, HessianMap, Objective
from minisam.optim import Optimizer


class Bowl(Objective):
    """The quadratic L(θ) = ½ Σᵢ hᵢ θᵢ², with Hessian diag(h); ill-conditioned where the hᵢ differ.

    On it SAM's gradient has a closed form, Hθ + ρ H²θ / ‖Hθ‖. theta is (P,).

    >>> Bowl([1.0, 5.0])(np.array([1.0, 1.0])).grad.tolist()
    [1.0, 5.0]
    """

    def __init__(self, curvatures: Sequence[float]) -> None:
        self.h = np.asarray(curvatures, np.float64)

    def __call__(self, theta: Array) -> Evaluation:
        h = self.h.astype(theta.dtype)
        return Evaluation(float(0.5 * np.sum(h * theta**2, dtype=np.float64)), h * theta)

    def hessian(self, theta: Array) -> HessianMap:
        return lambda v: self.h.astype(v.dtype) * v


class Rosenbrock(Objective):
    """The bent valley L(x, y) = (1 - x)² + b (y - x²)², with its minimum at (1, 1) (Rosenbrock 1960, with b = 100).

    >>> Rosenbrock()(np.array([1.0, 1.0])).loss
    0.0
    """

    def __init__(self, b: float = 10.0) -> None:
        self.b = b

    def __call__(self, theta: Array) -> Evaluation:
        x, off = theta[0], theta[1] - theta[0] ** 2  # off the valley's floor
        gradient = np.array([-2 * (1 - x) - 4 * self.b * x * off, 2 * self.b * off], theta.dtype)
        return Evaluation(float((1 - x) ** 2 + self.b * off**2), gradient)

    def hessian(self, theta: Array) -> HessianMap:
        (x, y), b = theta, self.b
        H = np.array([[2 - 4 * b * (y - 3 * x**2), -4 * b * x], [-4 * b * x, 2 * b]])
        return lambda v: H.astype(v.dtype) @ v


class TwoMinima(Objective):
    """A sharp and a flat minimum of equal depth: where two bowls meet, L = -log(e^(-q₁) + e^(-q₂)).

    qᵢ = ½ hᵢ ‖θ - cᵢ‖², sharp at c₁ = (-1, 0) and flat at c₂ = (1, 0). With pᵢ = e^(L - qᵢ), the share of
    bowl i, ∇L = Σ pᵢ ∇qᵢ and ∇²L = Σ pᵢ (hᵢ I - ∇qᵢ ∇qᵢᵀ) + ∇L ∇Lᵀ.

    >>> surface = TwoMinima()
    >>> [abs(round(surface(centre).loss, 3)) for centre in surface.centres]
    [0.0, 0.0]
    """

    def __init__(self, sharp: float = 400.0, flat: float = 10.0) -> None:
        self.h, self.centres = np.array([sharp, flat]), np.array([[-1.0, 0.0], [1.0, 0.0]])

    def _bowls(self, theta: Array) -> tuple[float, Array, Array]:
        """L, the shares pᵢ (2,) and the slopes ∇qᵢ (2, 2)."""
        away = theta - self.centres
        q = 0.5 * self.h * np.sum(away**2, axis=1)
        value = float(q.min() - np.log(np.exp(q.min() - q).sum()))
        return value, np.exp(value - q), self.h[:, None] * away

    def __call__(self, theta: Array) -> Evaluation:
        value, p, slopes = self._bowls(theta)
        return Evaluation(value, (p @ slopes).astype(theta.dtype))

    def hessian(self, theta: Array) -> HessianMap:
        _, p, slopes = self._bowls(theta)
        H = (p @ self.h) * np.eye(2) - (slopes.T * p) @ slopes + np.outer(p @ slopes, p @ slopes)
        return lambda v: H.astype(v.dtype) @ v


class Path(NamedTuple):
    """The path of an optimizer, n steps long."""

    thetas: Array  # (n + 1, P)
    worst: Array  # (n, P): where each step took its gradient, θ + ε̂ for SAM
    losses: Array  # (n,) at thetas[:-1]


def run(optimizer: Optimizer, surface: Objective, start: Sequence[float], steps: int) -> Path:
    """Take `steps` steps from `start` (P,), in float64; return every point on the way.

    >>> from minisam.optim import GD
    >>> run(GD(lr=0.5), Bowl([1.0, 1.0]), (4.0, 0.0), steps=2).thetas[:, 0].tolist()
    [4.0, 2.0, 1.0]
    """
    theta = np.array(start, np.float64)
    thetas, worst, losses = [theta.copy()], [], []
    for _ in range(steps):
        recorded = Recorded(surface)
        losses.append(optimizer.step(theta, recorded).loss)
        worst.append(recorded.calls[-1][0])
        thetas.append(theta.copy())
    return Path(np.array(thetas), np.array(worst), np.array(losses))
