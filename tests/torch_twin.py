"""A network's twin in PyTorch, and what both are trained on.

PyTorch differs in layout alone. Its images are NCHW, a convolution's weight is OIHW, a Linear's
weight is (n_out, n_in), and it flattens channel by channel where minisam goes pixel by pixel. So
its parameters are theta's in another order, given by an array of places in theta.
"""

from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest

from minisam.data.batches import Batches
from minisam.nn import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
)  # fmt: skip

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")

BLOCK = (Conv2d(5, 7, 3, stride=2, padding=1), BatchNorm(7), ReLU(), Conv2d(7, 7, 3), BatchNorm(7))
PROJECTION = (Conv2d(5, 7, 1, stride=2, padding=0), BatchNorm(7))
NETS = {
    "mlp": Sequential([Flatten(), Linear(48, 24), ReLU(), Linear(24, 16), ReLU(), Linear(16, 5)], (4, 4, 3)),
    "cnn": Sequential(
        [
            *(Conv2d(3, 6, 3), ReLU(), MaxPool2d(2)),
            *(Conv2d(6, 8, 3, stride=2, padding=1), ReLU(), AvgPool2d(2, stride=1)),
            *(Flatten(), Linear(32, 5)),
        ],
        (12, 12, 3),
    ),
    "resnet": Sequential(
        [
            *(Conv2d(3, 5, 3), BatchNorm(5), ReLU()),
            *(Residual(BLOCK, PROJECTION), ReLU()),
            *(GlobalAvgPool2d(), Linear(7, 5)),
        ],
        (6, 6, 3),
    ),
}


@cache
def problem(name, dtype, n_steps):
    """A network, a theta to start from, and the batches of n_steps steps."""
    net, rng = NETS[name], np.random.default_rng(22)
    x, y = rng.standard_normal((70, *net.input_shape)).astype(dtype), rng.integers(5, size=70)
    x[:, :2] += y[:, None, None, None] / 2  # something to learn
    batches = Batches(x, y, batch_size=16, seed=1)
    steps = [pair for epoch in range(n_steps // len(batches)) for pair in batches.epoch(epoch)]
    assert len(steps) == n_steps
    return net, net.init(rng, dtype), steps


@contextmanager
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Twin:
    """The torch module that computes what net does, with theta's values for its parameters."""

    def __init__(self, net, theta):
        modules, places = _modules(net.layers, net.params(np.arange(net.n_params)), net.shapes)
        self.module = torch.nn.Sequential(*modules).to(torch.from_numpy(theta).dtype)
        self.parameters = list(self.module.parameters())
        self.norms = [m for m in self.module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        self.running = [array for norm in self.norms for array in (norm.running_mean, norm.running_var)]
        self.order = np.concatenate([place.ravel() for place in places])
        self.w = torch.from_numpy(theta[self.order])

    @property
    def w(self):
        """All parameters as one vector: theta in torch's order, a copy."""
        return torch.cat([p.detach().flatten() for p in self.parameters])

    @w.setter
    def w(self, values):
        _assign(self.parameters, values)

    @property
    def theta(self):
        theta = np.empty(len(self.order), self.w.numpy().dtype)
        theta[self.order] = self.w
        return theta

    @property
    def stats(self):
        """BatchNorm's running statistics as one vector, a copy."""
        return torch.cat([self.w[:0], *self.running])

    @stats.setter
    def stats(self, values):
        _assign(self.running, values)

    def loss(self, x, y, function=None):
        """The mean cross-entropy of the module, or of another function, on a batch."""
        nchw = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        return torch.nn.functional.cross_entropy((function or self.module)(nchw), torch.from_numpy(y))

    def follow(self, g, optimizer):
        """Let torch's optimizer take a step along the gradient g, in w's order."""
        for p, part in zip(self.parameters, g.split([p.numel() for p in self.parameters]), strict=True):
            p.grad = part.view_as(p)
        optimizer.step()


def _assign(tensors, values):
    with torch.no_grad():
        for tensor, part in zip(tensors, values.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


class _Sum(torch.nn.Module):
    """What a residual block computes: block(x) + shortcut(x)."""

    def __init__(self, block, shortcut):
        super().__init__()
        self.block, self.shortcut = torch.nn.Sequential(*block), torch.nn.Sequential(*shortcut)

    def forward(self, x):
        return self.block(x) + self.shortcut(x)


def _modules(layers, params, shapes):
    """The torch modules of these layers, and for each of their parameters the places in theta of its entries."""
    modules, places = [], []
    for i, (layer, own) in enumerate(zip(layers, params, strict=True)):
        match layer:
            case Conv2d():
                modules.append(torch.nn.Conv2d(layer.c_in, layer.c_out, layer.size, layer.stride, layer.padding))
                places += [own[0].transpose(3, 2, 0, 1), own[1]]
            case Linear():
                modules.append(torch.nn.Linear(layer.n_in, layer.n_out))
                W = own[0]
                if isinstance(layers[i - 1], Flatten):  # reorder the rows from H, W, C to C, H, W
                    H, width, C = shapes[i - 1]
                    W = W.reshape(H, width, C, -1).transpose(2, 0, 1, 3).reshape(W.shape)
                places += [W.T, own[1]]
            case BatchNorm():
                modules.append(torch.nn.BatchNorm2d(layer.channels, layer.eps))
                places += own
            case Residual():
                both = []
                for chain, of_chain in zip(layer.paths, layer.by_path(own), strict=True):
                    inner, its_places = _modules(chain.layers, chain.by_layer(of_chain), chain.shapes(shapes[i]))
                    both.append(inner)
                    places += its_places
                modules.append(_Sum(*both))
            case Flatten():
                modules.append(torch.nn.Flatten())
            case ReLU():
                modules.append(torch.nn.ReLU())
            case MaxPool2d():
                modules.append(torch.nn.MaxPool2d(layer.size, layer.stride))
            case AvgPool2d():
                modules.append(torch.nn.AvgPool2d(layer.size, layer.stride))
            case GlobalAvgPool2d():
                modules += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
            case _:
                raise NotImplementedError(f"no torch module for {layer}")
    return modules, places
