"""Sharpness-aware minimization: descend on the worst loss nearby (Foret et al. 2021), and its family.

The members differ in where they climb (`ascent`) and in what they make of the two gradients.
"""

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from minisam import kernels
from minisam.checks import Array, Count, NonNegative, Positive, Range
from minisam.objective import Evaluation, Objective, weighted_sum
from minisam.optim.ascent import Ascent, Ball, Friendly
from minisam.optim.first_order import Base, Optimizer
from minisam.optim.schedules import Schedule, value_at


@dataclass
class SAM(Optimizer):
    """A step of `base` along the gradient at the worst point within rho: ∇L(θ + ε̂(θ)).

        ε̂(θ) = ρ ∇L(θ) / ‖∇L(θ)‖₂      (Foret et al. 2021, arXiv 2010.01412, eq. 2, algorithm 1)

    One norm over all parameters jointly; ε̂ = 0 where the gradient vanishes. Both passes see the
    same objective. theta itself is never perturbed: θ + ε̂ is a second vector. The base's moments
    see only ∇L(θ + ε̂), and its weight decay acts at θ (davda54/sam's convention; `Penalised` has
    google-research/sam's). rho is a radius in weight space, in the norm of `ascent`: L2, unless told
    otherwise. At rho = 0 the second pass is skipped, and SAM is its base, bit for bit. theta is (P,).

    Another `ascent` climbs elsewhere: Ball(p) in another norm; Adaptive() is ASAM; Friendly() is
    Friendly SAM; RandomDirection() is the control. With K `ascent_steps` each has length ρ/K and follows
    the gradient at its own start, so together they stay in the ball.

    Raises:
        ValueError: a rho that is negative or not finite, ascent_steps below 1, a base that climbs itself.

    >>> from minisam.optim import GD
    >>> from minisam.analysis.toy import Bowl
    >>> theta = np.array([1.0, 0.0])
    >>> at_theta = SAM(GD(lr=0.1), rho=0.5).step(theta, Bowl([2.0, 1.0]))  # ∇L(1.5, 0) = (3, 0)
    >>> at_theta.loss, theta.round(12).tolist()
    (1.0, [0.7, 0.0])
    """

    base: Base
    rho: NonNegative | Schedule = 0.05
    ascent: Ascent = Ball(2)
    ascent_steps: Count = 1
    t: int = field(default=0, init=False)  # steps taken

    def gradient(self, theta: Array, objective: Objective) -> tuple[Evaluation, Array]:
        at_theta = objective(theta)
        g, worst, rho = at_theta.grad, theta, value_at(self.rho, self.t) / self.ascent_steps
        for _ in range(self.ascent_steps if rho else 0):
            direction, norm = self.ascent(theta, g, self.t)
            if norm == 0:
                break
            worst = kernels.add_scaled(worst, rho / norm, direction, out=np.empty_like(theta))
            g = objective(worst).grad
        return at_theta, g

    def update(self, theta: Array, g: Array) -> None:
        self.base.update(theta, g)
        self.t += 1  # only when that went well


def orthogonal(a: Array, b: Array) -> Array:
    """The part of a orthogonal to b, a - (aᵀb / ‖b‖²) b; 0 where b = 0. Both are (P,)."""
    along = kernels.dot(b, b)
    return kernels.add_scaled(a, -kernels.dot(a, b) / along, b, out=np.empty_like(a)) if along else np.zeros_like(a)


