"""Pictures show the numbers of a results.json, each in its place: compared with what the runs themselves say."""

import json
from collections import defaultdict
from copy import deepcopy
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from minisam import optim
from minisam.analysis import toy
from minisam.study import experiment_plots, geometry_plots, method_plots, plots, toy_plots
from minisam.study.recipes import BASELINES, MATCHED, SAM
from minisam.study.settings import Setting, in_setting, settings, title_in
from minisam.study.statistics import spearman
from minisam.study.whole import TITLES, overview, protocols

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


@cache
def kept(part):
    return json.loads((RESULTS / part / "results.json").read_text(encoding="utf-8"))


def of_methods(results, setting):
    """The runs of each method in a setting."""
    runs = defaultdict(list)
    for run in results["runs"]:
        if Setting.of(run) == setting:
            runs[run["optimizer"]].append(run)
    return runs


def points(line):
    return line.get_xydata().tolist()


def names(axis):
    """The labels of its ticks, shown or not: neighbours share them."""
    return axis.get_major_formatter().format_ticks(axis.get_majorticklocs())


def near(expected):
    return pytest.approx(np.array(expected, float), nan_ok=True)


QUICK = [Setting("mlp", 0.0, 4000), Setting("mlp", 0.4, 4000), Setting("mlp", 0.4, 4000, papers=True)]


def of_setting(results, setting):
    """The methods of a setting, in order."""
    return [row["optimizer"] for row in in_setting(results, "summary", setting)]


def test_errors_are_a_ring_per_seed_the_mean_and_its_interval():
    results = kept("quick")
    for ax, setting in zip(method_plots.errors(results).axes, QUICK, strict=True):
        rows = {row["optimizer"]: row for row in in_setting(results, "summary", setting)}
        assert ax.get_title() == title_in(results, setting)
        assert names(ax.yaxis) == of_setting(results, setting)[::-1]
        lines = iter(ax.lines)
        for y, name in enumerate(reversed(of_setting(results, setting))):
            errors = [100 * run["test_error"] for run in of_methods(results, setting)[name]]
            rings, interval, dot = (next(lines) for _ in range(3))
            assert points(rings) == near([[error, y + 0.2] for error in errors])
            assert points(interval) == near([[100 * rows[name][end], y] for end in ("ci_low", "ci_high")])
            assert points(dot) == near([[np.mean(errors), y]])
            assert ax.texts[y].get_text() == f"{np.mean(errors):.1f}"


def test_curves_are_means_and_ranges_over_seeds():
    results = kept("quick")
    axes = iter(method_plots.curves(results).axes)
    for setting in QUICK:
        for key, scale in (("loss", 1), ("test_error", 100)):
            ax, runs = next(axes), of_methods(results, setting)
            assert [line.get_label() for line in ax.lines] == of_setting(results, setting)
            for line, band in zip(ax.lines, ax.collections, strict=True):
                histories = [[e for e in run["history"] if key in e] for run in runs[line.get_label()]]
                values = scale * np.array([[epoch[key] for epoch in history] for history in histories])
                x = [epoch["gradient_evaluations"] for epoch in histories[0]]
                assert points(line) == near(np.transpose([x, np.mean(values, axis=0)]))
                extent = band.get_paths()[0].get_extents().get_points()
                assert extent == near([[x[0], values.min()], [x[-1], values.max()]])


def test_sharpness_is_a_ring_per_seed_and_their_mean():
    results = kept("quick")
    for ax, setting in zip(method_plots.sharpness(results).axes, QUICK, strict=True):
        assert names(ax.yaxis) == of_setting(results, setting)[::-1]
        lines = iter(ax.lines)
        for y, name in enumerate(reversed(of_setting(results, setting))):
            found = [run["geometry"]["eigenvalues"][0] for run in of_methods(results, setting)[name]]
            assert points(next(lines)) == near([[value, y + 0.2] for value in found])
            assert points(next(lines)) == near([[np.mean(found), y]])


