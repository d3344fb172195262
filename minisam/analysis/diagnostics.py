"""SAM's steps seen from inside, in numbers that they compute anyway."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minisam import kernels
from minisam.checks import Array
from minisam.nn.network import Sequential
from minisam.objective import Evaluation, HessianMap, Objective

Call = tuple[Array, Evaluation]  # theta, and the objective there


class Recorded(Objective):
    """An objective that keeps its `calls`: all evaluations of an optimizer's step.

    >>> from minisam.analysis.toy import Bowl
    >>> recorded = Recorded(Bowl([1.0, 5.0]))
    >>> _ = recorded(np.ones(2))
    >>> len(recorded.calls)
    1
    """

    def __init__(self, objective: Objective, calls: list[Call] | None = None) -> None:
        self.objective, self.calls = objective, [] if calls is None else calls

    @property
    def n(self) -> int:
        return self.objective.n

    def __call__(self, theta: Array) -> Evaluation:
        found = self.objective(theta)
        self.calls.append((theta.copy(), found))  # an optimizer moves theta itself
        return found

    def hessian(self, theta: Array) -> HessianMap:
        return self.objective.hessian(theta)

    def split(self, m: int) -> "list[Recorded]":
        return [Recorded(part, self.calls) for part in self.objective.split(m)]


def diagnose(calls: Sequence[Call], net: Sequential) -> dict[str, Any]:
    """One step, summed up: always "gradient norm", ‖g‖ at θ. If the step climbed from θ to θ + ε̂, also

        "cosine"          of the angle between g and the gradient at θ + ε̂, if neither is 0
        "predicted rise"  gᵀε̂, which is ρ‖g‖ for one ascent in the L2 ball
        "measured rise"   L(θ + ε̂) - L(θ), in nats like the prediction
        "share"           ‖ε̂_layer‖² / ‖ε̂‖² of every layer with parameters, by its index and type

    With micro-batches these are means over all climbs, each of which starts at θ again.

    >>> from minisam.analysis.toy import Bowl
    >>> from minisam.nn import Linear
    >>> from minisam.optim import GD, SAM
    >>> recorded, theta = Recorded(Bowl([2.0, 1.0])), np.array([1.0, 0.0])
    >>> _ = SAM(GD(lr=0.1), rho=0.5).step(theta, recorded)
    >>> diagnose(recorded.calls, Sequential([Linear(1, 1)], (1,)))["measured rise"]
    1.25
    """
    theta = calls[0][0]
    starts = [i for i, (where, _) in enumerate(calls) if i == 0 or np.array_equal(where, theta)]
    climbs = [calls[i:j] for i, j in zip(starts, [*starts[1:], len(calls)], strict=True)]
    return mean_diagnosis([_diagnose_climb(climb, net) for climb in climbs])


def _diagnose_climb(climb: Sequence[Call], net: Sequential) -> dict[str, Any]:
    (theta, at_theta), (worst, at_worst) = climb[0], climb[-1]
    norm, epsilon = kernels.norm(at_theta.grad), worst - theta
    found: dict[str, Any] = {"gradient norm": norm}
    if squared := kernels.dot(epsilon, epsilon):
        if lengths := norm * kernels.norm(at_worst.grad):
            found["cosine"] = kernels.dot(at_theta.grad, at_worst.grad) / lengths
        found["predicted rise"] = kernels.dot(at_theta.grad, epsilon)
        found["measured rise"] = at_worst.loss - at_theta.loss
        parts = {f"{i} {type(net.layers[i]).__name__}": epsilon[part] for i, part in enumerate(net.slices)}
        found["share"] = {name: kernels.dot(part, part) / squared for name, part in parts.items() if len(part)}
    return found


def mean_diagnosis(diagnoses: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each number over the diagnoses that contain it."""
    mean: dict[str, Any] = {}
    for name in {name: None for one in diagnoses for name in one}:
        found = [one[name] for one in diagnoses if name in one]
        mean[name] = mean_diagnosis(found) if isinstance(found[0], dict) else float(np.mean(found))
    return mean
