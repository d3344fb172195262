"""Pictures of curvature, sharpness and landscapes, and of optimizers on toy surfaces."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from minisam.analysis.curvature import Density
from minisam.analysis.toy import Bowl, Rosenbrock, TwoMinima, run
from minisam.checks import Array
from minisam.objective import Objective
from minisam.optim import GD, SAM, Momentum

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # Okabe and Ito's
UNITS = {"random": "filter-normalised direction", "eigenvectors": "distance along eigenvector"}
LINES = [(BLUE, "--"), (ORANGE, "-"), (GREEN, "-."), (PURPLE, ":"), ("#000000", "-")]


def spectra(found: dict[str, dict]) -> Figure:
    """Where the eigenvalues lie, and how far the loss rises: what `geometry.measure` says of each model."""
    figure = Figure(figsize=(14, 4), layout="constrained")
    spread, ascent, chance = figure.subplots(1, 3)
    nodes = np.concatenate([one["density"]["nodes"] for one in found.values()])
    width = np.ptp(nodes) / 150 or 1.0
    grid, highest = np.linspace(nodes.min() - 5 * width, nodes.max() + 5 * width, 1000), 0.0
    for i, (name, one) in enumerate(found.items()):
        colour, dash = LINES[i % len(LINES)]
        density = Density(*(np.array(one["density"][key]) for key in ("nodes", "weights"))).smoothed(grid, width)
        highest = max(highest, float(density.max()))
        spread.semilogy(grid, density, dash, color=colour, label=name, lw=2)
        spread.plot(one["eigenvalues"], [2e-7] * len(one["eigenvalues"]), "|", ms=12, color=colour)
        ascent.plot(np.arange(1, len(one["worst"]) + 1), one["worst"], dash, color=colour, lw=2, label=name)
        ascent.plot(1, one["one step"], "o", color=colour, ms=8, mfc="none", mew=2)
        chance.plot([i] * len(one["random"]), one["random"], "_", color=colour, ms=20, alpha=0.4)
        chance.plot(i, one["one step"], "o", color=colour, ms=8, mfc="none", mew=2)
        chance.plot(i, one["worst"][-1], "^", color=colour, ms=8)
    within = f"rise within rho = {next(iter(found.values()))['rho']:g}, nats"
    spread.set(xlabel="eigenvalue of the Hessian (ticks: the leading ones)", ylabel="density", ylim=(1e-7, 3 * highest))
    ascent.set(xlabel="steps of ascent (ring: SAM's own step)", ylabel=f"worst {within}", ylim=(0, None))
    chance.set_yscale("symlog", linthresh=1e-6)
    chance.set_xticks(range(len(found)), list(found))
    chance.set(xlabel="random (dashes), SAM's step (ring), worst (▲)", ylabel=within, xlim=(-0.6, len(found) - 0.4))
    for ax in (spread, ascent, chance):
        ax.grid(alpha=0.3)
    spread.legend(frameon=False)
    ascent.legend(frameon=False)
    return figure


def _contours(ax: Axes, a: Array, b: Array, losses: Array) -> Any:
    low, high = max(float(losses.min()), 1e-4), float(losses.max())
    levels = np.geomspace(low, max(high, 1.01 * low), 24)
    filled = ax.contourf(
        a, b, np.maximum(losses, low), levels, cmap="cividis", norm=LogNorm(low, levels[-1]), extend="both"
    )
    ax.contour(a, b, np.maximum(losses, low), levels[::2], colors="white", linewidths=0.5, alpha=0.6)
    return filled


def landscape(found: dict[str, Array], kind: str, title: str) -> Figure:
    """Contours of the loss over a plane through the weights (the cross), and the training's path where it is known."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    ax = figure.subplots()
    filled = _contours(ax, found["a"], found["b"], found["losses"])
    figure.colorbar(filled, label="loss, nats (logarithmic)", format="%.2g")
    ax.plot(0, 0, "+", color="white", ms=14, mew=2.5)
    labels = [f"{UNITS.get(kind, 'principal direction')} {i}" for i in (1, 2)]
    if "path" in found:
        ax.plot(*found["path"].T, "o-", color="white", ms=4, lw=1.2)
        labels = [
            f"{label} ({share:.0%} of the squared distances)"
            for label, share in zip(labels, found["share"], strict=True)
        ]
    ax.set(xlabel=labels[0], ylabel=labels[1], title=title)
    return figure


