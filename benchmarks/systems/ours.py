"""minisam."""

import numpy as np
from workload import LR, MOMENTUM, RHO, Case, convolution, images, vectors, weights

from minisam import SAM, Adam, BatchLoss, Conv2d, Flatten, Linear, MaxPool2d, Momentum, ReLU, Sequential, kernels
from minisam.data import Batches
from minisam.data.batches import augment
from minisam.nn import Env, mlp
from minisam.optim import GD, Optimizer

OPTIMIZERS = {
    "sam": lambda: SAM(Momentum(LR, momentum=MOMENTUM), rho=RHO),
    "momentum": lambda: Momentum(LR, momentum=MOMENTUM),
    "adam": lambda: Adam(LR),
}


def versions() -> dict:
    from minisam.training.environment import environment  # here, since cold starts import this file

    return environment()


def network(model: str, width: int) -> Sequential:
    if model == "mlp":
        return mlp((32, 32, 3), 10)
    layers = [Conv2d(3, width, 3), ReLU(), Conv2d(width, width, 3), ReLU(), MaxPool2d(2)]
    layers += [Conv2d(width, 2 * width, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(128 * width, 10)]
    return Sequential(layers, (32, 32, 3))


def _step(case: Case):
    net, optimizer = network(case.what, case.width), OPTIMIZERS[case.optimizer]()
    start = np.concatenate([w.ravel() for w in weights(case.what, case.width)])
    theta, batch = start.copy(), BatchLoss(net, *images(case.n))

    def result() -> list[np.ndarray]:
        at_theta, grad = optimizer.gradient(start, batch)
        return [np.array([at_theta.loss]), grad]

    return lambda: optimizer.step(theta, batch), result


def _conv(case: Case):
    x, W, b, dy = convolution(case)
    y, dx, dW, db = (np.empty_like(array) for array in (dy, x, W, b))

    def run() -> None:
        if case.what == "forward":
            kernels.conv2d(x, W, b, 1, (1, 1), y)
        if case.what in ("input gradient", "both gradients"):
            kernels.conv2d_input_grad(dy, W, 1, (1, 1), dx)
        if case.what in ("weight gradient", "both gradients"):
            kernels.conv2d_weight_grad(x, dy, 1, (1, 1), dW, db)

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
    net, optimizer, env = network("cnn", 32), OPTIMIZERS["sam"](), Env()
    theta = np.concatenate([w.ravel() for w in weights("cnn")])
    batches = Batches(x, y, 128, augmented=True)

    def run() -> None:
        for x_batch, y_batch in batches.epoch(0):
            optimizer.step(theta, BatchLoss(net, x_batch, y_batch, env=env))

    return run, lambda: [augment(x[:128], np.random.default_rng(5))]


def _predict(case: Case):
    x, _ = images(case.n)
    net, theta = network(case.what, 32), np.concatenate([w.ravel() for w in weights(case.what)])
    return lambda: net.predict(theta, x), lambda: [net.forward(theta, x[:200])]


def prepare(case: Case):
    kinds = {"step": _step, "conv": _conv, "update": _update, "epoch": _epoch, "predict": _predict}
    return kinds[case.kind](case) if case.kind in kinds else None
