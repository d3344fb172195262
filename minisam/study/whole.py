"""The whole study as one page: the papers' claims, the results here, and the parts of the study."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minisam.study.comparison import correlate
from minisam.study.experiment_plots import pictures
from minisam.study.experiments import Setting, in_setting, settings
from minisam.study.plots import STYLES, plain_ticks, png
from minisam.study.recipes import MAIN, MATCHED, SAM, VARIANTS
from minisam.study.report import Table, fill, html_table, inline, page, percent, section
from minisam.study.statistics import Interval
from minisam.training.files import replacing

Results = dict[str, dict[str, Any]]  # of every part, by name
BALL = next(iter(VARIANTS))
HEADER = ("claim", "the paper's numbers", "here", "found", "verdict")
MARGIN = 0.02  # a relative difference in errors below this counts as none


@dataclass(frozen=True)
class Claim:
    """A paper's claim about `candidate` compared with `baseline`, and the settings in which it was tested."""

    text: str
    paper: str
    part: str  # a pattern for the names of parts
    baseline: str
    candidate: str
    noise: Sequence[float] = (0.0, 0.4)
    measure: str = "error_reduction"
    expected: str = "better"  # or: worse, no better, no worse

    def rows(self, found: Results) -> Iterator[tuple[str, ...]]:
        """A row of the table, with the verdict, for each setting that has an answer."""
        pair = self.baseline, self.candidate
        for name, results in found.items():
            for row in results["comparisons"] if fnmatch(name, self.part) else ():
                interval = self._interval(row)
                if interval is None or (row["baseline"], row["candidate"]) != pair or row["noise"] not in self.noise:
                    continue
                where = f"{name}: {Setting.of(row).title}"
                yield self.text, self.paper, where, self._text(interval), self.verdict(interval)

    def _interval(self, row: dict[str, Any]) -> Interval | None:
        if self.measure == "error_reduction":
            return Interval(row["error_reduction"], row["ci_low"], row["ci_high"])
        return row[self.measure] and Interval(*row[self.measure])

    def _text(self, interval: Interval) -> str:
        if self.measure == "error_reduction":
            return f"{self.candidate}: gain {interval.text('+.1f', 100)} %"
        return f"{self.candidate}: {interval.text('.2f')} times lower"

    def verdict(self, interval: Interval) -> str:
        """What an interval says of the claim: "agrees", "disagrees" or "undecided"."""
        if interval.low is None or interval.high is None:
            return "undecided"
        even = 0.0 if self.measure == "error_reduction" else 1.0
        better, worse = interval.low > even, interval.high < even
        holds, fails = {
            "better": (better, worse),
            "worse": (worse, better),
            "no better": (interval.high < even + MARGIN, interval.low > even + MARGIN),
            "no worse": (interval.low > even - MARGIN, interval.high < even - MARGIN),
        }[self.expected]
        return "agrees" if holds else "disagrees" if fails else "undecided"


MAINS = "optimizers-*"
NOISES = (0.0, 0.2, 0.4, 0.6)
FORET, LATE = "Foret et al. 2021", "Andriushchenko and Flammarion 2022"
CLAIMS = (
    Claim(f"SAM makes fewer errors than Momentum with as many gradients, clean labels ({FORET}, table 1)",
          "WRN-28-10: 3.5 → 2.7 % (23 % fewer) on CIFAR-10, 18.8 → 16.5 % (12 % fewer) on CIFAR-100",
          MAINS, MATCHED, SAM, noise=(0.0,)),
    Claim("… than Momentum with as many epochs", "", MAINS, "Momentum", SAM, noise=(0.0,)),
    Claim(f"SAM is robust to label noise: fewer errors with as many gradients ({FORET}, table 4)",
          "ResNet-32, accuracy at 20/40/60/80 % noise: SGD 84.8/68.8/48.2/26.2, SAM 95.1/93.4/90.5/77.9",
          MAINS, MATCHED, SAM, noise=(0.2, 0.4, 0.6)),
    Claim("… than Momentum with as many epochs", "", MAINS, "Momentum", SAM, noise=(0.2, 0.4, 0.6)),
    Claim("The same on CIFAR-100, as many gradients", "", "cifar100*", MATCHED, SAM),
    Claim(f"SAM ends in flatter minima: λ1 ({FORET}, figure 3)", "24.2 with SGD, 1.0 with SAM",
          MAINS, MATCHED, SAM, noise=NOISES, measure="lambda_max"),
    Claim("… the loss rises less within a ball around them", "", MAINS, MATCHED, SAM, noise=NOISES,
          measure="worst_rise"),
    Claim("… the trace of the Hessian is smaller (our question)", "", MAINS, MATCHED, SAM, noise=NOISES,
          measure="trace"),
    Claim(f"p = 2 is better than p = ∞ ({FORET}, appendix)", "", "ingredients", BALL, "p = ∞", expected="worse"),
    Claim("… than p = 1 (our question)", "", "ingredients", BALL, "p = 1", expected="worse"),
    Claim(f"The gradient's direction is better than a random one of the same length ({FORET}, appendix)", "",
          "ingredients", BALL, "random direction, SAM's length", expected="worse"),
    Claim("… than a random one whose length is tuned (our question)", "", "ingredients", BALL, "random direction",
          expected="worse"),
    *(Claim(f"{k} ascent steps are no better than one ({FORET}, appendix)",
            "CIFAR-10: error 2.77, 2.76, 2.73, 2.77 % with 1, 2, 3, 5 steps", "ingredients", BALL, f"{k} ascent steps",
            expected="no better") for k in (2, 3, 5)),
    Claim(f"The second-order term brings no gain ({FORET}, appendix)", "", "ingredients", BALL,
          "with second-order term", expected="no better"),
    *(Claim(f"Fewer images climbing together are better: m = {m} ({FORET}, figure 3)", "figure only", "m-sharpness",
            "m = batch", f"m = {m}") for m in (1, 4, 16, 64)),
    Claim(f"With all images in one batch SAM gains nothing ({LATE})", "figure only", "full-batch", MATCHED, SAM,
          expected="no better"),
    Claim(f"SAM in the last half of training only is no worse ({LATE}: most of the gain)", "figure only",
          "ingredients", BALL, "last half only", expected="no worse"),
    Claim("… in the last quarter only", "", "ingredients", BALL, "last quarter only", expected="no worse"),
    Claim("SAM is not just regularisation: the best L1 penalty is worse (our question)", "", "ingredients", BALL,
          "L1 penalty, 2× epochs", expected="worse"),
    Claim("… the best L2 penalty (weight decay) is worse (our question)", "", "ingredients", BALL, MATCHED,
          expected="worse"),
    Claim("… without weight decay SAM is better than Momentum, as many epochs (our question)", "", "ingredients",
          "Momentum, no weight decay", "SAM, no weight decay"),
)  # fmt: skip


