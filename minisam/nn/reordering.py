"""The same function with less work and memory: where ReLUs may move, and who may apply them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minisam.nn.dense import ReLU
from minisam.nn.layer import Layer, Rectifying
from minisam.nn.pooling import MaxPool2d


def economical(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Layers that compute the same, gradients included, with the same parameters in the same order.

    max and ReLU commute, and after a MaxPool2d there are fewer numbers to clip. A layer that can apply
    the ReLU after it while it writes its output (a direct subclass of Rectifying) saves a pass through memory.

    >>> from minisam.nn import Conv2d
    >>> conv, relu = economical([Conv2d(2, 2, 3), ReLU()])
    >>> conv.rectified, relu.applied
    (True, True)
    """
    layers = list(layers)
    for i in range(1, len(layers)):
        if isinstance(layers[i - 1], ReLU) and isinstance(layers[i], MaxPool2d):
            layers[i - 1], layers[i] = layers[i], layers[i - 1]
    for i in range(1, len(layers)):
        before: Any = layers[i - 1]
        if Rectifying in type(before).__bases__ and isinstance(layers[i], ReLU):
            layers[i - 1], layers[i] = replace(before, rectified=True), ReLU(applied=True)
    return tuple(layers)
