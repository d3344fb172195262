"""What the trials of random_search.py say: expected test errors of the best of n, SAM's gains, and a picture.

A user who tries n points keeps the one with the lowest validation error. With few trials a method that forgives badly
chosen numbers wins, with many the one whose best numbers are best; a comparison of two tuned methods shows one n only
(Dodge et al. 2019, "Show your work", arXiv 1909.03004).
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minisam.checks import Array
from minisam.study.plots import BLUE, GREY, SKY, STYLES, plain_ticks
from minisam.study.recipes import MATCHED, SAM
from minisam.study.settings import Setting
from minisam.study.statistics import student

CHANCE = 0.9  # the test error of a run that diverged
LOOKS = (1, 3, 6, 12, 24)  # numbers of trials in the table
TWICE = "Momentum, 2× trials"

Rows = list[dict[str, Any]]  # of trials: what was tried where, and both errors (None: it diverged)


def seen(row: dict[str, Any]) -> tuple[float, float]:
    """Validation and test error; a run that diverged is chosen last, and guesses."""
    return (1.0, CHANCE) if row["validation"] is None else (row["validation"], row["test"])


def of_splits(rows: Rows, noise: float, method: str, papers: bool = False) -> list[Rows]:
    """The trials of a method, by split."""
    wanted = [row for row in rows if (row["noise"], row["method"], row["papers"]) == (noise, method, papers)]
    return [[row for row in wanted if row["split"] == one] for one in sorted({row["split"] for row in wanted})]


def best_of(validation: Array, test: Array) -> Array:
    """The expected test error of the trial with the lowest validation error among n of N, for n = 1 … N.

    If the n are drawn without replacement, the k-th best of all N is the best of them with probability
    C(N - k, n - 1) / C(N, n): the unbiased form (Tang et al. 2020, arXiv 2004.13705) of what Dodge et al. report.
    Of trials with equal validation errors each may be chosen.
    """
    order, N = np.argsort(validation), len(test)
    _, tied = np.unique(validation, return_inverse=True)
    mean = np.bincount(tied, test) / np.bincount(tied)
    chosen = [[math.comb(N - k, n - 1) / math.comb(N, n) for k in range(1, N + 1)] for n in range(1, N + 1)]
    return np.array(chosen) @ mean[tied][order]


def curves(rows: Rows, noise: float, method: str, papers: bool = False) -> Array:
    """The expected test errors of a method: (splits, n = 1 … N)."""
    return np.array(
        [best_of(*np.array([seen(row) for row in one]).T) for one in of_splits(rows, noise, method, papers)]
    )


def gains(rows: Rows, noise: float) -> dict[str, Array]:
    """SAM's relative error reductions, (splits, n), over both Momentums, and over twice the trials of Momentum.

    A step of SAM takes two gradients: a trial costs as much as one of Momentum with 2× epochs, or as two of Momentum.
    """
    sam, momentum, matched = (curves(rows, noise, method) for method in (SAM, "Momentum", MATCHED))
    twice = momentum[:, 1::2]
    return {"Momentum": 1 - sam / momentum, TWICE: 1 - sam[:, : twice.shape[1]] / twice, MATCHED: 1 - sam / matched}


def gains_in_papers(rows: Rows, noise: float) -> dict[str, Array]:
    """The same in the papers' protocol, (splits,), after all of its trials."""
    sam, *others = (curves(rows, noise, method, papers=True)[:, -1] for method in (SAM, "Momentum", MATCHED))
    return {name: 1 - sam / other for name, other in zip(("Momentum", MATCHED), others, strict=True)}


def best_of_decades(rows: Rows, noise: float, method: str) -> dict[int, Array]:
    """By ⌊log₁₀ of the weight decay⌋: the test errors (splits,) of the trials that validation chooses there, or NaN."""
    found: dict[int, Array] = {}
    splits = of_splits(rows, noise, method)
    for i, trials in enumerate(splits):
        for row in sorted(trials, key=lambda row: -seen(row)[0]):  # the best come last
            decade = math.floor(math.log10(row["numbers"]["weight_decay"]))
            found.setdefault(decade, np.full(len(splits), np.nan))[i] = seen(row)[1]
    return dict(sorted(found.items()))


def report(record: dict[str, Any]) -> str:
    """Tables of the expected errors and of the gains, and which best points lie at the box's edge."""
    rows, lines = record["trials"], []
    for noise in sorted({row["noise"] for row in rows}):
        n_splits, most = curves(rows, noise, SAM).shape
        title, looks = f"MLP, {Setting('mlp', noise, 0).labels}, {n_splits} splits", [n for n in LOOKS if n <= most]
        lines += [title, f"  {'test error of the best of n trials, %':38}n =" + _cells(looks, 6)]
        for method in record["box"]:
            found = curves(rows, noise, method)
            name = method if len(found) == n_splits else f"{method}, {len(found)} splits"
            lines.append(f"    {name:38}" + _cells((f"{100 * found[:, n - 1].mean():.1f}" for n in looks), 6))
        lines.append("  SAM's gain, %, over …")
        for name, gain in gains(rows, noise).items():
            cells = (student(gain[:, n - 1]).text("+.1f", 100) for n in looks if n <= gain.shape[1])
            lines.append(f"    {name:20}" + _cells(cells, 24))
        for name, gain in gains_in_papers(rows, noise).items():
            lines.append(f"    {name:20}{student(gain).text('+.1f', 100):>24}  in the papers' protocol")
        momentum, sam = (best_of_decades(rows, noise, method) for method in ("Momentum", SAM))
        lines.append("  the best trials of each decade of weight decay: Momentum's test error, %, and SAM's gain, %")
        for decade in momentum:
            gain = 1 - sam[decade] / momentum[decade]
            shown = student(gain[~np.isnan(gain)]).text("+.1f", 100)
            name = f"{10.0**decade:g} to {10.0 ** (decade + 1):g}"
            lines.append(f"    {name:20}{100 * np.nanmean(momentum[decade]):>8.1f}{shown:>24}")
        lines += [*_edges(record, noise), ""]
    return "\n".join([*lines, f"Measured with minisam {record['environment']['minisam']}."])