def claims_table(found: Results) -> Table:
    """Every claim in every setting, its text in the first row only."""
    table: Table = [HEADER]
    for claim in CLAIMS:
        for i, (text, paper, *rest) in enumerate(claim.rows(found)):
            table.append(("", "", *rest) if i else (text, paper, *rest))
    return table


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


def _main_parts(found: Results) -> Iterator[tuple[str, Setting, dict[str, Any]]]:
    """Title, setting and results of every setting in which SAM is compared with its baselines."""
    data = {"cifar100": "CIFAR-100, ", "cifar100-coarse": "20 classes of CIFAR-100, "}
    for results in found.values():
        if results["config"]["kind"] == "methods":
            for setting in settings(results):
                yield data.get(results["dataset"]["name"], "") + setting.title, setting, results


def main_table(found: Results) -> Table:
    """Test errors of all methods, and SAM's gains over Momentum with as many epochs and with as many gradients."""
    momenta = ("Momentum", MATCHED)
    table: Table = [("test error, %", *MAIN, *(f"gain over {baseline}, %" for baseline in momenta))]
    for title, setting, results in _main_parts(found):
        rows = {row["optimizer"]: row for row in in_setting(results, "summary", setting)}
        errors = (percent(rows[method], "test_error") for method in MAIN)
        gains = (percent(_gain(results, setting, baseline), "error_reduction") for baseline in momenta)
        table.append((title, *errors, *gains))
    return table


def _gain(results: dict[str, Any], setting: Setting, baseline: str) -> dict[str, Any]:
    """The comparison of SAM(Momentum) with a baseline."""
    pair = {"baseline": baseline, "candidate": SAM}
    return next(row for row in in_setting(results, "comparisons", setting) if row.items() >= pair.items())


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
    """Write report.html of the whole study, self-contained, and its overview.png; returns the report's path."""
    sections: list[str] = []
    synthetic = any(results["dataset"]["synthetic"] for results in found.values())
    picture = png(overview, found, synthetic)
    for name, results in found.items():
        sections.append(f'<h2 id="{name}">Part {len(sections) + 1}: {name}</h2>{section(results, pictures(results))}')
    number = sum(len(results["comparisons"]) for results in found.values())
    parts = {"claims": html_table(claims_table(found))} | flatness_parts(found)
    parts |= {"sections": "".join(sections), "comparisons": f"{number:,}", "methods": ", ".join(MAIN)}
    parts |= {"runs": f"{sum(len(results['runs']) for results in found.values()):,}"}
    parts |= {"overview": inline(picture), "main": html_table(main_table(found)), "margin": f"{100 * MARGIN:g}"}
    data = {name: f"{r['dataset']['name']}, {r['dataset']['checksum']}" for name, r in found.items()}
    title, body = "What SAM gains on small CIFAR subsets", fill("study", parts)
    with replacing(folder / "overview.png") as file:
        file.write(picture)
    with replacing(folder / "report.html") as file:
        file.write(page(title, body, data, list(found.values())).encode())
    return folder / "report.html"
