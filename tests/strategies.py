"""Hypothesis strategies: they draw shapes and a seed; values come from the seed.

Arrays drawn by hypothesis itself favour zeros and ties, where ReLU and max have no gradient.
"""

import math

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from minisam.nn import (
    AvgPool2d,
    BatchNorm,
    Chain,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Tanh,
)  # fmt: skip

try:
    from minisam.kernels.vector import _RUN as BLOCK  # the length of the blocks into which vectors are cut
except ImportError:
    BLOCK = 100  # there are none without Numba

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([np.float32, np.float64])


def spaced(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Distinct float64 values in random order, at least 0.1 apart and 0.05 away from zero."""
    size = int(np.prod(shape))
    return (rng.permutation(size) - size // 2 + 0.5).reshape(shape) * 0.1


def images(side: int = 7) -> st.SearchStrategy[tuple[int, int, int]]:
    """Shapes (H, W, C), mostly not square."""
    return st.tuples(st.integers(1, side), st.integers(1, side), st.integers(1, 3))


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def convolutions(draw, shape):
    """A Conv2d for images of this shape; if the padding allows it, larger than the image."""
    H, W, C = shape
    padding = draw(st.one_of(st.just("same"), st.integers(0, 3), pairs(0, 3)))
    rows, columns = (3, 3) if padding == "same" else np.broadcast_to(padding, 2).tolist()
    highest, widest = min(H + 2 * rows, 6), min(W + 2 * columns, 6)
    kernels = st.tuples(st.integers(1, highest), st.integers(1, widest))
    size = draw(st.integers(1, min(highest, widest)) | kernels)
    return Conv2d(C, draw(st.integers(1, 3)), size, draw(st.integers(1, 3)), padding)


def pools(kind, shape):
    """A MaxPool2d or AvgPool2d for images of this shape: side by side, apart or overlapping."""
    return st.builds(kind, st.integers(1, min(*shape[:2], 4)), st.integers(0, 4))


@st.composite
def chains(draw, shape):
    """BatchNorm, then a convolution for images of this shape: no kinks, nothing saturated.

    (The other way round a bias would have gradient 0, and 0 has no relative error. The large eps
    keeps the curvature low where all pixels are about equal.)
    """
    return Chain((BatchNorm(shape[2], eps=0.1), draw(convolutions(shape))))


@st.composite
def residuals(draw, shape):
    """A block with the identity as its shortcut, or with a projection (always if the shape changes)."""
    C, width, stride = shape[2], draw(st.integers(1, 3)), draw(st.integers(1, 2))
    block = (BatchNorm(C, eps=0.1), Tanh(), Conv2d(C, width, 3, stride))
    if stride > 1 or width != C or draw(st.booleans()):
        return Residual(block, (Conv2d(C, width, 1, stride),))
    return Residual(block)


vectors = st.tuples(st.integers(1, 6))
anything = vectors | images()

# Every layer class, with a strategy for (layer, input_shape).
LAYERS = {
    Linear: st.builds(lambda i, o: (Linear(i, o), (i,)), st.integers(1, 6), st.integers(1, 5)),
    Conv2d: images(6).flatmap(lambda shape: st.tuples(convolutions(shape), st.just(shape))),
    ReLU: anything.map(lambda shape: (ReLU(), shape)),
    Tanh: anything.map(lambda shape: (Tanh(), shape)),
    MaxPool2d: images().flatmap(lambda shape: st.tuples(pools(MaxPool2d, shape), st.just(shape))),
    AvgPool2d: images().flatmap(lambda shape: st.tuples(pools(AvgPool2d, shape), st.just(shape))),
    GlobalAvgPool2d: images().map(lambda shape: (GlobalAvgPool2d(), shape)),
    Flatten: images().map(lambda shape: (Flatten(), shape)),
    # A value alone in its channel has no gradient: only rounding would be compared.
    BatchNorm: images().filter(lambda s: s[0] * s[1] > 1).map(lambda shape: (BatchNorm(shape[-1], eps=0.1), shape)),
    Dropout: st.tuples(st.floats(0, 0.9).map(Dropout), anything),
    Chain: images(6).flatmap(lambda shape: st.tuples(chains(shape), st.just(shape))),
    Residual: images(6).flatmap(lambda shape: st.tuples(residuals(shape), st.just(shape))),
}
any_layer = st.one_of(*LAYERS.values())


@st.composite
def networks(draw, n_params=150):
    """A valid network of at most n_params parameters: a CNN or an MLP with 2 to 4 outputs."""
    input_shape = shape = draw(vectors | images(6))
    layers = []

    def add(layer):
        nonlocal shape
        layers.append(layer)
        shape = layer.output_shape(shape)

    if len(shape) == 3:
        kinds = st.sampled_from([Conv2d, ReLU, Tanh, MaxPool2d, AvgPool2d])
        for kind in (Conv2d, *draw(st.lists(kinds, max_size=4))):
            if kind is Conv2d:
                add(draw(convolutions(shape)))
            else:
                add(draw(pools(kind, shape)) if kind in (MaxPool2d, AvgPool2d) else kind())
        add(Flatten() if math.prod(shape) <= 20 else GlobalAvgPool2d())
    for activation in draw(st.lists(st.sampled_from([ReLU, Tanh]), max_size=2)):
        add(Linear(shape[0], draw(st.integers(1, 5))))
        add(activation())
    add(Linear(shape[0], draw(st.integers(2, 4))))
    net = Sequential(layers, input_shape)
    assume(net.n_params <= n_params)
    return net
