"""The pictures of the report and of `minisam train --diagnostics`.

Colours are Okabe and Ito's, told apart by all common colour visions.
"""

import math
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from minisam.study.comparison import correlate
from minisam.study.experiments import Setting
from minisam.training.files import replacing

# Without colours, too: SAM is solid, its baselines are dashed or dotted.
STYLES = {
    "GD": ("#999999", ":"),
    "Momentum": ("#0072B2", "--"),
    "Momentum, 2× epochs": ("#56B4E9", "--"),
    "Adam": ("#009E73", "--"),
    "SAM(Momentum)": ("#D55E00", "-"),
    "SAM(Adam)": ("#E69F00", "-"),
    "ASAM(Momentum)": ("#CC79A7", "-"),
}
OTHER = ("#0072B2", "-")
SYNTHETIC = "synthetic images, not CIFAR"
FRAME: Any = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}


def settings(results: dict[str, Any]) -> list[Setting]:
    """The settings of a result, in order."""
    return list(dict.fromkeys(map(Setting.of, results["summary"])))


def in_setting(results: dict[str, Any], table: str, setting: Setting) -> list[dict[str, Any]]:
    """The records of results["runs"], ["summary"] or ["comparisons"] in one setting."""
    return [row for row in results[table] if Setting.of(row) == setting]


def _of(results: dict[str, Any], setting: Setting, optimizer: str, key: str) -> list[Any]:
    """What the runs of one optimizer, a run a seed, say of `key`."""
    return [run[key] for run in in_setting(results, "runs", setting) if run["optimizer"] == optimizer]


def _panels(results: dict[str, Any], height: float = 3.6) -> tuple[Figure, list[tuple[Any, Setting]]]:
    """A figure, and axes with a title for each setting: two in a row."""
    found = settings(results)
    n_columns = min(2, len(found))
    n_rows = math.ceil(len(found) / n_columns)
    figure = Figure(figsize=(5.2 * n_columns, height * n_rows), layout="constrained")
    panels = list(zip(figure.subplots(n_rows, n_columns, squeeze=False).flat, found, strict=False))
    for i, (ax, setting) in enumerate(panels):
        ax.set_title(setting.title, fontsize=11)
        ax.tick_params(labelleft=i % n_columns == 0)
    return figure, panels


def plain_ticks(ax: Any) -> None:
    """Write 20 on a logarithmic axis, not 2 × 10¹."""
    ax.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.tick_params(axis="x", which="both", labelsize=9)


def errors(results: dict[str, Any]) -> Figure:
    """Test error of every optimizer: each seed a ring, the mean with its 95 % interval.

    A panel for each setting.
    """
    figure, panels = _panels(results)
    for ax, setting in panels:
        rows = in_setting(results, "summary", setting)
        for y, row in enumerate(reversed(rows)):
            colour, _ = STYLES.get(row["optimizer"], OTHER)
            seeds = [100 * error for error in _of(results, setting, row["optimizer"], "test_error")]
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
            histories = _of(results, setting, optimizer, "history")
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
            ax.set_title(setting.title, fontsize=11)
            ax.grid(alpha=0.3)
    for ax in axes[-1]:
        ax.set_xlabel("gradient evaluations (minibatches)")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def sharpness(results: dict[str, Any]) -> Figure:
    """The leading eigenvalue at every optimizer's final weights: a ring a seed, a dot for their mean."""
    figure, panels = _panels(results)
    for ax, setting in panels:
        rows = in_setting(results, "summary", setting)
        for y, row in enumerate(reversed(rows)):
            colour, _ = STYLES[row["optimizer"]]
            seeds = [one["eigenvalues"][0] for one in _of(results, setting, row["optimizer"], "geometry")]
            ax.semilogx(seeds, [y + 0.2] * len(seeds), "o", ms=4, mfc="none", mec=colour, alpha=0.8)
            ax.plot(row["lambda_max"][0], y, "o", ms=9, color=colour)
        ax.set_yticks(range(len(rows)), [row["optimizer"] for row in reversed(rows)])
        plain_ticks(ax)
        ax.grid(axis="x", alpha=0.3, which="both")
        ax.set_xlabel("λ1 of the training loss (left is flatter)")
    return figure


