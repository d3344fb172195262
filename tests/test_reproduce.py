"""The comparison: the same runs whoever computes them, honest pairing, a complete report."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minisam.data import synthetic
from minisam.study.comparison import compare, summarise
from minisam.study.experiment_plots import PICTURES
from minisam.study.experiments import PRESETS, smoke
from minisam.study.kinds import Arm
from minisam.study.recipes import BASELINES, MAIN, METHODS, PAPERS, SAM, SAM_AND_MOMENTA
from minisam.study.report import WARNING, html_report, text_table, write_report

ROOT = Path(__file__).parents[1]
TINY = smoke(n_train=64, epochs=2, seeds=2, n_test=40)


def test_results_hold_what_their_readers_need(two_seeds):
    results, predictions = two_seeds
    assert results["dataset"] == {
        "name": "synthetic",
        "source": "embedded",
        "synthetic": True,
        "n_train": 64,
        "n_test": 40,
        "checksum": synthetic(64, 40).checksum,
    }
    assert {"dataset", "environment", "config", "runs", "comparisons"} <= set(results)
    assert len(results["runs"]) == 7 * 2 * 2
    for run, row in zip(results["runs"], predictions, strict=True):
        assert {"model", "optimizer", "noise", "seed", "test_error", "train_error"} <= set(run)
        assert {"gradient_evaluations", "seconds"} <= set(run)
        wrong = row != synthetic(64, 40).y_test
        assert run["test_error"] == pytest.approx(wrong.mean())
    assert {run["optimizer"] for run in results["runs"]} == set(MAIN)
    json.dumps(results)


def test_comparisons_are_paired(two_seeds):
    results, _ = two_seeds
    rows = results["comparisons"]
    assert len(rows) == 3 * 4 * 2  # candidates, baselines, noise levels
    for row in rows:
        assert set(row) == {
            "model", "noise", "n_train", "baseline", "candidate", "error_reduction", "ci_low", "ci_high",
            "lambda_max", "lambda_ratio", "trace", "worst_rise",
        }  # fmt: skip
        errors = {
            name: np.mean(
                [
                    run["test_error"]
                    for run in results["runs"]
                    if (run["optimizer"], run["noise"]) == (name, row["noise"])
                ]
            )
            for name in (row["baseline"], row["candidate"])
        }
        ratio = errors[row["candidate"]] / errors[row["baseline"]]
        assert row["error_reduction"] == pytest.approx(1 - ratio)


def test_runs_of_one_seed_begin_alike():
    """Initial weights, batches and redrawn labels follow from seed, model and noise."""
    by_method = {}
    for run in TINY.runs():
        by_method.setdefault(run.label, []).append((run.config.seed, run.config.batch_size, run.setting))
    assert set(by_method) == set(MAIN)
    assert len({tuple(keys) for keys in by_method.values()}) == 1
    assert len({run.config.seed for run in TINY.runs()}) == 2


def test_summary_and_comparisons_pair_by_seed():
    """Three seeds with very different errors, and a candidate that is always a tenth better."""
    rng = np.random.default_rng(0)
    records, wrong = [], []
    for optimizer in ("Momentum", "SAM(Momentum)"):
        for seed, rate in enumerate((0.3, 0.5, 0.7)):
            record = {"model": "mlp", "noise": 0.0, "n_train": 9, "optimizer": optimizer, "seed": seed}
            record |= {"train_error": 0.0, "gradient_evaluations": 1}
            scale = 1.0 if optimizer == "Momentum" else 0.25
            record["geometry"] = {"eigenvalues": [scale * (8.0 + seed), 0, 0, 0, 2.0], "worst": [0.1, 0.2 + seed]}
            record["geometry"]["trace"] = -1.0
            records.append(record)
            if optimizer == "Momentum":
                wrong.append(rng.random(4000) < rate)
            else:
                wrong.append(wrong[seed] & (rng.random(4000) < 0.9))
    table = np.array(wrong)
    (row,) = compare(records, table, [("Momentum", "SAM(Momentum)"), ("GD", "SAM(Momentum)")])  # GD did not run
    assert row["error_reduction"] == pytest.approx(0.1, abs=0.02)
    assert 0.05 < row["ci_low"] < row["ci_high"] < 0.15
    assert row["lambda_max"] == pytest.approx([4.0, 4.0, 4.0])  # times smaller, at every seed
    assert row["worst_rise"] == pytest.approx([1.0, 1.0, 1.0])
    assert row["trace"] is None  # negative numbers have no ratio
    momentum, _ = summarise(records, table)
    assert momentum["lambda_max"] == [9.0, 8.0, 10.0]  # mean, lowest, highest
    assert momentum["lambda_ratio"] == [4.5, 4.0, 5.0]
    assert momentum["worst_rise"] == pytest.approx([1.2, 0.2, 2.2])
    assert momentum["ci_high"] - momentum["ci_low"] > 0.3  # unpaired seeds could not tell them apart


@pytest.mark.parametrize("old", [(1.0, 2.0), (1.0, -2.0), (1.0, 0.0)])
@pytest.mark.parametrize("now", [(1.0, 0.5), (-1.0, 0.5), (0.0, 0.5)])
def test_only_numbers_above_zero_have_a_ratio(old, now):
    where = {"model": "mlp", "noise": 0.0, "n_train": 9}
    records = [
        where | {"optimizer": name, "geometry": {"eigenvalues": [1.0] * 5, "worst": [1.0], "trace": trace}}
        for name, traces in {"old": old, "new": now}.items()
        for trace in traces
    ]
    (row,) = compare(records, np.ones((4, 3), bool), [("old", "new")])
    positive = min(old) > 0 and min(now) > 0
    assert row["trace"] == (pytest.approx([2.0, row["trace"][1], row["trace"][2]]) if positive else None)


def test_the_terminal_table_has_every_row_and_warns_of_synthetic_images(two_seeds):
    table = text_table(two_seeds[0])
    for name in MAIN:
        assert len(re.findall(rf"^  {re.escape(name)} ", table, re.MULTILINE)) == 4  # errors and sharpness, twice
    assert table.count(WARNING) == 2
    real = json.loads(json.dumps(two_seeds[0]))
    real["dataset"]["synthetic"] = False
    assert "SYNTHETIC" not in text_table(real)


def test_the_report_is_whole_and_self_contained(tmp_path, two_seeds):
    report = write_report(tmp_path / "new" / "folder", *two_seeds, synthetic(64, 40).y_test)
    names = {file.name for file in report.parent.iterdir()}
    assert names == {
        "results.json", "predictions.npz", "report.html",
        "errors.png", "curves.png", "sharpness.png", "flatness.png",
    }  # fmt: skip
    page = report.read_text(encoding="utf-8")
    without = html_report(two_seeds[0], dict.fromkeys(PICTURES["methods"], b""))
    assert page.startswith(without.split("<figure>")[0])
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "SYNTHETIC" in page
    for text in (two_seeds[0]["dataset"]["checksum"], two_seeds[0]["environment"]["numpy"], "mlp"):
        assert text.lower() in page.lower()
    stored = (report.parent / "results.json").read_text(encoding="utf-8")
    assert stored == json.dumps(two_seeds[0], indent=1, ensure_ascii=False)  # a line for each number: for people, too
    with np.load(report.parent / "predictions.npz") as arrays:
        assert np.array_equal(arrays["predictions"], two_seeds[1])
        assert np.array_equal(arrays["y_test"], synthetic(64, 40).y_test)


def test_one_seed_is_shown_without_an_interval(tmp_path, one_seed):
    results, predictions = one_seed
    assert text_table(results).count("40 test images, 1 seed.") == 1
    assert all(row["ci_low"] is None for row in results["comparisons"] + results["summary"])
    assert "±" not in text_table(results).split("Errors in per cent")[0]
    write_report(tmp_path, results, predictions, synthetic(64, 40).y_test)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_what_they_promise(name):
    experiment = PRESETS[name]()
    assert experiment.kind in PICTURES
    if few := {"smoke": 2, "quick": 3}.get(name):  # as few as give an interval, and one more
        assert experiment.seeds == few
    else:
        assert experiment.seeds >= 5
    assert (experiment.n_test is None) == (name != "smoke")  # all test images
    labels = {arm.label for arm in experiment.arms}
    assert set(sum(experiment.pairs, ())) == labels
    if experiment.kind == "methods":
        few = {"quick": (*BASELINES, SAM), "papers-mlp": PAPERS, "papers-cnn-bn": SAM_AND_MOMENTA}
        assert labels == set(few.get(name, MAIN))
    for arm in experiment.arms:  # methods are compared at equal data and batch sizes
        others = [other for other in experiment.arms if other.setting == arm.setting]
        assert len({other.config.batch_size for other in others}) == 1
        assert {other.label for other in others} == (set(SAM_AND_MOMENTA) if name == "quick" and arm.papers else labels)
        if arm.label in METHODS and METHODS[arm.label].passes == 2:
            assert arm.config.epochs == 2 * min(other.config.epochs for other in others)


@pytest.mark.parametrize(
    ("name", "noises", "augmented"),
    [("papers-mlp", {0.0, 0.2, 0.4, 0.6, 0.8}, False), ("papers-cnn-bn", {0.0, 0.4, 0.8}, True)],
)
def test_in_the_papers_protocol_methods_differ_in_nothing_that_was_chosen_but_rho(name, noises, augmented):
    experiment = PRESETS[name]()
    assert {arm.config.noise for arm in experiment.arms} == noises
    assert {arm.config.augment for arm in experiment.arms} == {augmented}
    for stepper in {arm.config.stepper for arm in experiment.arms}:
        configs = [arm.config for arm in experiment.arms if arm.config.stepper == stepper]
        assert {config.weight_decay for config in configs} == {5e-4}
        assert {config.schedule for config in configs} == {"cosine"}
        assert {config.warmup for config in configs} == {0}
        assert len({config.lr for config in configs}) == 1


def test_networks_of_two_widths_are_two_settings():
    config = PRESETS["quick"]().arms[0].config
    narrow, wide = (Arm("GD", 9, replace(config, width=width), papers=True).setting for width in (1, 2))
    assert (narrow.papers, wide.papers) == (True, True)
    assert narrow == wide._replace(width=1) != wide


def test_the_smoke_preset_is_the_main_comparison_made_small():
    smoke, main = PRESETS["smoke"](), PRESETS["optimizers-mlp"]()
    assert (smoke.kind, smoke.pairs, smoke.n_test, smoke.evaluate_every) == (main.kind, main.pairs, 2000, 1)
    both = [arm for arm in main.arms if arm.config.noise in (0.0, 0.4)]
    for small, whole in zip(smoke.arms, both, strict=True):
        epochs = 8 if small.label == "Momentum, 2× epochs" else 4
        assert small == whole._replace(n_train=1000, config=replace(whole.config, epochs=epochs, warmup=1))


def test_every_baseline_is_matched_in_gradients_by_one_of_them():
    assert METHODS["Momentum, 2× epochs"].passes == 2
    assert {METHODS[label].passes for label in MAIN if label not in BASELINES} == {1}