def test_flatness_is_a_point_per_run():
    results = kept("quick")
    for ax, setting in zip(method_plots.flatness(results).axes, QUICK, strict=True):
        shown = {line.get_label(): points(line) for line in ax.lines}
        runs = of_methods(results, setting)
        assert list(shown) == of_setting(results, setting)
        for name, found in shown.items():
            assert found == near([[r["geometry"]["eigenvalues"][0], 100 * r["test_error"]] for r in runs[name]])
        hollow = {line.get_label() for line in ax.lines if line.get_markerfacecolor() == "none"}
        assert hollow == set(shown) & set(BASELINES)
        correlation = spearman(*np.concatenate(list(shown.values())).T)
        assert f"{title_in(results, setting)}\nrank correlation {correlation:+.2f} (" in ax.get_title()


def test_gains_are_those_over_the_first_baseline():
    results = kept("full/ingredients")
    baseline = results["config"]["pairs"][0][0]
    for ax, setting in zip(experiment_plots.gains(results).axes, settings(results), strict=True):
        rows = [row for row in in_setting(results, "comparisons", setting) if row["baseline"] == baseline]
        assert names(ax.yaxis) == [row["candidate"] for row in rows[::-1]]
        for y, row in enumerate(rows[::-1]):
            interval, dot = ax.lines[2 * y : 2 * y + 2]
            assert points(interval) == near([[100 * row[end], y] for end in ("ci_low", "ci_high")])
            assert points(dot) == near([[100 * row["error_reduction"], y]])


def test_errors_along_rho_have_a_band_and_ticks():
    results = kept("full/rho")
    for ax, setting in zip(experiment_plots.radius(results).axes, settings(results), strict=True):
        rows = {row["optimizer"]: row for row in in_setting(results, "summary", setting)}
        rhos = [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1]
        own = [rows[f"rho = {rho:g}"] for rho in rhos]
        assert points(ax.lines[0]) == near(np.transpose([rhos, [100 * row["test_error"] for row in own]]))
        extent = ax.collections[0].get_paths()[0].get_extents().get_points()
        low, high = min(row["ci_low"] for row in own), max(row["ci_high"] for row in own)
        assert extent == near([[0, 100 * low], [1, 100 * high]])
        assert names(ax.xaxis) == [f"{rho:g}" for rho in rhos]
        (level,) = ax.lines[1:]
        assert set(level.get_ydata()) == {100 * rows["Momentum, 2× epochs"]["test_error"]}


def test_gains_by_size_have_a_panel_per_noise_and_a_line_per_baseline():
    results = kept("full/size")
    sizes = [250, 500, 1000, 2000, 4000]
    for ax, noise in zip(experiment_plots.sizes(results).axes, (0.0, 0.4), strict=True):
        assert ax.get_title() == Setting("mlp", noise, 1).labels
        assert names(ax.xaxis) == [f"{n:,}" for n in sizes]
        for container, baseline, shift in zip(
            ax.containers, ("Momentum, 2× epochs", "Momentum"), (0.97, 1.03), strict=True
        ):
            rows = [r for r in results["comparisons"] if (r["noise"], r["baseline"]) == (noise, baseline)]
            line, _, (bars,) = container.lines
            assert container.get_label() == f"than {baseline}"
            assert points(line) == near([[shift * r["n_train"], 100 * r["error_reduction"]] for r in rows])
            ends = [[[shift * r["n_train"], 100 * r[end]] for end in ("ci_low", "ci_high")] for r in rows]
            assert np.array(bars.get_segments()) == near(ends)


def test_gains_by_size_may_be_of_one_noise():
    results = kept("full/size")
    clean = {name: [row for row in results[name] if not row["noise"]] for name in ("summary", "comparisons")}
    (ax,) = experiment_plots.sizes(results | clean).axes
    assert ax.get_title() == "clean labels"


