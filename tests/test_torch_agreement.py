"""The same network, batches and optimizer in PyTorch: after 100 steps the weights are the same.

Run with `-s` to see the largest differences.
"""

import math

import numpy as np
import pytest
from torch_twin import Twin, one_torch_thread, problem, torch

from minisam.nn import BatchLoss
from minisam.optim import GD, SAM, Adam, Cosine, Momentum

STEPS = 100
LR = Cosine(0.02, steps=STEPS, warmup=10)
RHO = 0.1

DECAY, DECOUPLED = {"weight_decay": 1e-3}, {"weight_decay": 0.1}
HEAVY_BALL = {"momentum": 0.9, **DECAY}
# (minisam's class, torch's, the arguments of both, the radius of SAM)
OPTIMIZERS = {
    "GD": (GD, "SGD", DECAY, 0),
    "Momentum": (Momentum, "SGD", HEAVY_BALL, 0),
    "Nesterov": (Momentum, "SGD", {"nesterov": True, **HEAVY_BALL}, 0),
    "Adam": (Adam, "Adam", {}, 0),
    "AdamW": (Adam, "AdamW", DECOUPLED, 0),
    "SAM(Momentum)": (Momentum, "SGD", HEAVY_BALL, RHO),
    "SAM(AdamW)": (Adam, "AdamW", DECOUPLED, RHO),
}


def sam_step(optimizer, parameters, loss, rho):
    """Algorithm 1 of arXiv 2010.01412, with torch's own optimizer for its update."""
    w = [p.detach().clone() for p in parameters]
    g = torch.autograd.grad(loss(), parameters)
    norm = math.sqrt(sum(float((one.double() ** 2).sum()) for one in g))
    with torch.no_grad():
        for p, one in zip(parameters, g, strict=True):
            p += rho / norm * one
    g = torch.autograd.grad(loss(), parameters)
    with torch.no_grad():
        for p, before, one in zip(parameters, w, g, strict=True):
            p.copy_(before)
            p.grad = one
    optimizer.step()


@one_torch_thread()
def train_torch(name, net, theta, batches):
    """theta after one step on each of the batches."""
    _, kind, arguments, rho = OPTIMIZERS[name]
    twin = Twin(net, theta)
    optimizer = getattr(torch.optim, kind)(twin.parameters, lr=1.0, **arguments)
    for step, (x, y) in enumerate(batches):
        optimizer.param_groups[0]["lr"] = LR(step)
        if rho:
            sam_step(optimizer, twin.parameters, lambda x=x, y=y: twin.loss(x, y), rho)
        else:
            optimizer.zero_grad()
            twin.loss(x, y).backward()
            optimizer.step()
    return twin.theta


def train(name, net, theta, batches):
    """theta after one step on each of the batches, and the losses on the way."""
    kind, _, arguments, rho = OPTIMIZERS[name]
    base, theta = kind(LR, **arguments), theta.copy()
    optimizer = SAM(base, rho) if rho else base
    losses = [optimizer.step(theta, BatchLoss(net, x, y)).loss for x, y in batches]
    return theta, losses


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-3)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_100_steps_agree_with_torch(name, optimizer, dtype, tolerance):
    net, start, batches = problem(name, dtype, STEPS)
    theta, losses = train(optimizer, net, start, batches)
    expected = train_torch(optimizer, net, start, batches)
    travelled = float(np.linalg.norm(expected - start))
    difference = float(np.abs(theta - expected).max())
    print(
        f"\n{name:4} {optimizer:14} {np.dtype(dtype).name}: largest difference {difference:.1e}, "
        f"distance travelled {travelled:.2f}, loss {losses[0]:.2f} → {np.mean(losses[-5:]):.2f}"
    )
    assert travelled > 0.3  # far enough for a mistake to show
    # Float32 usually agrees to 1e-6. But an input of ReLU that is 0 up to rounding may count as
    # positive here and as negative there: then one unit differs by up to 5e-4.
    assert difference < tolerance * travelled


def test_the_optimizers_differ_from_each_other_by_far_more_than_that():
    net, start, batches = problem("mlp", np.float64, STEPS)
    ends = [train(optimizer, net, start, batches)[0] for optimizer in OPTIMIZERS]
    for i, one in enumerate(ends):
        for other in ends[:i]:
            assert np.abs(one - other).max() > 0.01
