"""Losses: a number for the outputs, and the gradient that backpropagation starts from."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from minisam.checks import Array, BelowOne, Checked, require_array, require_finite


class Loss(Protocol):
    """A mean over N examples: a function of the outputs (N, n_out) and targets y."""

    def __call__(self, outputs: Array, y: Array) -> tuple[float, Array]:
        """Return the loss and dL/d outputs (N, n_out)."""

    def tangent(self, outputs: Array, y: Array, outputs_dot: Array) -> Array:
        """The rate of dL/d outputs while the outputs move at outputs_dot: the loss's own Hessian times that."""

    def check(self, y: Array, n_examples: int, output_shape: tuple[int, ...]) -> None:
        """Raise ValueError or TypeError unless y can be the targets of n_examples outputs (*output_shape)."""


def _vector_length(output_shape: tuple[int, ...]) -> int:
    if len(output_shape) != 1:
        raise ValueError(f"expected a network with outputs (n_out,), got {output_shape}: Flatten?")
    return output_shape[0]


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Checked):
    """L = -1/N Σₙ Σₖ tₙₖ log pₙₖ, in nats, with p = softmax(logits).

    The targets are tₙₖ = (1 - α) [k = yₙ] + α/K with label smoothing α: the mass α is spread over
    all K classes, the right one included (PyTorch's convention; Szegedy et al. 2016). Logits are
    (N, K) float; labels y are (N,) integers from 0 to K - 1. Logits may be as large as ±1e30; with a
    single class (K = 1) loss and gradient are 0.

    Raises:
        ValueError: label_smoothing outside [0, 1).

    >>> loss, dlogits = SoftmaxCrossEntropy()(np.zeros((2, 4)), np.array([0, 3]))
    >>> round(loss, 4), dlogits[0].tolist()
    (1.3863, [-0.375, 0.125, 0.125, 0.125])
    """

    label_smoothing: BelowOne = 0.0

    def __call__(self, outputs: Array, y: Array) -> tuple[float, Array]:
        N, K = outputs.shape
        shifted = outputs - outputs.max(axis=1, keepdims=True)  # e^x cannot overflow below 0
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        alpha = float(self.label_smoothing)
        right = log_p[np.arange(N), y]
        loss = -(1 - alpha) * right.mean(dtype=np.float64)
        if alpha:
            loss -= alpha * log_p.mean(dtype=np.float64)
        dlogits = np.exp(log_p)  # dL/dlogits = (p - t) / N
        if alpha:
            dlogits -= alpha / K
        dlogits[np.arange(N), y] -= 1 - alpha
        dlogits /= N
        return float(loss), dlogits

    def tangent(self, outputs: Array, y: Array, outputs_dot: Array) -> Array:
        """(diag(p) - p pᵀ) logits_dot / N, whatever the targets."""
        p = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return p * (outputs_dot - np.sum(p * outputs_dot, axis=1, keepdims=True)) / len(outputs)

    def check(self, y: Array, n_examples: int, output_shape: tuple[int, ...]) -> None:
        n_out = _vector_length(output_shape)
        require_array("y", y)
        if y.shape != (n_examples,):
            raise ValueError(f"expected labels y of shape ({n_examples},), got {y.shape}")
        if not np.issubdtype(y.dtype, np.integer):
            raise TypeError(f"expected integer labels y, got {y.dtype}")
        if n_examples and (y.min() < 0 or y.max() >= n_out):
            raise ValueError(f"labels y must be 0 to {n_out - 1}, got {y.min()} to {y.max()}")


@dataclass(frozen=True)
class MeanSquaredError:
    """L = 1/(N·K) Σₙₖ (outputsₙₖ - yₙₖ)², the mean over all entries (PyTorch's convention).

    Outputs and targets y are (N, K) float.

    Raises:
        ValueError: targets that the outputs' dtype cannot hold, such as 1e300 in float32.

    >>> MeanSquaredError()(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]))
    (2.0, array([[0., 2.]]))
    """

    def __call__(self, outputs: Array, y: Array) -> tuple[float, Array]:
        with np.errstate(over="ignore"):
            y = y.astype(outputs.dtype, copy=False)
        require_finite(f"targets y in {outputs.dtype}", y)
        residual = outputs - y
        loss = np.square(residual, dtype=np.float64).mean()
        residual *= 2 / residual.size  # dL/d outputs
        return float(loss), residual

    def tangent(self, outputs: Array, y: Array, outputs_dot: Array) -> Array:
        return outputs_dot * (2 / outputs.size)

    def check(self, y: Array, n_examples: int, output_shape: tuple[int, ...]) -> None:
        n_out = _vector_length(output_shape)
        require_array("y", y)
        if y.shape != (n_examples, n_out):
            raise ValueError(f"expected targets y of shape ({n_examples}, {n_out}), got {y.shape}")
        if not np.issubdtype(y.dtype, np.floating):
            raise TypeError(f"expected floating-point targets y, got {y.dtype}")
        require_finite("targets y", y)
