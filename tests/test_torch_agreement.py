"""The same network, batches and optimizer in PyTorch: after 100 steps the weights are the same.

PyTorch differs in layout alone. Its images are NCHW, a convolution's weight is OIHW, a Linear's
weight is (n_out, n_in), and it flattens channel by channel where minisam goes pixel by pixel. So
its parameters are those of theta in another order, and an array of places in theta says which.
Run with `-s` to see the largest differences.
"""

import math
from functools import cache

import numpy as np
import pytest

from minisam.data.batches import Batches
from minisam.nn import AvgPool2d, BatchLoss, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential
from minisam.optim import GD, SAM, Adam, Cosine, Momentum

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")

STEPS = 100
LR = Cosine(0.02, steps=STEPS, warmup=10)
RHO = 0.1

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
}

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


@pytest.fixture(autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the same in PyTorch --------------------------------------------------------------------------


def torch_network(net):
    """The torch module, and for each of its parameters the places in theta of its entries."""
    modules, places = [], []
    for i, params in enumerate(net.params(np.arange(net.n_params))):
        match layer := net.layers[i]:
            case Conv2d():
                assert layer.size == 3
                padding = 1 if layer.padding == "same" else layer.padding
                modules.append(torch.nn.Conv2d(layer.c_in, layer.c_out, 3, layer.stride, padding=padding))
                places += [params[0].transpose(3, 2, 0, 1), params[1]]
            case Linear():
                modules.append(torch.nn.Linear(layer.n_in, layer.n_out))
                W = params[0]
                if isinstance(net.layers[i - 1], Flatten):  # rows: H, W, C in order → C, H, W
                    H, width, C = net.shapes[i - 1]
                    W = W.reshape(H, width, C, -1).transpose(2, 0, 1, 3).reshape(W.shape)
                places += [W.T, params[1]]
            case Flatten():
                modules.append(torch.nn.Flatten())
            case ReLU():
                modules.append(torch.nn.ReLU())
            case MaxPool2d():
                modules.append(torch.nn.MaxPool2d(layer.size, layer.stride))
            case AvgPool2d():
                modules.append(torch.nn.AvgPool2d(layer.size, layer.stride))
    return torch.nn.Sequential(*modules), places


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


def train_torch(name, net, theta, batches):
    """theta after one step on each of the batches."""
    _, kind, arguments, rho = OPTIMIZERS[name]
    module, places = torch_network(net)
    module.to(torch.from_numpy(theta).dtype)
    parameters = list(module.parameters())
    with torch.no_grad():
        for parameter, place in zip(parameters, places, strict=True):
            parameter.copy_(torch.from_numpy(theta[place]))
    optimizer = getattr(torch.optim, kind)(parameters, lr=1.0, **arguments)
    for step, (x, y) in enumerate(batches):
        nchw = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        target = torch.from_numpy(y)
        optimizer.param_groups[0]["lr"] = LR(step)

        def loss(nchw=nchw, target=target):
            return torch.nn.functional.cross_entropy(module(nchw), target)

        if rho:
            sam_step(optimizer, parameters, loss, rho)
        else:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    trained = np.empty_like(theta)
    for parameter, place in zip(parameters, places, strict=True):
        trained[place] = parameter.detach().numpy()
    return trained


# --- the comparison -------------------------------------------------------------------------------


@cache
def problem(name, dtype):
    """Batches of 100 steps and a theta to start from."""
    net, rng = NETS[name], np.random.default_rng(22)
    x, y = rng.standard_normal((70, *net.input_shape)).astype(dtype), rng.integers(5, size=70)
    x[:, :2] += y[:, None, None, None] / 2  # something to learn
    batches = Batches(x, y, batch_size=16, seed=1)
    steps = [pair for epoch in range(STEPS // len(batches)) for pair in batches.epoch(epoch)]
    assert len(steps) == STEPS
    return net, net.init(rng, dtype), steps


def train(name, net, theta, batches):
    """theta after one step on each of the batches, and the losses on the way."""
    kind, _, arguments, rho = OPTIMIZERS[name]
    base, theta = kind(LR, **arguments), theta.copy()
    optimizer = SAM(base, rho) if rho else base
    losses = [optimizer.step(theta, BatchLoss(net, x, y)).loss for x, y in batches]
    return theta, losses


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-3)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETS)
def test_100_steps_agree_with_torch(name, optimizer, dtype, tolerance):
    net, start, batches = problem(name, dtype)
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
    # positive here and as negative there: then one unit goes its own way, by up to 5e-4.
    assert difference < tolerance * travelled


def test_the_optimizers_differ_from_each_other_by_far_more_than_that():
    net, start, batches = problem("mlp", np.float64)
    ends = [train(optimizer, net, start, batches)[0] for optimizer in OPTIMIZERS]
    for i, one in enumerate(ends):
        for other in ends[:i]:
            assert np.abs(one - other).max() > 0.01
