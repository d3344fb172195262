"""What the layers share during one evaluation: scratch memory, the key of random numbers, statistics.

A training step needs the same arrays as the step before. Asking the operating system for new ones
costs more than filling them (the first touch of every page is a fault), so an arena hands out the same
memory again. What must outlive the evaluation, such as a gradient, does not come from an arena.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from minisam.checks import Array


class Arena:
    """Scratch memory that each evaluation overwrites.

    The i-th request after a `reset` gets the i-th buffer, enlarged if it is too small.

    >>> arena = Arena()
    >>> first = arena.empty((2, 3), np.dtype("float32"))
    >>> arena.reset()
    >>> np.shares_memory(first, arena.empty((6,), np.dtype("float32")))
    True
    """

    def __init__(self) -> None:
        self._buffers: list[Array] = []
        self._next = 0

    def reset(self) -> None:
        """Let the next requests reuse the memory of all requests so far."""
        self._next = 0

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Array:
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
    """What the layers of a network share during one evaluation; reused by the next one.

    One evaluation at a time: two threads need an Env each.
    """

    arena: Arena = field(default_factory=Arena)  # holds what forward keeps for backward
    examples: int = 0  # examples whose gradient was computed: the cost of training
    key: tuple[int, ...] | None = None  # seeds this evaluation's random numbers
    rngs: int = 0  # generators handed out so far
    stats: list[Array] = field(default_factory=list)  # what each BatchNorm found in the batch
    running: Array | None = None  # what each BatchNorm uses instead in evaluation; None while training

    @cached_property
    def alternating(self) -> tuple["Env", "Env"]:
        """Memory for the way back, which needs only the last two layers' dL/dx at a time."""
        return Env(), Env()

    @cached_property
    def beside(self) -> "Env":
        """Memory for a second way back, whose result must not overwrite the first one's."""
        return Env()

    def begin(self, key: tuple[int, ...] | None = None, running: Array | None = None) -> None:
        """Reuse the memory for another evaluation."""
        self.arena.reset()
        self.key, self.rngs, self.stats, self.running = key, 0, [], running

    def rng(self) -> np.random.Generator:
        """A generator for the next layer that asks: the same in every evaluation with this key.

        Raises:
            ValueError: no key.
        """
        if self.key is None:
            raise ValueError("Dropout needs a key (seed, epoch, step, …) for its random numbers, got none")
        self.rngs += 1
        return np.random.default_rng([*self.key, self.rngs])
