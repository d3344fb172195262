"""The papers' claims, each beside what was found here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from minisam.study.recipes import MATCHED, SAM, VARIANTS
from minisam.study.report import Table
from minisam.study.settings import Setting
from minisam.study.statistics import Interval

Results = dict[str, dict[str, Any]]  # of every part, by name
BALL = next(iter(VARIANTS))
HEADER = ("claim", "the paper's numbers", "here", "found", "verdict")
MARGIN = 0.02  # a relative difference in errors below this counts as none


def reduction(row: dict[str, Any]) -> Interval:
    """The error reduction of a comparison."""
    return Interval(row["error_reduction"], row["ci_low"], row["ci_high"])


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
            return reduction(row)
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


MAINS, PAPERS = "optimizers-*", "papers-*"  # parts, by the protocol of their tuning
WRONG = (0.2, 0.4, 0.6, 0.8)
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
    Claim("… in the papers' protocol, clean labels, as many gradients", "", PAPERS, MATCHED, SAM, noise=(0.0,)),
    Claim("… than Momentum with as many epochs", "", PAPERS, "Momentum", SAM, noise=(0.0,)),
    Claim("… in the papers' protocol, wrong labels, as many gradients", "", PAPERS, MATCHED, SAM, noise=WRONG),
    Claim("… than Momentum with as many epochs", "", PAPERS, "Momentum", SAM, noise=WRONG),
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
