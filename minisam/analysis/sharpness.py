"""How sharp is a minimum? How much the loss rises within rho of it: at worst, after SAM's step, at random."""

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from minisam import kernels
from minisam.checks import Array, Count, Positive, require
from minisam.objective import Objective


class Sharpness(NamedTuple):
    """Rises of the loss, in the loss's units (nats for cross-entropy)."""

    one_step: float  # L(θ + ε̂) - L(θ) with SAM's ε̂
    worst: Array  # (steps,): the largest found after 1, 2, … steps of ascent
    random: Array  # (directions,): on the sphere, in random directions


def sharpness(
    objective: Objective, theta: Array, rho: float, rng: Generator, eta=None, steps=20, starts=5, directions=100
) -> Sharpness:
    """max L(θ + T δ) - L(θ) over ‖δ‖₂ ≤ ρ from below, by projected gradient ascent, and on random δ.

        δ ← Π(δ + ρ T g / ‖T g‖),   g = ∇L at θ + T δ,   Π the nearest point of the ball

    T = 1 gives SAM's ball (Foret et al. 2021). With `eta`, T = |θ| + eta gives ASAM's, which allows for
    layers scaled against each other if eta is small beside the weights (Kwon et al. 2021). The ascent
    starts from δ = 0, where the first step is SAM's own, and from starts - 1 random points on the
    sphere. A loss that is not finite counts as a rise of ∞. theta is (P,).

    Raises:
        ValueError: rho, eta, steps, starts or directions not positive; a loss at theta that is not finite.

    >>> from minisam.analysis.toy import Bowl
    >>> found = sharpness(Bowl([1.0, 9.0]), np.array([1.0, 0.0]), rho=1.0, rng=np.random.default_rng(0))
    >>> found.one_step, round(float(found.worst[-1]), 3)  # 1.5 along its own axis; the other axis is steeper
    (1.5, 4.562)
    """
    for name, number in {"rho": rho, "eta": 1.0 if eta is None else eta}.items():
        require(name, number, Positive)
    for name, number in {"steps": steps, "starts": starts, "directions": directions}.items():
        require(name, number, Count)
    T = np.ones_like(theta) if eta is None else np.abs(theta) + theta.dtype.type(eta)
    here, one_step, worst = objective.value(theta), 0.0, np.zeros(steps)  # δ = 0 rises by 0
    if not math.isfinite(here):
        raise ValueError(f"expected a finite loss at theta, got {here}")

    def rise(loss: float) -> float:
        return loss - here if math.isfinite(loss) else math.inf

    def on_sphere() -> Array:
        z = rng.standard_normal(len(theta)).astype(theta.dtype)
        return z * (rho / kernels.norm(z))

    with tqdm(total=starts * (steps + 1) + directions, desc="sharpness", delay=2, leave=False) as bar:
        for start in range(starts):
            delta = on_sphere() if start else np.zeros_like(theta)
            for step in range(steps + 1):
                found = objective(theta + T * delta)
                reached = worst[max(step - 1, 0) :]
                np.maximum(reached, rise(found.loss), out=reached)
                if start == 0 and step == 1:
                    one_step = rise(found.loss)
                climb = T * found.grad
                if not 0 < (length := kernels.norm(climb)) < math.inf:
                    break
                delta = delta + (rho / length) * climb
                if (length := kernels.norm(delta)) > rho:
                    delta *= rho / length
                bar.update()
        random = []
        for _ in range(directions):
            random.append(rise(objective.value(theta + T * on_sphere())))
            bar.update()
    return Sharpness(one_step, worst, np.array(random))