@dataclass
class GSAM(SAM):
    """Surrogate-gap SAM: ∇L(θ + ε̂) - α ∇L(θ)_⊥ (Zhuang et al. 2022, algorithm 1).

    ∇L(θ)_⊥ is the part of ∇L(θ) orthogonal to ∇L(θ + ε̂). The step goes *up* along it: L(θ) rises
    while the loss at θ + ε̂ stays the same to first order, so the gap between the two narrows. In the
    paper rho falls with the learning rate, from ρ_max to ρ_min: give it such a schedule. theta is (P,).

    Raises:
        ValueError: a negative alpha, and what SAM raises.

    >>> from minisam.optim import GD
    >>> from minisam.analysis.toy import Bowl
    >>> bowl, theta = Bowl([1.0, 4.0]), np.array([1.0, 1.0])
    >>> _, sam = SAM(GD(lr=0.1), rho=0.5).gradient(theta, bowl)
    >>> _, gsam = GSAM(GD(lr=0.1), rho=0.5, alpha=0.3).gradient(theta, bowl)
    >>> abs(float((gsam - sam) @ sam)) < 1e-12  # orthogonal
    True
    """

    alpha: NonNegative = 0.4

    def gradient(self, theta: Array, objective: Objective) -> tuple[Evaluation, Array]:
        at_theta, g_s = super().gradient(theta, objective)
        sideways = orthogonal(at_theta.grad, g_s)
        return at_theta, kernels.add_scaled(g_s, -self.alpha, sideways, out=np.empty_like(g_s))


