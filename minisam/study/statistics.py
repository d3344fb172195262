"""How sure are we? Intervals for errors measured on a few seeds and a finite test set.

Two things were drawn at random: the seeds (initial weights, batches, noise) and the test images.
A run's errors form a table, seeds × images, of 0 and 1. Its mean varies because another seed gives
another network and because other images would have been easier or harder; an interval that counts
only one of the two is too narrow.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minisam.checks import Array


class Interval(NamedTuple):
    """An estimate with the bounds of its 95 % confidence interval (None for a single seed)."""

    estimate: float
    low: float | None
    high: float | None

    def text(self, digits: str, scale: float = 1.0) -> str:
        """The estimate with its bounds, if it has any.

        >>> Interval(0.023, 0.01, 0.036).text("+.1f", 100)
        '+2.3 (+1.0 to +3.6)'
        """
        if math.isnan(self.estimate):
            return "–"
        estimate, *ends = (f"{scale * value:{digits}}" for value in self if value is not None)
        return f"{estimate} ({' to '.join(ends)})" if ends else estimate


def t_quantile(p: float, dof: float) -> float:
    """The p-quantile of Student's t, by integrating its density.

    With t = √dof tan φ the density is proportional to cos^(dof-1) φ on (-π/2, π/2).

    >>> round(t_quantile(0.975, 2), 2), round(t_quantile(0.975, 30), 3)
    (4.3, 2.042)
    """
    phi = np.linspace(-math.pi / 2, math.pi / 2, 20_001)
    density = np.abs(np.cos(phi)) ** (dof - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(dof) * math.tan(np.interp(p, mass / mass[-1], phi))


def crossed_variance(table: Array) -> tuple[float, float]:
    """Variance of the mean of a (seeds, images) table, both drawn at random, and its degrees of freedom.

    In the two-way random-effects model the variance is σ_s²/S + σ_i²/I + σ_r²/(S I), for seeds,
    images and the residual. The spread of the row means estimates the first and the last term, that
    of the column means the last two. Their sum counts the (smallest) last term twice: it errs
    towards caution. The degrees of freedom are Satterthwaite's (1946).
    """
    n_seeds, n_images = table.shape
    of_seeds = table.mean(axis=1).var(ddof=1) / n_seeds
    of_images = table.mean(axis=0).var(ddof=1) / n_images
    variance = float(of_seeds + of_images)
    spread = float(of_seeds**2 / (n_seeds - 1) + of_images**2 / (n_images - 1))
    return variance, variance**2 / spread if spread else math.inf


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

    Both are (seeds, images): corresponding rows share the seed (weights, batches, noise),
    corresponding columns the image. The interval is the delta method's: to first order the reduction varies
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


def student(values: Array) -> Interval:
    """The mean of independent numbers (n,), with Student's t-interval.

    >>> student(np.array([1.0, 3.0])).text(".1f")
    '2.0 (-10.7 to 14.7)'
    """
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Interval(mean, None, None)
    half = t_quantile(0.975, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def ratio(baseline: Array, candidate: Array) -> Interval:
    """How many times smaller a positive number (seeds,) is than the baseline's, paired: the geometric mean.

    The interval is that of Student's t for the mean of log(baseline / candidate) over the seeds.

    Raises:
        ValueError: a number that is not positive.

    >>> round(ratio(np.array([2.0, 8.0]), np.array([1.0, 2.0])).estimate, 6)
    2.828427
    """
    if not (np.all(baseline > 0) and np.all(candidate > 0)):
        raise ValueError(f"expected positive numbers, got {min(baseline.min(), candidate.min())}")
    of_logs = student(np.log(baseline) - np.log(candidate))
    return Interval(math.exp(of_logs.estimate), *(None if end is None else math.exp(end) for end in of_logs[1:]))


def ranks(x: Array) -> Array:
    """Ranks 1 to n of x (..., n) along its last axis; equal values share their mean rank.

    >>> ranks(np.array([0.3, 0.1, 0.3, 0.9]))
    array([2.5, 1. , 2.5, 4. ])
    """
    lower = (x[..., None, :] < x[..., :, None]).sum(-1)
    equal = (x[..., None, :] == x[..., :, None]).sum(-1)
    return lower + (equal + 1) / 2


def spearman(x: Array, y: Array) -> Array:
    """Spearman's rank correlation (1904) of x and y (..., n) along the last axis: Pearson's of their ranks.

    NaN if all x or all y are equal.

    >>> x = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    >>> spearman(x, -(x**3))
    array([-1., nan])
    """
    a, b = (rank - rank.mean(-1, keepdims=True) for rank in (ranks(x), ranks(y)))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))


def resampled(
    statistic: Callable[[Array, Array], float], x: Array, y: Array, rng: np.random.Generator, resamples: int = 1000
) -> Interval:
    """A statistic of two tables, with the middle 95 % of its values when rows and columns are drawn anew.

    x and y are (methods, seeds), both considered random: rows and columns are drawn with replacement, the same ones
    from both tables ("pigeonhole bootstrap", Owen 2007). With few rows or columns the interval is rough. NaNs among
    the resamples are left out; a statistic that is NaN has no bounds.

    >>> x = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    >>> resampled(lambda x, y: spearman(x.ravel(), y.ravel()), x, 2 * x, np.random.default_rng(0))
    Interval(estimate=1.0, low=1.0, high=1.0)
    """
    estimate = float(statistic(x, y))
    if math.isnan(estimate):
        return Interval(estimate, None, None)
    drawn = (np.ix_(*(rng.integers(0, n, n) for n in x.shape)) for _ in range(resamples))
    low, high = np.nanpercentile([statistic(x[some], y[some]) for some in drawn], [2.5, 97.5])
    return Interval(estimate, float(low), float(high))
