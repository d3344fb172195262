"""The pictures of all other kinds of experiment, and a table of the pictures of each kind."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minisam.study.method_plots import curves, errors, flatness, sharpness
from minisam.study.plots import OTHER, STYLES, panels, png
from minisam.study.settings import Setting, in_setting, settings


def gains(results: dict[str, Any]) -> Figure:
    """The relative error reduction of every candidate over the first baseline, with its 95 % interval."""
    baseline = results["config"]["pairs"][0][0]
    most = max(len(in_setting(results, "comparisons", setting)) for setting in settings(results))
    figure, axes = panels(results, height=1.2 + 0.24 * most)
    for ax, setting in axes:
        rows = [row for row in in_setting(results, "comparisons", setting) if row["baseline"] == baseline]
        for y, row in enumerate(reversed(rows)):
            colour, _ = STYLES.get(row["candidate"], OTHER)
            if row["ci_low"] is not None:
                ax.plot([100 * row["ci_low"], 100 * row["ci_high"]], [y, y], color=colour, lw=2)
            ax.plot(100 * row["error_reduction"], y, "o", ms=6, color=colour)
        ax.axvline(0, color="0.4", lw=1)
        ax.set_yticks(range(len(rows)), [row["candidate"] for row in reversed(rows)])
        ax.grid(axis="x", alpha=0.3)
        ax.set_xlabel(f"fewer errors than {baseline}, %\n(right is better)")
    return figure


def radius(results: dict[str, Any]) -> Figure:
    """Test error against rho, beside that of Momentum with as many gradients."""
    figure, axes = panels(results)
    for ax, setting in axes:
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
    """How many fewer errors SAM makes, against the number of training images."""
    noises = list(dict.fromkeys(setting.noise for setting in settings(results)))
    figure = Figure(figsize=(5.2 * len(noises), 3.6), layout="constrained")
    for ax, noise in zip(figure.subplots(1, len(noises), squeeze=False, sharey=True).flat, noises, strict=True):
        for shift, (baseline, _) in zip((0.97, 1.03), results["config"]["pairs"], strict=True):
            rows = [r for r in results["comparisons"] if (r["noise"], r["baseline"]) == (noise, baseline)]
            x = np.array([row["n_train"] for row in rows])
            y, low, high = (
                100 * np.array([row[key] for row in rows], float) for key in ("error_reduction", "ci_low", "ci_high")
            )
            colour, dash = STYLES.get(baseline, OTHER)
            ax.errorbar(x * shift, y, (y - low, high - y), fmt="o" + dash, color=colour, label=f"than {baseline}")
        ax.axhline(0, color="0.4", lw=1)
        ax.set_xscale("log")
        ax.set_xticks(x, [f"{n:,}" for n in x])
        ax.minorticks_off()
        ax.set_title(Setting("mlp", noise, 0).labels, fontsize=11)
        ax.set(xlabel="training images", ylabel="fewer errors with SAM, %")
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    return figure


def budgets(results: dict[str, Any]) -> Figure:
    """Train and test error against the gradients spent: one line per method, one point per length of training."""
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


PICTURES: dict[str, dict[str, Callable[[dict[str, Any]], Figure]]] = {  # by the kind of experiment
    "methods": {"errors": errors, "curves": curves, "sharpness": sharpness, "flatness": flatness},
    "rho": {"radius": radius},
    "ingredients": {"gains": gains},
    "size": {"sizes": sizes},
    "budget": {"budgets": budgets},
}


def pictures(results: dict[str, Any]) -> dict[str, bytes]:
    """All pictures of an experiment as PNG files, by name."""
    found = PICTURES[results["config"]["kind"]]
    return {name: png(draw, results, results["dataset"]["synthetic"]) for name, draw in found.items()}
