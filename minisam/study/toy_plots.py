"""The pictures of optimizers on toy surfaces, and their animation."""

import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minisam.analysis.toy import Bowl, Rosenbrock, TwoMinima, run
from minisam.objective import Objective
from minisam.optim import GD, SAM, Momentum, Optimizer
from minisam.study.plots import ORANGE, SKY, contours


class Race(NamedTuple):
    """Two optimizers on one surface."""

    title: str
    surface: Objective
    start: tuple[float, float]
    extent: tuple[float, float, float, float]  # left, right, bottom, top
    racers: dict[str, Optimizer]


def races(lr: float, rho: float) -> list[Race]:
    """A race on each of three surfaces; lr and rho are of the last one, between a sharp and a flat minimum."""
    return [
        Race("A long bowl", Bowl([1.0, 30.0]), (-3.0, 1.0), (-3.4, 1.6, -1.3, 1.3),
             {"GD": GD(lr=0.06), "Momentum": Momentum(lr=0.03, momentum=0.7)}),
        Race("Rosenbrock's valley", Rosenbrock(), (-1.2, 1.0), (-1.7, 1.7, -0.7, 1.9),
             {"GD": GD(lr=0.01), "Momentum": Momentum(lr=0.01, momentum=0.9)}),
        Race(f"A sharp and a flat minimum (lr {lr:g}, rho {rho:g})", TwoMinima(), (-2.2, 0.3), (-2.6, 2.0, -1.1, 1.1),
             {"GD": GD(lr), "SAM": SAM(GD(lr), rho)}),
    ]  # fmt: skip


STEPS = 100
LOOKS = ((SKY, "--"), (ORANGE, "-"))  # of the two in a race


def _surface(ax: Axes, surface: Objective, extent: tuple[float, float, float, float]) -> None:
    left, right, low, high = extent
    a, b = np.linspace(left, right, 161), np.linspace(low, high, 161)
    losses = np.array([[surface.value(np.array([x, y])) for x in a] for y in b])
    contours(ax, a, b, np.maximum(losses, 1e-2))
    ax.set(xlabel="θ₁", ylabel="θ₂", xlim=(left, right), ylim=(low, high))


def toys(races: Sequence[Race]) -> Figure:
    """Three surfaces with two optimizers each; and SAM's step, θ → θ + ε̂ → the next θ."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    *axes, inside = figure.subplots(2, 2).flat
    for ax, (title, surface, start, extent, racers) in zip(axes, races, strict=True):
        _surface(ax, surface, extent)
        for (name, optimizer), (colour, dash) in zip(racers.items(), LOOKS, strict=True):
            path = run(deepcopy(optimizer), surface, start, STEPS)
            ax.plot(*path.thetas.T, dash, color=colour, marker=".", ms=4, lw=1.5, label=name)
            ax.plot(*path.thetas[-1], "*", color=colour, ms=16, mec="black")
        ax.set_title(title)
        ax.legend(loc="lower right", fontsize=9)
    _triangles(inside)
    return figure


def _triangles(ax: Axes) -> None:
    """The first steps of SAM in a bowl: up to θ + ε̂, then from θ against the gradient found there."""
    bowl = Bowl([1.0, 4.0])
    _surface(ax, bowl, (-3.2, 0.6, -1.6, 2.0))
    path = run(SAM(GD(lr=0.2), rho=0.6), bowl, (-2.2, 1.0), 5)
    for i, (here, worst, after) in enumerate(zip(path.thetas, path.worst, path.thetas[1:], strict=False)):
        ax.fill(*np.array([here, worst, after]).T, color="white", alpha=0.25, lw=0)
        ax.annotate("", worst, here, arrowprops={"arrowstyle": "->", "color": "white", "lw": 1.8})
        ax.annotate("", after, here, arrowprops={"arrowstyle": "->", "color": ORANGE, "lw": 2.2})
        ax.plot(*here, "o", color="black", ms=5)
        if i == 0:
            ax.annotate("θ", here, (6, -14), textcoords="offset points")
            ax.annotate("θ + ε̂", worst, (-40, 8), textcoords="offset points")
    ax.set_title("SAM: up by ε̂ (white), then from θ along -∇L(θ + ε̂)", fontsize=11)


def animation(race: Race) -> bytes:
    """The first half of a race, a frame a step, as a GIF; what the last racer climbs to is shown, too."""
    title, surface, start, extent, racers = race
    figure = Figure(figsize=(6.4, 3.6), dpi=80, layout="constrained")
    ax = figure.subplots()
    _surface(ax, surface, extent)
    ax.set_title(title)
    drawn: list[Any] = []
    for (name, optimizer), (colour, dash) in zip(racers.items(), LOOKS, strict=True):
        path = run(deepcopy(optimizer), surface, start, STEPS)
        drawn.append(
            (path, *ax.plot([], [], dash, color=colour, lw=1.5, label=name), *ax.plot([], [], "o", color=colour))
        )
    (reach,) = ax.plot([], [], color="white", lw=1.5, label="ε̂")
    ax.legend(loc="lower right", fontsize=9)

    def draw(i: int) -> None:
        for path, trail, head in drawn:
            trail.set_data(*path.thetas[: i + 1].T)
            head.set_data(*path.thetas[i : i + 1].T)
        reach.set_data(*np.array([drawn[-1][0].thetas[i], drawn[-1][0].worst[i]]).T)

    with tempfile.TemporaryDirectory() as folder:  # the writer takes nothing but a file's name
        file = Path(folder) / "race.gif"
        FuncAnimation(figure, draw, frames=range(STEPS // 2)).save(file, PillowWriter(fps=12))
        return file.read_bytes()
