"""Loss surfaces in a few dimensions: the optimizers run on them unchanged."""

from collections.abc import Sequence

import numpy as np

from minisam.objective import Evaluation, HessianMap


class Bowl:
    """The quadratic L(θ) = ½ Σᵢ hᵢ θᵢ², with Hessian diag(h); ill-conditioned where the hᵢ differ.

    On it SAM's gradient has a closed form, Hθ + ρ H²θ / ‖Hθ‖. theta is (P,).

    >>> Bowl([1.0, 5.0])(np.array([1.0, 1.0])).grad.tolist()
    [1.0, 5.0]
    """

    n = 1

    def __init__(self, curvatures: Sequence[float]) -> None:
        self.h = np.asarray(curvatures, np.float64)

    def __call__(self, theta: np.ndarray) -> Evaluation:
        h = self.h.astype(theta.dtype)
        return Evaluation(float(0.5 * np.sum(h * theta**2, dtype=np.float64)), h * theta)

    def hessian(self, theta: np.ndarray) -> HessianMap:
        return lambda v: self.h.astype(v.dtype) * v

    def split(self, m: int) -> "list[Bowl]":
        """A surface is a single example."""
        return [self]
