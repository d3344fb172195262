"""The pictures of the main comparison: errors, learning curves, sharpness, and whether flatter is better."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minisam.study.comparison import correlate
from minisam.study.plots import OTHER, STYLES, of_runs, panels, plain_ticks
from minisam.study.settings import in_setting, settings, title_in


def errors(results: dict[str, Any]) -> Figure:
    """Test error of every optimizer: one ring per seed, and the mean with its 95 % interval.

    One panel per setting.
    """
    figure, axes = panels(results)
    for ax, setting in axes:
        rows = in_setting(results, "summary", setting)
        for y, row in enumerate(reversed(rows)):
            colour, _ = STYLES.get(row["optimizer"], OTHER)
            seeds = [100 * error for error in of_runs(results, setting, row["optimizer"], "test_error")]
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
    for setting, (loss, error) in zip(settings(results), axes, strict=True):
        for optimizer, (colour, dash) in STYLES.items():
            histories = of_runs(results, setting, optimizer, "history")
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
            ax.set_title(title_in(results, setting), fontsize=11)
            ax.grid(alpha=0.3)
    for ax in axes[-1]:
        ax.set_xlabel("gradient evaluations (minibatches)")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def sharpness(results: dict[str, Any]) -> Figure:
    """The leading eigenvalue at every optimizer's final weights: one ring per seed, a dot for their mean."""
    figure, axes = panels(results)
    for ax, setting in axes:
        rows = in_setting(results, "summary", setting)
        for y, row in enumerate(reversed(rows)):
            colour, _ = STYLES[row["optimizer"]]
            seeds = [one["eigenvalues"][0] for one in of_runs(results, setting, row["optimizer"], "geometry")]
            ax.semilogx(seeds, [y + 0.2] * len(seeds), "o", ms=4, mfc="none", mec=colour, alpha=0.8)
            ax.plot(row["lambda_max"][0], y, "o", ms=9, color=colour)
        ax.set_yticks(range(len(rows)), [row["optimizer"] for row in reversed(rows)])
        plain_ticks(ax)
        ax.grid(axis="x", alpha=0.3, which="both")
        ax.set_xlabel("λ1 of the training loss (left is flatter)")
    return figure


def flatness(results: dict[str, Any]) -> Figure:
    """Test error against λ1, one point per run, and their rank correlation."""
    figure, axes = panels(results)
    for ax, setting in axes:
        for row in in_setting(results, "summary", setting):
            name = row["optimizer"]
            x = [found["eigenvalues"][0] for found in of_runs(results, setting, name, "geometry")]
            y = [100 * error for error in of_runs(results, setting, name, "test_error")]
            colour, dash = STYLES.get(name, OTHER)
            face = colour if dash == "-" else "none"
            ax.semilogx(x, y, "o" if dash == "-" else "s", mec=colour, mfc=face, ms=6, label=name)
        _, across = correlate(in_setting(results, "runs", setting), "lambda_max")
        ax.set_title(f"{title_in(results, setting)}\nrank correlation {across.text('+.2f')}", fontsize=11)
        ax.set(xlabel="λ1 of the training loss", ylabel="test error, %")
        plain_ticks(ax)
        ax.tick_params(labelleft=True)
        ax.grid(alpha=0.3)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    return figure