@pytest.mark.parametrize("synthetic", [True, False])
def test_pictures_of_synthetic_images_and_no_others_say_so(tmp_path, synthetic):
    figures = [Figure(), Figure()]
    plots.save(tmp_path / "a.png", figures[0], synthetic)
    plots.png(lambda figure: figure, figures[1], synthetic)
    assert [figure.get_suptitle() for figure in figures] == ["synthetic images, not CIFAR" * synthetic] * 2


def test_budgets_are_a_line_per_method_from_short_to_long():
    results = kept("full/budget")
    for ax, key in zip(experiment_plots.budgets(results).axes, ("train_error", "test_error"), strict=True):
        for line, name in zip(ax.lines, ("Momentum", SAM), strict=True):
            rows = [row for row in results["summary"] if row["optimizer"].startswith(f"{name}, ")]
            own = sorted([row["gradient_evaluations"], 100 * row[key]] for row in rows)
            assert line.get_label() == name
            assert points(line) == near(own)
        assert len(ax.collections) == (2 if key == "test_error" else 0)  # training errors have no interval
        for band, name in zip(ax.collections, ("Momentum", SAM), strict=False):
            rows = [row for row in results["summary"] if row["optimizer"].startswith(f"{name}, ")]
            extent = band.get_paths()[0].get_extents().get_points()
            assert extent[:, 1] == near([100 * f(r[e] for r in rows) for f, e in ((min, "ci_low"), (max, "ci_high"))])


def test_the_overview_has_both_gains_and_both_ratios_of_every_setting():
    results = kept("quick")
    gain, flatter = overview({"quick": results}).axes
    equally_tuned = [setting for setting in QUICK[::-1] if not setting.papers]
    assert names(gain.yaxis) == [setting.title for setting in equally_tuned]
    lines = {ax: iter(ax.lines) for ax in (gain, flatter)}
    for y, setting in enumerate(equally_tuned):
        for baseline, shift in (("Momentum, 2× epochs", 0.14), ("Momentum", -0.14)):
            (row,) = (
                row
                for row in in_setting(results, "comparisons", setting)
                if (row["baseline"], row["candidate"]) == (baseline, SAM)
            )
            percents = [100 * row[key] for key in ("error_reduction", "ci_low", "ci_high")]
            for ax, (estimate, *ends) in ((gain, percents), (flatter, row["lambda_max"])):
                assert points(next(lines[ax])) == near([[end, y + shift] for end in ends])
                assert points(next(lines[ax])) == near([[estimate, y + shift]])
    assert gain.get_legend_handles_labels()[1] == ["than Momentum, 2× epochs", "than Momentum"]


def test_a_gain_stands_in_the_panel_of_its_protocol_at_its_share_of_wrong_labels():
    results, cifar100 = kept("quick"), kept("full/cifar100")
    panels = protocols({"quick": results, "cifar100": cifar100}).axes  # of which CIFAR-100 is not shown
    assert [ax.get_title() for ax in panels] == list(TITLES.values())
    for ax, papers in zip(panels, (True, False), strict=True):
        mine = [setting for setting in QUICK if setting.papers == papers]
        assert len(ax.containers) == 2
        for (line, _, (bar,)), baseline, shift in zip(ax.containers, (MATCHED, "Momentum"), (-0.6, 0.6), strict=True):
            rows = [
                next(row for row in in_setting(results, "comparisons", setting) if pair(row) == (baseline, SAM))
                for setting in mine
            ]
            assert points(line) == near([[100 * r["noise"] + shift, 100 * r["error_reduction"]] for r in rows])
            for row, ends in zip(rows, bar.get_segments(), strict=True):
                assert ends[:, 1] == near([100 * row["ci_low"], 100 * row["ci_high"]])
    labels = [text.get_text() for text in panels[0].figure.legends[0].get_texts()]
    assert labels == ["MLP, than Momentum, 2× epochs", "MLP, than Momentum"]
    assert len(protocols({"cifar100": cifar100}).axes) == 1  # only what there is


def pair(row):
    return row["baseline"], row["candidate"]


