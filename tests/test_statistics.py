"""Intervals: their constants, their invariances, and above all their coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from minisam.study.statistics import (
    crossed_variance,
    error_reduction,
    mean_error,
    ranks,
    ratio,
    resampled,
    spearman,
    t_quantile,
)


@pytest.mark.parametrize(
    ("dof", "expected"),
    # Any table of Student's t, two-sided 95 %.
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (10, 2.228), (30, 2.042), (1000, 1.962)],
)
def test_t_quantile_agrees_with_the_table(dof, expected):
    assert t_quantile(0.975, dof) == pytest.approx(expected, abs=2e-3)
    assert t_quantile(0.025, dof) == pytest.approx(-expected, abs=2e-3)


def crossed(rng, n_seeds, n_images, of_seeds, of_images, of_both):
    """A table of the random-effects model, mean 0."""
    return (
        of_seeds * rng.standard_normal((n_seeds, 1))
        + of_images * rng.standard_normal((1, n_images))
        + of_both * rng.standard_normal((n_seeds, n_images))
    )


@pytest.mark.parametrize("deviations", [(0.2, 0.0, 1.0), (0.0, 1.0, 1.0), (0.1, 1.0, 1.0), (0.3, 1.0, 0.5)])
def test_variance_counts_the_residual_twice_and_all_else_once(deviations):
    rng = np.random.default_rng(0)
    tables = [crossed(rng, 5, 60, *deviations) for _ in range(2000)]
    expected = deviations[0] ** 2 / 5 + deviations[1] ** 2 / 60 + 2 * deviations[2] ** 2 / 300
    estimate = np.mean([crossed_variance(table)[0] for table in tables])
    assert estimate == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("of_seeds", [0.0, 0.3, 1.5])
def test_intervals_cover_the_truth_as_often_as_they_say(of_seeds):
    """Errors of 3 seeds on 400 images of varying difficulty, against the mean over all seeds and images."""
    rng = np.random.default_rng(1)
    trials, hits, hits_reduction = 500, 0, 0
    difficulty = np.linspace(-1, 1, 201)

    def probability(shift):
        """The error rate over all seeds and images."""
        grid = np.linspace(-4, 4, 161)
        weight = np.exp(-(grid**2) / 2)
        rates = [np.mean(1 / (1 + np.exp(-(difficulty + shift + of_seeds * z)))) for z in grid]
        return float(np.average(rates, weights=weight))

    base, better = probability(0.3), probability(0.0)
    for _ in range(trials):
        images = rng.uniform(-1, 1, 400)
        runs = of_seeds * rng.standard_normal((3, 1))
        draws = [rng.random((3, 400)) < 1 / (1 + np.exp(-(images + shift + runs))) for shift in (0.3, 0.0)]
        interval = mean_error(draws[0])
        hits += interval.low <= base <= interval.high
        interval = error_reduction(*draws)
        hits_reduction += interval.low <= 1 - better / base <= interval.high
    assert hits / trials > 0.93
    assert hits_reduction / trials > 0.93


def test_degrees_of_freedom_are_those_of_what_varies():
    of_seeds, of_images = np.zeros((3, 8)), np.zeros((3, 8))
    of_seeds[0], of_images[:, 0] = 5, 5
    assert crossed_variance(of_seeds)[1] == pytest.approx(2)
    assert crossed_variance(of_images)[1] == pytest.approx(7)


@given(seed=seeds, n_seeds=st.integers(2, 5), n_images=st.integers(2, 40))
def test_reduction_is_the_ratio_of_means_and_lies_in_its_interval(seed, n_seeds, n_images):
    rng = np.random.default_rng(seed)
    baseline, candidate = rng.integers(2, size=(2, n_seeds, n_images))
    baseline[0, 0] = 1
    interval = error_reduction(baseline, candidate)
    assert interval.estimate == pytest.approx(1 - candidate.sum() / baseline.sum())
    assert interval.low <= interval.estimate <= interval.high


def test_identical_tables_show_a_reduction_of_exactly_zero():
    table = np.array([[1, 0, 1], [0, 1, 1]])
    assert error_reduction(table, table) == (0.0, 0.0, 0.0)


def test_pairing_narrows_the_interval():
    """The same errors except on a few images: the seeds' and images' luck cancels."""
    rng = np.random.default_rng(0)
    baseline = rng.random((3, 1000)) < 0.5
    candidate = baseline & (rng.random((3, 1000)) < 0.95)
    paired = error_reduction(baseline, candidate)
    shuffled = error_reduction(baseline, np.array([rng.permutation(row) for row in candidate]))
    assert paired.high - paired.low < 0.5 * (shuffled.high - shuffled.low)


def test_one_seed_has_an_estimate_but_no_interval():
    assert mean_error(np.array([[1, 0]])) == (0.5, None, None)


def test_tables_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        error_reduction(np.ones((2, 3)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="without errors"):
        error_reduction(np.zeros((2, 3)), np.ones((2, 3)))


def test_a_ratio_is_paired_and_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        baseline = np.exp(2 * rng.standard_normal(5))  # seeds differ a lot
        found = ratio(baseline, baseline / np.exp(np.log(3) + 0.2 * rng.standard_normal(5)))
        covered += found.low <= 3 <= found.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)
    assert ratio(np.array([4.0]), np.array([2.0])) == (2.0, None, None)
    with pytest.raises(ValueError, match="expected positive numbers, got -1"):
        ratio(np.array([1.0, 2.0]), np.array([1.0, -1.0]))


def test_rank_correlation_agrees_with_its_definition():
    """Without ties: 1 - 6 Σd² / (n (n² - 1)) (Spearman 1904), d the differences of the ranks."""
    x, y = np.random.default_rng(0).standard_normal((2, 4, 30))
    d = np.argsort(np.argsort(x)) - np.argsort(np.argsort(y))
    found = spearman(x, y)
    assert found == pytest.approx(1 - 6 * np.sum(d**2, axis=-1) / (30 * (30**2 - 1)))
    assert spearman(np.exp(x), y**3) == pytest.approx(found)  # only the order counts


def test_ranks_of_equal_values_are_shared():
    assert ranks(np.array([5.0, 1.0, 5.0, 5.0])).tolist() == [3.0, 1.0, 3.0, 3.0]


def test_resampling_draws_whole_rows_and_whole_columns():
    """Ten copies of a row, or of a column, tell no more than one."""
    x = np.random.default_rng(0).standard_normal((10, 1))
    spread = 2 * 1.96 * x.std() / np.sqrt(10)
    for table in (np.tile(x, 10), np.tile(x, 10).T):
        found = resampled(lambda x, y: x.mean() + 9 * y.mean(), table, 0 * table, np.random.default_rng(1))
        assert found.estimate == pytest.approx(x.mean())
        assert found.high - found.low == pytest.approx(spread, rel=0.15)


def test_resampling_keeps_what_belongs_together():
    x = np.random.default_rng(0).standard_normal((3, 4))
    found = resampled(lambda x, y: spearman(x.ravel(), y.ravel()), x, x**3, np.random.default_rng(1))
    assert found == pytest.approx((1, 1, 1))


def test_resampling_errs_towards_caution():
    """When methods and seeds share effects, but sharpness and error are unrelated."""
    rng = np.random.default_rng(0)

    def within(x, y):
        return spearman(x, y).mean()

    def across(x, y):
        return spearman(x.ravel(), y.ravel())

    covered = dict.fromkeys((within, across), 0)
    for _ in range(100):
        x, y = sum(rng.standard_normal((2, *shape)) for shape in ((7, 1), (1, 5), (7, 5)))
        for statistic in covered:
            found = resampled(statistic, x, y, rng, resamples=200)
            covered[statistic] += found.low <= 0 <= found.high
    assert min(covered.values()) >= 93


def test_what_does_not_differ_is_not_correlated():
    assert resampled(spearman, np.ones(4), np.arange(4.0), np.random.default_rng(0))[1:] == (None, None)
