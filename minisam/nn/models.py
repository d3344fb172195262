"""The reference networks, by name."""

from collections.abc import Callable
from itertools import pairwise

from minisam.nn.convolution import Conv2d
from minisam.nn.dense import Flatten, Linear, ReLU
from minisam.nn.dropout import Dropout
from minisam.nn.layer import Layer, Shape
from minisam.nn.network import Sequential
from minisam.nn.normalisation import BatchNorm
from minisam.nn.pooling import GlobalAvgPool2d, MaxPool2d
from minisam.nn.residual import Residual

Block = Callable[[int, int], tuple[Layer, ...]]  # (channels in, channels out) to layers


def mlp(input_shape: Shape, n_classes: int) -> Sequential:
    """Two hidden layers of 256 and 128 ReLU units.

    >>> mlp((32, 32, 3), 10).n_params
    820874
    """
    size = Flatten().output_shape(input_shape)[0]
    hidden = [Linear(size, 256), ReLU(), Linear(256, 128), ReLU()]
    return Sequential([Flatten(), *hidden, Linear(128, n_classes)], input_shape)


def cnn(input_shape: Shape, n_classes: int) -> Sequential:
    """Three blocks of 3×3 convolution (16, 32, 64 channels), ReLU and 2×2 max pooling; a linear head.

    >>> cnn((32, 32, 3), 10).output_shape
    (10,)
    """
    return _blocks(input_shape, n_classes, lambda channels, width: (Conv2d(channels, width, 3), ReLU()))


def cnn_bn(input_shape: Shape, n_classes: int) -> Sequential:
    """`cnn` with BatchNorm before each ReLU.

    >>> cnn_bn((32, 32, 3), 10).n_params - cnn((32, 32, 3), 10).n_params
    224
    """
    return _blocks(input_shape, n_classes, _conv)


def vgg(input_shape: Shape, n_classes: int) -> Sequential:
    """Two convolutions in each block of `cnn_bn`, and Dropout before the head, after Simonyan & Zisserman (2015).

    >>> vgg((32, 32, 3), 10).n_params
    82778
    """
    return _blocks(input_shape, n_classes, lambda c, width: (*_conv(c, width), *_conv(width, width)), Dropout(0.3))


def resnet8(input_shape: Shape, n_classes: int) -> Sequential:
    """A convolution, three residual blocks of 16, 32 and 64 channels, the mean over the image, a linear head.

    After He et al. (2016), section 4.2, with n = 1: 6n + 2 layers with weights, not counting projections.

    >>> resnet8((32, 32, 3), 10).output_shape
    (10,)
    """
    layers: list[Layer] = [*_conv(input_shape[2], 16)]
    for channels, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        block = (*_conv(channels, width, stride), Conv2d(width, width, 3), BatchNorm(width))
        projection = (Conv2d(channels, width, 1, stride), BatchNorm(width)) if stride > 1 else ()
        layers += [Residual(block, projection), ReLU()]
    return Sequential([*layers, GlobalAvgPool2d(), Linear(64, n_classes)], input_shape)


def _blocks(input_shape: Shape, n_classes: int, block: Block, *before_head: Layer) -> Sequential:
    layers = [layer for pair in pairwise((input_shape[2], 16, 32, 64)) for layer in (*block(*pair), MaxPool2d(2))]
    features = 64 * (input_shape[0] // 8) * (input_shape[1] // 8)
    return Sequential([*layers, Flatten(), *before_head, Linear(features, n_classes)], input_shape)


def _conv(channels: int, width: int, stride: int = 1) -> tuple[Layer, ...]:
    return Conv2d(channels, width, 3, stride), BatchNorm(width), ReLU()


MODELS = {"mlp": mlp, "cnn": cnn, "cnn-bn": cnn_bn, "vgg": vgg, "resnet8": resnet8}


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
