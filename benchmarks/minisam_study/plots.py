"""The pictures of the report and of `minisam train --diagnostics`.

Colours are Okabe and Ito's, told apart by all common colour visions.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from minisam_study.files import replacing

# Without colours, too: SAM is solid, its baselines are dashed or dotted.
STYLES = {
    "GD": ("#999999", ":"),
    "Momentum": ("#0072B2", "--"),
    "Momentum, 2× epochs": ("#56B4E9", "--"),
    "Adam": ("#009E73", "--"),
    "SAM(Momentum)": ("#D55E00", "-"),
    "SAM(Adam)": ("#E69F00", "-"),
}
SYNTHETIC = "synthetic images, not CIFAR"
FRAME: Any = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}


def noise_title(model: str, noise: float) -> str:
    """How tables and panels call one setting.

    >>> noise_title("mlp", 0.4)
    'MLP, 40 % of training labels redrawn'
    """
    labels = f"{noise:.0%}".replace("%", " %") + " of training labels redrawn"
    return f"{model.upper()}, {labels if noise else 'clean labels'}"


def settings(results: dict[str, Any]) -> list[tuple[str, float]]:
    """The (model, noise) pairs of a result, in order."""
    return list(dict.fromkeys((row["model"], row["noise"]) for row in results["summary"]))


def in_setting(results: dict[str, Any], table: str, model: str, noise: float) -> list[dict[str, Any]]:
    """The records of results["runs"], ["summary"] or ["comparisons"] in one setting."""
    return [row for row in results[table] if (row["model"], row["noise"]) == (model, noise)]


def _of(results: dict[str, Any], model: str, noise: float, optimizer: str, key: str) -> list[Any]:
    """What the runs of one optimizer, a run a seed, say of `key`."""
    runs = in_setting(results, "runs", model, noise)
    return [run[key] for run in runs if run["optimizer"] == optimizer]


def _panels(results: dict[str, Any]) -> tuple[Figure, list[tuple[Any, tuple[str, float]]]]:
    """A figure, and axes with a title for each setting: a row for each model."""
    n_models = len({model for model, _ in settings(results)})
    n_columns = len(settings(results)) // n_models
    figure = Figure(figsize=(5.2 * n_columns, 3.2 * n_models), layout="constrained")
    panels = list(zip(figure.subplots(n_models, n_columns, squeeze=False).flat, settings(results), strict=True))
    for i, (ax, (model, noise)) in enumerate(panels):
        ax.set_title(noise_title(model, noise), fontsize=11)
        ax.tick_params(labelleft=i % n_columns == 0)
    return figure, panels


def errors(results: dict[str, Any]) -> Figure:
    """Test error of every optimizer: each seed a ring, the mean with its 95 % interval.

    A panel for each setting, a row for each model.
    """
    figure, panels = _panels(results)
    for ax, (model, noise) in panels:
        rows = in_setting(results, "summary", model, noise)
        for y, row in enumerate(reversed(rows)):
            colour, _ = STYLES[row["optimizer"]]
            seeds = [100 * error for error in _of(results, model, noise, row["optimizer"], "test_error")]
            ax.plot(seeds, [y + 0.2] * len(seeds), "o", ms=4, mfc="none", mec=colour, alpha=0.8)
            if row["ci_low"] is not None:
                ax.plot([100 * row["ci_low"], 100 * row["ci_high"]], [y, y], color=colour, lw=3)
            ax.plot(100 * row["test_error"], y, "o", ms=9, color=colour)
            text, at = f"{100 * row['test_error']:.1f}", (100 * row["test_error"], y - 0.42)
            ax.annotate(text, at, ha="center", fontsize=9)
        ax.set_yticks(range(len(rows)), [row["optimizer"] for row in reversed(rows)])
        ax.set_ylim(-0.7, len(rows) - 0.4)
        ax.margins(x=0.12)
        ax.grid(axis="x", alpha=0.3)
        ax.set_xlabel("test error, % (left is better)")
    return figure


def curves(results: dict[str, Any]) -> Figure:
    """Training loss and test error against gradient evaluations: mean and range over the seeds."""
    n = len(settings(results))
    figure = Figure(figsize=(10.4, 3.0 * n), layout="constrained")
    axes = figure.subplots(n, 2, squeeze=False)
    for (model, noise), (loss, error) in zip(settings(results), axes, strict=True):
        for optimizer, (colour, dash) in STYLES.items():
            histories = _of(results, model, noise, optimizer, "history")
            for ax, key, scale in ((loss, "loss", 1), (error, "test_error", 100)):
                points = [[r for r in history if key in r] for history in histories]
                if not points:
                    continue
                x = [record["gradient_evaluations"] for record in points[0]]
                y = scale * np.array([[record[key] for record in records] for records in points])
                ax.plot(x, y.mean(axis=0), dash, color=colour, label=optimizer, lw=2)
                ax.fill_between(x, y.min(axis=0), y.max(axis=0), color=colour, alpha=0.2, lw=0)
        loss.set_ylabel("training loss, nats")
        error.set_ylabel("test error, %")
        for ax in (loss, error):
            ax.set_title(noise_title(model, noise), fontsize=11)
            ax.grid(alpha=0.3)
    for ax in axes[-1]:
        ax.set_xlabel("gradient evaluations (minibatches)")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def sharpness(results: dict[str, Any]) -> Figure:
    """The leading eigenvalue at every optimizer's final weights: a ring a seed, a dot for their mean."""
    figure, panels = _panels(results)
    for ax, (model, noise) in panels:
        rows = in_setting(results, "summary", model, noise)
        for y, row in enumerate(reversed(rows)):
            colour, _ = STYLES[row["optimizer"]]
            seeds = [one["eigenvalues"][0] for one in _of(results, model, noise, row["optimizer"], "geometry")]
            ax.semilogx(seeds, [y + 0.2] * len(seeds), "o", ms=4, mfc="none", mec=colour, alpha=0.8)
            ax.plot(row["lambda_max"][0], y, "o", ms=9, color=colour)
        ax.set_yticks(range(len(rows)), [row["optimizer"] for row in reversed(rows)])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("{x:g}")
        ax.tick_params(axis="x", which="both", labelsize=9)
        ax.grid(axis="x", alpha=0.3, which="both")
        ax.set_xlabel("λ1 of the training loss (left is flatter)")
    return figure


