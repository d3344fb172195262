"""The Hessian's spectrum from products H v alone: eigenvalues, trace, density.

The Hessian of a network with a million parameters has 10¹² entries, too many to write down. These
functions need only `product`, the map v ↦ H v that `objective.hessian(theta)` returns, and `like`, a
vector with the length and dtype of v, such as theta.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from minisam.checks import Array, Count, Positive, require
from minisam.kernels import norm  # in float64: squares of 1e30 leave float32
from minisam.kernels.cores import single_threaded_blas
from minisam.objective import HessianMap


class Spectrum(NamedTuple):
    """Eigenvalues (k,), the largest |λ| first; their unit vectors (k, P); and ‖H v - λ v‖ (k,), as estimated from T."""

    values: Array
    vectors: Array
    residuals: Array


class Density(NamedTuple):
    """Where the eigenvalues lie (n,), and which fraction of them lies there (n,): the weights sum to 1."""

    nodes: Array
    weights: Array

    def smoothed(self, grid: Array, width: float) -> Array:
        """The density at the points of grid (m,): a Gaussian of this standard deviation for every node."""
        require("width", width, Positive)
        bumps = np.exp(-0.5 * ((grid[:, None] - self.nodes) / width) ** 2)
        return bumps @ self.weights / (width * math.sqrt(2 * math.pi))


@single_threaded_blas()
def power_iteration(product: HessianMap, like: Array, rng: Generator, steps: int = 100) -> tuple[float, Array]:
    """The eigenvalue of largest |λ| and its unit vector: v ← H v / ‖H v‖, λ = vᵀ H v.

    The readable twin of `eigenvalues`. With every step a component along another eigenvector shrinks by
    |λ₂ / λ₁|. So convergence is slow if the two are close, and there is none if they are opposite.

    >>> from minisam.analysis.toy import Bowl
    >>> theta = np.ones(3)
    >>> value, vector = power_iteration(Bowl([1.0, -5.0, 2.0]).hessian(theta), theta, np.random.default_rng(0))
    >>> round(value, 6), np.abs(vector).round(6).tolist()
    (-5.0, [0.0, 1.0, 0.0])
    """
    require("steps", steps, Count)
    v = _random_unit(like, rng)
    for _ in tqdm(range(steps), desc="power iteration", delay=2, leave=False):
        Hv = product(v)
        if (length := norm(Hv)) == 0:
            break
        v = Hv / length
    return float(v @ product(v)), v


def lanczos(product: HessianMap, like: Array, rng: Generator, steps: int) -> Iterator[tuple[Array, Array, float]]:
    """After m = 1, 2, … products: orthonormal rows Q (m, P), T = Q H Qᵀ (m, m) tridiagonal, and the next β.

        β q_next = H q - α q - β' q_before,   α = qᵀ H q      (Lanczos 1950)

    T's eigenvalues approach H's from the ends of the spectrum inwards. In floating point Q would lose
    its orthogonality as soon as one of them has converged, and find that one again and again. So every
    new vector is made orthogonal to all before it, twice. If H leads nowhere new (β = 0), a random vector
    takes over, until m is `steps` or P. Q and T are views, which the next step extends; Q takes
    steps · P numbers.
    """
    require("steps", steps, Count)
    m_max = min(steps, len(like))
    Q, T = np.empty((m_max, len(like)), like.dtype), np.zeros((m_max, m_max))
    q, beta = _random_unit(like, rng), 0.0
    for m in range(m_max):
        Q[m] = q
        T[m, m - 1] = T[m - 1, m] = beta  # at m = 0 a zero at the corners
        q = product(Q[m])
        T[m, m] = float(Q[m] @ q)
        q = _orthogonal(q, Q[: m + 1])
        beta = norm(q)
        if not math.isfinite(beta):
            raise ValueError("the products H v are not finite")
        if beta <= 10 * float(np.finfo(q.dtype).eps) * np.abs(T).max():
            q, beta = _orthogonal(_random_unit(like, rng), Q[: m + 1]), 0.0
        yield Q[: m + 1], T[: m + 1, : m + 1], beta
        q = q / (norm(q) or 1.0)


@single_threaded_blas()
def eigenvalues(
    product: HessianMap, like: Array, k: int, rng: Generator, steps: int = 200, tolerance: float = 1e-3
) -> Spectrum:
    """The k eigenvalues of largest |λ|, signs kept, with their vectors: from T's, by Lanczos' method.

    It stops after `steps` products, or once each residual r is below tolerance · |λ|. Some eigenvalue
    of H lies within r of λ, and within r²/δ if the next one is δ ≫ r away. Probably, but not certainly,
    none of the k leading ones was missed: each β = 0 finds one more copy of a multiple eigenvalue.

    Raises:
        ValueError: k, steps or tolerance not positive, k above steps or the number of parameters.

    >>> from minisam.analysis.toy import Bowl
    >>> theta = np.ones(4)
    >>> product = Bowl([1.0, -5.0, 2.0, 0.5]).hessian(theta)
    >>> eigenvalues(product, theta, k=2, rng=np.random.default_rng(0)).values.round(9).tolist()
    [-5.0, 2.0]
    """
    require("k", k, Count)
    require("tolerance", tolerance, Positive)
    if k > min(steps, len(like)):
        raise ValueError(f"k must be at most steps ({steps}) and the number of parameters ({len(like)}), got {k}")
    for found in tqdm(lanczos(product, like, rng, steps), desc="Lanczos", total=steps, delay=2, leave=False):
        Q, T, beta = found
        values, vectors = np.linalg.eigh(T)
        leading = np.argsort(-np.abs(values), kind="stable")[:k]
        residuals = beta * np.abs(vectors[-1, leading])
        rounding = 10 * float(np.finfo(like.dtype).eps) * np.abs(values).max()
        if len(leading) == k and beta > 0 and np.all(residuals <= tolerance * np.abs(values[leading]) + rounding):
            break
    return Spectrum(values[leading], vectors[:, leading].T.astype(like.dtype) @ Q, np.maximum(residuals, rounding))


@single_threaded_blas()
def trace(product: HessianMap, like: Array, rng: Generator, samples: int = 30) -> tuple[float, float]:
    """tr H and its standard error: the mean of zᵀ H z over random signs z (Hutchinson 1990).

    The variance of one zᵀ H z is 2 Σ Hᵢⱼ² over i ≠ j.

    >>> from minisam.analysis.toy import Bowl
    >>> theta = np.ones(3)
    >>> trace(Bowl([1.0, -5.0, 2.0]).hessian(theta), theta, np.random.default_rng(0))  # exact, as H is diagonal
    (-2.0, 0.0)
    """
    if samples < 2:
        raise ValueError(f"samples must be at least 2, or there is no standard error, got {samples}")
    found = []
    for _ in tqdm(range(samples), desc="trace", delay=2, leave=False):
        z = (2 * rng.integers(2, size=len(like)) - 1).astype(like.dtype)
        found.append(float(z @ product(z)))
    return float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(samples))


@single_threaded_blas()
def density(product: HessianMap, like: Array, rng: Generator, steps: int = 60, samples: int = 5) -> Density:
    """How the P eigenvalues are spread, by stochastic Lanczos quadrature (Lin et al. 2016; Ghorbani et al. 2019).

    From a random q₁, T's eigenvalues with the squares of its eigenvectors' first entries are Gauss'
    quadrature (Golub & Welsch 1969) for Σ (q₁ᵀ vᵢ)² f(λᵢ), whose mean is 1/P Σ f(λᵢ): exact for
    polynomials of degree 2 · steps - 1. Averaged over `samples` starts.

    >>> from minisam.analysis.toy import Bowl
    >>> theta = np.ones(3)
    >>> nodes, weights = density(Bowl([1.0, -5.0, 2.0]).hessian(theta), theta, np.random.default_rng(0), samples=1)
    >>> nodes.round(6).tolist(), round(float(weights.sum()), 9)
    ([-5.0, 1.0, 2.0], 1.0)
    """
    require("samples", samples, Count)
    nodes, weights = [], []
    for _ in tqdm(range(samples), desc="spectral density", delay=2, leave=False):
        *_, (_, T, _) = lanczos(product, like, rng, steps)
        values, vectors = np.linalg.eigh(T)
        nodes.append(values)
        weights.append(np.square(vectors[0]) / samples)
    return Density(np.concatenate(nodes), np.concatenate(weights))


def _random_unit(like: Array, rng: Generator) -> Array:
    z = rng.standard_normal(len(like)).astype(like.dtype)
    return z / norm(z)


def _orthogonal(q: Array, Q: Array) -> Array:
    for _ in range(2):  # the second time removes what rounding left after the first
        q = q - (Q @ q) @ Q
    return q
