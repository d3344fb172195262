"""Keyed random numbers: every draw is a pure function of what it is for.

A generator that advances has a state, which must be saved, restored, and kept in step between runs
that are to be compared. Here each use makes its own generator from (seed, stream, epoch, step).
So any step can be replayed alone, both passes of SAM see the same draw, and a resumed run needs
nothing but its step number.
"""

from enum import IntEnum

import numpy as np

from minisam.checks import Natural, require


class Stream(IntEnum):
    """What a random number is for; different streams of one seed are independent."""

    INIT = 1
    SHUFFLE = 2
    AUGMENT = 3
    LABEL_NOISE = 4
    SUBSET = 5
    DROPOUT = 6
    ASCENT = 7


def keyed_rng(seed: int, stream: Stream, epoch: int = 0, step: int = 0) -> np.random.Generator:
    """The generator for this seed, stream, epoch and step.

    Raises:
        ValueError: a seed, epoch or step that is not an integer ≥ 0.

    >>> a, b = keyed_rng(0, Stream.SHUFFLE, epoch=3), keyed_rng(0, Stream.SHUFFLE, epoch=3)
    >>> bool(a.integers(100) == b.integers(100))
    True
    """
    for name, value in (("seed", seed), ("epoch", epoch), ("step", step)):
        require(name, value, Natural)
    return np.random.default_rng([seed, stream, epoch, step])
