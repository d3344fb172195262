"""The whole study as one page: the answer, the papers' claims, and the parts of the study."""

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minisam.study.claims import MARGIN, Results, claims_table, reduction
from minisam.study.comparison import correlate
from minisam.study.experiment_plots import pictures
from minisam.study.plots import BLUE, GREEN, ORANGE, STYLES, plain_ticks, png
from minisam.study.recipes import MAIN, MATCHED, SAM
from minisam.study.report import Table, drawing, encoded, fill, html_table, inline, page, percent, section
from minisam.study.settings import Setting, in_setting, settings
from minisam.study.statistics import Interval
from minisam.training.files import replacing

COLOURS = {"mlp": BLUE, "cnn": GREEN, "cnn-bn": ORANGE}
TITLES = {True: "papers' protocol: of SAM only rho is tuned", False: "equal tuning: as much for every method"}
SHARPNESS = {"λ1": "lambda_max", "λ1 / λ5": "lambda_ratio", "worst rise": "worst_rise", "trace": "trace"}


def flatness(found: Results) -> list[tuple[str, str, Interval, Interval]]:
    """How the test error correlates with sharpness in every setting, within methods and across them."""
    return [
        (title, what, *correlate(in_setting(results, "runs", setting), key))
        for title, setting, results in _main_parts(found)
        for what, key in SHARPNESS.items()
    ]


def flatness_parts(found: Results) -> dict[str, str]:
    """The correlations as a table, and how many of their intervals exclude zero."""
    rows = flatness(found)
    table: Table = [("setting", "sharpness", "within methods", "across methods")]
    table += [(title, what, *(one.text("+.2f") for one in pair)) for title, what, *pair in rows]
    parts = {"flatness": html_table(table), "correlations": f"{len(rows)}"}
    for name, intervals in zip(("within", "across"), list(zip(*rows, strict=True))[2:], strict=True):
        sure = [one for one in intervals if one.low is not None]
        above, below = sum(one.low > 0 for one in sure), sum(one.high < 0 for one in sure)
        parts[name] = f"{above} are above zero and {below} below"
    return parts


def _parts(found: Results) -> Iterator[tuple[str, Setting, dict[str, Any]]]:
    """Title, setting and results of every setting of every part."""
    data = {"cifar100": "CIFAR-100, ", "cifar100-coarse": "20 classes of CIFAR-100, "}
    for results in found.values():
        for setting in settings(results):
            yield data.get(results["dataset"]["name"], "") + setting.title, setting, results


def _main_parts(found: Results, papers: bool = False) -> Iterator[tuple[str, Setting, dict[str, Any]]]:
    """Those in which SAM is compared with its baselines, in one of the two protocols."""
    return (part for part in _parts(found) if part[2]["config"]["kind"] == "methods" and part[1].papers == papers)


def gains_over_both(found: Results, papers: bool = False) -> str:
    """In words: SAM(Momentum)'s gain over the better of two Momentums, in every setting of a protocol that has both.

    The two are trained for as many epochs, and with as many gradients. Runs that two parts share count once.
    """
    met: dict[tuple[str, ...], tuple[str, list[Interval]]] = {}
    for title, setting, results in (part for part in _parts(found) if part[1].papers == papers):
        rows = [row for row in in_setting(results, "comparisons", setting) if row["baseline"].startswith("Momentum")]
        for candidate in dict.fromkeys(row["candidate"] for row in rows if row["candidate"].startswith(SAM)):
            gains = [reduction(row) for row in rows if row["candidate"] == candidate]
            runs = [run for run in in_setting(results, "runs", setting) if run["optimizer"] == candidate]
            where = f"{title}, {setting.n_train:,} images{candidate.removeprefix(SAM)}"
            if len(gains) == 2:
                met.setdefault(tuple(run["weights"] for run in runs), (where, gains))
    better = [min(gains, key=lambda gain: gain.estimate) for _, gains in met.values()]
    below = sum(gain.high is not None and gain.high < 0 for gain in better)
    above = [
        f"{where}: {gain.text('.1f', 100)} %"
        for (where, gains), gain in zip(met.values(), better, strict=True)
        if all(one.low is not None and one.low > 0 for one in gains)
    ]
    listed = f" ({'; '.join(above)})" if above else ""
    protocol = "In the papers' protocol" if papers else "After equal tuning"
    return (
        f"{protocol} {SAM} meets two Momentums, one trained for as many epochs and one with as many gradients, in "
        f"{len(better)} setting{'s' if len(better) > 1 else ''}. Its gain over the better of the two is above zero, "
        f"with its whole 95 % interval, in {len(above)}{listed}, below zero in {below}, and undecided in "
        f"{len(better) - len(above) - below}."
    )


def main_table(found: Results, papers: bool = False) -> Table:
    """Test errors of all methods, and SAM's gains over Momentum with as many epochs and with as many gradients."""
    momenta, parts = ("Momentum", MATCHED), list(_main_parts(found, papers))
    ran = {run["optimizer"] for _, _, results in parts for run in results["runs"]}
    methods = [method for method in MAIN if method in ran]
    table: Table = [("test error, %", *methods, *(f"gain over {baseline}, %" for baseline in momenta))]
    for title, setting, results in parts:
        rows = {row["optimizer"]: row for row in in_setting(results, "summary", setting)}
        errors = (percent(rows.get(method), "test_error") for method in methods)
        gains = (percent(_gain(results, setting, baseline), "error_reduction") for baseline in momenta)
        table.append((title, *errors, *gains))
    return table


