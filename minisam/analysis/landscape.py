"""The loss along lines and across planes of weight space, and the path of training through it."""

from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from minisam.checks import Array, require_finite
from minisam.kernels.cores import single_threaded_blas
from minisam.nn.network import Sequential
from minisam.objective import Objective


def filter_normalized(net: Sequential, theta: Array, rng: np.random.Generator) -> Array:
    """A random direction (P,), each filter scaled to the norm of theta's (Li et al. 2018, section 4).

        d[…, f] ← d[…, f] ‖W[…, f]‖ / ‖d[…, f]‖      for every output f of every weight W

    A ReLU network computes the same after weights are scaled up in one layer and down in the next. So
    steps of equal length mean nothing; steps relative to the filters do. Vectors (biases, γ and β of
    BatchNorm) stay where they are.

    >>> from minisam.nn import Linear
    >>> net, theta = Sequential([Linear(2, 2)], (2,)), np.array([3.0, 0.0, 4.0, 0.0, 1.0, 1.0])
    >>> d = filter_normalized(net, theta, np.random.default_rng(0))
    >>> np.linalg.norm(d[:4].reshape(2, 2), axis=0).round(9).tolist(), d[4:].tolist()
    ([5.0, 0.0], [0.0, 0.0])
    """
    direction = np.zeros_like(theta)
    for W, d in zip(net.views(theta), net.views(direction), strict=True):
        if W.ndim > 1:
            filters, random = W.reshape(-1, W.shape[-1]), rng.standard_normal((d.size // d.shape[-1], d.shape[-1]))
            d[...] = (random * np.linalg.norm(filters, axis=0) / np.linalg.norm(random, axis=0)).reshape(d.shape)
    return direction


def line(objective: Objective, theta: Array, direction: Array, t: Array) -> Array:
    """L(θ + t d) for every t (n,). With d = θ' - θ, t from 0 to 1 leads to the solution θ'.

    >>> from minisam.analysis.toy import Bowl
    >>> line(Bowl([2.0]), np.array([1.0]), np.array([-1.0]), np.array([0.0, 1.0])).tolist()
    [1.0, 0.0]
    """
    return plane(objective, theta, direction, np.zeros_like(theta), t, np.zeros(1))[0]


def plane(
    objective: Objective, theta: Array, u: Array, v: Array, a: Array, b: Array, known: Array | None = None, keep=None
) -> Array:
    """L(θ + a u + b v): a row (len(a),) for every b.

    `known` holds the losses of an earlier, interrupted call: its rows without NaN are not computed
    again. After each row keep(losses) is called with all losses, NaN for those not computed yet.

    Raises:
        ValueError: u or v is not like theta, or not finite; known has another shape.
    """
    for name, direction in {"u": u, "v": v}.items():
        if direction.shape != theta.shape:
            raise ValueError(f"expected {name} as a vector {theta.shape}, like theta, got {direction.shape}")
        require_finite(name, direction)
    losses = np.full((len(b), len(a)), np.nan) if known is None else known.copy()
    if losses.shape != (len(b), len(a)):
        raise ValueError(f"expected known losses of shape {(len(b), len(a))}, got {losses.shape}")
    for i in tqdm(np.flatnonzero(np.isnan(losses).any(axis=1)), desc="landscape", unit="row", delay=2, leave=False):
        row = theta + theta.dtype.type(b[i]) * v
        losses[i] = [objective.value(row + theta.dtype.type(t) * u) for t in a]
        if keep:
            keep(losses)
    return losses


class Plane(NamedTuple):
    """A plane through weight space: orthonormal directions (2, P), and a path's coordinates on it (n, 2)."""

    directions: Array
    path: Array
    share: Array  # (2,) of Σ ‖θᵢ - origin‖² that lies along each direction


@single_threaded_blas()
def pca_plane(thetas: Array, origin: Array) -> Plane:
    """The plane through origin (P,) nearest to the path thetas (n, P) (Li et al. 2018, section 7).

    Raises:
        ValueError: fewer than three points, or a path that stays on a line.

    >>> path = np.array([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    >>> pca_plane(path, path[-1]).share.sum().round(9)
    np.float64(1.0)
    """
    if thetas.ndim != 2 or len(thetas) < 3:
        raise ValueError(f"expected a path of at least 3 thetas, got shape {thetas.shape}")
    steps = thetas - origin
    _, lengths, directions = np.linalg.svd(steps, full_matrices=False)
    if len(lengths) < 2 or lengths[1] <= 1e-6 * lengths[0]:
        raise ValueError("the path stays on a line: it spans no plane")
    return Plane(directions[:2], steps @ directions[:2].T, lengths[:2] ** 2 / np.sum(lengths**2))
