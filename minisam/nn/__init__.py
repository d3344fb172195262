"""What a network is: layers, losses, one flat parameter vector."""

from minisam.nn.batch_loss import BatchLoss
from minisam.nn.chain import Chain
from minisam.nn.convolution import Conv2d
from minisam.nn.dense import Flatten, Linear, ReLU, Tanh
from minisam.nn.dropout import Dropout
from minisam.nn.env import Arena, Env
from minisam.nn.layer import Bilinear, FixedSlope, Layer, Motion, Point
from minisam.nn.linearized import Linearized
from minisam.nn.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from minisam.nn.models import build, cnn, cnn_bn, mlp, resnet8, vgg
from minisam.nn.network import Sequential
from minisam.nn.normalisation import BatchNorm
from minisam.nn.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from minisam.nn.residual import Residual

__all__ = [
    "Arena", "AvgPool2d", "BatchLoss", "BatchNorm", "Bilinear", "Chain", "Conv2d", "Dropout", "Env", "FixedSlope",
    "Flatten", "GlobalAvgPool2d", "Layer", "Linear", "Linearized", "Loss", "MaxPool2d", "MeanSquaredError", "Motion",
    "Point", "ReLU", "Residual", "Sequential", "SoftmaxCrossEntropy", "Tanh", "build", "cnn", "cnn_bn", "mlp",
    "resnet8", "vgg",
]  # fmt: skip
