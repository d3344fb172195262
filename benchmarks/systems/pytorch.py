"""PyTorch on the CPU: eager, channels_last, SAM as in davda54/sam."""

import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from workload import LR, MOMENTUM, RHO, Case, convolution, images, vectors, weights

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def versions() -> dict:
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def _nchw(x: np.ndarray) -> torch.Tensor:
    """(N, H, W, C) seen as (N, C, H, W): PyTorch calls this memory layout channels_last."""
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def _oihw(W: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(W).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def network(model: str, width: int) -> nn.Sequential:
    if model == "mlp":
        hidden = [nn.Linear(3072, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU()]
        net = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10))
    else:
        layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]
        layers += [nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128 * width, 10)]
        net = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter, w in zip(net.parameters(), weights(model, width), strict=True):
            parameter.copy_(_to_torch(w, model))
    return net


def _to_torch(w: np.ndarray, model: str) -> torch.Tensor:
    if w.ndim == 4:
        return _oihw(w)
    if w.ndim == 2 and model == "cnn":
        # After Flatten, minisam goes pixel by pixel, PyTorch channel by channel.
        w = w.reshape(8, 8, -1, 10).transpose(2, 0, 1, 3).reshape(w.shape)
    return torch.from_numpy(np.ascontiguousarray(w.T))


def _to_numpy(p: torch.Tensor, model: str) -> np.ndarray:
    g = p.numpy()
    if g.ndim == 4:
        return g.transpose(2, 3, 1, 0).ravel()
    if g.ndim == 2 and model == "cnn":
        g = g.reshape(10, -1, 8, 8).transpose(0, 2, 3, 1).reshape(g.shape)
    return g.T.ravel()


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


def _training(model: str, width: int, name: str, X: torch.Tensor, Y: torch.Tensor):
    """Functions for a step on (X, Y), and for the loss and gradient that the first step follows."""
    net = network(model, width)
    if name == "adam":
        base = torch.optim.Adam(net.parameters(), lr=LR)
    else:
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
        return [np.array([loss]), np.concatenate([_to_numpy(p.grad, model) for p in net.parameters()])]

    return step, result


def _inputs(model: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = images(n)
    return torch.from_numpy(x) if model == "mlp" else _nchw(x), torch.from_numpy(y)


def _step(case: Case):
    inputs = _inputs(case.what, case.n)
    step, _ = _training(case.what, case.width, case.optimizer, *inputs)
    _, result = _training(case.what, case.width, case.optimizer, *inputs)
    return step, result


def _conv(case: Case):
    x, W, b, dy = convolution(case)
    X, W_, b_, dY = _nchw(x), _oihw(W), torch.from_numpy(b), _nchw(dy)

    def backward(*mask: bool) -> tuple:
        geometry = (W_.shape[:1], [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        return torch.ops.aten.convolution_backward(dY, X, W_, *geometry, mask)

    run = {
        "forward": lambda: F.conv2d(X, W_, b_, padding=1),
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
    step, _ = _training("cnn", 32, "sam", x, y)
    rng = np.random.default_rng(0)

    def run() -> None:
        for chosen in torch.from_numpy(rng.permutation(case.n)).split(128):
            step(augment(x[chosen], rng).permute(0, 3, 1, 2), y[chosen])

    return run, lambda: [augment(x[:128], np.random.default_rng(5)).numpy()]


def _predict(case: Case):
    X, _ = _inputs(case.what, case.n)
    net = network(case.what, 32)

    @torch.inference_mode()
    def run() -> list[torch.Tensor]:
        return [net(part).argmax(dim=1) for part in X.split(200)]

    return run, lambda: [net(X[:200]).detach().numpy()]


def prepare(case: Case):
    kinds = {"step": _step, "conv": _conv, "update": _update, "epoch": _epoch, "predict": _predict}
    return kinds[case.kind](case) if case.kind in kinds else None