def _gain(results: dict[str, Any], setting: Setting, baseline: str) -> dict[str, Any]:
    """The comparison of SAM(Momentum) with a baseline."""
    pair = {"baseline": baseline, "candidate": SAM}
    return next(row for row in in_setting(results, "comparisons", setting) if row.items() >= pair.items())


def protocols(found: Results) -> Figure:
    """SAM's gain against the share of wrong labels, a panel for each protocol, on CIFAR-10 or what took its place."""
    there = [papers for papers in (True, False) if any(_main_parts(found, papers))]
    figure = Figure(figsize=(5.2 * len(there), 4.2), layout="constrained")
    axes = figure.subplots(1, len(there), sharey=True, squeeze=False)[0]
    for ax, papers in zip(axes, there, strict=True):
        points: dict[tuple[str, str], list[list[float]]] = {}
        for _, setting, results in _main_parts(found, papers):
            for baseline in (MATCHED, "Momentum") if not results["dataset"]["name"].startswith("cifar100") else ():
                row = _gain(results, setting, baseline)
                ends = [row["error_reduction"], row["ci_low"], row["ci_high"]]
                points.setdefault((setting.model, baseline), []).append([setting.noise, *ends])
        for (model, baseline), rows in points.items():
            noise, gain, low, high = 100 * np.array(sorted(rows), float).T
            shift, style, face = (-0.6, "o-", COLOURS[model]) if baseline == MATCHED else (0.6, "o:", "white")
            bars = (gain - low, high - gain)  # NaN for a single seed, which draws nothing
            name = f"{model.upper()}, than {baseline}"
            ax.errorbar(noise + shift, gain, bars, fmt=style, color=COLOURS[model], mfc=face, label=name, ms=6)
        ax.axhline(0, color="0.4", lw=1)
        ax.set_title(TITLES[papers], fontsize=11)
        ax.set_xlabel("labels redrawn, %")
        ax.set(xlim=(-5, 85), xticks=range(0, 81, 20))
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("fewer errors with SAM, %")
    handles = {name: line for ax in axes for line, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def overview(found: Results) -> Figure:
    """How many fewer errors SAM makes, and how much flatter it ends, in every setting of the main comparison."""
    parts = list(_main_parts(found))[::-1]
    figure = Figure(figsize=(10.4, 1.4 + 0.42 * len(parts)), layout="constrained")
    gain, flatter = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for y, (_, setting, results) in enumerate(parts):
        for baseline, shift in ((MATCHED, 0.14), ("Momentum", -0.14)):
            row, colour = _gain(results, setting, baseline), STYLES[baseline][0]
            for ax, values, scale in (
                (gain, [row[key] for key in ("error_reduction", "ci_low", "ci_high")], 100),
                (flatter, row["lambda_max"], 1),
            ):
                estimate, *ends = scale * np.array(values, float)
                ax.plot(ends, [y + shift] * 2, color=colour, lw=2)  # a single seed has NaN, which draws nothing
                ax.plot(estimate, y + shift, "o", color=colour, ms=6, label=None if y else f"than {baseline}")
    for ax, even in ((gain, 0), (flatter, 1)):
        ax.axvline(even, color="0.4", lw=1)
        ax.grid(axis="x", alpha=0.3)
    gain.set_yticks(range(len(parts)), [title for title, *_ in parts])
    gain.set_ylim(-0.5, len(parts) - 0.5)
    gain.set_xlabel("fewer errors with SAM, % (right is better)")
    flatter.set(xlabel="λ1, times lower with SAM", xscale="log")
    plain_ticks(flatter)
    figure.legend(*gain.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def write_study(folder: Path, found: Results) -> Path:
    """Write report.html of the whole study, self-contained, and its pictures; returns the report's path.

    Raises:
        OSError: the folder can't be written.
        RuntimeError: the report can't be made.
    """
    with drawing(folder):
        synthetic = any(results["dataset"]["synthetic"] for results in found.values())
        drawn = {draw.__name__: png(draw, found, synthetic) for draw in (protocols, overview)}
        report = encoded(_study(found, drawn))
    files = {f"{name}.png": picture for name, picture in drawn.items()} | {"report.html": report}
    for name, content in files.items():
        with replacing(folder / name) as file:
            file.write(content)
    return folder / "report.html"


def _study(found: Results, drawn: dict[str, bytes]) -> str:
    """The page, with the pictures of the whole."""
    sections: list[str] = []
    for name, results in found.items():
        sections.append(f'<h2 id="{name}">Part {len(sections) + 1}: {name}</h2>{section(results, pictures(results))}')
    number = sum(len(results["comparisons"]) for results in found.values())
    parts = {"claims": html_table(claims_table(found))} | flatness_parts(found)
    parts |= {"sections": "".join(sections), "comparisons": f"{number:,}", "methods": ", ".join(MAIN)}
    parts |= {"runs": f"{sum(len(results['runs']) for results in found.values()):,}"}
    parts |= {name: inline(picture) for name, picture in drawn.items()} | {"margin": f"{100 * MARGIN:g}"}
    for name, papers in (("main", False), ("papers", True)):
        gains = html.escape(gains_over_both(found, papers))
        parts |= {name: html_table(main_table(found, papers)), f"{name}_gains": gains}
    data = {name: f"{r['dataset']['name']}, {r['dataset']['checksum']}" for name, r in found.items()}
    return page("What SAM gains on small CIFAR subsets", fill("study", parts), data, list(found.values()))
