"""The diagnosis of a step, against the same numbers worked out by hand."""

import math

import numpy as np
import pytest

from minisam import kernels
from minisam.analysis.diagnostics import Recorded, diagnose, mean_diagnosis
from minisam.analysis.toy import Bowl
from minisam.nn import BatchLoss, Flatten, Linear, ReLU, Sequential
from minisam.optim import GD, SAM, Adaptive, Ball, MicroBatched

NET = Sequential([Flatten(), Linear(6, 4), ReLU(), Linear(4, 3)], (2, 3, 1))
RHO = 0.1


def batch_of(n=8):
    rng = np.random.default_rng(0)
    return BatchLoss(NET, rng.standard_normal((n, 2, 3, 1)), rng.integers(3, size=n))


def diagnosis_of(optimizer, batch):
    """The diagnosis of one step, and theta before it."""
    theta = NET.init(np.random.default_rng(1), np.float64)
    recorded, before = Recorded(batch), theta.copy()
    optimizer.step(theta, recorded)
    assert not np.array_equal(theta, before)
    return diagnose(recorded.calls, NET), before


@pytest.mark.parametrize("ascent", [Ball(2), Ball(1), Ball(math.inf), Adaptive(0.1)], ids=str)
def test_a_sam_step_from_inside(ascent):
    found, theta = diagnosis_of(SAM(GD(lr=0.1), RHO, ascent), batch_of())
    here = batch_of()(theta)
    direction, length = ascent(theta, here.grad, 0)
    epsilon = RHO * direction / length
    there = batch_of()(theta + epsilon)
    cosine = here.grad @ there.grad / np.linalg.norm(here.grad) / np.linalg.norm(there.grad)
    assert found["gradient norm"] == pytest.approx(np.linalg.norm(here.grad))
    assert found["cosine"] == pytest.approx(cosine)
    assert found["predicted rise"] == pytest.approx(here.grad @ epsilon)
    assert found["measured rise"] == pytest.approx(there.loss - here.loss)
    first = 6 * 4 + 4  # parameters of the first linear layer
    share = float(epsilon[:first] @ epsilon[:first] / (epsilon @ epsilon))
    assert found["share"] == pytest.approx({"1 Linear": share, "3 Linear": 1 - share}, abs=1e-12)


def test_of_several_ascents_the_whole_climb_counts():
    found, theta = diagnosis_of(SAM(GD(lr=0.1), RHO, ascent_steps=2), batch_of())
    here, worst = batch_of()(theta), theta
    for _ in range(2):
        g = batch_of()(worst).grad
        worst = worst + RHO / 2 * g / np.linalg.norm(g)
    assert found["measured rise"] == pytest.approx(batch_of()(worst).loss - here.loss)
    assert found["predicted rise"] == pytest.approx(here.grad @ (worst - theta))


def test_micro_batches_count_by_their_mean():
    found, theta = diagnosis_of(MicroBatched(SAM(GD(lr=0.1), RHO), m=4), batch_of())
    norms = [np.linalg.norm(part(theta).grad) for part in batch_of().split(4)]
    assert found["gradient norm"] == pytest.approx(np.mean(norms))
    assert found["predicted rise"] == pytest.approx(RHO * np.mean(norms))


def test_a_step_without_a_climb_has_a_gradient_and_nothing_else():
    found, theta = diagnosis_of(GD(lr=0.1), batch_of())
    assert found == {"gradient norm": pytest.approx(np.linalg.norm(batch_of()(theta).grad))}


def test_without_a_slope_at_the_worst_point_there_is_no_angle():
    recorded = Recorded(Bowl([1.0, 1.0]))
    recorded(np.array([1.0, 0.0]))
    recorded(np.array([0.0, 0.0]))
    found = diagnose(recorded.calls, Sequential([Linear(1, 1)], (1,)))
    assert "cosine" not in found
    assert found["measured rise"] == -0.5


def test_weights_that_are_not_finite_have_a_diagnosis_too():
    recorded = Recorded(Bowl([1.0, 1.0]))
    recorded(np.full(2, np.nan))
    found = diagnose(recorded.calls, Sequential([Linear(1, 1)], (1,)))
    assert math.isnan(found["gradient norm"])


def test_what_was_recorded_does_not_move_with_theta():
    theta, recorded = np.array([1.0, 1.0]), Recorded(Bowl([1.0, 5.0]))
    SAM(GD(lr=0.1), RHO).step(theta, recorded)
    (where, found), _ = recorded.calls
    assert where.tolist() == [1.0, 1.0]
    assert kernels.norm(found.grad) == pytest.approx(math.sqrt(26))


def test_means_are_over_the_diagnoses_that_have_a_number():
    steps = [{"gradient norm": 1.0}, {"gradient norm": 3.0, "cosine": 0.5, "share": {"a": 0.25}}]
    assert mean_diagnosis(steps) == {"gradient norm": 2.0, "cosine": 0.5, "share": {"a": 0.25}}
