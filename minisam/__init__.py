"""minisam: neural networks and Sharpness-Aware Minimization by hand, in NumPy and Numba.

Read it from the bottom up: `kernels.reference`, `nn.layers`, `nn.network`, `objective`,
`optim.sam`, `experiments.train`.

>>> import numpy as np
>>> from minisam import SAM, BatchLoss, Linear, Momentum, ReLU, Sequential
>>> net = Sequential([Linear(2, 16), ReLU(), Linear(16, 2)], input_shape=(2,))
>>> rng = np.random.default_rng(0)
>>> x = rng.standard_normal((64, 2)).astype(np.float32)
>>> y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
>>> theta, sam = net.init(rng), SAM(Momentum(lr=0.1), rho=0.05)
>>> for _ in range(100):
...     loss, grad, accuracy = sam.step(theta, BatchLoss(net, x, y))
>>> accuracy > 0.9
True
"""

__version__ = "0.1.0"

from minisam.kernels import get_threads, set_threads
from minisam.nn import (
    AvgPool2d,
    BatchLoss,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    Linear,
    MaxPool2d,
    MeanSquaredError,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
)
from minisam.objective import Evaluation, Mean, Objective, Penalised
from minisam.optim import GD, SAM, Adam, Cosine, Momentum, Optimizer, StepDecay

__all__ = [
    "GD",
    "SAM",
    "Adam",
    "AvgPool2d",
    "BatchLoss",
    "Conv2d",
    "Cosine",
    "Evaluation",
    "Flatten",
    "GlobalAvgPool2d",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Mean",
    "MeanSquaredError",
    "Momentum",
    "Objective",
    "Optimizer",
    "Penalised",
    "ReLU",
    "Sequential",
    "SoftmaxCrossEntropy",
    "StepDecay",
    "Tanh",
    "get_threads",
    "set_threads",
]
