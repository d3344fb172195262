"""PyTorch on the CPU: eager, channels_last, SAM as in davda54/sam."""

import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from workload import LR, MOMENTUM, RHO, Case, convolution, images, layers, vectors, weights

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
COMPILE = lambda net: net  # noqa: E731


def versions() -> dict:
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def _nchw(x: np.ndarray) -> torch.Tensor:
    """(N, H, W, C) seen as (N, C, H, W): PyTorch calls this memory layout channels_last."""
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def _oihw(W: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(W).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


class Sum(nn.Module):
    """block(x) + shortcut(x)."""

    def __init__(self, block: list[tuple], shortcut: list[tuple]) -> None:
        super().__init__()
        self.block, self.shortcut = (nn.Sequential(*translate(path)) for path in (block, shortcut))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x) + self.shortcut(x)


LAYERS = {
    "convolution": lambda c_in, c_out, size, stride: nn.Conv2d(c_in, c_out, size, stride, size // 2),
    "norm": nn.BatchNorm2d,
    "linear": nn.Linear,
    "dropout": nn.Dropout,
    "pool": lambda: nn.MaxPool2d(2),
    "mean": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "flatten": nn.Flatten,
    "relu": nn.ReLU,
    "sum": Sum,
}


def translate(described: list[tuple]) -> list[nn.Module]:
    return [LAYERS[kind](*numbers) for kind, *numbers in described]


def _orders(described: list[tuple]) -> list[np.ndarray]:
    """For each parameter, where its entries lie in minisam's."""
    orders, flattened = [], ("flatten",) in described and described[0] != ("flatten",)
    for w in weights(described):
        places = np.arange(w.size).reshape(w.shape)
        if w.ndim == 4:  # OIHW
            places = places.transpose(3, 2, 0, 1)
        elif w.ndim == 2 and flattened:  # after it, minisam goes pixel by pixel, PyTorch channel by channel
            side = 8 if described.count(("pool",)) == 2 else 4
            places = places.reshape(side, side, -1, 10).transpose(3, 2, 0, 1).reshape(10, -1)
        elif w.ndim == 2:
            places = places.T
        orders.append(places)
    return orders


def network(described: list[tuple]) -> nn.Sequential:
    net = nn.Sequential(*translate(described)).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for p, w, order in zip(net.parameters(), weights(described), _orders(described), strict=True):
            p.copy_(torch.from_numpy(w.ravel()[order]))
    return net


class SAM:
    """first_step and second_step of github.com/davda54/sam, non-adaptive."""

    def __init__(self, parameters, base) -> None:
        self.parameters, self.base, self.old = list(parameters), base, {}

    @torch.no_grad()
    def first_step(self) -> None:
        norms = torch.stack([p.grad.norm(p=2) for p in self.parameters])
        scale = RHO / (torch.norm(norms, p=2) + 1e-12)
        for p in self.parameters:
            self.old[p] = p.data.clone()
            p.add_(p.grad * scale)
        self.base.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for p in self.parameters:
            p.data = self.old[p]
        self.base.step()
        self.base.zero_grad()


def _training(described: list[tuple], name: str, X: torch.Tensor, Y: torch.Tensor):
    """Functions for a step on (X, Y), and for the loss and gradient that the first step follows."""
    net = COMPILE(network(described))
    base = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
    sam = SAM(net.parameters(), base)

    def gradient(x: torch.Tensor = X, y: torch.Tensor = Y) -> float:
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return loss.item()

    def step(x: torch.Tensor = X, y: torch.Tensor = Y) -> None:
        gradient(x, y)
        if name == "sam":
            sam.first_step()
            gradient(x, y)
            sam.second_step()
        else:
            base.step()
            base.zero_grad()

    def result() -> list[np.ndarray]:
        base.zero_grad()
        loss = gradient()
        if name == "sam":
            sam.first_step()
            gradient()
        grads = []
        for p, order in zip(net.parameters(), _orders(described), strict=True):
            grads.append(np.empty(order.size, np.float32))
            grads[-1][order] = p.grad.numpy()
        return [np.array([loss]), np.concatenate(grads)]

    return step, result


def _inputs(described: list[tuple], n: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = images(n)
    return torch.from_numpy(x) if described[0] == ("flatten",) else _nchw(x), torch.from_numpy(y)


def _step(case: Case):
    described = layers(case.what, case.width)
    inputs = _inputs(described, case.n)
    step, _ = _training(described, case.optimizer, *inputs)
    deterministic = [layer for layer in described if layer[0] != "dropout"]  # whose masks differ
    _, result = _training(deterministic, case.optimizer, *inputs)
    return step, result


def _conv(case: Case):
    x, W, b, dy = convolution(case)
    X, W_, b_, dY = _nchw(x), _oihw(W), torch.from_numpy(b), _nchw(dy)
    stride, padding = [case.stride] * 2, [case.size // 2] * 2

    def backward(*mask: bool) -> tuple:
        geometry = (W_.shape[:1], stride, padding, [1, 1], False, [0, 0], 1)
        return torch.ops.aten.convolution_backward(dY, X, W_, *geometry, mask)

    run = {
        "forward": lambda: F.conv2d(X, W_, b_, stride, padding),
        "input gradient": lambda: backward(True, False, False)[0],
        "weight gradient": lambda: backward(False, True, True)[1:],
        "both gradients": lambda: backward(True, True, True),
    }[case.what]

    def result() -> list[np.ndarray]:
        if case.what in ("forward", "input gradient"):
            return [run().numpy().transpose(0, 2, 3, 1)]
        *dx, dW, db = run()
        return [*(g.numpy().transpose(0, 2, 3, 1) for g in dx), dW.numpy().transpose(2, 3, 1, 0), db.numpy()]

    return run, result


def _update(case: Case):
    """PyTorch's fused optimizers, its fastest."""
    start, g = vectors(case.n)

    def new() -> tuple[torch.Tensor, torch.optim.Optimizer]:
        p = torch.from_numpy(start.copy()).requires_grad_()
        p.grad = torch.from_numpy(g)
        momentum = MOMENTUM if case.what == "Momentum" else 0.0
        adam = case.what == "Adam"
        return p, torch.optim.Adam([p], LR, fused=True) if adam else torch.optim.SGD([p], LR, momentum, fused=True)

    _, optimizer = new()

    def result() -> list[np.ndarray]:
        moved, other = new()
        for _ in range(3):
            other.step()
        return [moved.detach().numpy()]

    return optimizer.step, result


def augment(x: torch.Tensor, rng: np.random.Generator, pad: int = 4) -> torch.Tensor:
    """minisam's augmentation of x (N, H, W, C), from the same draws, all images at once."""
    N, H, W, _ = x.shape
    flips = torch.from_numpy(rng.random(N) < 0.5)
    tops, lefts = torch.from_numpy(rng.integers(0, 2 * pad + 1, size=(2, N)))
    padded = F.pad(x, (0, 0, pad, pad, pad, pad))
    columns = torch.arange(W).expand(N, W)
    columns = torch.where(flips[:, None], W - 1 - columns, columns) + lefts[:, None]
    rows = tops[:, None] + torch.arange(H)
    return padded[torch.arange(N)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _epoch(case: Case):
    x, y = (torch.from_numpy(array) for array in images(case.n))
    step, _ = _training(layers("reference"), "sam", x, y)
    rng = np.random.default_rng(0)

    def run() -> None:
        for chosen in torch.from_numpy(rng.permutation(case.n)).split(128):
            step(augment(x[chosen], rng).permute(0, 3, 1, 2), y[chosen])

    return run, lambda: [augment(x[:128], np.random.default_rng(5)).numpy()]


def _predict(case: Case):
    described = layers(case.what)
    X, _ = _inputs(described, case.n)
    net = COMPILE(network(described).eval())

    @torch.inference_mode()
    def run() -> list[torch.Tensor]:
        return [net(part).argmax(dim=1) for part in X.split(200)]

    return run, lambda: [net(X[:200]).detach().numpy()]


def prepare(case: Case):
    kinds = {"step": _step, "conv": _conv, "update": _update, "epoch": _epoch, "predict": _predict}
    return kinds[case.kind](case) if case.kind in kinds else None