def gains(results: dict[str, Any]) -> Figure:
    """The relative error reduction of every candidate against the first baseline, with its 95 % interval."""
    baseline = results["config"]["pairs"][0][0]
    most = max(len(in_setting(results, "comparisons", setting)) for setting in settings(results))
    figure, panels = _panels(results, height=1.2 + 0.24 * most)
    for ax, setting in panels:
        rows = [row for row in in_setting(results, "comparisons", setting) if row["baseline"] == baseline]
        for y, row in enumerate(reversed(rows)):
            colour, _ = STYLES.get(row["candidate"], OTHER)
            if row["ci_low"] is not None:
                ax.plot([100 * row["ci_low"], 100 * row["ci_high"]], [y, y], color=colour, lw=2)
            ax.plot(100 * row["error_reduction"], y, "o", ms=6, color=colour)
        ax.axvline(0, color="0.4", lw=1)
        ax.set_yticks(range(len(rows)), [row["candidate"] for row in reversed(rows)])
        ax.grid(axis="x", alpha=0.3)
        ax.set_xlabel(f"errors fewer than {baseline}, %\n(right is better)")
    return figure


def radius(results: dict[str, Any]) -> Figure:
    """Test error against rho, and Momentum's with as many gradients beside it."""
    figure, panels = _panels(results)
    for ax, setting in panels:
        rows = {row["optimizer"]: row for row in in_setting(results, "summary", setting)}
        runs = in_setting(results, "runs", setting)
        chosen = {run["config"]["rho"]: rows[run["optimizer"]] for run in runs if run["optimizer"] in _radii(results)}
        x = sorted(chosen)
        y, low, high = (
            100 * np.array([chosen[rho][key] for rho in x], float) for key in ("test_error", "ci_low", "ci_high")
        )
        ax.fill_between(x, low, high, color=STYLES["SAM(Momentum)"][0], alpha=0.2, lw=0)
        ax.plot(x, y, "o-", ms=5, color=STYLES["SAM(Momentum)"][0], label="SAM(Momentum)")
        for name in (name for name in rows if name not in _radii(results)):
            colour, dash = STYLES.get(name, OTHER)
            ax.axhline(100 * rows[name]["test_error"], color=colour, ls=dash, label=name)
        ax.set_xscale("symlog", linthresh=x[1], linscale=0.4)
        ax.set_xticks(x, [f"{rho:g}" for rho in x])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        ax.set(xlabel="rho", ylabel="test error, %", xlim=(0, 1.1 * x[-1]))
        ax.legend(frameon=False)
        ax.tick_params(labelleft=True)
    return figure


def _radii(results: dict[str, Any]) -> set[str]:
    return {candidate for _, candidate in results["config"]["pairs"]}


def sizes(results: dict[str, Any]) -> Figure:
    """How many errors fewer SAM makes, against the number of training images."""
    noises = list(dict.fromkeys(setting.noise for setting in settings(results)))
    figure = Figure(figsize=(5.2 * len(noises), 3.6), layout="constrained")
    for ax, noise in zip(figure.subplots(1, len(noises), squeeze=False, sharey=True).flat, noises, strict=True):
        for shift, (baseline, _) in zip((0.97, 1.03), results["config"]["pairs"], strict=True):
            rows = [r for r in results["comparisons"] if (r["noise"], r["baseline"]) == (noise, baseline)]
            x = np.array([row["n_train"] for row in rows])
            y, low, high = (
                100 * np.array([row[key] for row in rows], float) for key in ("error_reduction", "ci_low", "ci_high")
            )
            colour, dash = STYLES[baseline]
            ax.errorbar(x * shift, y, (y - low, high - y), fmt="o" + dash, color=colour, label=f"than {baseline}")
        ax.axhline(0, color="0.4", lw=1)
        ax.set_xscale("log")
        ax.set_xticks(x, [f"{n:,}" for n in x])
        ax.minorticks_off()
        ax.set_title(Setting("mlp", noise, 0).labels, fontsize=11)
        ax.set(xlabel="training images", ylabel="errors fewer with SAM, %")
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    return figure


