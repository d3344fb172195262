"""Reports and pictures: names are shown as they are, and what was computed outlives what can't be drawn."""

import html
import json
import os
import re
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
from minisam.study.experiments import PRESETS, Experiment
from minisam.study.kinds import Arm
from minisam.study.plots import panels
from minisam.study.recipes import BASELINES, MAIN, SAM
from minisam.study.report import (
    PROTOCOLS,
    error_table,
    html_report,
    hyperparameters,
    section,
    sharpness_table,
    text_table,
    write_report,
)
from minisam.study.settings import Setting, in_setting, settings, title_in
from minisam.study.whole import write_study
from minisam.training import Config


def tiny(label="Momentum", **how):
    """Two methods, one of them with any label."""
    config = Config(epochs=1, batch_size=32)
    arms = (Arm(label, 32, config), Arm("SAM", 32, replace(config, optimizer="sam")))
    return Experiment("ingredients", arms, ((label, "SAM"),), seeds=2, **how)


RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
QUICK = json.loads((RESULTS / "quick" / "results.json").read_text(encoding="utf-8"))
TABLES = ("runs", "summary", "comparisons")
PICTURELESS = {name: b"" for kind in PICTURES.values() for name in kind}


def rows_of(page):
    """The rows of the tables of a page, as lists of cells."""
    rows = re.findall("<tr>(.*?)</tr>", page)
    return [[html.unescape(cell) for cell in re.findall("<t[hd]>(.*?)</t[hd]>", row)] for row in rows]


@pytest.mark.parametrize("setting", settings(QUICK))
def test_the_tables_say_what_the_runs_found(setting):
    rows = {row["optimizer"]: row for row in in_setting(QUICK, "summary", setting)}
    runs = {name: [r for r in in_setting(QUICK, "runs", setting) if r["optimizer"] == name] for name in rows}
    mean = {
        key: {name: np.mean([run[key] for run in found]) for name, found in runs.items()}
        for key in ("gradient_evaluations", "train_error", "test_error")
    }
    header, *lines = error_table(QUICK, setting)
    assert header == ("method", "gradients", "train error", "test error", f"{SAM} gain")
    for row, name in zip(lines, rows, strict=True):
        assert row[:3] == (name, f"{mean['gradient_evaluations'][name]:,.0f}", f"{100 * mean['train_error'][name]:.1f}")
        width = rows[name]["ci_high"] - rows[name]["ci_low"]
        assert row[3] == f"{100 * mean['test_error'][name]:.1f} ± {50 * width:.1f}"
        ratio = mean["test_error"][SAM] / mean["test_error"][name]
        assert re.fullmatch(rf"{100 * (1 - ratio):.1f} ± \d+\.\d" if name in BASELINES else "–", row[4])
    header, *lines = sharpness_table(QUICK, setting)
    assert header == ("method", "λ1", "λ1 / λ5", "trace", "worst rise")
    for row, name in zip(lines, runs, strict=True):
        found = [run["geometry"] for run in runs[name]]
        leading = [one["eigenvalues"][0] for one in found]
        columns = [(leading, 3), ([one["eigenvalues"][0] / one["eigenvalues"][4] for one in found], 3)]
        columns += [([one["trace"] for one in found], 3), ([one["worst"][-1] for one in found], 2)]
        assert row == (name, *(f"{np.mean(c):.{d}g} ({min(c):.{d}g}–{max(c):.{d}g})" for c, d in columns))


def test_the_text_has_the_rows_of_the_tables_and_says_what_they_rest_on():
    text = text_table(QUICK)
    blocks = text.split("\n\n")
    wrong = "MLP, 40 % of labels redrawn"
    titles = ["MLP, clean labels, equal tuning", f"{wrong}, equal tuning", f"{wrong}, papers' protocol"]
    assert [block.splitlines()[0] for block in blocks[:-1]] == titles + [f"{title}: sharpness" for title in titles]
    tables = [make(QUICK, setting) for make in (error_table, sharpness_table) for setting in settings(QUICK)]
    for block, table in zip(blocks, tables, strict=False):
        lines = block.splitlines()[1:]
        assert [tuple(re.split(" {3,}", line.strip())) for line in lines] == table
        assert len({len(line) for line in lines}) == 1  # aligned
    last = " ".join(blocks[-1].split())
    assert last.startswith(
        "cifar10: 4,000 training and 10,000 test images, 3 seeds. Errors in per cent ± 95 % interval"
    )
    assert "loss on 500 images, the rise is the largest found within rho = 0.05, in nats" in last


def test_settings_that_differ_in_their_images_say_how_many():
    results = json.loads((RESULTS / "full" / "size" / "results.json").read_text(encoding="utf-8"))
    for text in (text_table(results), section(results, PICTURELESS)):
        for n in ("250", "500", "1,000", "2,000", "4,000"):
            assert f"MLP, clean labels, {n} images" in text


