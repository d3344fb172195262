"""What a network is: layers, losses, one flat parameter vector."""

from minisam.nn.batch_loss import BatchLoss
from minisam.nn.chain import Chain, Residual
from minisam.nn.convolution import Conv2d
from minisam.nn.dropout import Dropout
from minisam.nn.env import Arena, Env
from minisam.nn.layer import Layer
from minisam.nn.layers import Flatten, Linear, ReLU, Tanh
from minisam.nn.losses import MeanSquaredError, SoftmaxCrossEntropy
from minisam.nn.models import build, cnn, cnn_bn, mlp, resnet8, vgg
from minisam.nn.network import Sequential
from minisam.nn.normalisation import BatchNorm
from minisam.nn.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d

__all__ = [
    "Arena", "AvgPool2d", "BatchLoss", "BatchNorm", "Chain", "Conv2d", "Dropout", "Env", "Flatten", "GlobalAvgPool2d",
    "Layer", "Linear", "MaxPool2d", "MeanSquaredError", "ReLU", "Residual", "Sequential", "SoftmaxCrossEntropy",
    "Tanh", "build", "cnn", "cnn_bn", "mlp", "resnet8", "vgg",
]  # fmt: skip