MEASURED = {"eigenvalues": [9.0, 4.0, 1.0], "density": {"nodes": [0.0, 9.0], "weights": [0.9, 0.1]}, "rho": 0.05}
MEASURED |= {"worst": [0.1, 0.2], "one step": 0.1, "random": [1e-4, -1e-5]}


def test_spectra_show_every_number_of_every_model():
    other = MEASURED | {"eigenvalues": [8.0, 2.0, 1.0], "worst": [0.3, 0.4], "one step": 0.3, "random": [2e-4, 3e-4]}
    spread, ascent, chance = geometry_plots.spectra({"one": MEASURED, "two": other}).axes
    for i, (name, one) in enumerate({"one": MEASURED, "two": other}.items()):
        density, ticks = spread.lines[2 * i : 2 * i + 2]
        assert density.get_label() == name
        x, y = density.get_data()
        assert np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)) == pytest.approx(1, abs=1e-3)  # a density
        assert [x[0], x[-1]] == near([-9 / 30, 9 + 9 / 30])  # five widths beyond both ends
        assert ticks.get_xdata().tolist() == one["eigenvalues"]
        steps, ring = ascent.lines[2 * i : 2 * i + 2]
        assert points(steps) == [[1, one["worst"][0]], [2, one["worst"][1]]]
        assert points(ring) == [[1, one["one step"]]]
        dashes, ring, worst = chance.lines[3 * i : 3 * i + 3]
        assert points(dashes) == [[i, rise] for rise in one["random"]]
        assert (points(ring), points(worst)) == ([[i, one["one step"]]], [[i, one["worst"][-1]]])
    assert names(chance.xaxis) == ["one", "two"]
    assert "within rho = 0.05" in ascent.get_ylabel()


def test_diagnostics_have_gaps_where_nothing_climbed():
    climbed = {"gradient norm": 2.0, "cosine": 0.5, "predicted rise": 0.1, "measured rise": 0.2}
    climbed["share"] = {"1 Linear": 0.75, "3 Linear": 0.25}
    history = [{"epoch": 1, "diagnostics": climbed}, {"epoch": 2, "diagnostics": {"gradient norm": 1.0}}]
    slope, rises, shares = geometry_plots.diagnostics(history).axes
    nan = np.nan
    expected = {slope: {"gradient norm": [2, 1], "cosine": [0.5, nan]}}
    expected[rises] = {"predicted rise": [0.1, nan], "measured rise": [0.2, nan]}
    for ax, curves in expected.items():
        shown = {line.get_label(): line for line in ax.lines[:-1]}
        assert list(shown) == list(curves)
        for name, values in curves.items():
            assert shown[name].get_xydata() == near(np.transpose([[1, 2], values]))
    for area, name, low, high in zip(shares.collections, climbed["share"], (0, 0.75), (0.75, 1), strict=True):
        assert area.get_label() == name
        at_one = [y for x, y in area.get_paths()[0].vertices if x == 1]
        assert (min(at_one), max(at_one)) == (low, high)


def test_a_line_and_a_landscape_show_their_losses_where_they_are():
    t, curves = np.array([-1.0, 0.0, 2.0]), {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([4.0, 3.0, 2.0])}
    (ax,) = geometry_plots.line(t, curves, {0.0: "θ", 2.0: "end"}, "random").axes
    for line, (name, losses) in zip(ax.lines[:2], curves.items(), strict=True):
        assert (line.get_label(), points(line)) == (name, np.transpose([t, losses]).tolist())
    assert [line.get_xdata()[0] for line in ax.lines[2:]] == [0, 2]
    assert [(text.get_text(), text.xy[0]) for text in ax.texts] == [("θ", 0), ("end", 2)]
    assert ax.get_xlabel() == "filter-normalised direction"
    path = np.array([[1.0, 0.5], [0.5, 0.25], [0.0, 0.0]])
    found = {"a": t, "b": t, "losses": np.arange(1.0, 10).reshape(3, 3), "path": path, "share": np.array([0.75, 0.25])}
    ax, _ = geometry_plots.landscape(found, "path", "a model").axes
    cross, trail = ax.lines
    assert (points(cross), points(trail)) == ([[0, 0]], path.tolist())
    assert ax.get_xlabel() == "principal direction 1 (75% of the squared distances)"
    assert ax.get_ylabel() == "principal direction 2 (25% of the squared distances)"
    assert ax.get_title() == "a model"


