"""Schedules: numbers that depend on the step.

Wherever an optimizer takes a number (lr, rho) it also takes a schedule: a function from the step,
counted from 0, to the number.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minisam.checks import Checked, Count, Natural, NonNegative, Positive, require

Schedule = Callable[[int], float]


def value_at(number: float | Schedule, step: int) -> float:
    """The number itself, or the schedule's value at this step.

    Raises:
        ValueError: a schedule whose value is negative or not finite.

    >>> value_at(0.1, 7), value_at(lambda step: 0.1 / (1 + step), 1)
    (0.1, 0.05)
    """
    if not callable(number):
        return number
    value = number(step)
    require(f"the schedule's value at step {step}", value, NonNegative)
    return value


@dataclass(frozen=True)
class Every(Checked):
    """The value on every k-th step, beginning with the first, and 0 on the others: a rho for occasional SAM.

    Liu et al. 2022 call it SAM-k; their LookSAM is meant to do better.

    Raises:
        ValueError: k below 1, a negative value.

    >>> [Every(3, 0.05)(step) for step in range(4)]
    [0.05, 0.0, 0.0, 0.05]
    """

    k: Count
    value: NonNegative | Schedule

    def __call__(self, step: int) -> float:
        return 0.0 if step % self.k else value_at(self.value, step)


@dataclass(frozen=True)
class Late(Checked):
    """0 before the step `start`, the value from then on: a rho for SAM in the last part of training.

    A few epochs at the end keep nearly all of SAM's gain (Zhou et al. 2024, arXiv 2410.10373; earlier,
    Andriushchenko & Flammarion 2022 had found that fine-tuning with SAM helps).

    Raises:
        ValueError: a negative start or value.

    >>> [Late(2, 0.05)(step) for step in range(4)]
    [0.0, 0.0, 0.05, 0.05]
    """

    start: Natural
    value: NonNegative | Schedule

    def __call__(self, step: int) -> float:
        return 0.0 if step < self.start else value_at(self.value, step)


@dataclass(frozen=True)
class StepDecay(Checked):
    """base · factor^(number of milestones passed); milestones are steps.

    Raises:
        ValueError: base or factor not above 0, milestones that are not steps.
        TypeError: milestones that are not a sequence.

    >>> schedule = StepDecay(1.0, milestones=(10, 20), factor=0.5)
    >>> schedule(9), schedule(10), schedule(25)
    (1.0, 0.5, 0.25)
    """

    base: Positive
    milestones: Sequence[int]
    factor: Positive = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.milestones, Sequence):
            raise TypeError(f"milestones must be a sequence of steps, such as (1000, 1500), got {self.milestones!r}")
        for milestone in self.milestones:
            require("a milestone", milestone, Natural)

    def __call__(self, step: int) -> float:
        return self.base * self.factor ** sum(step >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class Cosine(Checked):
    """Linear warm-up, then base · ½ (1 + cos π s) with s from 0 to 1 (Loshchilov & Hutter 2017, eq. 5).

    Step i < `warmup` has base (i + 1) / warmup; step `steps` and all later ones have 0.

    Raises:
        ValueError: base not above 0, or not 0 ≤ warmup < steps.

    >>> schedule = Cosine(0.1, steps=110, warmup=10)
    >>> [round(schedule(step), 3) for step in (0, 9, 10, 60, 110)]
    [0.01, 0.1, 0.1, 0.05, 0.0]
    """

    base: Positive
    steps: int
    warmup: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.warmup < self.steps:
            raise ValueError(f"expected 0 ≤ warmup < steps, got {self.warmup} and {self.steps}")

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.base * ((step + 1) / self.warmup)
        progress = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        return self.base * 0.5 * (1 + math.cos(math.pi * progress))
