"""Tuning: equal effort for all, the recipes are its winners, and no test image plays a part."""

import importlib
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from minisam.data import synthetic
from minisam.study.recipes import MAIN, RECIPES, Problem


@pytest.fixture
def tune(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("tune")


def test_the_recipes_are_those_that_tuning_chose(tune):
    assert tune.winners(tune.stored()) == RECIPES
    for searches in tune.SEARCHES.values():
        for search in searches:
            compared = [grid for label, grid in search.grids.items() if grid and (search.start or label in MAIN)]
            assert len({len(list(tune.points(grid))) for grid in compared}) == 1


def test_every_point_of_every_grid_was_tried_as_often_as_it_should_be(tune):
    rows = {(row["problem"], row["method"], *sorted(row["numbers"].items())): row["errors"] for row in tune.stored()}
    expected = {}
    for searches in tune.SEARCHES.values():
        for search in searches:
            for problem, (label, grid) in itertools.product(search.problems, search.grids.items()):
                start = RECIPES[(search.on or problem).name][search.start] if search.start else {}
                points = [(problem.name, label, *sorted((start | point).items())) for point in tune.points(grid)]
                expected |= dict.fromkeys(points, len(search.seeds) if len(points) > 1 else 0)
                if len(points) == 1:  # nothing to choose
                    continue
                often = sum(len(rows[point]) == len(search.seeds + search.finals) for point in points)
                assert often == (min(tune.FINALISTS, len(points)) if search.finals else len(points))
    assert rows.keys() == expected.keys()
    assert all(len(errors) >= expected[point] for point, errors in rows.items())


def test_the_best_point_is_that_with_the_lowest_error_among_those_judged_most_often(tune):
    rows = [
        {"problem": "p", "method": "m", "numbers": {"lr": lr}, "errors": errors}
        for lr, errors in ((1, [0.1]), (2, [0.3, 0.2]), (3, [0.2, 0.25]), (4, [0.1, None]))
    ]
    assert tune.winners(rows) == {"p": {"m": {"lr": 3}}}  # a point that diverged counts as all wrong
    assert [row["numbers"]["lr"] for row in tune.best(rows)] == [3, 2, 4, 1]


def test_finalists_are_judged_on_splits_of_their_own(tune, monkeypatch):
    """The grid with the first seed, its best three with two more; never on a test image."""
    seen = []

    def errors(configs, dataset, **how):
        seen.append(([config.lr for config in configs], [config.seed for config in configs], len(dataset.y_test)))
        return [SimpleNamespace(record={"test_error": config.lr}) for config in configs]

    monkeypatch.setattr(tune, "run_all", errors)
    monkeypatch.setattr(tune, "load", lambda *_: synthetic(100, 50))
    problem = Problem(n_train=100)
    grids = {"Momentum": {"lr": (0.5, 0.2, 0.4, 0.3)}, "Adam": {"lr": (0.1,)}}  # for Adam there is nothing to choose
    rows = tune.tune(tune.Search((problem,), grids, (7,)), [], None)
    assert seen == [([0.5, 0.2, 0.4, 0.3], [7] * 4, 25), *(([0.2, 0.3, 0.4], [s] * 3, 25) for s in (1002, 1003))]
    assert tune.winners(rows) == {problem.name: {"Momentum": {"lr": 0.2}, "Adam": {"lr": 0.1}}}
    more = tune.Search((problem,), {"Momentum": {}, "Momentum, 2× epochs": {}}, (7,), start="Momentum")
    (row,) = tune.tune(more, rows, None)  # the start itself was found already, and its numbers are the other's
    assert (row["method"], row["numbers"], len(seen)) == ("Momentum, 2× epochs", {"lr": 0.2}, 3)
