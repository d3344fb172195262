"""The page of the whole study: every claim has its evidence, and the verdict is what the interval says."""

import re
from fnmatch import fnmatch

import numpy as np
import pytest

from minisam.study.claims import CLAIMS, Claim, claims_table
from minisam.study.experiment_plots import PICTURES
from minisam.study.experiments import FULL, PRESETS
from minisam.study.statistics import Interval
from minisam.study.whole import flatness, flatness_parts, gains_over_both, write_study


@pytest.fixture
def found(two_seeds):
    return {"optimizers-mlp": two_seeds[0]}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.candidate} vs {claim.baseline}, {claim.measure}")
def test_every_claim_is_looked_at_somewhere(claim):
    parts = [PRESETS[name]() for name in FULL if fnmatch(name, claim.part)]
    assert any((claim.baseline, claim.candidate) in part.pairs for part in parts)
    assert set(claim.noise) <= {arm.config.noise for part in parts for arm in part.arms}


def test_a_claim_has_a_source_or_is_our_question_or_continues_another():
    for claim in CLAIMS:
        assert re.search(r"et al\. 2021|Andriushchenko|our question|^… |^The same ", claim.text)


@pytest.mark.parametrize(
    ("expected", "verdicts"),
    [
        ("better", ("agrees", "undecided", "disagrees")),
        ("worse", ("disagrees", "undecided", "agrees")),
        ("no better", ("disagrees", "undecided", "agrees")),
        ("no worse", ("agrees", "undecided", "disagrees")),
    ],
)
def test_the_verdict_is_what_the_interval_says(expected, verdicts):
    above, across, below = Interval(0.2, 0.1, 0.3), Interval(0.2, -0.1, 0.5), Interval(-0.2, -0.3, -0.1)
    claim = Claim("", "", "part", "old", "new", expected=expected)
    assert tuple(map(claim.verdict, (above, across, below))) == verdicts
    times = Claim("", "", "part", "old", "new", measure="lambda_max", expected=expected)
    intervals = [Interval(*(2.0**value for value in one)) for one in (above, across, below)]  # even is 1
    assert tuple(map(times.verdict, intervals)) == verdicts
    assert claim.verdict(Interval(0.2, None, None)) == "undecided"
    slightly = {  # on one side of 0, but the margin is inside
        "better": ("agrees", "disagrees"),
        "worse": ("disagrees", "agrees"),
        "no better": ("undecided", "agrees"),
        "no worse": ("agrees", "undecided"),
    }
    assert (
        tuple(map(claim.verdict, (Interval(0.02, 0.005, 0.03), Interval(-0.02, -0.03, -0.005)))) == slightly[expected]
    )
    small = Interval(0.0, -0.01, 0.01)  # practically no difference
    assert claim.verdict(small) == ("agrees" if expected.startswith("no") else "undecided")


def test_the_table_has_a_row_for_each_setting_and_no_other(found):
    header, *rows = claims_table(found)
    assert len(header) == 5
    mains = [claim for claim in CLAIMS if fnmatch("optimizers-mlp", claim.part)]
    pairs = {(row["baseline"], row["candidate"], row["noise"]): row for row in found["optimizers-mlp"]["comparisons"]}
    answers = [
        [one for noise in claim.noise if (one := pairs.get((claim.baseline, claim.candidate, noise)))]
        for claim in mains
    ]
    counts = [sum(one[claim.measure] is not None for one in rows) for claim, rows in zip(mains, answers, strict=True)]
    assert len(rows) == sum(counts)
    assert [text for text, *_ in rows if text] == [
        claim.text for claim, count in zip(mains, counts, strict=True) if count
    ]
    (row,) = [r for r in rows if r[0] == mains[0].text]
    number = r"[+-]\d+\.\d"
    assert re.fullmatch(rf"SAM\(Momentum\): gain {number} \({number} to {number}\) %", row[3])
    flatter = [found for *_, found, _ in rows if "lower" in found]
    assert len(flatter) >= 4
    times = r"\d+\.\d\d"
    assert all(re.fullmatch(rf"SAM\(Momentum\): {times} \({times} to {times}\) times lower", one) for one in flatter)


def comparison(noise, n_train, baseline, candidate, *interval):
    row = {"model": "mlp", "noise": noise, "n_train": n_train, "baseline": baseline, "candidate": candidate}
    return row | dict(zip(("error_reduction", "ci_low", "ci_high"), interval, strict=True))


def part(weights, *rows, dataset="cifar10"):
    """A part of the study with these comparisons, and a run of each candidate."""
    runs = [row | {"optimizer": row["candidate"], "weights": f"{weights}{i // 2}"} for i, row in enumerate(rows)]
    return {"dataset": {"name": dataset}, "summary": rows, "comparisons": rows, "runs": runs[::2]}


