"""A results.json is refused at once unless its runs can be repeated, compared and shown."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest

from minisam.cli import main
from minisam.study import tasks
from minisam.study.comparison import Repeat, compare
from minisam.study.experiment_plots import PICTURES
from minisam.study.experiments import PRESETS, Experiment
from minisam.study.kinds import NEEDS, require_name
from minisam.training.files import Damaged

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
KEPT = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.rglob("results.json")}
EFFORT = dict(tasks.EFFORT)  # of a study; other tests make less


def renamed(old, new):
    """A method with another label, wherever it is mentioned."""

    def rename(results):
        for run in results["runs"]:
            run["optimizer"] = new if run["optimizer"] == old else run["optimizer"]
        pairs = results["config"]["pairs"]
        results["config"]["pairs"] = [[new if label == old else label for label in pair] for pair in pairs]

    return rename


def asked(**changes):
    return lambda results: results["config"].update(changes)


def first_run(**changes):
    return lambda results: results["runs"][0].update(changes)


def geometry(change):
    return lambda results: change(results["runs"][3]["geometry"])


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("quick", asked(preset="../../x"), r"preset must be letters, digits, .*, got '\.\./\.\./x'"),
        ("quick", asked(preset="/etc"), "preset must be letters"),
        ("quick", asked(preset="..\\x"), "preset must be letters"),
        ("quick", asked(preset=None), "preset must be 1 to 100 printable letters, got None"),
        ("quick", asked(preset="a\x1b[31m"), r"preset must be .*, got 'a\\x1b\[31m'"),
        ("quick", asked(preset="x" * 101), "preset must be 1 to 100 printable letters, got 'xxx"),
        ("quick", lambda results: results["config"].pop("preset"), "no 'preset'"),
        ("quick", renamed("Adam", "Ad\x1b[2Jam"), r"label must be 1 to 100 printable letters, got 'Ad\\x1b\[2Jam'"),
        ("ingredients", renamed("p = 1", "p\n= 1"), r"label must be .*, got 'p\\n= 1'"),
        ("ingredients", renamed("p = 1", "x" * 5000), "label must be 1 to 100 printable letters, got 'xxx"),
        ("ingredients", renamed("p = 1", ""), "label must be 1 to 100 printable letters, got ''"),
        ("ingredients", renamed("p = 1", "\u202eevil"), "label must be"),  # right to left
        ("ingredients", renamed("p = 1", ["p"]), r"label must be .*, got \['p'\]"),
        ("quick", lambda results: results["dataset"].update(name="\x1b]0;x\x07"), "name must be .* printable"),
        ("quick", lambda results: results["dataset"].update(checksum="\x1b[31m"), "checksum must be .* printable"),
        ("quick", asked(kind="fun"), "unknown kind 'fun', expected one of methods, rho"),
        ("quick", asked(kind=["methods"]), r"unknown kind \['methods'\]"),
        ("quick", asked(kind="rho"), "kind rho needs candidates that differ in rho and in nothing else"),
        ("quick", asked(kind="size"), "kind size needs one candidate, compared with two baselines"),
        ("quick", asked(kind="budget"), "kind budget needs methods called “Momentum, … epochs” and “SAM"),
        ("rho", asked(kind="methods"), "kind methods needs no methods but GD, Momentum, .*, ASAM"),
        ("quick", renamed("Adam", "Eve"), "kind methods needs no methods but GD"),
        ("quick", first_run(optimizer="Eve"), "expected each seed once"),
        ("quick", lambda results: results["runs"].pop(), "expected each seed once, the same .* got .* for SAM"),
        ("quick", lambda results: results["runs"].append(results["runs"][-1]), "expected each seed once"),
        ("quick", lambda results: results["runs"][1]["config"].update(epochs=9), "runs of GD that differ in nothing"),
        ("quick", asked(pairs=[["GD", "Eve"]]), "pairs compare 'Eve', of which there are no runs"),
        ("quick", asked(pairs=[["GD", "Adam"]] * 6000), "each pair of methods once, got 1 different ones in 6000"),
        ("quick", asked(pairs=[]), "expected pairs of methods to compare, got none"),
        ("quick", lambda results: results["runs"][0]["config"].update(batch_size=5000), "batch_size must be 1 to 4000"),
        ("quick", asked(evaluate_every=-1), "evaluate_every must be an integer ≥ 0, got -1"),
        ("quick", lambda results: results["dataset"].update(n_test=0), "n_test must be an integer ≥ 1, got 0"),
        ("quick", lambda results: results.pop("environment"), "no 'environment'"),
        ("quick", lambda results: results.update(environment=["numpy"]), "environment must be a record, got list"),
        ("quick", first_run(geometry=[1, 2]), "each geometry must have five eigenvalues"),
        ("quick", first_run(geometry=None), "each geometry must have"),
        ("quick", geometry(lambda found: found.pop("trace")), "each geometry must have"),
        ("quick", geometry(lambda found: found["eigenvalues"].pop()), "each geometry must have"),
        ("quick", geometry(lambda found: found["worst"].clear()), "each geometry must have"),
        ("quick", geometry(lambda found: found["eigenvalues"].__setitem__(4, 0.0)), "each geometry must have"),
        ("quick", first_run(test_error=2.0), r"test_error must be in \[0, 1\], got 2.0"),
        ("quick", lambda results: results["runs"][0]["history"][0].update(loss=[1.0]), "loss of epoch 1 must be"),
        ("quick", lambda results: results["runs"][0]["history"].pop(), "a history of 14 epochs of 15"),
        ("quick", first_run(history={"epoch": 1}), r"damaged \(string indices must be"),
        ("quick", geometry(lambda found: found.update({"x\n\nAll runs gave the same": 1})), "can't be printed"),
        ("quick", lambda results: results.update(runs=results["runs"] * 257), "10,023 runs, more than 10,000"),
    ],
)  # fmt: skip
def test_what_would_be_missed_after_the_runs_is_refused_before_them(tmp_path, part, change, message):
    results = copy.deepcopy(KEPT[part])
    change(results)
    path = tmp_path / "evil.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(Damaged, match=rf"^{re.escape(str(path))} is not a results.json.*{message}") as caught:
        Repeat.of(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("part", KEPT)
def test_a_preset_is_still_what_its_kept_results_were_made_with(part):
    """Methods, recipes, seeds and comparisons: the study is that of this version, not of an earlier one."""
    preset, before = PRESETS[part](), Experiment.of(KEPT[part])
    assert preset.runs() == list(before.arms)
    assert (preset.kind, preset.pairs, preset.n_test or 10_000) == (before.kind, before.pairs, before.n_test)
    assert preset.evaluate_every == before.evaluate_every
    assert preset.dataset in (None, before.dataset)


def test_sharpness_is_still_measured_with_the_effort_of_the_kept_results():
    """How many samples and starts there were is not among the numbers."""
    found = [run["geometry"] for results in KEPT.values() for run in results["runs"]]
    given = {(len(one["worst"]), len(one["random"]), len(one.get("density", ()))) for one in found}
    assert given == {(EFFORT["steps"], EFFORT["directions"], EFFORT["slices"])}
    worst = max(np.max(np.divide(one["residuals"], np.abs(one["eigenvalues"]))) for one in found)
    assert worst == pytest.approx(EFFORT["tolerance"], rel=0.01)
    assert (EFFORT["samples"], EFFORT["starts"]) == (5, 1)


@pytest.mark.parametrize("kind", NEEDS)
@pytest.mark.parametrize("part", KEPT)
def test_what_has_another_kind_is_refused_or_can_be_drawn(part, kind):
    results = KEPT[part] | {"config": KEPT[part]["config"] | {"kind": kind}}
    if kind != KEPT[part]["config"]["kind"]:
        try:
            Experiment.of(results)
        except ValueError:
            return
    for draw in PICTURES[kind].values():
        assert draw(results).axes


@pytest.mark.parametrize("side", [0, 1], ids=["baseline", "candidate"])
@pytest.mark.parametrize("part", ["quick", "rho", "ingredients", "size", "budget"])
def test_what_has_another_label_is_refused_or_can_be_drawn(part, side):
    results = copy.deepcopy(KEPT[part])
    kind, old = results["config"]["kind"], results["config"]["pairs"][0][side]
    renamed(old, "Eve")(results)
    for row in results["summary"] + results["comparisons"]:
        row |= {key: "Eve" for key in ("optimizer", "baseline", "candidate") if row.get(key) == old}
    try:
        Experiment.of(results)
    except ValueError:
        assert kind in ("methods", "budget")
        return
    for draw in PICTURES[kind].values():
        assert draw(results).axes


def test_the_folder_of_a_repetition_is_named_by_its_preset_and_in_its_place(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minisam.cli.reproduce.reproduce", lambda *_, **how: pytest.fail(f"to be kept in {how}"))
    results = KEPT["quick"] | {"config": KEPT["quick"]["config"] | {"preset": "../../x"}}
    Path("evil.json").write_text(json.dumps(results), encoding="utf-8")
    assert main(["reproduce", "--from", "evil.json"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.parent.rglob("*x-again*")] == []
    assert [path.name for path in tmp_path.iterdir()] == ["evil.json"]
    assert Repeat.of(RESULTS / "quick" / "results.json").name == "quick-again"


@pytest.mark.parametrize("name", ["x", "x" * 100])
def test_names_have_1_to_100_letters(name):
    require_name("label", name)


def test_of_many_differences_the_first_two_are_named():
    repeat = Repeat(KEPT["quick"], Experiment.of(KEPT["quick"]), "quick-again")
    assert repeat.differences(KEPT["quick"]) == []
    for keys, end in ((2, ""), (3, "; and 1 more"), (4, "; and 2 more")):
        after = copy.deepcopy(KEPT["quick"])
        for key in ("weights", "test_error", "train_error", "gradient_evaluations")[:keys]:
            after["runs"][2][key] = 9
        (line,) = repeat.differences(after)
        weights, error = (KEPT["quick"]["runs"][2][key] for key in ("weights", "test_error"))
        assert line == f"mlp, noise 0, GD, seed 2: weights was {weights}, is 9; test_error was {error}, is 9{end}"


def test_numbers_that_a_repetition_lacks_are_different():
    repeat = Repeat(KEPT["quick"], Experiment.of(KEPT["quick"]), "again")
    after = copy.deepcopy(KEPT["quick"])
    assert not repeat.differences(after)
    del after["runs"][1]["geometry"]["trace"]
    for epoch in after["runs"][2]["history"]:
        epoch.pop("test_error", None)
    first, second = repeat.differences(after)
    assert "geometry's trace was " in first
    assert ", is None" in first
    assert "test_error of epoch" in second


def test_a_baseline_without_errors_has_nothing_to_reduce():
    records = [run for run in KEPT["quick"]["runs"] if run["seed"] == 0 and run["noise"] == 0]
    wrong = np.array([[run["optimizer"] != "GD", True] for run in records])
    wrong[0] = False
    pairs = [("GD", "SAM(Momentum)"), ("Momentum", "SAM(Momentum)")]
    assert [row["baseline"] for row in compare(records, wrong, pairs)] == ["Momentum"]