def _cells(values: Iterable[Any], width: int) -> str:
    return "".join(f"{value:>{width}}" for value in values)


def _edges(record: dict[str, Any], noise: float) -> list[str]:
    """Which numbers of the splits' best points lie within a twentieth of the box's width of its edge."""
    lines = []
    for method, box in record["box"].items():
        splits = of_splits(record["trials"], noise, method)
        best = [min(one, key=lambda row: seen(row)[0])["numbers"] for one in splits]
        for name, (low, high) in box.items():
            places = [np.log(numbers[name] / low) / np.log(high / low) for numbers in best]
            if near := sum(not 0.05 < place < 0.95 for place in places):
                lines.append(f"  at the box's edge: {name} of {method}, in {near} of {len(best)} splits")
    return lines


def picture(record: dict[str, Any]) -> Figure:
    """A row for each share of wrong labels: expected errors, SAM's gains, and errors against weight decay."""
    rows = record["trials"]
    noises = sorted({row["noise"] for row in rows})
    figure = Figure(figsize=(13, 4.2 * len(noises)), layout="constrained")
    for noise, axes in zip(noises, figure.subplots(len(noises), 3, squeeze=False), strict=True):
        _draw_errors(axes[0], rows, noise, list(record["box"]))
        _draw_gains(axes[1], rows, noise)
        _draw_decay(axes[2], rows, noise)
        for ax, what in zip(axes, ("best of n trials", "SAM's gain", "along weight decay"), strict=True):
            ax.set_title(f"MLP, {Setting('mlp', noise, 0).labels}: {what}", fontsize=11)
    return figure


def _band(ax: Axes, n: Array, values: Array, colour: str, dash: str, label: str) -> None:
    """The mean over splits, with its interval as a band."""
    found = [student(column) for column in values.T]
    ax.plot(n, [one.estimate for one in found], dash, color=colour, label=label)
    if found[0].low is not None:
        ax.fill_between(n, [one.low for one in found], [one.high for one in found], color=colour, alpha=0.15, lw=0)


def _mark(ax: Axes, n: int, values: Array, colour: str) -> None:
    """What the papers' protocol gives, at its number of trials."""
    found = student(values)
    reach = None if found.low is None else [[found.estimate - found.low], [found.high - found.estimate]]
    ax.errorbar([n], [found.estimate], reach, fmt="D", color=colour, mec="black", ms=7, capsize=3, zorder=3)


def _trials(ax: Axes, ylabel: str) -> None:
    ax.set(xscale="log", xlabel="trials n", ylabel=ylabel)
    plain_ticks(ax)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=9, frameon=False)


def _draw_errors(ax: Axes, rows: Rows, noise: float, methods: list[str]) -> None:
    for method in methods:
        found = 100 * curves(rows, noise, method)
        _band(ax, np.arange(1, found.shape[1] + 1), found, *STYLES[method], method)
    for method in ("Momentum", MATCHED, SAM):
        ends = 100 * curves(rows, noise, method, papers=True)
        n = sum(curves(rows, noise, one, papers=True).shape[1] for one in {"Momentum", method})
        _mark(ax, n, ends[:, -1], STYLES[method][0])
    ax.plot([], [], "D", color="white", mec="black", ms=7, label="papers' protocol")
    _trials(ax, "expected test error of the best of n, %")


def _draw_gains(ax: Axes, rows: Rows, noise: float) -> None:
    looks = {"Momentum": (BLUE, "-"), TWICE: (GREY, ":"), MATCHED: (SKY, "--")}
    for name, gain in gains(rows, noise).items():
        _band(ax, np.arange(1, gain.shape[1] + 1), 100 * gain, *looks[name], f"over {name}")
    n = sum(curves(rows, noise, one, papers=True).shape[1] for one in ("Momentum", SAM))
    for name, gain in gains_in_papers(rows, noise).items():
        _mark(ax, n, 100 * gain, looks[name][0])
    ax.axhline(0, color="black", lw=0.8)
    _trials(ax, "SAM's relative gain, %")


def _draw_decay(ax: Axes, rows: Rows, noise: float) -> None:
    """Every trial, and the best ones of each decade."""
    for method in ("Momentum", MATCHED, SAM):
        colour, dash = STYLES[method]
        trials = [row for one in of_splits(rows, noise, method) for row in one]
        decay, test = [row["numbers"]["weight_decay"] for row in trials], [100 * seen(row)[1] for row in trials]
        ax.plot(decay, test, ".", color=colour, alpha=0.35, ms=4)
        best = best_of_decades(rows, noise, method)
        means = [100 * np.nanmean(test) for test in best.values()]
        ax.plot([10 ** (decade + 0.5) for decade in best], means, dash, color=colour, marker="o", ms=5, label=method)
    ax.set(xscale="log", xlabel="weight decay", ylabel="test error, %")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.grid(alpha=0.3)
    ax.legend(title="best in each decade", fontsize=9, title_fontsize=9, frameon=False)
