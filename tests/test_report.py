"""Reports and pictures: names are shown as they are, and what was computed outlives what can't be drawn."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from minisam.cli import main
from minisam.data import synthetic
from minisam.study import geometry_plots, plots
from minisam.study.comparison import Repeat, reproduce
from minisam.study.experiment_plots import PICTURES, gains, radius
from minisam.study.experiments import Arm, Experiment, Setting, smoke
from minisam.study.recipes import MAIN
from minisam.study.report import error_table, write_report
from minisam.training import Config


def tiny(label="Momentum", **how):
    """Two methods, one of them with any label."""
    config = Config(epochs=1, batch_size=32)
    arms = (Arm(label, 32, config), Arm("SAM", 32, replace(config, optimizer="sam")))
    return Experiment("ingredients", arms, ((label, "SAM"),), seeds=2, **how)


@pytest.mark.parametrize("label", ["$\\frac{$", "$x^$ and <b>", "100 % | \\$"])
def test_a_label_is_no_formula(tmp_path, label):
    results, predictions = reproduce(tiny(label), synthetic(32, 20))
    report = write_report(tmp_path, results, predictions, synthetic(32, 20).y_test)
    assert "and <b>" not in report.read_text(encoding="utf-8")
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")


def test_results_are_kept_when_their_report_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = smoke(n_train=64, epochs=1, seeds=1, n_test=40)
    small = replace(whole, arms=whole.arms[: len(MAIN)])
    monkeypatch.setattr("minisam.cli.reproduce.PRESETS", {"smoke": lambda: small})

    def broken(results):
        raise KeyError("two\nlines")

    monkeypatch.setitem(PICTURES["methods"], "curves", broken)
    assert main(["reproduce", "--preset", "smoke", "--dataset", "synthetic", "--jobs", "1", "--out", "out"]) == 1
    last = capsys.readouterr().err.splitlines()[-1].split("\r")[-1]
    assert last.endswith("minisam: error: all results are in out, but no report can be made (no 'two\\nlines')")
    assert {path.name for path in Path("out").iterdir()} == {"runs", "results.json", "predictions.npz"}
    assert len(json.loads(Path("out/results.json").read_text(encoding="utf-8"))["runs"]) == len(MAIN)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the names of files are text")
def test_a_folder_whose_name_is_no_text_gets_its_report(tmp_path, monkeypatch, capsys):
    out = os.fsdecode(os.fsencode(tmp_path) + b"/r\xff")
    words = ["reproduce", "--preset", "smoke", "--dataset", "synthetic", "--jobs", "1", "--out", out]
    monkeypatch.setattr(sys, "argv", ["minisam", *words])
    monkeypatch.setattr("minisam.cli.reproduce.PRESETS", {"smoke": tiny})
    assert main(words) == 0
    assert "\\udcff" in Path(out, "report.html").read_text(encoding="utf-8")
    kept = json.loads(Path(out, "results.json").read_text(encoding="utf-8"))
    assert kept["config"]["command"].endswith("/r\udcff'")  # to the last byte
    assert Repeat.of(Path(out, "results.json")).name == "smoke-again"


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_landscape_with_holes_is_drawn(tmp_path, odd):
    t, losses = np.linspace(-1, 1, 3), np.arange(9.0).reshape(3, 3)
    losses[0, 0] = odd
    plots.save(tmp_path / "l.png", geometry_plots.landscape({"a": t, "b": t, "losses": losses}, "random", "a model"))
    assert (tmp_path / "l.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="the loss is NaN or infinite everywhere: draw a smaller piece"):
        geometry_plots.landscape({"a": t, "b": t, "losses": np.full((3, 3), odd)}, "random", "a model")


def test_a_gain_is_drawn_with_its_interval_if_it_has_one():
    def lines(low, high):
        row = {"model": "mlp", "noise": 0.0, "n_train": 9, "baseline": "old", "candidate": "new"}
        row |= {"error_reduction": 0.25, "ci_low": low, "ci_high": high}
        (ax,) = gains({"config": {"pairs": [("old", "new")]}, "summary": [row], "comparisons": [row]}).axes
        return [list(line.get_xdata()) for line in ax.lines]

    assert lines(0.125, 0.5) == [[12.5, 50], [25], [0, 0]]  # interval, gain, the line of no gain
    assert lines(None, None) == [[25], [0, 0]]


def test_only_what_is_compared_with_a_baseline_has_a_place_along_rho():
    where = {"model": "mlp", "noise": 0.0, "n_train": 9}
    errors = {"old": (0.05, 0.5), "small": (0.1, 0.25), "large": (0.2, 0.125)}  # rho, test error
    runs = [where | {"optimizer": name, "config": {"rho": rho}} for name, (rho, _) in errors.items()]
    rows = [
        where | {"optimizer": name, "test_error": error, "ci_low": error, "ci_high": error}
        for name, (_, error) in errors.items()
    ]
    pairs = [("old", "small"), ("old", "large")]
    (ax,) = radius({"config": {"pairs": pairs}, "summary": rows, "runs": runs}).axes
    curve, level = (line.get_xydata().tolist() for line in ax.lines)
    assert curve == [[0.1, 25], [0.2, 12.5]]
    assert [y for _, y in level] == [50, 50]


def test_a_gain_stands_beside_its_candidate_or_if_these_are_fewer_beside_its_baseline():
    def gains_of(*pairs):
        where = {"model": "mlp", "noise": 0.0, "n_train": 9, "ci_low": None, "ci_high": None}
        rows = [where | {"baseline": b, "candidate": c, "error_reduction": i / 4} for i, (b, c) in enumerate(pairs, 1)]
        methods = [where | {"optimizer": name, "gradient_evaluations": 1} for name in sorted(set(sum(pairs, ())))]
        summary = [row | {"train_error": 0.5, "test_error": 0.5} for row in methods]
        table = error_table({"summary": summary, "comparisons": rows}, Setting("mlp", 0.0, 9))
        return [(name, *gains) for name, _, _, _, *gains in table]

    assert gains_of(("a", "z")) == [("method", "over a"), ("a", "–"), ("z", "25.0")]
    assert gains_of(("a", "z"), ("b", "z")) == [("method", "z gain"), ("a", "25.0"), ("b", "50.0"), ("z", "–")]


@pytest.mark.parametrize(("n", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 2)])
def test_there_are_two_panels_in_a_row_and_no_empty_rows(n, rows, columns):
    summary = [{"model": "mlp", "noise": 0.2 * i, "n_train": 9} for i in range(n)]
    figure, panels = plots.panels({"summary": summary})
    assert len(panels) == n
    assert figure.axes[0].get_gridspec().get_geometry() == (rows, columns)


MEASURED = {"eigenvalues": [9.0, 4.0, 1.0], "density": {"nodes": [0.0, 9.0], "weights": [0.9, 0.1]}, "rho": 0.05}
MEASURED |= {"worst": [0.1, 0.2], "one step": 0.1, "random": [1e-4, -1e-5]}


@pytest.mark.parametrize("name", ["a_$x^$", "$\\frac{$", "no text: \udcff", "two\nlines", "x" * 5000])
def test_a_models_name_is_shown_as_it_is(tmp_path, name):
    t = np.linspace(-1, 1, 3)
    for figure in (
        geometry_plots.spectra({name: MEASURED, "other": MEASURED}),
        geometry_plots.line(t, {name: t**2}, {0.0: name}),
    ):
        plots.save(tmp_path / "picture.png", figure)
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
        shown = [text.get_text() for text in figure.findobj(Text)]
        assert not any("mathdefault" in text for text in shown)  # no tick is written as a formula
        assert "$" not in name or name in shown
