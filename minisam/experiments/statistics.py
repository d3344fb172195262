"""How sure are we? Intervals for errors measured on a few seeds and a finite test set.

Two things were drawn at random: the seeds (initial weights, batches, noise) and the test images.
A run's errors form a table, seeds × images, of 0 and 1. Its mean varies because another seed gives
another network and because other images would have been easier or harder; an interval that counts
only one of the two is too narrow.
"""

import math
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Interval(NamedTuple):
    """An estimate with the bounds of its 95 % confidence interval (None for a single seed)."""

    estimate: float
    low: float | None
    high: float | None


def t_quantile(p: float, dof: float) -> float:
    """The p-quantile of Student's t, by integrating its density.

    With t = √dof tan φ the density is proportional to cos^(dof-1) φ on (-π/2, π/2).

    >>> round(t_quantile(0.975, 2), 2), round(t_quantile(0.975, 30), 3)
    (4.3, 2.042)
    """
    phi = np.linspace(-math.pi / 2, math.pi / 2, 200_001)
    density = np.abs(np.cos(phi)) ** (dof - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(dof) * math.tan(np.interp(p, mass / mass[-1], phi))


def crossed_variance(table: Array) -> tuple[float, float]:
    """Variance of the mean of a (seeds, images) table, both drawn at random; degrees of freedom.

    With row, column and residual variances σ_s², σ_i², σ_r² of the two-way random-effects model,
    Var = σ_s²/S + σ_i²/I + σ_r²/(S I); the degrees of freedom are Satterthwaite's (1946).
    """
    S, I = table.shape  # noqa: E741 - S seeds, I images, as in the equation
    rows, columns, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    residual = table - rows[:, None] - columns + mean
    of_seeds = rows.var(ddof=1) / S  # estimates σ_s²/S + σ_r²/(S I)
    of_images = columns.var(ddof=1) / I  # estimates σ_i²/I + σ_r²/(S I)
    of_both = np.square(residual).sum() / ((S - 1) * (I - 1) * S * I)
    variance = max(of_seeds + of_images - of_both, of_seeds, of_images)
    spread = of_seeds**2 / (S - 1) + of_images**2 / (I - 1)
    return float(variance), float((of_seeds + of_images) ** 2 / spread) if spread else math.inf


def _interval(estimate: float, table: Array) -> Interval:
    if len(table) < 2:
        return Interval(estimate, None, None)
    variance, dof = crossed_variance(table)
    half = t_quantile(0.975, dof) * math.sqrt(variance) if variance else 0.0
    return Interval(estimate, estimate - half, estimate + half)


def mean_error(wrong: Array) -> Interval:
    """The mean of wrong (seeds, images), 1 where a test image was misclassified.

    >>> mean_error(np.array([[1, 0, 0, 1], [1, 0, 1, 0]])).estimate
    0.5
    """
    return _interval(float(wrong.mean()), wrong.astype(float))


def error_reduction(baseline: Array, candidate: Array) -> Interval:
    """The relative error reduction 1 - (candidate's mean error) / (baseline's), paired.

    Both are (seeds, images), row by row with the same seed (weights, batches, noise) and column by
    column the same image. The interval is the delta method's: to first order the reduction varies
    as the mean of (r · baseline - candidate) / mean baseline, where r is the ratio of the means.

    Raises:
        ValueError: tables of different shape, or a baseline without errors.

    >>> baseline, candidate = np.array([[1, 1, 0, 1], [1, 1, 1, 0]]), np.array([[1, 0, 0, 1]] * 2)
    >>> round(error_reduction(baseline, candidate).estimate, 3)
    0.333
    """
    if baseline.shape != candidate.shape:
        raise ValueError(f"expected tables of one shape, got {baseline.shape}, {candidate.shape}")
    if not baseline.any():
        raise ValueError("a baseline without errors has no relative error reduction")
    ratio = candidate.mean() / baseline.mean()
    influence = (ratio * baseline - candidate) / baseline.mean()
    return _interval(float(1 - ratio), influence)
