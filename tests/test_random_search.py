"""Random search: one box for all methods, nothing chosen by a test image, and the best of n as defined."""

import importlib
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisam.data import synthetic
from minisam.study.recipes import MATCHED, SAM, Problem

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def search():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("random_search")


@pytest.fixture(scope="module")
def best(search):
    return importlib.import_module("best_of_n")


@given(trials=st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.floats(0, 1)), min_size=1, max_size=6))
def test_the_best_of_n_is_the_mean_over_all_choices_of_n(best, trials):
    validation, test = np.array(trials).T
    expected = []
    for n in range(1, len(trials) + 1):
        chosen = map(list, itertools.combinations(range(len(trials)), n))
        expected.append(np.mean([test[k][validation[k] == validation[k].min()].mean() for k in chosen]))
    np.testing.assert_allclose(best.best_of(validation, test), expected, atol=1e-12)


def test_all_methods_try_the_same_points_of_one_box(search):
    first, other = search.drawn("Momentum", 7), search.drawn("Momentum", 8)
    assert first == search.drawn("Momentum", 7) != other
    for method, box in search.BOX.items():
        mine = search.drawn(method, 7)
        assert [method] * search.TRIALS == [label for label, _ in mine]
        for (_, numbers), (_, shared) in zip(mine, first, strict=True):
            assert shared.items() <= numbers.items()
            assert all(low <= numbers[name] <= high for name, (low, high) in box.items())
    places = [np.log10(numbers["lr"]) for seed in range(50) for _, numbers in search.drawn("Adam", seed)]
    assert np.mean(places) == pytest.approx(-2.5, abs=0.1)  # the middle of 10⁻⁴ … 10⁻¹, on a logarithmic scale
    assert np.std(places) == pytest.approx(3 / np.sqrt(12), abs=0.05)
    rho, adaptive = ([numbers["rho"] for _, numbers in search.drawn(method, 7)] for method in (SAM, "ASAM(Momentum)"))
    assert adaptive == pytest.approx([10 * radius for radius in rho], rel=1e-3)


@pytest.fixture
def trained(search, monkeypatch):
    """What was trained, as (label of the optimizer, lr, rho); a rate of 0.01 is best on validation, 0.03 on test."""

    def run_all(configs, dataset, **how):
        calls.append((configs, dataset))
        outcomes = []
        for config in configs:
            predictions = (dataset.y_test + 1) % 10  # all wrong
            right = slice(0, 20) if config.lr == 0.01 else slice(25, None) if config.lr == 0.03 else slice(0)
            predictions[right] = dataset.y_test[right]
            outcomes.append(SimpleNamespace(diverged="it did" if config.lr == 0.001 else None, predictions=predictions))
        return outcomes

    calls = []
    monkeypatch.setattr(search, "run_all", run_all)
    return calls


def test_what_is_chosen_is_chosen_by_validation_images(search, trained):
    images = synthetic(100, 50)
    rows = search.search(Problem(n_train=100, noise=0.4), images, seed=7)
    for _, dataset in trained:
        assert (len(dataset.y_train), len(dataset.y_test)) == (75, 25 + 50)
        np.testing.assert_array_equal(dataset.y_test[25:], images.y_test)
    papers = [row for row in rows if row["papers"]]
    assert [(row["method"], *row["numbers"].values()) for row in papers] == [
        *(("Momentum", lr, 5e-4) for lr in (0.001, 0.003, 0.01, 0.03)),
        (MATCHED, 0.01, 5e-4),
        *((SAM, 0.01, 5e-4, rho) for rho in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)),
    ]
    assert [(row["validation"], row["test"]) for row in papers[:4]] == [(None, None), (1, 1), (0.2, 1), (1, 0)]
    counts = [sum(row["method"] == method and not row["papers"] for row in rows) for method in search.BOX]
    assert counts == [search.TRIALS] * len(search.BOX)
    assert {(row["split"], row["noise"]) for row in rows} == {(7, 0.4)}
    assert all(
        config.noise == 0 and config.seed == 7 for configs, _ in trained for config in configs
    )  # redrawn already


def test_what_is_stored_is_whole_and_of_one_box(search, best):
    """Every split has all its trials, and nothing was tried outside the box."""
    record = json.loads(search.RESULTS.read_text(encoding="utf-8"))
    assert record["box"] == {method: {k: list(v) for k, v in box.items()} for method, box in search.BOX.items()}
    for noise in (0.0, 0.4):
        for method in record["box"]:
            for trials in best.of_splits(record["trials"], noise, method):
                tried = [(row["method"], row["numbers"]) for row in trials]
                assert tried == search.drawn(method, trials[0]["split"])


def made(method, split, errors, papers=False, lr=0.01):
    """Trials whose validation errors are their test errors."""
    numbers = {"lr": lr, "weight_decay": 0.01}
    about = {"noise": 0.4, "split": split, "papers": papers, "method": method, "numbers": numbers}
    return [about | {"validation": error, "test": error} for error in errors]


def test_gains_are_within_a_split_and_for_as_many_gradients(best):
    rows = []
    for split, shift in ((1, 0.0), (2, 0.1)):
        rows += made("Momentum", split, [0.5 + shift, 0.4 + shift, 0.6 + shift, None])
        rows += made(MATCHED, split, [0.4 + shift] * 4) + made(SAM, split, [0.2 + shift] * 4, lr=1e-4)
        rows += made("Momentum", split, [0.5, 0.6], True) + made(MATCHED, split, [0.4], True)
        rows += made(SAM, split, [0.3 + shift, 0.5], True)
    found = best.gains(rows, 0.4)
    assert found["Momentum"][0, [0, 3]] == pytest.approx([1 - 0.2 / 0.6, 1 - 0.2 / 0.4])  # one of the four guesses: 0.9
    assert found[MATCHED][:, 2] == pytest.approx([0.5, 1 - 0.3 / 0.5])
    assert found[best.TWICE].shape == (2, 2)
    assert found[best.TWICE][:, 1] == pytest.approx([1 - 0.2 / 0.4, 1 - 0.3 / 0.5])
    assert best.gains_in_papers(rows, 0.4)["Momentum"] == pytest.approx([0.4, 0.2])
    assert best.student(np.array([0.1, 0.3])) == pytest.approx((0.2, 0.2 - 12.706 * 0.1, 0.2 + 12.706 * 0.1), 1e-3)

    box = {method: {"lr": (1e-4, 1e-1), "weight_decay": (1e-4, 10.0)} for method in ("Momentum", MATCHED, SAM)}
    record = {"environment": {"minisam": "1"}, "box": box, "trials": rows}
    shown = best.report(record)
    assert "MLP, 40 % of labels redrawn, 2 splits" in shown
    assert "at the box's edge: lr of SAM(Momentum), in 2 of 2 splits" in shown
    assert shown.count("at the box's edge") == 1
    assert "0.01 to 0.1             45.0" in shown
    rows[0]["test"] = 0.1  # a trial that validation would not choose
    assert best.best_of_decades(rows, 0.4, "Momentum") == {-2: pytest.approx([0.4, 0.5])}
    errors, gained, decay = best.picture(record).axes
    lines = ((errors, SAM, [25] * 4), (gained, f"over {MATCHED}", [45] * 4), (decay, SAM, [25]))
    for ax, label, points in (*lines, (decay, "Momentum", [45])):
        (line,) = [line for line in ax.lines if line.get_label() == label]
        assert line.get_ydata() == pytest.approx(points)
