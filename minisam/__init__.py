"""minisam: neural networks and Sharpness-Aware Minimization by hand, in NumPy and Numba.

Read it from the bottom up: `kernels.reference`, `nn.dense`, `nn.network`, `objective`, `optim.sam`;
then `training.loop`, which trains, and `study`, which compares. `import minisam` brings the book;
`minisam.analysis`, `minisam.training` and `minisam.study` are imported by name.

>>> import numpy as np
>>> from minisam import SAM, BatchLoss, Linear, Momentum, ReLU, Sequential
>>> net = Sequential([Linear(2, 16), ReLU(), Linear(16, 2)], input_shape=(2,))
>>> rng = np.random.default_rng(0)
>>> x = rng.standard_normal((64, 2)).astype(np.float32)
>>> y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
>>> theta, sam = net.init(rng), SAM(Momentum(lr=0.1), rho=0.05)
>>> for _ in range(100):
...     at_theta = sam.step(theta, BatchLoss(net, x, y))
>>> at_theta.accuracy > 0.9
True
"""

__version__ = "0.2.0"

from minisam import data, nn, objective, optim
from minisam.data import *
from minisam.kernels import get_threads, set_threads
from minisam.nn import *
from minisam.objective import *
from minisam.optim import *

__all__ = [*data.__all__, *nn.__all__, *objective.__all__, *optim.__all__, "get_threads", "set_threads"]
