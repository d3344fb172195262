"""The report's pictures. Colours are Okabe and Ito's, told apart by all common colour visions."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# SAM and its own baseline are strong and differ in dash as well; the others stay in the background.
STYLES = {
    "GD": ("#999999", ":"),
    "Momentum": ("#0072B2", "--"),
    "Momentum, 2× epochs": ("#56B4E9", "--"),
    "Adam": ("#009E73", "--"),
    "SAM(Momentum)": ("#D55E00", "-"),
    "SAM(Adam)": ("#E69F00", "-"),
}
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


def _figure(results: dict[str, Any], height: float) -> tuple[Figure, list[Axes]]:
    """A panel for each setting, a row for each model; synthetic images are named as such."""
    n_models = len({model for model, _ in settings(results)})
    n_columns = len(settings(results)) // n_models
    figure = Figure(figsize=(5.2 * n_columns, height * n_models), layout="constrained")
    axes = list(figure.subplots(n_models, n_columns, squeeze=False).flat)
    for i, (model, noise) in enumerate(settings(results)):
        axes[i].set_title(noise_title(model, noise), fontsize=11)
        if i % n_columns:
            axes[i].tick_params(labelleft=False)
    if results["dataset"]["synthetic"]:
        figure.suptitle("synthetic images, not CIFAR", color="#D55E00", fontsize=11)
    return figure, axes


def _rows(results: dict[str, Any], table: str, model: str, noise: float) -> list[dict[str, Any]]:
    """The records of results["runs"], ["summary"] or ["comparisons"] in one setting."""
    return [row for row in results[table] if (row["model"], row["noise"]) == (model, noise)]


def errors(results: dict[str, Any]) -> Figure:
    """Test error of every optimizer: each seed a ring, the mean with its 95 % interval."""
    figure, axes = _figure(results, 3.2)
    for ax, (model, noise) in zip(axes, settings(results), strict=True):
        rows = _rows(results, "summary", model, noise)
        for y, row in enumerate(reversed(rows)):
            colour, _ = STYLES[row["optimizer"]]
            seeds = [
                100 * run["test_error"]
                for run in _rows(results, "runs", model, noise)
                if run["optimizer"] == row["optimizer"]
            ]
            ax.plot(seeds, [y + 0.2] * len(seeds), "o", ms=4, mfc="none", mec=colour, alpha=0.8)
            if row["ci_low"] is not None:
                ax.plot([100 * row["ci_low"], 100 * row["ci_high"]], [y, y], color=colour, lw=3)
            ax.plot(100 * row["test_error"], y, "o", ms=9, color=colour)
            ax.annotate(
                f"{100 * row['test_error']:.1f}",
                (100 * row["test_error"], y),
                (0, -15),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        ax.set_yticks(range(len(rows)), [row["optimizer"] for row in reversed(rows)])
        ax.set_ylim(-0.7, len(rows) - 0.4)
        ax.margins(x=0.12)
        ax.grid(axis="x", alpha=0.3)
        ax.set_xlabel("test error, % (left is better)")
    return figure


def reductions(results: dict[str, Any]) -> Figure:
    """How many errors fewer SAM makes than each baseline, with 95 % intervals."""
    figure, axes = _figure(results, 3.4)
    for ax, (model, noise) in zip(axes, settings(results), strict=True):
        rows = _rows(results, "comparisons", model, noise)
        names = [f"{row['candidate']} vs {row['baseline']}" for row in rows]
        for y, row in enumerate(reversed(rows)):
            colour, _ = STYLES[row["candidate"]]
            if row["ci_low"] is not None:
                ax.plot([100 * row["ci_low"], 100 * row["ci_high"]], [y, y], color=colour, lw=3)
            ax.plot(100 * row["error_reduction"], y, "o", ms=8, color=colour)
        ax.axvline(0, color="black", lw=1)
        ax.set_yticks(range(len(rows)), names[::-1])
        ax.grid(axis="x", alpha=0.3)
        ax.set_xlabel("errors fewer with SAM, %")
    return figure


def curves(results: dict[str, Any]) -> Figure:
    """Training loss and test error against gradient evaluations: mean and range over the seeds."""
    n = len(settings(results))
    figure = Figure(figsize=(10.4, 3.0 * n), layout="constrained")
    axes = figure.subplots(n, 2, squeeze=False)
    for (model, noise), (loss, error) in zip(settings(results), axes, strict=True):
        for optimizer, (colour, dash) in STYLES.items():
            histories = [
                run["history"]
                for run in _rows(results, "runs", model, noise)
                if run["optimizer"] == optimizer
            ]
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
    if results["dataset"]["synthetic"]:
        figure.suptitle("synthetic images, not CIFAR", color="#D55E00", fontsize=11)
    return figure


PICTURES = {"errors": errors, "reductions": reductions, "curves": curves}


def png(draw: Callable[[dict[str, Any]], Figure], results: dict[str, Any]) -> bytes:
    """One of PICTURES as the contents of a PNG file."""
    buffer = BytesIO()
    with matplotlib.rc_context(FRAME):
        draw(results).savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