def budgets(results: dict[str, Any]) -> Figure:
    """Train and test error against the gradients spent: a line for each method, a point for each training it got."""
    figure = Figure(figsize=(10.4, 3.6), layout="constrained")
    rows = sorted(results["summary"], key=lambda row: row["gradient_evaluations"])
    for ax, key in zip(figure.subplots(1, 2), ("train_error", "test_error"), strict=True):
        for name in ("Momentum", "SAM(Momentum)"):
            mine = [row for row in rows if row["optimizer"].startswith(f"{name}, ")]
            (colour, dash), x = STYLES[name], [row["gradient_evaluations"] for row in mine]
            ax.plot(x, [100 * row[key] for row in mine], f"o{dash}", color=colour, label=name)
            if key == "test_error" and mine[0]["ci_low"] is not None:
                low, high = ([100 * row[end] for row in mine] for end in ("ci_low", "ci_high"))
                ax.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
        ax.set(xscale="log", xlabel="gradient evaluations (minibatches)", ylabel=f"{key.replace('_', ' ')}, %")
        ax.set_xticks(sorted({round(row["gradient_evaluations"]) for row in rows}))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure


def flatness(results: dict[str, Any]) -> Figure:
    """Test error against λ1, a point for each run, and their rank correlation."""
    figure, panels = _panels(results)
    for ax, setting in panels:
        for row in in_setting(results, "summary", setting):
            name = row["optimizer"]
            x = [found["eigenvalues"][0] for found in _of(results, setting, name, "geometry")]
            y = [100 * error for error in _of(results, setting, name, "test_error")]
            colour, dash = STYLES.get(name, OTHER)
            face = colour if dash == "-" else "none"
            ax.semilogx(x, y, "o" if dash == "-" else "s", mec=colour, mfc=face, ms=6, label=name)
        _, across = correlate(in_setting(results, "runs", setting), "lambda_max")
        ax.set_title(f"{setting.title}\nrank correlation {across.text('+.2f')}", fontsize=11)
        ax.set(xlabel="λ1 of the training loss", ylabel="test error, %")
        plain_ticks(ax)
        ax.tick_params(labelleft=True)
        ax.grid(alpha=0.3)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
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


PICTURES: dict[str, dict[str, Callable[[dict[str, Any]], Figure]]] = {  # by the kind of experiment
    "methods": {"errors": errors, "curves": curves, "sharpness": sharpness, "flatness": flatness},
    "rho": {"radius": radius},
    "ingredients": {"gains": gains},
    "size": {"sizes": sizes},
    "budget": {"budgets": budgets},
}


def save(file: Path, figure: Figure, synthetic: bool = False) -> None:
    """Write a picture, whole or not at all, with a warning where its images are synthetic."""
    if synthetic:
        figure.suptitle(SYNTHETIC, color="#D55E00", fontsize=11)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=120)


def png(draw: Callable[[Any], Figure], found: Any, synthetic: bool) -> bytes:
    """A picture of what was found, as the contents of a PNG file."""
    buffer = BytesIO()
    with matplotlib.rc_context(FRAME):
        figure = draw(found)
        if synthetic:
            figure.suptitle(SYNTHETIC, color="#D55E00", fontsize=11)
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def pictures(results: dict[str, Any]) -> dict[str, bytes]:
    """All of an experiment's."""
    found = PICTURES[results["config"]["kind"]]
    return {name: png(draw, results, results["dataset"]["synthetic"]) for name, draw in found.items()}