@dataclass
class ExactSAM(SAM):
    """SAM with the term that it leaves out: the gradient of L(θ + ε̂(θ)) through ε̂(θ) as well.

        ∇[L(θ + ε̂(θ))] = g_s + (dε̂/dθ)ᵀ g_s = g_s + ρ/‖g‖ · H (g_s - ĝ ĝᵀ g_s)

    with g_s = ∇L at θ + ε̂, g = ∇L(θ), ĝ = g/‖g‖ and H = ∇²L(θ): a third evaluation and a product with
    H, about five gradients in all. The term grows without bound as ‖g‖ → 0. Foret et al. 2021, who drop
    it for speed, found that it hurts (their appendix). theta is (P,).

    Raises:
        ValueError: an ascent other than Ball(2), or several ascent_steps; and what SAM raises.

    >>> from minisam.optim import GD
    >>> from minisam.analysis.toy import Bowl
    >>> theta = np.array([1.0, 0.0])  # along an axis ε̂ does not turn, and only its length counts
    >>> ExactSAM(GD(lr=0.1), rho=0.5).gradient(theta, Bowl([2.0, 1.0]))[1].tolist()
    [3.0, 0.0]
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ascent != Ball(2) or self.ascent_steps != 1:
            raise ValueError(f"ExactSAM is for one step of Ball(p=2), got {self.ascent_steps} of {self.ascent}")

    def gradient(self, theta: Array, objective: Objective) -> tuple[Evaluation, Array]:
        at_theta, g_s = super().gradient(theta, objective)
        rho, length = value_at(self.rho, self.t), kernels.norm(at_theta.grad)
        if rho == 0 or length == 0 or not np.isfinite(g_s).all():  # after a divergence H has no product
            return at_theta, g_s
        sideways = orthogonal(g_s, at_theta.grad)
        product = objective.hessian(theta)(sideways)
        return at_theta, kernels.add_scaled(g_s, rho / length, product, out=np.empty_like(g_s))


@dataclass
class LookSAM(SAM):
    """SAM on every k-th step, and its sideways pull reused in between (Liu et al. 2022, algorithm 1).

        g_v = g_s - (g_sᵀg / ‖g‖²) g     on every k-th step, which follows g_s = ∇L(θ + ε̂)
        g + α (‖g‖ / ‖g_v‖) g_v          on the others, where g = ∇L(θ) is the only gradient

    There is no pull if g_s is parallel to g up to rounding, nor after a step with rho = 0, which is a
    step of the base. theta is (P,).

    Raises:
        ValueError: a k below 1, a negative alpha, and what SAM raises.

    >>> from minisam.optim import GD
    >>> from minisam.analysis.toy import Bowl
    >>> looksam, bowl, theta = LookSAM(GD(lr=0.1), k=2, alpha=0.0), Bowl([1.0, 4.0]), np.array([1.0, 1.0])
    >>> for _ in range(2): _ = looksam.step(theta, bowl)
    >>> g = looksam.gradient(theta, bowl)[1]  # the third step is SAM's again
    >>> bool(np.array_equal(g, SAM(GD(lr=0.1)).gradient(theta, bowl)[1]))
    True
    """

    k: Count = 5
    alpha: NonNegative = 0.7
    pull: Array | None = field(default=None, init=False)  # g_v / ‖g_v‖

    def gradient(self, theta: Array, objective: Objective) -> tuple[Evaluation, Array]:
        if self.pull is None or self.t % self.k == 0 or value_at(self.rho, self.t) == 0:
            at_theta, g_s = super().gradient(theta, objective)
            g_v = orthogonal(g_s, at_theta.grad)
            length, rounding = kernels.norm(g_v), 8 * float(np.finfo(g_s.dtype).eps) * kernels.norm(g_s)
            self.pull = g_v / length if length > rounding else np.zeros_like(g_v)
            return at_theta, g_s
        g = (at_theta := objective(theta)).grad
        return at_theta, kernels.add_scaled(g, self.alpha * kernels.norm(g), self.pull, out=np.empty_like(g))


def _memoryless(inner: Optimizer) -> bool:
    return not isinstance(inner, LookSAM) and not isinstance(getattr(inner, "ascent", None), Friendly)


_EXPECTED = "an optimizer whose gradients do not depend on earlier ones: not LookSAM, nor SAM with Friendly()"
Memoryless = Annotated[Optimizer, Range(_EXPECTED, Optimizer, _memoryless)]


@dataclass
class MicroBatched(Optimizer):
    """m-SAM: every m examples climb by themselves, from the same θ (Foret et al. 2021, section 4.1).

    `inner` finds a gradient for each micro-batch of m examples; its update then moves θ once, along their
    mean (not their sum, which would scale the learning rate). If m is the batch size this is `inner`.

    Raises:
        ValueError: m below 1; LookSAM or Friendly inside, which remember one gradient a step.

    >>> from minisam.optim import GD
    >>> from minisam.analysis.toy import Bowl
    >>> theta = np.array([1.0, 0.0])
    >>> _ = MicroBatched(SAM(GD(lr=0.1), rho=0.5), m=1).step(theta, Bowl([2.0, 1.0]))
    >>> theta.round(12).tolist()
    [0.7, 0.0]
    """

    inner: Memoryless
    m: Count

    def gradient(self, theta: Array, objective: Objective) -> tuple[Evaluation, Array]:
        def climb(part: Objective) -> tuple:
            at_theta, g = self.inner.gradient(theta, part)
            return (*at_theta, g)

        *at_theta, g = weighted_sum((part.n / objective.n, climb(part)) for part in objective.split(self.m))
        return Evaluation(*at_theta), g

    def update(self, theta: Array, g: Array) -> None:
        self.inner.update(theta, g)


@dataclass
class Clipped(Optimizer):
    """Gradient clipping: `base` follows g · min(1, max_norm / ‖g‖₂).

    SAM(Clipped(Momentum(…), 1.0)) clips ∇L(θ + ε̂), the gradient that is followed, and leaves the one
    that is climbed alone. The base adds its weight decay afterwards, as in PyTorch, whose `clip_grad_norm_`
    divides by ‖g‖₂ + 1e-6 instead.

    Raises:
        ValueError: max_norm not above 0, or SAM as the base: Clipped goes inside it.

    >>> from minisam.optim import GD
    >>> theta = np.zeros(2)
    >>> Clipped(GD(lr=1.0), max_norm=1.0).update(theta, np.array([3.0, 4.0]))
    >>> theta.round(12).tolist()
    [-0.6, -0.8]
    """

    base: Base
    max_norm: Positive

    def update(self, theta: Array, g: Array) -> None:
        norm = kernels.norm(g)
        self.base.update(theta, g * float(self.max_norm / norm) if norm > self.max_norm else g)
