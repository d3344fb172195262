"""The pictures of single models: SAM's steps during training, then curvature, sharpness and landscapes."""

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from minisam.analysis.curvature import Density
from minisam.checks import Array
from minisam.study.plots import BLUE, GREEN, ORANGE, PURPLE, contours
from minisam.training.files import brief

UNITS = {"random": "filter-normalised direction", "eigenvectors": "distance along eigenvector"}
LINES = [(BLUE, "--"), (ORANGE, "-"), (GREEN, "-."), (PURPLE, ":"), ("#000000", "-")]


def diagnostics(history: Sequence[dict[str, Any]]) -> Figure:
    """SAM's steps seen from inside, epoch by epoch: the history of `train(…, diagnostics=True)`."""
    epochs, found = [record["epoch"] for record in history], [record["diagnostics"] for record in history]
    panels = {"gradient at θ": ("gradient norm", "cosine"), "loss, nats": ("predicted rise", "measured rise")}
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    *lines, shares = figure.subplots(1, 3)
    for ax, (label, names) in zip(lines, panels.items(), strict=True):
        for name, colour, style in zip(names, (BLUE, ORANGE), ("o-", "s--"), strict=True):
            ax.plot(epochs, [one.get(name, np.nan) for one in found], style, ms=4, color=colour, label=name)
        ax.axhline(0, color="0.7", lw=1)
        ax.set(xlabel="epoch", ylabel=label)
        ax.legend(frameon=False)
    layers = list(dict.fromkeys(layer for one in found for layer in one.get("share", {})))
    shares.set(xlabel="epoch", ylabel="share of ‖ε̂‖² by layer", ylim=(0, 1))
    if layers:
        colours = matplotlib.colormaps["cividis"](np.linspace(0, 1, len(layers)))
        parts = [[one.get("share", {}).get(layer, 0.0) for one in found] for layer in layers]  # 0: nothing climbed
        shares.stackplot(epochs, parts, labels=layers, colors=colours)
        shares.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8, reverse=True)
    for ax in figure.axes:
        ax.locator_params(axis="x", integer=True)
    return figure


def _shown(name: str) -> str:
    """The name of a model's file, which may be of any length and hold bytes that are no letters."""
    name = brief(name, 40)
    return f" {name}" if name.startswith("_") else name  # Matplotlib hides labels that begin with _


def spectra(found: dict[str, dict]) -> Figure:
    """Where the eigenvalues lie, and how far the loss rises: the results of `geometry.measure`, by model."""
    figure = Figure(figsize=(14, 4), layout="constrained")
    spread, ascent, chance = figure.subplots(1, 3)
    nodes = np.concatenate([one["density"]["nodes"] for one in found.values()])
    width = np.ptp(nodes) / 150 or 1.0
    grid, highest = np.linspace(nodes.min() - 5 * width, nodes.max() + 5 * width, 1000), 0.0
    for i, (name, one) in enumerate(found.items()):
        colour, dash = LINES[i % len(LINES)]
        density = Density(*(np.array(one["density"][key]) for key in ("nodes", "weights"))).smoothed(grid, width)
        highest = max(highest, float(density.max()))
        spread.semilogy(grid, density, dash, color=colour, label=_shown(name), lw=2)
        spread.plot(one["eigenvalues"], [2e-7] * len(one["eigenvalues"]), "|", ms=12, color=colour)
        ascent.plot(np.arange(1, len(one["worst"]) + 1), one["worst"], dash, color=colour, lw=2, label=_shown(name))
        ascent.plot(1, one["one step"], "o", color=colour, ms=8, mfc="none", mew=2)
        chance.plot([i] * len(one["random"]), one["random"], "_", color=colour, ms=20, alpha=0.4)
        chance.plot(i, one["one step"], "o", color=colour, ms=8, mfc="none", mew=2)
        chance.plot(i, one["worst"][-1], "^", color=colour, ms=8)
    within = f"rise within rho = {next(iter(found.values()))['rho']:g}, nats"
    spread.set(xlabel="eigenvalue of the Hessian (ticks: the leading ones)", ylabel="density", ylim=(1e-7, 3 * highest))
    ascent.set(xlabel="steps of ascent (ring: SAM's own step)", ylabel=f"worst {within}", ylim=(0, None))
    chance.set_yscale("symlog", linthresh=1e-6)
    chance.set_xticks(range(len(found)), map(_shown, found))
    chance.set(xlabel="random (dashes), SAM's step (ring), worst (▲)", ylabel=within, xlim=(-0.6, len(found) - 0.4))
    for ax in (spread, ascent, chance):
        ax.yaxis.set_major_formatter("{x:g}")
        ax.grid(alpha=0.3)
    spread.legend(frameon=False)
    ascent.legend(frameon=False)
    return figure


def landscape(found: dict[str, Array], kind: str, title: str) -> Figure:
    """Contours of the loss over a plane through the weights (the cross), and the path of training if it is known."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    ax = figure.subplots()
    filled = contours(ax, found["a"], found["b"], found["losses"])
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
    """Losses along a line; `marks` names places on it, `along` its direction (None: from one model to another)."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    ax = figure.subplots()
    for (name, losses), (colour, dash) in zip(curves.items(), itertools.cycle(LINES), strict=False):
        ax.plot(t, losses, dash, color=colour, lw=2, label=_shown(name))
    for place, name in marks.items():
        ax.axvline(place, color="0.6", lw=1)
        ax.annotate(_shown(name), (place, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=9)
    ax.set(xlabel=UNITS.get(along or "", "t in (1 - t) θ₀ + t θ₁"), ylabel="loss, nats")
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    return figure
