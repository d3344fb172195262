"""How far from the worst case are random directions, as the number of parameters grows?

    python benchmarks/random_directions.py      # about 90 seconds; writes results/random_directions.{json,png}

Popular accounts judge sharpness by perturbing the weights in random directions and taking the worst
rise of the loss. In P dimensions a random direction has a component of about 1/√P along any given
one. So if the gradient is g, the largest of n rises is about ρ‖g‖ √(2 ln n / P), while the worst
direction gains all of ρ‖g‖, and more. Here networks with one hidden layer, from 56 to 789,258
parameters, are trained on CIFAR-10 with momentum (they also differ in inputs and fit), and the largest
rise in 1,000 random directions is compared with the one gradient ascent finds in the same ball.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from minisam.analysis.sharpness import sharpness
from minisam.data import Batches, load
from minisam.nn import AvgPool2d, BatchLoss, Flatten, Linear, ReLU, Sequential
from minisam.optim import Momentum
from minisam.study.geometry import mean_loss
from minisam.training import Prepared
from minisam.training.environment import environment
from minisam.training.files import replacing

NETWORKS = [(16, 2), (16, 8), (8, 8), (8, 32), (4, 32), (2, 32), (1, 32), (1, 100), (1, 256)]  # pooling, hidden units
EPOCHS, DIRECTIONS, RHO, IMAGES = 10, 1000, 0.1, 500
RESULTS = Path(__file__).parent / "results"


def network(pool: int, hidden: int) -> Sequential:
    """One hidden layer on images averaged over pool × pool pixels."""
    features = 3 * (32 // pool) ** 2
    return Sequential([AvgPool2d(pool), Flatten(), Linear(features, hidden), ReLU(), Linear(hidden, 10)], (32, 32, 3))


def measured(data: Prepared, pool: int, hidden: int) -> dict:
    """Train one network, and look around it."""
    net = network(pool, hidden)
    theta, optimizer = net.init(np.random.default_rng(0)), Momentum(lr=0.02)
    batches = Batches(data.x_train, data.y_train, batch_size=64)
    for epoch in range(EPOCHS):
        for x, y in batches.epoch(epoch):
            optimizer.step(theta, BatchLoss(net, x, y))
    loss = mean_loss(net, data.x_train[:IMAGES], data.y_train[:IMAGES], None)
    found = sharpness(loss, theta, RHO, np.random.default_rng(1), directions=DIRECTIONS)
    rises = {"worst": float(found.worst[-1]), "one step": found.one_step}
    slope = RHO * float(np.linalg.norm(loss(theta).grad))
    rises["expected"] = slope * float(np.sqrt(2 * np.log(DIRECTIONS) / net.n_params))
    return {
        "parameters": net.n_params,
        "mean": float(found.random.mean()),
        "largest": float(found.random.max()),
    } | rises


def picture(rows: list[dict]) -> Figure:
    """Both rises against the number of parameters."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    ax, parameters = figure.subplots(), [row["parameters"] for row in rows]
    ax.loglog(parameters, [row["worst"] for row in rows], "^-", color="#D55E00", label="worst found by gradient ascent")
    ax.loglog(parameters, [row["one step"] for row in rows], "o--", mfc="none", color="#E69F00", label="SAM's step")
    ax.loglog(
        parameters, [row["largest"] for row in rows], "s-", color="#0072B2", label="largest of 1,000 random directions"
    )
    expected = [row["expected"] for row in rows]
    ax.loglog(parameters, expected, ":", color="#56B4E9", label="ρ‖g‖ √(2 ln 1,000 / parameters)")
    ax.set(xlabel="parameters", ylabel=f"rise of the loss within rho = {RHO:g}, nats")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    data = Prepared.of(load("cifar10").first(n_train=2000, n_test=1))
    rows = [measured(data, *sizes) for sizes in tqdm(NETWORKS, unit="network", leave=False)]
    print(f"{'parameters':>10}{'worst':>10}{'SAM step':>10}{'largest random':>16}{'worst / largest':>17}")
    for row in rows:
        cells = (
            f"{row['worst']:10.3g}{row['one step']:10.3g}{row['largest']:16.3g}{row['worst'] / row['largest']:17.3g}"
        )
        print(f"{row['parameters']:>10,}{cells}")
    with replacing(RESULTS / "random_directions.json") as file:
        file.write(json.dumps({"environment": environment(), "rho": RHO, "networks": rows}, indent=1).encode())
    with replacing(RESULTS / "random_directions.png") as file:
        picture(rows).savefig(file, dpi=120)


if __name__ == "__main__":
    main()
