"""The reference networks, by name. `width` multiplies their numbers of hidden units and channels."""

from collections.abc import Callable
from itertools import pairwise

from minisam.checks import Count, require
from minisam.nn.convolution import Conv2d
from minisam.nn.dense import Flatten, Linear, ReLU
from minisam.nn.dropout import Dropout
from minisam.nn.layer import Layer, Shape
from minisam.nn.network import Sequential
from minisam.nn.normalisation import BatchNorm
from minisam.nn.pooling import GlobalAvgPool2d, MaxPool2d
from minisam.nn.residual import Residual

CHANNELS = (16, 32, 64)  # of the CNNs
Block = Callable[[int, int], tuple[Layer, ...]]  # (channels in, channels out) to layers


def mlp(input_shape: Shape, n_classes: int, width: int = 1) -> Sequential:
    """Two hidden layers of 256 and 128 ReLU units.

    >>> mlp((32, 32, 3), 10).n_params, mlp((32, 32, 3), 10, width=2).n_params
    (820874, 1707274)
    """
    size, first, second = Flatten().output_shape(input_shape)[0], 256 * width, 128 * width
    hidden = [Linear(size, first), ReLU(), Linear(first, second), ReLU()]
    return Sequential([Flatten(), *hidden, Linear(second, n_classes)], input_shape)


def cnn(input_shape: Shape, n_classes: int, width: int = 1) -> Sequential:
    """Three blocks of 3×3 convolution (16, 32, 64 channels), ReLU and 2×2 max pooling; a linear head.

    >>> cnn((32, 32, 3), 10).output_shape
    (10,)
    """
    return _blocks(input_shape, n_classes, width, lambda c_in, c_out: (Conv2d(c_in, c_out, 3), ReLU()))


def cnn_bn(input_shape: Shape, n_classes: int, width: int = 1) -> Sequential:
    """`cnn` with BatchNorm before each ReLU.

    >>> cnn_bn((32, 32, 3), 10).n_params - cnn((32, 32, 3), 10).n_params
    224
    """
    return _blocks(input_shape, n_classes, width, _conv)


def vgg(input_shape: Shape, n_classes: int, width: int = 1) -> Sequential:
    """Two convolutions in each block of `cnn_bn`, and Dropout before the head, after Simonyan & Zisserman (2015).

    >>> vgg((32, 32, 3), 10).n_params
    82778
    """
    return _blocks(
        input_shape, n_classes, width, lambda c_in, c_out: (*_conv(c_in, c_out), *_conv(c_out, c_out)), Dropout(0.3)
    )


def resnet8(input_shape: Shape, n_classes: int, width: int = 1) -> Sequential:
    """A convolution, three residual blocks of 16, 32 and 64 channels, the mean over the image, a linear head.

    After He et al. (2016), section 4.2, with n = 1: 6n + 2 layers with weights, not counting projections.

    >>> resnet8((32, 32, 3), 10).output_shape
    (10,)
    """
    small, middle, large = (width * channels for channels in CHANNELS)
    layers: list[Layer] = [*_conv(input_shape[2], small)]
    for c_in, c_out, stride in ((small, small, 1), (small, middle, 2), (middle, large, 2)):
        block = (*_conv(c_in, c_out, stride), Conv2d(c_out, c_out, 3), BatchNorm(c_out))
        projection = (Conv2d(c_in, c_out, 1, stride), BatchNorm(c_out)) if stride > 1 else ()
        layers += [Residual(block, projection), ReLU()]
    return Sequential([*layers, GlobalAvgPool2d(), Linear(large, n_classes)], input_shape)


def _blocks(input_shape: Shape, n_classes: int, width: int, block: Block, *before_head: Layer) -> Sequential:
    channels = (input_shape[2], *(width * channels for channels in CHANNELS))
    layers = [layer for pair in pairwise(channels) for layer in (*block(*pair), MaxPool2d(2))]
    features = channels[-1] * (input_shape[0] // 8) * (input_shape[1] // 8)
    return Sequential([*layers, Flatten(), *before_head, Linear(features, n_classes)], input_shape)


def _conv(c_in: int, c_out: int, stride: int = 1) -> tuple[Layer, ...]:
    return Conv2d(c_in, c_out, 3, stride), BatchNorm(c_out), ReLU()


MODELS = {"mlp": mlp, "cnn": cnn, "cnn-bn": cnn_bn, "vgg": vgg, "resnet8": resnet8}


def build(name: str, input_shape: Shape, n_classes: int, width: int = 1) -> Sequential:
    """The named network for inputs of this shape, `width` times as wide.

    Raises:
        ValueError: an unknown name, or a width below 1.

    >>> build("mlp", (8, 8, 3), 10).output_shape
    (10,)
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}, expected one of {', '.join(MODELS)}")
    require("width", width, Count)
    return MODELS[name](input_shape, n_classes, width)
