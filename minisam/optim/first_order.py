"""First-order optimizers: gradient descent, momentum, Adam.

An optimizer is vector arithmetic on `theta`. It asks the objective for its gradient and for nothing
else. `step` is the same for all of them, SAM included: get a gradient, then update in place.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from minisam import kernels
from minisam.checks import Array, BelowOne, Checked, NonNegative, Positive, Range, require_array
from minisam.objective import Evaluation, Objective
from minisam.optim.schedules import Schedule, value_at


class Optimizer(Checked):
    """What every optimizer does: `step(theta, objective)` changes theta in place.

    Write `update`, and `gradient` if it is not simply the objective's. A subclass is a dataclass;
    what it remembers from step to step are its fields with init=False (see `memory`).
    """

    def gradient(self, theta: Array, objective: Objective) -> tuple[Evaluation, Array]:
        """The evaluation at theta, to report, and the gradient (P,) to follow."""
        at_theta = objective(theta)
        return at_theta, at_theta.grad

    def update(self, theta: Array, g: Array) -> None:
        """Move theta (P,) in place, given the gradient g (P,)."""
        raise NotImplementedError(f"{type(self).__name__} must define update")

    def step(self, theta: Array, objective: Objective) -> Evaluation:
        """Take one step; returns the objective's evaluation at the theta it started from.

        Raises:
            TypeError: theta is not an array.
            ValueError: theta is not a contiguous, writeable vector; the gradient has another shape or
                dtype; or the moments of earlier steps do.
        """
        require_array("theta", theta)
        if theta.ndim != 1 or not (theta.flags.c_contiguous and theta.flags.writeable):
            layout = f"shape {theta.shape}, strides {theta.strides}, writeable {theta.flags.writeable}"
            raise ValueError(f"expected theta as a contiguous, writeable vector, got {layout}")
        at_theta, g = self.gradient(theta, objective)
        if (g.shape, g.dtype) != (theta.shape, theta.dtype):
            like = f"{theta.shape} {theta.dtype}"
            raise ValueError(f"expected a gradient like theta, {like}, got {g.shape} {g.dtype}")
        self.update(theta, g)
        return at_theta


# What a wrapper such as SAM can step with: the wrapper finds the gradient, and its base only updates.
_EXPECTED = "GD, Momentum, Adam or another optimizer that follows the gradient it is given, such as Clipped(GD(…))"
Base = Annotated[Optimizer, Range(_EXPECTED, Optimizer, lambda base: type(base).gradient is Optimizer.gradient)]


@dataclass
class FirstOrder(Optimizer):
    """An optimizer with a learning rate and weight decay, which a subclass uses in its `update`.

    `t` counts the steps taken: `update` reads value_at(self.lr, self.t), then adds 1 to t.

    Raises:
        ValueError: lr not above 0, negative weight_decay.
    """

    lr: Positive | Schedule
    weight_decay: NonNegative = 0.0
    t: int = field(default=0, init=False)

    def moment(self, name: str, theta: Array) -> Array:
        """The remembered vector of this name, which starts as zeros like theta (P,).

        Raises:
            ValueError: a theta unlike the one that it started with.
        """
        if getattr(self, name) is None:
            setattr(self, name, np.zeros_like(theta))
        moment: Array = getattr(self, name)
        if moment.shape != theta.shape or moment.dtype != theta.dtype:
            began, got = f"{moment.shape} {moment.dtype}", f"{theta.shape} {theta.dtype}"
            raise ValueError(f"{type(self).__name__} began with a theta {began}, got {got}; use a new one")
        return moment


@dataclass
class GD(FirstOrder):
    """Gradient descent: θ ← θ - lr (g + λθ), with weight decay λ (PyTorch's SGD without momentum).

    theta and g are (P,) float32 or float64. On minibatches this is stochastic gradient descent.

    Raises:
        ValueError: lr not above 0, negative weight_decay.

    >>> from minisam.analysis.toy import Bowl
    >>> theta = np.array([1.0, 1.0])
    >>> before = GD(lr=0.1).step(theta, Bowl([1.0, 5.0]))
    >>> before.loss, theta.tolist()
    (3.0, [0.9, 0.5])
    """

    def update(self, theta: Array, g: Array) -> None:
        lr = value_at(self.lr, self.t)
        self.t += 1
        kernels.gd_update(theta, g, lr, self.weight_decay)


@dataclass
class Momentum(FirstOrder):
    """Heavy ball (Polyak 1964): v ← μ v + g + λθ, θ ← θ - lr v.

    With nesterov=True, θ ← θ - lr (g + λθ + μ v) (Nesterov 1983, in PyTorch's form). lr multiplies
    the velocity, as in PyTorch's SGD, and v starts at 0. theta, g and v are (P,).

    Raises:
        ValueError: lr not above 0, negative weight_decay, momentum outside [0, 1).

    >>> from minisam.analysis.toy import Bowl
    >>> theta, momentum = np.array([1.0]), Momentum(lr=0.1, momentum=0.5)
    >>> for _ in range(2): _ = momentum.step(theta, Bowl([1.0]))
    >>> theta.round(12).tolist()
    [0.76]
    """

    momentum: BelowOne = 0.9
    nesterov: bool = False
    velocity: Array | None = field(default=None, init=False)

    def update(self, theta: Array, g: Array) -> None:
        velocity, lr = self.moment("velocity", theta), value_at(self.lr, self.t)
        self.t += 1
        kernels.momentum_update(theta, g, velocity, lr, self.momentum, self.weight_decay, self.nesterov)


@dataclass
class Adam(FirstOrder):
    """Adam (Kingma & Ba 2015, algorithm 1) with decoupled weight decay (Loshchilov & Hutter 2019).

        m ← β₁ m + (1 - β₁) g,   v ← β₂ v + (1 - β₂) g²
        θ ← θ - lr m̂ / (√v̂ + eps) - lr λ θ,   m̂ = m / (1 - β₁ᵗ),  v̂ = v / (1 - β₂ᵗ)

    t counts from 1. PyTorch's AdamW; at λ = 0 also its Adam. (AdamW multiplies θ by 1 - lr λ, which float32
    rounds to steps of 6e-8; here a small decay is not lost.) theta, g, m and v are (P,).

    Raises:
        ValueError: lr or eps not above 0, negative weight_decay, beta1 or beta2 outside [0, 1).

    >>> from minisam.analysis.toy import Bowl
    >>> theta = np.array([1.0, -3.0])
    >>> _ = Adam(lr=0.1).step(theta, Bowl([1.0, 5.0]))
    >>> theta.round(6).tolist()  # the first step has length lr along every axis
    [0.9, -2.9]
    """

    beta1: BelowOne = 0.9
    beta2: BelowOne = 0.999
    eps: Positive = 1e-8
    m: Array | None = field(default=None, init=False)
    v: Array | None = field(default=None, init=False)

    def update(self, theta: Array, g: Array) -> None:
        m, v = self.moment("m", theta), self.moment("v", theta)
        lr, beta1, beta2 = value_at(self.lr, self.t), self.beta1, self.beta2
        self.t += 1
        step_size, root_bias2 = lr / (1 - beta1**self.t), math.sqrt(1 - beta2**self.t)
        kernels.adam_update(theta, g, m, v, step_size, lr * self.weight_decay, beta1, beta2, root_bias2, self.eps)