def test_toys_are_the_paths_of_their_racers(monkeypatch):
    monkeypatch.setattr(toy_plots, "_surface", lambda *_: None)  # slow, and looked at elsewhere
    monkeypatch.setattr(toy_plots, "STEPS", 6)
    races = toy_plots.races(0.003, 0.7)
    assert races[-1].racers == {"GD": optim.GD(0.003), "SAM": optim.SAM(optim.GD(0.003), 0.7)}
    assert races[-1].title == "A sharp and a flat minimum (lr 0.003, rho 0.7)"
    *axes, inside = toy_plots.toys(races).axes
    for ax, race in zip(axes, races, strict=True):
        assert ax.get_title() == race.title
        lines = iter(ax.lines)
        for name, optimizer in race.racers.items():
            path = toy.run(deepcopy(optimizer), race.surface, race.start, 6).thetas
            trail, end = next(lines), next(lines)
            assert (trail.get_label(), points(trail), points(end)) == (name, path.tolist(), path[-1:].tolist())
    path = toy.run(optim.SAM(optim.GD(0.2), 0.6), toy.Bowl([1.0, 4.0]), (-2.2, 1.0), 5)
    assert [line.get_xydata()[0].tolist() for line in inside.lines] == path.thetas[:5].tolist()
    ends = [(text.xy, text.xyann) for text in inside.texts if text.arrow_patch]
    steps = zip(path.thetas, path.worst, path.thetas[1:], strict=False)
    expected = [(tuple(end), tuple(here)) for here, *both in steps for end in both]
    assert [tuple(map(tuple, arrow)) for arrow in ends] == expected


def test_a_surface_is_drawn_where_its_losses_are(monkeypatch):
    given = []
    monkeypatch.setattr(toy_plots, "contours", lambda ax, *arrays: given.extend(arrays))
    for race in toy_plots.races(0.004, 0.8):
        ax, (left, right, low, high) = Figure().subplots(), race.extent
        toy_plots._surface(ax, race.surface, race.extent)
        assert (*ax.get_xlim(), *ax.get_ylim()) == race.extent
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("θ₁", "θ₂")
        a, b, losses = given[-3:]
        assert (a[0], a[-1], b[0], b[-1]) == race.extent
        assert losses.shape == (len(b), len(a)) == (161, 161)
        assert losses[20, 90] == race.surface.value(np.array([a[90], b[20]]))
        assert losses.min() == 0.01  # so that the bottom is no hole in a logarithmic scale
        assert left < race.start[0] < right
        assert low < race.start[1] < high


def test_the_races_show_what_their_titles_promise():
    ends = [
        [toy.run(one, race.surface, race.start, toy_plots.STEPS).thetas[-1] for one in race.racers.values()]
        for race in toy_plots.races(0.004, 0.8)
    ]
    for (slow, fast), goal in zip(ends, ((0, 0), (1, 1)), strict=False):
        assert np.linalg.norm(fast - goal) < min(0.1, np.linalg.norm(slow - goal) / 5)
    assert ends[-1][0] == pytest.approx((-1, 0), abs=0.01)  # the sharp minimum
    assert ends[-1][1] == pytest.approx((1, 0), abs=0.5)  # the flat one


def test_a_race_has_a_frame_for_each_step_of_its_first_half(monkeypatch):
    monkeypatch.setattr(toy_plots, "_surface", lambda ax, _, extent: ax.set(xlim=extent[:2], ylim=extent[2:]))
    monkeypatch.setattr(toy_plots, "STEPS", 6)
    with Image.open(BytesIO(toy_plots.animation(toy_plots.races(0.01, 0.5)[0]))) as film:
        assert film.n_frames == 3


