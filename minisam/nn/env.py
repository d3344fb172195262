"""What one evaluation of a network shares: scratch memory, the key of its random numbers, statistics.

A training step needs the same arrays as the step before. Asking the operating system for them anew
costs more than filling them (each fresh page is a fault), so an arena hands the same memory out
again. Whatever must outlive the evaluation, such as a gradient, does not come from it.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


class Arena:
    """Scratch memory that one evaluation after another writes over.

    The i-th request after a `reset` gets the i-th buffer, which grows where it is too small.

    >>> arena = Arena()
    >>> first = arena.empty((2, 3), np.dtype("float32"))
    >>> arena.reset()
    >>> np.shares_memory(first, arena.empty((6,), np.dtype("float32")))
    True
    """

    def __init__(self) -> None:
        self._buffers: list[np.ndarray] = []
        self._next = 0

    def reset(self) -> None:
        """Let the next requests reuse the memory of all requests so far."""
        self._next = 0

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An uninitialised C-contiguous array."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if self._next == len(self._buffers):
            self._buffers.append(np.empty(n_bytes, np.uint8))
        elif self._buffers[self._next].nbytes < n_bytes:
            self._buffers[self._next] = np.empty(n_bytes, np.uint8)
        buffer = self._buffers[self._next]
        self._next += 1
        return buffer[:n_bytes].view(dtype).reshape(shape)


@dataclass
class Env:
    """What the layers of a network share during one evaluation, and the next one uses again.

    What forward keeps for backward lies in `arena`. On the way back each layer is handed one of
    `turns`, since its dL/dx is read by the layer below and by no other.
    """

    arena: Arena = field(default_factory=Arena)
    examples: int = 0  # that a gradient was computed for: what training costs
    key: tuple[int, ...] | None = None  # of the evaluation's random numbers
    draws: int = 0  # layers that drew some
    stats: list[np.ndarray] = field(default_factory=list)  # what each BatchNorm found in the batch
    running: np.ndarray | None = None  # what each is to use instead: an evaluation, not a training step
    keeps: bool = False  # every layer's dy as well, for tangents

    @cached_property
    def turns(self) -> tuple["Env", "Env"]:
        return Env(), Env()

    def begin(self, key: tuple[int, ...] | None = None, running: np.ndarray | None = None) -> None:
        """Reuse the memory for another evaluation."""
        self.arena.reset()
        self.key, self.draws, self.stats, self.running = key, 0, [], running

    def rng(self) -> np.random.Generator:
        """A generator for the next layer that asks: in every evaluation with this key the same.

        Raises:
            ValueError: no key.
        """
        if self.key is None:
            raise ValueError("Dropout needs a key (seed, epoch, step, …) for its random numbers, got none")
        self.draws += 1
        return np.random.default_rng([*self.key, self.draws])