def diagnostics(history: Sequence[dict[str, Any]]) -> Figure:
    """What SAM's steps looked like from inside, epoch by epoch: a history of `train(…, diagnostics=True)`."""
    epochs, found = [record["epoch"] for record in history], [record["diagnostics"] for record in history]
    panels = {"gradient at w": ("gradient norm", "cosine"), "loss, nats": ("predicted rise", "measured rise")}
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    *lines, shares = figure.subplots(1, 3)
    for ax, (label, names) in zip(lines, panels.items(), strict=True):
        for name, colour, style in zip(names, ("#0072B2", "#D55E00"), ("o-", "s--"), strict=True):
            ax.plot(epochs, [one.get(name, np.nan) for one in found], style, ms=4, color=colour, label=name)
        ax.axhline(0, color="0.7", lw=1)
        ax.set(xlabel="epoch", ylabel=label)
        ax.legend(frameon=False)
    layers = list(found[0].get("share", {}))
    shares.set(xlabel="epoch", ylabel="share of ‖ε̂‖² by layer", ylim=(0, 1))
    if layers:
        colours = matplotlib.colormaps["cividis"](np.linspace(0, 1, len(layers)))
        parts = [[one["share"][layer] for one in found] for layer in layers]
        shares.stackplot(epochs, parts, labels=layers, colors=colours)
        shares.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8, reverse=True)
    for ax in figure.axes:
        ax.locator_params(axis="x", integer=True)
    return figure


PICTURES = {"errors": errors, "curves": curves, "sharpness": sharpness}


def save(file: Path, figure: Figure, synthetic: bool = False) -> None:
    """Write a picture, whole or not at all, with a warning where its images are synthetic."""
    if synthetic:
        figure.suptitle(SYNTHETIC, color="#D55E00", fontsize=11)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=120)


def png(draw: Callable[[dict[str, Any]], Figure], results: dict[str, Any]) -> bytes:
    """One of PICTURES as the contents of a PNG file."""
    buffer = BytesIO()
    with matplotlib.rc_context(FRAME):
        figure = draw(results)
        if results["dataset"]["synthetic"]:
            figure.suptitle(SYNTHETIC, color="#D55E00", fontsize=11)
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