@pytest.fixture(scope="module")
def drawn():
    """Each kind of picture with its axes' scales, labels and legends, and the legend of the whole."""
    error, sharp, gradients = "test error, %", "λ1 of the training loss", "gradient evaluations (minibatches)"
    fewer, sam = "fewer errors with SAM, %", "SAM(Momentum)"
    than = [f"than {name}" for name in ("Momentum, 2× epochs", "Momentum")]
    climb = dict.fromkeys(("gradient norm", "cosine", "predicted rise", "measured rise"), 0.5)
    history = [{"epoch": n, "diagnostics": climb | {"share": {"a": 0.75, "b": 0.25}}} for n in (1, 2)]
    t = np.array([-1.0, 0.0, 2.0])
    found = {"a": t, "b": t, "losses": np.arange(1.0, 10).reshape(3, 3)}
    loss, along = "loss, nats", "distance along eigenvector"
    curves = [("", "training " + loss), ("", error)] * 2 + [(gradients, "training " + loss), (gradients, error)]
    methods = [*BASELINES, SAM]
    rise = "rise within rho = 0.05, nats"
    eigenvalue = "eigenvalue of the Hessian (ticks: the leading ones)"
    gains = "fewer errors than SAM, p = 2, %\n(right is better)"
    lin, log, symlog = ("linear", "linear"), ("log", "linear"), ("symlog", "linear")
    return {
        "errors": (method_plots.errors(kept("quick")), [(*lin, f"{error} (left is better)", "", [])] * 3, []),
        "curves": (method_plots.curves(kept("quick")), [(*lin, *labels, []) for labels in curves], methods),
        "sharpness": (method_plots.sharpness(kept("quick")), [(*log, f"{sharp} (left is flatter)", "", [])] * 3, []),
        "flatness": (method_plots.flatness(kept("quick")), [(*log, sharp, error, [])] * 3, methods),
        "gains": (experiment_plots.gains(kept("full/ingredients")), [(*lin, gains, "", [])] * 2, []),
        "radius": (
            experiment_plots.radius(kept("full/rho")), [(*symlog, "rho", error, [sam, "Momentum, 2× epochs"])] * 2, []
        ),
        "sizes": (experiment_plots.sizes(kept("full/size")), [(*log, "training images", fewer, than)] * 2, []),
        "budgets": (
            experiment_plots.budgets(kept("full/budget")),
            [(*log, gradients, "train error, %", []), (*log, gradients, error, ["Momentum", sam])],
            [],
        ),
        "overview": (
            overview({"quick": kept("quick")}),
            [(*lin, f"{fewer} (right is better)", "", []), (*log, "λ1, times lower with SAM", "", [])],
            than,
        ),
        "spectra": (
            geometry_plots.spectra({"one": MEASURED, "two": MEASURED}),
            [
                ("linear", "log", eigenvalue, "density", ["one", "two"]),
                (*lin, "steps of ascent (ring: SAM's own step)", f"worst {rise}", ["one", "two"]),
                ("linear", "symlog", "random (dashes), SAM's step (ring), worst (▲)", rise, []),
            ],
            [],
        ),
        "diagnostics": (
            geometry_plots.diagnostics(history),
            [
                (*lin, "epoch", "gradient at θ", ["gradient norm", "cosine"]),
                (*lin, "epoch", loss, ["predicted rise", "measured rise"]),
                (*lin, "epoch", "share of ‖ε̂‖² by layer", ["b", "a"]),  # as they lie
            ],
            [],
        ),
        "line": (
            geometry_plots.line(t, {"a": t, "b": t}, {}), [(*lin, "t in (1 - t) θ₀ + t θ₁", loss, ["a", "b"])], []
        ),
        "landscape": (
            geometry_plots.landscape(found, "eigenvectors", "a model"),
            [(*lin, f"{along} 1", f"{along} 2", []), ("linear", "log", "", f"{loss} (logarithmic)", [])],
            [],
        ),
    }  # fmt: skip


