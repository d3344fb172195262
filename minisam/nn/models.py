"""The reference networks, by name."""

from collections.abc import Callable

from minisam.nn.convolution import Conv2d
from minisam.nn.layer import Layer, Shape
from minisam.nn.layers import Flatten, Linear, ReLU
from minisam.nn.network import Sequential
from minisam.nn.pooling import MaxPool2d


def mlp(input_shape: Shape, n_classes: int) -> Sequential:
    """Two hidden layers of 256 and 128 ReLU units.

    >>> mlp((32, 32, 3), 10).n_params
    820874
    """
    size = Flatten().output_shape(input_shape)[0]
    hidden = [Linear(size, 256), ReLU(), Linear(256, 128), ReLU()]
    return Sequential([Flatten(), *hidden, Linear(128, n_classes)], input_shape)


def cnn(input_shape: Shape, n_classes: int) -> Sequential:
    """Three blocks of 3×3 convolution (16, 32, 64 channels), ReLU and 2×2 maximum; a linear head.

    >>> cnn((32, 32, 3), 10).output_shape
    (10,)
    """
    layers: list[Layer] = []
    for channels, width in ((input_shape[2], 16), (16, 32), (32, 64)):
        layers += [Conv2d(channels, width, 3), ReLU(), MaxPool2d(2)]
    features = 64 * (input_shape[0] // 8) * (input_shape[1] // 8)
    return Sequential([*layers, Flatten(), Linear(features, n_classes)], input_shape)


MODELS: dict[str, Callable[[Shape, int], Sequential]] = {"mlp": mlp, "cnn": cnn}


def build(name: str, input_shape: Shape, n_classes: int) -> Sequential:
    """The named network for inputs of this shape.

    Raises:
        ValueError: an unknown name.

    >>> build("mlp", (8, 8, 3), 10).output_shape
    (10,)
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}, expected one of {', '.join(MODELS)}")
    return MODELS[name](input_shape, n_classes)
