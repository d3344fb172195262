"""The losses: values by independent formulas, gradients by differences, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import dtypes, seeds

from minisam.analysis.gradcheck import losscheck
from minisam.nn import MeanSquaredError, SoftmaxCrossEntropy

smoothings = st.sampled_from([0.0, 0.1, 0.9])
sizes = st.integers(1, 5)


def logits_and_labels(seed, N, K, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, K)).astype(dtype), rng.integers(0, K, N)


@given(seed=seeds, N=sizes, K=sizes, alpha=smoothings)
def test_the_gradient_of_cross_entropy_is_right(seed, N, K, alpha):
    assert losscheck(SoftmaxCrossEntropy(alpha), *logits_and_labels(seed, N, K)) < 1e-7


@given(seed=seeds, N=sizes, K=sizes)
def test_the_gradient_of_the_squared_error_is_right(seed, N, K):
    outputs, y = np.random.default_rng(seed).standard_normal((2, N, K))
    assert losscheck(MeanSquaredError(), outputs, y) < 1e-7


class WrongGradient(MeanSquaredError):
    def __call__(self, outputs, y):
        loss, slope = super().__call__(outputs, y)
        return loss, 1.01 * slope

    def tangent(self, outputs, y, outputs_dot):
        return 1.01 * super().tangent(outputs, y, outputs_dot)


class WrongTangent(MeanSquaredError):
    def tangent(self, outputs, y, outputs_dot):
        return 1.01 * super().tangent(outputs, y, outputs_dot)


@pytest.mark.parametrize("wrong", [WrongGradient, WrongTangent])
def test_losscheck_catches(wrong):
    outputs, y = np.random.default_rng(0).standard_normal((2, 4, 3))
    assert losscheck(wrong(), outputs, y) == pytest.approx(0.01, rel=1e-4)  # of what was measured


@given(seed=seeds, N=sizes, K=sizes, alpha=smoothings)
def test_cross_entropy_is_its_definition(seed, N, K, alpha):
    logits, y = logits_and_labels(seed, N, K)
    total = 0.0
    for z, label in zip(logits, y, strict=True):
        p = [math.exp(value) / sum(math.exp(other) for other in z) for value in z]
        t = [(1 - alpha) * (k == label) + alpha / K for k in range(K)]
        total -= sum(t_k * math.log(p_k) for t_k, p_k in zip(t, p, strict=True))
    assert SoftmaxCrossEntropy(alpha)(logits, y)[0] == pytest.approx(total / N, abs=1e-12)


def test_cross_entropy_by_hand():
    logits = np.log([[1.0, 3.0], [4.0, 1.0]])  # p = (1/4, 3/4) and (4/5, 1/5)
    loss, slope = SoftmaxCrossEntropy()(logits, np.array([1, 0]))
    assert loss == pytest.approx(-(math.log(3 / 4) + math.log(4 / 5)) / 2)
    np.testing.assert_allclose(slope, [[1 / 8, -1 / 8], [-1 / 10, 1 / 10]])


def test_squared_error_is_a_mean_over_all_entries():
    loss, slope = MeanSquaredError()(np.array([[1.0, 2], [3, 4]]), np.array([[1.0, 0], [0, 0]]))
    assert loss == (4 + 9 + 16) / 4
    np.testing.assert_allclose(slope, [[0, 1], [1.5, 2]])


@given(seed=seeds, alpha=smoothings, shift=st.floats(-1000, 1000))
def test_a_shift_of_all_logits_changes_nothing(seed, alpha, shift):
    logits, y = logits_and_labels(seed, 4, 3)
    loss, slope = SoftmaxCrossEntropy(alpha)(logits, y)
    shifted_loss, shifted_slope = SoftmaxCrossEntropy(alpha)(logits + shift, y)
    assert shifted_loss == pytest.approx(loss, abs=1e-10)
    np.testing.assert_allclose(shifted_slope, slope, atol=1e-10)


@given(seed=seeds, N=sizes, K=sizes, alpha=smoothings)
def test_slopes_by_logits_sum_to_0_in_each_example(seed, N, K, alpha):
    _, slope = SoftmaxCrossEntropy(alpha)(*logits_and_labels(seed, N, K))
    np.testing.assert_allclose(slope.sum(axis=1), 0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_huge_logits_stay_finite(dtype, size, alpha):
    logits = np.array([[size, -size, 0], [-size, size, size]], dtype)
    loss, slope = SoftmaxCrossEntropy(alpha)(logits, np.array([1, 0]))
    assert math.isfinite(loss)
    assert loss == pytest.approx(2 * size * (1 - alpha) + alpha * size * 5 / 6, rel=1e-3)
    assert np.isfinite(slope).all()


@given(seed=seeds, N=sizes, alpha=smoothings)
def test_with_one_class_there_is_nothing_to_learn(seed, N, alpha):
    loss, slope = SoftmaxCrossEntropy(alpha)(*logits_and_labels(seed, N, 1))
    assert loss == 0
    np.testing.assert_allclose(slope, np.zeros((N, 1)), atol=1e-16)


@given(seed=seeds, dtype=dtypes, alpha=smoothings)
def test_the_loss_is_a_float_and_its_gradient_keeps_the_dtype(seed, dtype, alpha):
    logits, y = logits_and_labels(seed, 3, 4, dtype)
    for loss, targets in ((SoftmaxCrossEntropy(alpha), y), (MeanSquaredError(), logits + 1)):
        value, slope = loss(logits, targets)
        assert type(value) is float
        assert slope.dtype == dtype


def test_float64_targets_do_not_promote_a_float32_network():
    _, slope = MeanSquaredError()(np.ones((2, 3), np.float32), np.zeros((2, 3)))
    assert slope.dtype == np.float32


@given(seed=seeds)
def test_outputs_and_targets_are_only_read(seed):
    logits, y = logits_and_labels(seed, 3, 4)
    for loss, targets in ((SoftmaxCrossEntropy(0.1), y), (MeanSquaredError(), logits + 1)):
        before = logits.copy(), targets.copy()
        loss(logits, targets)
        np.testing.assert_array_equal(logits, before[0])
        np.testing.assert_array_equal(targets, before[1])


@pytest.mark.parametrize("alpha", [-0.1, 1.0, 2.0, math.nan])
def test_label_smoothing_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match="label_smoothing"):
        SoftmaxCrossEntropy(alpha)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.array([0, 3, 1]), ValueError, "labels y must be 0 to 2, got 0 to 3"),
        (np.array([-1, 2, 1]), ValueError, "labels y must be 0 to 2, got -1 to 2"),
        (np.array([0, 1]), ValueError, r"labels y of shape \(3,\), got \(2,\)"),
        (np.eye(3, dtype=int), ValueError, r"labels y of shape \(3,\), got \(3, 3\)"),
        (np.array([0.0, 1.0, 2.0]), TypeError, "integer labels y, got float64"),
        (np.array([True, False, True]), TypeError, "integer labels y, got bool"),
    ],
)
def test_labels_that_do_not_fit_are_refused(y, error, message):
    with pytest.raises(error, match=rf"\b{message}"):
        SoftmaxCrossEntropy().check(y, 3, (3,))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_may_be_of_any_integer_type(dtype):
    y = np.array([2, 0, 1], dtype)
    SoftmaxCrossEntropy().check(y, 3, (3,))
    assert SoftmaxCrossEntropy()(np.eye(3)[y] * 50, y)[0] < 1e-15


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.zeros((3, 3)), ValueError, r"targets y of shape \(3, 2\), got \(3, 3\)"),
        (np.zeros(3), ValueError, r"targets y of shape \(3, 2\), got \(3,\)"),
        (np.zeros((3, 2), int), TypeError, "floating-point targets y, got int64"),
        (np.full((3, 2), np.nan), ValueError, "targets y must be finite"),
        (np.array([[0, 1], [np.inf, 0], [0, 0]]), ValueError, "targets y must be finite"),
    ],
)
def test_targets_that_do_not_fit_are_refused(y, error, message):
    with pytest.raises(error, match=rf"\b{message}"):
        MeanSquaredError().check(y, 3, (2,))


def test_targets_that_float32_cannot_hold_are_refused():
    outputs, y = np.zeros((2, 2), np.float32), np.array([[0.0, 1.0], [1e300, 0.0]])
    with pytest.raises(ValueError, match="targets y in float32 must be finite"):
        MeanSquaredError()(outputs, y)
    assert MeanSquaredError()(outputs.astype(np.float64), y / 1e200)[0] == pytest.approx(1e200 / 4)
