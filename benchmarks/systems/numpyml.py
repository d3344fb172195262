"""numpy-ml's Conv2D, written from scratch in plain NumPy and float64."""

import collections
import collections.abc
import functools
import warnings
from importlib.metadata import version

import numpy as np
from workload import Case, convolution

# Its last release (0.1.2, 2020) imports names that Python 3.10 removed from `collections`.
collections.Hashable = collections.abc.Hashable  # type: ignore[attr-defined]
warnings.simplefilter("ignore")

from numpy_ml.neural_nets.layers import Conv2D  # noqa: E402


def versions() -> dict:
    return {"numpy-ml": version("numpy-ml"), "numpy": np.__version__}


def prepare(case: Case):
    """Its backward computes both gradients at once."""
    if case.kind != "conv" or case.what not in ("forward", "both gradients") or case.n > 16:
        return None  # too slow to wait for
    x, W, b, dy = convolution(case)
    layer = Conv2D(W.shape[-1], (3, 3), pad=1, optimizer="SGD(lr=0.0)")
    layer.forward(x[:1], retain_derived=False)  # makes the parameters
    layer.parameters["W"], layer.parameters["b"] = W, b.reshape(1, 1, 1, -1)
    if case.what == "forward":
        run = functools.partial(layer.forward, x, retain_derived=False)
        return run, lambda: [run()]

    def result() -> list[np.ndarray]:
        layer.flush_gradients()
        layer.forward(x)  # stores what backward reads
        dx = layer.backward(dy)
        return [dx, layer.gradients["W"], layer.gradients["b"].ravel()]

    return lambda: layer.backward(dy), result