def test_hyper_parameters_are_those_of_the_recipes_once():
    def numbers(config):
        rho = "–" if config.optimizer in ("gd", "momentum", "adam") else f"{config.rho:g}"
        return [f"{config.lr:g}", f"{config.weight_decay:g}", f"{config.l1:g}", rho, str(config.epochs)]

    header, *rows = rows_of(hyperparameters(QUICK))
    assert header == ["method", "setting", "lr", "weight decay", "L1", "rho", "epochs"]
    assert rows == [[arm.label, title_in(QUICK, arm.setting), *numbers(arm.config)] for arm in PRESETS["quick"]().arms]


def test_a_page_has_every_table_and_says_how_to_repeat_it():
    page = html_report(QUICK, PICTURELESS)
    rows = rows_of(page)
    for setting in settings(QUICK):
        assert page.count(f"<h4>{title_in(QUICK, setting)}</h4>") == 2
        for make in (error_table, sharpness_table):
            assert all(list(row) in rows for row in make(QUICK, setting))
    assert all([key, str(value)] in rows for key, value in (QUICK["dataset"] | QUICK["environment"]).items())
    assert f"<code>{html.escape(QUICK['config']['command'])}</code>" in page
    assert "<title>Does SAM help on cifar10?</title>" in page
    assert "4000 training and 10000 test images of cifar10" in " ".join(page.split())
    assert "SYNTHETIC" not in page


@pytest.mark.parametrize(
    ("preset", "question"),
    [
        ("ingredients", "What makes SAM work?"),
        ("m-sharpness", "Each step's batch is cut into pieces of m images"),
        ("full-batch", "Does SAM help without the noise of minibatches?"),
        ("full-batch-again", "Does SAM help without the noise of minibatches?"),
        ("quick", "<p> Networks"),
    ],
)
def test_presets_that_share_a_page_ask_their_own_questions(preset, question):
    results = json.loads((RESULTS / "full" / "full-batch" / "results.json").read_text(encoding="utf-8"))
    results["config"]["preset"] = preset
    assert question in section(results, PICTURELESS)


@pytest.mark.parametrize("shown", [(False,), (True,), (False, True)])
def test_a_page_says_which_protocols_its_numbers_belong_to(shown):
    tables = {name: [row for row in QUICK[name] if Setting.of(row).papers in shown] for name in TABLES}
    page = section(QUICK | tables, PICTURELESS)
    assert [text in page for text in PROTOCOLS.values()] == [papers in shown for papers in PROTOCOLS]
    assert "Training images are used as they are." in page


def test_a_page_says_whether_images_were_changed_at_random():
    runs = [run | {"config": run["config"] | {"augment": True}} for run in QUICK["runs"]]
    assert "Training images are flipped and cropped at random." in section(QUICK | {"runs": runs}, PICTURELESS)


def test_the_page_of_the_whole_counts_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.setattr("minisam.study.whole.pictures", lambda _: PICTURELESS)
    page = " ".join(write_study(tmp_path, {"quick": QUICK, "again": QUICK}).read_text(encoding="utf-8").split())
    assert f"All parts together make {2 * len(QUICK['comparisons'])} comparisons" in page
    assert f"{2 * len(QUICK['runs'])} runs. Methods: {', '.join(MAIN)}." in page
    assert '<h2 id="quick">Part 1: quick</h2>' in page
    assert '<h2 id="again">Part 2: again</h2>' in page
    assert "of a margin of 2 %" in page.replace("(or above) a", "of a")
    assert ["again", f"cifar10, {QUICK['dataset']['checksum']}"] in rows_of(page)
    assert "SYNTHETIC" not in page


@pytest.mark.parametrize("label", ["$\\frac{$", "$x^$ and <b>", "100 % | \\$"])
def test_a_label_is_no_formula(tmp_path, label):
    results, predictions = reproduce(tiny(label), synthetic(32, 20))
    report = write_report(tmp_path, results, predictions, synthetic(32, 20).y_test)
    assert "and <b>" not in report.read_text(encoding="utf-8")
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")


def test_results_are_kept_when_their_report_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minisam.cli.reproduce.PRESETS", {"smoke": tiny})

    def broken(results):
        raise KeyError("two\nlines")

    monkeypatch.setitem(PICTURES["ingredients"], "gains", broken)
    assert main(["reproduce", "--preset", "smoke", "--dataset", "synthetic", "--jobs", "1", "--out", "out"]) == 1
    last = capsys.readouterr().err.splitlines()[-1].split("\r")[-1]
    assert last.endswith("minisam: error: all results are in out, but no report can be made (no 'two\\nlines')")
    assert {path.name for path in Path("out").iterdir()} == {"runs", "results.json", "predictions.npz"}
    assert len(json.loads(Path("out/results.json").read_text(encoding="utf-8"))["runs"]) == 4


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


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_there_are_as_many_panels_as_settings(n):
    some = [row | {"noise": i / 10} for i, row in enumerate(QUICK["summary"][:1] * n)]
    figure, axes = panels(QUICK | {"summary": some})
    assert len(figure.axes) == len(axes) == n
