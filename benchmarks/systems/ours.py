"""minisam."""

import numpy as np
from workload import LR, MOMENTUM, RHO, Case, convolution, images, layers, vectors, weights

from minisam import SAM, Adam, BatchLoss, Momentum, Sequential, kernels, nn
from minisam.data import Batches
from minisam.data.batches import augment
from minisam.nn import Env
from minisam.optim import GD, Optimizer

OPTIMIZERS = {
    "sam": lambda: SAM(Momentum(LR, momentum=MOMENTUM), rho=RHO),
    "momentum": lambda: Momentum(LR, momentum=MOMENTUM),
}


def versions() -> dict:
    from minisam.training.environment import environment  # here, since cold starts import this file

    return environment()


LAYERS = {
    "convolution": lambda c_in, c_out, size, stride: nn.Conv2d(c_in, c_out, size, stride, size // 2),
    "norm": nn.BatchNorm,
    "linear": nn.Linear,
    "dropout": nn.Dropout,
    "pool": lambda: nn.MaxPool2d(2),
    "mean": nn.GlobalAvgPool2d,
    "flatten": nn.Flatten,
    "relu": nn.ReLU,
    "sum": lambda *paths: nn.Residual(*map(translate, paths)),
}


def translate(described: list[tuple]) -> list[nn.Layer]:
    return [LAYERS[kind](*numbers) for kind, *numbers in described]


def network(described: list[tuple]) -> tuple[Sequential, np.ndarray]:
    """A network and its weights."""
    theta = np.concatenate([w.ravel() for w in weights(described)])
    return Sequential(translate(described), (32, 32, 3)), theta


def _step(case: Case):
    described, optimizer = layers(case.what, case.width), OPTIMIZERS[case.optimizer]()
    net, theta = network(described)
    batch = BatchLoss(net, *images(case.n), key=(0,))

    def result() -> list[np.ndarray]:
        net, start = network([layer for layer in described if layer[0] != "dropout"])  # whose masks differ
        at_theta, grad = OPTIMIZERS[case.optimizer]().gradient(start, BatchLoss(net, *images(case.n)))
        return [np.array([at_theta.loss]), grad]

    return lambda: optimizer.step(theta, batch), result


def _conv(case: Case):
    x, W, b, dy = convolution(case)
    stride, padding = case.stride, (case.size // 2, case.size // 2)
    y, dx, dW, db = (np.empty_like(array) for array in (dy, x, W, b))

    def run() -> None:
        if case.what == "forward":
            kernels.conv2d(x, W, b, stride, padding, y)
        if case.what in ("input gradient", "both gradients"):
            kernels.conv2d_input_grad(dy, W, stride, padding, dx)
        if case.what in ("weight gradient", "both gradients"):
            kernels.conv2d_weight_grad(x, dy, stride, padding, dW, db)

    def result() -> list[np.ndarray]:
        run()
        results = {"forward": [y], "input gradient": [dx], "weight gradient": [dW, db]}
        return results.get(case.what, [dx, dW, db])

    return run, result


def _update(case: Case):
    start, g = vectors(case.n)

    def new() -> Optimizer:
        return {"GD": GD(LR), "Momentum": Momentum(LR, momentum=MOMENTUM), "Adam": Adam(LR)}[case.what]

    theta, optimizer = start.copy(), new()

    def result() -> list[np.ndarray]:
        moved, other = start.copy(), new()
        for _ in range(3):
            other.update(moved, g)
        return [moved]

    return lambda: optimizer.update(theta, g), result


def _epoch(case: Case):
    x, y = images(case.n)
    (net, theta), optimizer, env = network(layers("reference")), OPTIMIZERS["sam"](), Env()
    batches = Batches(x, y, 128, augmented=True)

    def run() -> None:
        for x_batch, y_batch in batches.epoch(0):
            optimizer.step(theta, BatchLoss(net, x_batch, y_batch, env=env))

    return run, lambda: [augment(x[:128], np.random.default_rng(5))]


def _predict(case: Case):
    x, _ = images(case.n)
    net, theta = network(layers(case.what))
    stats = net.init_stats()
    return lambda: net.predict(theta, x, stats=stats), lambda: [net.forward(theta, x[:200], Env(running=stats))]


def prepare(case: Case):
    kinds = {"step": _step, "conv": _conv, "update": _update, "epoch": _epoch, "predict": _predict}
    return kinds[case.kind](case) if case.kind in kinds else None