def test_every_axis_has_its_scale_its_name_and_its_legend(drawn):
    def words(legend):
        return [text.get_text() for text in legend.get_texts()] if legend else []

    for name, (figure, axes, legend) in drawn.items():
        found = [
            (ax.get_xscale(), ax.get_yscale(), ax.get_xlabel(), ax.get_ylabel(), words(ax.get_legend()))
            for ax in figure.axes
        ]
        assert (name, found) == (name, axes)
        assert [words(one) for one in figure.legends] == [legend] * bool(legend)
        assert not any(one.get_frame_on() for one in figure.legends)


def test_a_dollar_in_a_name_is_no_formula(tmp_path):
    figure = Figure()
    figure.suptitle(r"a_$\frac{$.npz")
    plots.save(tmp_path / "a.png", figure)
    assert (tmp_path / "a.png").stat().st_size > 0
    assert not any(text.get_parse_math() for text in figure.findobj(Text))


def test_ticks_stand_at_what_was_run(drawn):
    pictures = {name: figure for name, (figure, *_) in drawn.items()}
    for name in ("radius", "sizes", "budgets"):
        assert not any(ax.xaxis.get_minorticklocs().size for ax in pictures[name].axes)
    gradients = sorted({round(row["gradient_evaluations"]) for row in kept("full/budget")["summary"]})
    assert [names(ax.xaxis) for ax in pictures["budgets"].axes] == [[f"{n:,}" for n in gradients]] * 2
    for ax in pictures["diagnostics"].axes:
        assert all(tick.isdigit() for tick in names(ax.xaxis))  # there is no epoch 1.5
    for name in ("sharpness", "flatness", "overview"):
        axis = pictures[name].axes[-1].xaxis
        numbers = axis.get_minor_formatter().format_ticks([2.0, 30.0])
        assert (names(axis)[-1], numbers) in [("10", ["2", "30"]), ("100", ["2", "30"])]  # not 2 × 10⁰


def test_everything_lies_within_its_picture(drawn):
    pictures = {name: figure.axes for name, (figure, *_) in drawn.items()}
    for ax in pictures["errors"]:
        assert ax.get_ylim()[0] < -0.42  # the numbers below the dots
        assert len(names(ax.yaxis)) - 1 + 0.2 < ax.get_ylim()[1]
    assert [ax.get_ylim() for ax in pictures["overview"]] == [(-0.5, 1.5)] * 2
    assert [ax.get_xlim()[0] for ax in pictures["radius"]] == [0, 0]
    spread, ascent, chance = pictures["spectra"]
    assert spread.get_ylim()[0] == 1e-7 < max(spread.lines[0].get_ydata()) < spread.get_ylim()[1]
    assert ascent.get_ylim()[0] == 0
    assert chance.get_xlim()[0] < 0 < 1 < chance.get_xlim()[1]
    assert pictures["diagnostics"][-1].get_ylim() == (0, 1)


def test_a_frame_shows_the_paths_so_far_and_what_sam_climbs_to(monkeypatch):
    class Film:
        def __init__(self, figure, draw, frames):
            self.frames = frames
            for i in frames:
                draw(i)
                seen.append([points(line) for line in figure.axes[0].lines])

        def save(self, file, writer):
            Path(file).write_bytes(bytes(self.frames))

    seen, race = [], toy_plots.races(0.01, 0.5)[-1]
    monkeypatch.setattr(toy_plots, "_surface", lambda *_: None)
    monkeypatch.setattr(toy_plots, "STEPS", 6)
    monkeypatch.setattr(toy_plots, "FuncAnimation", Film)
    assert toy_plots.animation(race) == bytes([0, 1, 2])
    slow, sam = (toy.run(deepcopy(one), race.surface, race.start, 6) for one in race.racers.values())
    for i, shown in zip((0, 1, 2), seen, strict=True):
        expected = [part for path in (slow, sam) for part in (path.thetas[: i + 1], path.thetas[i : i + 1])]
        assert shown == [part.tolist() for part in (*expected, np.array([sam.thetas[i], sam.worst[i]]))]
