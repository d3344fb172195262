"""Hypothesis strategies: they draw shapes and a seed; values come from the seed.

Arrays drawn by hypothesis itself love zeros and ties, where ReLU and max have no gradient.
"""

import numpy as np
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)


def spaced(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Distinct float64 values in random order, at least 0.1 apart and 0.05 away from zero."""
    size = int(np.prod(shape))
    return (rng.permutation(size) - size // 2 + 0.5).reshape(shape) * 0.1