def test_gains_over_both_momentums_are_looked_for_in_every_part():
    one, two, sam = "Momentum", "Momentum, 2× epochs", "SAM(Momentum)"
    above, far, below, across = (0.1, 0.05, 0.15), (0.3, 0.2, 0.4), (-0.2, -0.3, -0.1), (0.2, -0.1, 0.5)
    first = part("a", comparison(0.0, 9, one, sam, *far), comparison(0.0, 9, two, sam, *above))
    found = {"main": first, "again": first}
    assert gains_over_both(found).endswith(
        "in 1 setting. Its gain over the better of the two is above zero, with its whole 95 % interval, in 1 "
        "(MLP, clean labels, 9 images: 10.0 (5.0 to 15.0) %), below zero in 0, and undecided in 0."
    )
    found["noise"] = part(
        "b",
        *(comparison(0.4, 9, one, sam, *far), comparison(0.4, 9, two, sam, *across)),  # above one of them
        *(comparison(0.2, 9, one, sam, *below), comparison(0.2, 9, two, sam, *far)),
        *(comparison(0.2, 8, one, sam, 0.1, None, None), comparison(0.2, 8, two, sam, 0.1, None, None)),  # one seed
        *(comparison(0.4, 8, "GD", sam, *far), comparison(0.4, 8, two, sam, *far)),  # met one only
        *(comparison(0.4, 8, one, "p = 1", *far), comparison(0.4, 8, two, "p = 1", *far)),
    )
    long, longer, candidate = "Momentum, 30 epochs", "Momentum, 60 epochs", "SAM(Momentum), 30 epochs"
    rows = comparison(0.4, 1000, long, candidate, *above), comparison(0.4, 1000, longer, candidate, *far)
    found["budget"] = part("c", *rows, dataset="cifar100")
    text = gains_over_both(found)
    assert " in 5 settings. " in text
    assert "; CIFAR-100, MLP, 40 % of labels redrawn, 1,000 images, 30 epochs: 10.0 (5.0 to 15.0) %)" in text
    assert text.endswith(" below zero in 1, and undecided in 2.")
    assert text.startswith("After equal tuning SAM(Momentum) meets two Momentums")
    assert " in 0 setting" in gains_over_both(found, papers=True)
    for table in ("summary", "comparisons", "runs"):
        first[table] = [row | {"papers": True} for row in first[table]]
    assert " in 4 settings. " in gains_over_both(found)  # a gain in one protocol is none in the other
    assert gains_over_both(found, papers=True).startswith("In the papers' protocol SAM(Momentum) meets two Momentums")
    assert " in 1 setting. " in gains_over_both(found, papers=True)


def test_a_measure_without_a_ratio_is_no_answer():
    """A trace below zero has no logarithm."""
    row = {"model": "mlp", "noise": 0.0, "n_train": 9, "baseline": "old", "candidate": "new", "trace": None}
    claim = Claim("", "", "part", "old", "new", measure="trace")
    assert not list(claim.rows({"part": {"comparisons": [row]}}))
    assert len(list(claim.rows({"part": {"comparisons": [row | {"trace": [2.0, 1.5, 2.5]}]}}))) == 1


def test_flatness_is_correlated_within_methods_and_across_them():
    """Within each method the flatter run is the worse one, and the sharper method is the worse one."""
    runs = []
    for method, (sharp, error) in {"a": (1.0, 0.1), "b": (100.0, 0.5)}.items():
        for seed in range(5):
            values = np.full(5, sharp * (1 + 0.01 * seed))
            geometry = {"eigenvalues": values.tolist(), "worst": [sharp - 0.01 * seed], "trace": sharp}
            run = {"model": "mlp", "noise": 0.0, "n_train": 9, "optimizer": method, "seed": seed, "geometry": geometry}
            runs.append(run | {"test_error": error - 0.01 * seed})
    about = {"config": {"kind": "methods"}, "dataset": {"name": "cifar10"}}
    summary = [{"model": "mlp", "noise": 0.0, "n_train": 9}]
    found = {"p": about | {"runs": runs[::2] + runs[1::2], "summary": summary}}  # in any order
    cells = {what: pair for _, what, *pair in flatness(found)}
    assert cells["λ1"][0] == pytest.approx((-1, -1, -1))
    assert cells["worst rise"][0] == pytest.approx((1, 1, 1))
    assert cells["λ1"][1].estimate > 0.3
    assert cells["trace"][0][1:] == (None, None)  # nothing differs
    assert cells["trace"][1].estimate > 0.5
    parts = flatness_parts(found)
    assert parts["correlations"] == "4"
    assert parts["within"] == "1 are above zero and 1 below"
    assert "<td>+1.00 (+1.00 to +1.00)</td>" in parts["flatness"]


def test_a_single_seed_has_estimates_without_intervals(tmp_path, one_seed):
    found = {"optimizers-mlp": one_seed[0]}
    write_study(tmp_path, found)
    rows = claims_table(found)[1:]
    assert {row[-1] for row in rows} == {"undecided"}
    assert not any("to" in row[-2].split() or "None" in row[-2] or "nan" in row[-2] for row in rows)


def test_the_page_is_whole_and_self_contained(tmp_path, found):
    page = write_study(tmp_path, found).read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2 + len(PICTURES["methods"])
    for name in ("overview.png", "protocols.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "SYNTHETIC" in page
    assert "Part 1: optimizers-mlp" in page
    assert "$" not in re.sub(r"base64,[^\"]*", "", page)


def test_an_interval_that_ends_at_zero_is_neither_above_nor_below(monkeypatch):
    touching, apart = (Interval(0.1, 0.0, 0.2), Interval(-0.1, -0.2, 0.0)), (Interval(0.1, 0.05, 0.2),) * 2
    rows = [("a", "λ1", *touching), ("b", "λ1", *apart)]
    monkeypatch.setattr("minisam.study.whole.flatness", lambda found: rows)
    parts = flatness_parts({})
    assert parts["within"] == "1 are above zero and 0 below"
    assert parts["across"] == "1 are above zero and 0 below"
