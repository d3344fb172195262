"""Schedules: their values at every step that matters, and what they refuse."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisam.optim import Cosine, StepDecay, value_at

bases = st.floats(1e-6, 1e3)


def test_a_number_is_its_own_schedule():
    assert value_at(0.3, 0) == value_at(0.3, 10**6) == 0.3
    assert value_at(lambda step: 2.0 * step, 7) == 14.0


# --- StepDecay ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "value"), [(0, 8.0), (2, 8.0), (3, 4.0), (4, 4.0), (5, 2.0), (10**6, 2.0)])
@pytest.mark.parametrize("milestones", [(3, 5), [5, 3]])
def test_step_decay_multiplies_at_each_milestone(milestones, step, value):
    assert StepDecay(8.0, milestones, factor=0.5)(step) == value


def test_step_decay_takes_a_tenth_unless_told_otherwise():
    assert StepDecay(1.0, milestones=(1,))(1) == 0.1


def test_step_decay_without_milestones_is_constant():
    assert {StepDecay(0.3, ())(step) for step in (0, 1, 1000)} == {0.3}


# --- Cosine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "value"),
    [
        (0, 2 * 1 / 4),  # warm-up: a quarter, two quarters, …
        (1, 2 * 2 / 4),
        (2, 2 * 3 / 4),
        (3, 2.0),
        (4, 2.0),  # s = 0 of 1
        (6, 1 + math.sqrt(1 / 2)),  # s = 1/4: 2 · ½ (1 + cos 45°)
        (8, 1.0),  # s = 1/2
        (10, 1 - math.sqrt(1 / 2)),
        (12, 0.0),
        (13, 0.0),
        (10**6, 0.0),
    ],
)
def test_cosine_by_hand(step, value):
    assert Cosine(2.0, steps=12, warmup=4)(step) == pytest.approx(value, abs=1e-15)


@given(base=bases, warmup=st.integers(0, 20), length=st.integers(1, 40))
def test_cosine_climbs_to_its_base_and_falls_to_nothing(base, warmup, length):
    schedule = Cosine(base, steps=warmup + length, warmup=warmup)
    values = [schedule(step) for step in range(warmup + length + 3)]
    up, down = values[:warmup], values[warmup:]
    assert up == sorted(set(up))  # strictly
    assert down[: length + 1] == sorted(set(down[: length + 1]), reverse=True)
    assert down[0] == base == pytest.approx(max(values))
    assert down[length:] == [0, 0, 0]


@given(base=bases, warmup=st.integers(1, 50), length=st.integers(1, 50))
def test_cosine_joins_its_warmup_without_a_jump(base, warmup, length):
    schedule = Cosine(base, steps=warmup + length, warmup=warmup)
    assert pytest.approx(schedule(warmup - 1)) == schedule(warmup) == base
    for step in range(warmup + length):
        steepest = base * max(1 / warmup, math.pi / (2 * length))  # |d cos(π s)/2| ≤ π/2 ds
        assert abs(schedule(step + 1) - schedule(step)) <= steepest * (1 + 1e-9)


@given(base=bases, length=st.integers(1, 50))
def test_cosine_is_symmetric_about_its_middle(base, length):
    schedule = Cosine(base, steps=length)
    for step in range(length + 1):
        assert schedule(step) + schedule(length - step) == pytest.approx(base)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [0, -0.1, math.nan, math.inf, "0.1", None])
@pytest.mark.parametrize("schedule", [lambda base: StepDecay(base, (10,)), lambda base: Cosine(base, steps=10)])
def test_base_must_be_a_finite_number_above_0(schedule, base):
    with pytest.raises(ValueError, match=f"^base must be a finite number above 0, got {base!r}$"):
        schedule(base)


@pytest.mark.parametrize("factor", [0, -0.5, math.nan, math.inf])
def test_factor_must_be_a_finite_number_above_0(factor):
    with pytest.raises(ValueError, match=f"^factor must be .* above 0, got {factor!r}$"):
        StepDecay(0.1, (10,), factor)


@pytest.mark.parametrize(("steps", "warmup"), [(10, 10), (10, 11), (10, -1), (0, 0), (-5, 0)])
def test_warmup_must_end_before_the_last_step(steps, warmup):
    with pytest.raises(ValueError, match=f"0 ≤ warmup < steps, got {warmup} and {steps}$"):
        Cosine(0.1, steps, warmup)


@pytest.mark.parametrize(
    ("milestones", "error", "message"),
    [
        (5, TypeError, "milestones must be a sequence of steps"),
        ((5, 2.5), ValueError, "a milestone must be an integer"),
    ],
)
def test_milestones_are_steps(milestones, error, message):
    with pytest.raises(error, match=rf"\b{message}"):
        StepDecay(0.1, milestones)