def line(t: Array, curves: dict[str, Array], marks: dict[float, str], along: str | None = None) -> Figure:
    """Losses along a line; `marks` says what lies where, `along` which direction it is (none: from mark to mark)."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    ax = figure.subplots()
    for (name, losses), (colour, dash) in zip(curves.items(), itertools.cycle(LINES), strict=False):
        ax.plot(t, losses, dash, color=colour, lw=2, label=name)
    for place, name in marks.items():
        ax.axvline(place, color="0.6", lw=1)
        ax.annotate(name, (place, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=9)
    ax.set(xlabel=UNITS.get(along or "", "t in (1 - t) w₀ + t w₁"), ylabel="loss, nats")
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    return figure


# --- toy surfaces ---------------------------------------------------------------------------------

RACES: dict[str, tuple[Objective, tuple[float, float], tuple[float, float, float, float], dict[str, Any]]] = {
    "A long bowl": (Bowl([1.0, 30.0]), (-3.0, 1.0), (-3.4, 1.6, -1.3, 1.3), {
        "GD": lambda: GD(lr=0.06), "Momentum": lambda: Momentum(lr=0.03, momentum=0.7)}),
    "Rosenbrock's valley": (Rosenbrock(), (-1.2, 1.0), (-1.7, 1.7, -0.7, 1.9), {
        "GD": lambda: GD(lr=0.01), "Momentum": lambda: Momentum(lr=0.01, momentum=0.9)}),
    "A sharp and a flat minimum": (TwoMinima(), (-2.2, 0.3), (-2.6, 2.0, -1.1, 1.1), {
        "GD": lambda: GD(lr=0.004), "SAM": lambda: SAM(GD(lr=0.004), rho=0.8)}),
}  # fmt: skip
STEPS = 100


def _surface(ax: Axes, surface: Objective, extent: tuple[float, float, float, float]) -> None:
    left, right, low, high = extent
    a, b = np.linspace(left, right, 161), np.linspace(low, high, 161)
    losses = np.array([[surface.value(np.array([x, y])) for x in a] for y in b])
    _contours(ax, a, b, np.maximum(losses, 1e-2))
    ax.set(xlabel="w₁", ylabel="w₂", xlim=(left, right), ylim=(low, high))


def toys() -> Figure:
    """Three surfaces with two optimizers each; and what SAM does in a step, w → w + ε̂ → the next w."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    *axes, inside = figure.subplots(2, 2).flat
    for ax, (title, (surface, start, extent, racers)) in zip(axes, RACES.items(), strict=True):
        _surface(ax, surface, extent)
        for (name, make), (colour, dash) in zip(racers.items(), (("#56B4E9", "--"), (ORANGE, "-")), strict=True):
            path = run(make(), surface, start, STEPS)
            ax.plot(*path.thetas.T, dash, color=colour, marker=".", ms=4, lw=1.5, label=name)
            ax.plot(*path.thetas[-1], "*", color=colour, ms=16, mec="black")
        ax.set_title(title)
        ax.legend(loc="lower right", fontsize=9)
    _triangles(inside)
    return figure


def _triangles(ax: Axes) -> None:
    """The first steps of SAM in a bowl: up to w + ε̂, and from w along the gradient found there."""
    bowl = Bowl([1.0, 4.0])
    _surface(ax, bowl, (-3.2, 0.6, -1.6, 2.0))
    path = run(SAM(GD(lr=0.2), rho=0.6), bowl, (-2.2, 1.0), 5)
    for i, (here, worst, after) in enumerate(zip(path.thetas, path.worst, path.thetas[1:], strict=False)):
        ax.fill(*np.array([here, worst, after]).T, color="white", alpha=0.25, lw=0)
        ax.annotate("", worst, here, arrowprops={"arrowstyle": "->", "color": "white", "lw": 1.8})
        ax.annotate("", after, here, arrowprops={"arrowstyle": "->", "color": ORANGE, "lw": 2.2})
        ax.plot(*here, "o", color="black", ms=5)
        if i == 0:
            ax.annotate("w", here, (6, -14), textcoords="offset points")
            ax.annotate("w + ε̂", worst, (-40, 8), textcoords="offset points")
    ax.set_title("SAM: up by ε̂ (white), then from w along -∇L(w + ε̂)", fontsize=11)


def animation(file: Path) -> None:
    """GD and SAM on the surface of two minima, step by step, as a GIF."""
    surface, start, extent, racers = RACES["A sharp and a flat minimum"]
    figure = Figure(figsize=(6.4, 3.6), dpi=80, layout="constrained")
    ax = figure.subplots()
    _surface(ax, surface, extent)
    ax.set_title("GD falls into the sharp minimum, SAM does not")
    drawn: list[Any] = []
    for (name, make), (colour, dash) in zip(racers.items(), (("#56B4E9", "--"), (ORANGE, "-")), strict=True):
        path = run(make(), surface, start, STEPS)
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

    FuncAnimation(figure, draw, frames=range(0, STEPS, 2)).save(file, PillowWriter(fps=12))
