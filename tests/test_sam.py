"""SAM does what the paper says: one radius over all parameters, two passes, one base update.

Foret, Kleiner, Mobahi and Neyshabur, ICLR 2021, arXiv 2010.01412, algorithm 1.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from counted import Counted
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BLOCK, seeds

from minisam.analysis.toy import Bowl
from minisam.nn import AvgPool2d, BatchLoss, Conv2d, Flatten, Linear, ReLU, Sequential, Tanh
from minisam.objective import Evaluation, Mean, Penalised
from minisam.optim import GD, SAM, Adam, Momentum

BASES = {
    "GD": lambda: GD(lr=0.1, weight_decay=0.01),
    "Momentum": lambda: Momentum(lr=0.05, weight_decay=0.01),
    "Nesterov": lambda: Momentum(lr=0.05, nesterov=True),
    "Adam": lambda: Adam(lr=0.01, weight_decay=0.01),
}
every_base = pytest.mark.parametrize("base", BASES.values(), ids=BASES)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
ROUNDING = {np.float32: 2e-6, np.float64: 1e-13}
rhos = st.floats(0.01, 2)

NETS = {
    "mlp": Sequential([Linear(3, 8), Tanh(), Linear(8, 4), Tanh(), Linear(4, 3)], (3,)),
    "cnn": Sequential([Conv2d(2, 4, 3), ReLU(), AvgPool2d(2), Flatten(), Linear(16, 3)], (4, 4, 2)),
}


def batch_of(seed, net="mlp", n=6, dtype=np.float64):
    """A batch of random examples, and a theta with no entry at 0."""
    net, rng = NETS[net], np.random.default_rng(seed)
    x = rng.standard_normal((n, *net.input_shape)).astype(dtype)
    theta = net.init(rng, dtype) + dtype(0.1)
    return BatchLoss(net, x, rng.integers(3, size=n)), theta


@dataclass(frozen=True)
class Plane:
    """L(θ) = g · θ: the gradient is g everywhere."""

    g: np.ndarray
    n = 1

    def __call__(self, theta):
        return Evaluation(0.0, self.g.copy())


@dataclass(frozen=True)
class Quadratic:
    """L(θ) = ½ θᵀ H θ with a dense symmetric H."""

    H: np.ndarray
    n = 1

    def __call__(self, theta):
        return Evaluation(float(0.5 * theta @ self.H @ theta), self.H @ theta)


class Recorded:
    """An objective that remembers where it was evaluated, and the results."""

    def __init__(self, objective):
        self.objective, self.n, self.points, self.said = objective, objective.n, [], []

    def __call__(self, theta):
        self.points.append(theta.copy())
        self.said.append(self.objective(theta))
        return self.said[-1]


def perturbation(objective, theta, rho):
    """The ε̂ that SAM adds, as float64, and the gradient it saw."""
    recorded = Recorded(objective)
    SAM(GD(lr=0.1), rho).gradient(theta, recorded)
    at_theta, perturbed = recorded.points
    assert np.array_equal(at_theta, theta)
    return perturbed.astype(np.float64) - theta, recorded.said[0].grad


def symmetric(seed, size=5):
    """A random positive definite matrix."""
    A = np.random.default_rng(seed).standard_normal((size, size))
    return A @ A.T + np.eye(size)


# --- the perturbation -----------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("net", NETS)
@given(seed=seeds, rho=rhos)
@settings(max_examples=20, deadline=None)
def test_perturbation_is_rho_along_the_gradient_with_one_norm_over_all(net, dtype, seed, rho):
    batch, theta = batch_of(seed, net, dtype=dtype)
    epsilon, g = perturbation(batch, theta, rho)
    # θ + ε̂ is rounded to theta's dtype, entry by entry.
    tolerance = ROUNDING[dtype] * float(np.abs(theta).max())
    np.testing.assert_allclose(epsilon, rho * g / np.linalg.norm(g), atol=tolerance)
    assert np.linalg.norm(epsilon) == pytest.approx(rho, abs=tolerance * len(theta) ** 0.5)


def test_a_norm_for_each_tensor_would_have_been_noticed():
    batch, theta = batch_of(0)
    epsilon, g = perturbation(batch, theta, rho=0.5)
    tensors = [tensor for params in batch.net.params(g) for tensor in params]
    each_by_itself = [0.5 * tensor.ravel() / np.linalg.norm(tensor) for tensor in tensors]
    assert np.linalg.norm(np.concatenate(each_by_itself)) == pytest.approx(0.5 * len(tensors) ** 0.5)
    assert np.abs(np.concatenate(each_by_itself) - epsilon).max() > 0.05


@both_dtypes
@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-30, 1e-23, 1e-10, 1, 1e10, 1e30])
@pytest.mark.parametrize("size", [3, 1000, BLOCK + 1])
def test_perturbation_has_length_rho_however_small_or_large_the_gradient(scale, size, dtype):
    """In float32 (1e-23)² is 0 and (1e30)² infinite; 1e-45 is the smallest number above 0."""
    whole = np.random.default_rng(1).integers(1, 4, size) * (-1) ** np.arange(size)
    g = whole.astype(dtype) * dtype(scale)
    epsilon, _ = perturbation(Plane(g), np.zeros(size, dtype), rho=0.3)
    assert np.linalg.norm(epsilon) == pytest.approx(0.3, rel=1e-6)
    exact = g.astype(np.float64) / scale  # subnormal numbers have few digits
    np.testing.assert_allclose(epsilon, 0.3 * exact / np.linalg.norm(exact), rtol=1e-6)


@every_base
@both_dtypes
def test_without_a_gradient_theta_follows_its_base(base, dtype):
    theta = np.array([1.0, -2.0, 3.0], dtype)
    expected, alone, sam = theta.copy(), base(), SAM(base(), rho=0.5)
    for g in ([1, 0, 2], [0, 0, 0], [0, 0, 0]):  # momentum coasts, weight decay goes on
        plane = Plane(np.array(g, dtype))
        at_theta = sam.step(theta, plane)
        alone.step(expected, plane)
        assert np.isfinite(at_theta.grad).all()
    assert theta.tobytes() == expected.tobytes()


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_for_small_rho_the_loss_rises_by_rho_times_the_norm_of_the_gradient(seed):
    """L(θ + ε̂) - L(θ) = ρ‖g‖ + O(ρ²): halving ρ halves the relative error."""
    theta = np.random.default_rng(seed).standard_normal(5)
    for objective in (Quadratic(symmetric(seed)), batch_of(7)[0]):
        if isinstance(objective, BatchLoss):
            theta = batch_of(7)[1]
        errors = []
        for rho in (2e-3, 1e-3, 5e-4):
            recorded = Recorded(objective)
            SAM(GD(lr=0.1), rho).gradient(theta, recorded)
            at_theta, at_worst = recorded.said
            rise = (at_worst.loss - at_theta.loss) / (rho * np.linalg.norm(at_theta.grad))
            errors.append(rise - 1)
        assert abs(errors[0]) < 0.05
        assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)
        assert errors[1] / errors[2] == pytest.approx(2, rel=0.02)


# --- the gradient ---------------------------------------------------------------------------------


@given(seed=seeds, rho=rhos)
@settings(max_examples=50, deadline=None)
def test_closed_form_on_a_quadratic(seed, rho):
    """g_SAM = Hθ + ρ H²θ / ‖Hθ‖."""
    rng = np.random.default_rng(seed)
    H, h, w = symmetric(seed), rng.uniform(0.1, 10, 5), rng.standard_normal(5)
    for matrix, objective in ((np.diag(h), Bowl(h)), (H, Quadratic(H))):
        _, g = SAM(GD(lr=0.1), rho).gradient(w, objective)
        Hw = matrix @ w
        np.testing.assert_allclose(g, Hw + rho * matrix @ Hw / np.linalg.norm(Hw), rtol=1e-9)


@every_base
@both_dtypes
@pytest.mark.parametrize("net", NETS)
def test_a_step_is_the_bases_along_the_gradient_at_the_perturbed_point(net, base, dtype):
    theta = batch_of(0, net, dtype=dtype)[1]
    expected, alone, sam = theta.copy(), base(), SAM(base(), rho=0.1)
    for seed in range(20):  # a new batch for every step, the same one within a step
        batch, _ = batch_of(seed, net, dtype=dtype)
        g = batch(expected).grad
        norm = float(np.linalg.norm(g.astype(np.float64)))
        alone.update(expected, batch((expected + 0.1 / norm * g).astype(dtype)).grad)
        sam.step(theta, batch)
    np.testing.assert_allclose(theta, expected, rtol=0, atol=1e3 * ROUNDING[dtype])


def test_moments_see_only_the_gradient_at_the_perturbed_point_once_a_step():
    momentum, adam = Momentum(lr=0.1, momentum=0.5), Adam(lr=0.1, beta1=0.5, beta2=0.5)
    for base in (momentum, adam):
        SAM(base, rho=0.5).step(np.array([3.0, 2.0]), Bowl([1.0, 2.0]))
        assert base.t == 1
    # Hθ = (3, 4), ε̂ = (0.3, 0.4), H (θ + ε̂) = (3.3, 4.8)
    np.testing.assert_allclose(momentum.velocity, [3.3, 4.8], rtol=1e-14)
    np.testing.assert_allclose(adam.m, [3.3 / 2, 4.8 / 2], rtol=1e-14)
    np.testing.assert_allclose(adam.v, [3.3**2 / 2, 4.8**2 / 2], rtol=1e-14)


@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_the_base_updates_once_a_step(rho):
    class Watched(GD):
        seen = 0

        def update(self, theta, g):
            self.seen += 1
            super().update(theta, g)

    batch, theta = batch_of(1)
    sam = SAM(Watched(lr=0.1), rho)
    for _ in range(5):
        sam.step(theta, batch)
    assert sam.base.seen == sam.base.t == sam.t == 5


def test_a_step_reports_the_loss_gradient_and_accuracy_at_theta():
    batch, theta = batch_of(2)
    expected = batch(theta)
    at_theta = SAM(GD(lr=0.5), rho=1.0).step(theta, batch)
    assert (at_theta.loss, at_theta.accuracy) == (expected.loss, expected.accuracy)
    assert np.array_equal(at_theta.grad, expected.grad)


# --- theta is never perturbed ---------------------------------------------------------------------


class Interrupted(RuntimeError):
    pass


@every_base
@both_dtypes
def test_theta_is_untouched_during_and_after_an_interrupted_second_pass(base, dtype):
    batch, theta = batch_of(3, dtype=dtype)
    sam = SAM(base(), rho=0.5)
    sam.step(theta, batch)
    before, moments, calls = theta.tobytes(), repr(vars(sam.base)), []

    def interrupted(point):
        calls.append(point)
        assert theta.tobytes() == before
        if len(calls) == 2:
            assert not np.shares_memory(point, theta)
            raise Interrupted
        return batch(point)

    with pytest.raises(Interrupted):
        sam.step(theta, interrupted)
    assert len(calls) == 2
    assert theta.tobytes() == before
    assert repr(vars(sam.base)) == moments
    assert sam.t == 1


# --- rho = 0, and passes --------------------------------------------------------------------------


def run(optimizer, steps, dtype=np.float32):
    """theta after this many steps, each on its own batch, and the passes that each took."""
    theta, examples = batch_of(0, dtype=dtype)[1], []
    for step in range(steps):
        counted = Counted(batch_of(step, dtype=dtype)[0])
        optimizer.step(theta, counted)
        examples.append(counted.examples // counted.n)
    return theta, examples


@every_base
@both_dtypes
@pytest.mark.parametrize("rho", [0, 0.0, lambda step: 0.0])
def test_rho_0_is_the_base_bit_for_bit(rho, base, dtype):
    theta, passes = run(SAM(base(), rho), 50, dtype)
    assert theta.tobytes() == run(base(), 50, dtype)[0].tobytes()
    assert passes == [1] * 50


@every_base
def test_rho_to_0_tends_to_the_base_although_it_takes_a_second_pass(base):
    expected, _ = run(base(), 50, np.float64)
    theta, passes = run(SAM(base(), rho=1e-9), 50, np.float64)
    assert passes == [2] * 50
    assert 0 < np.abs(theta - expected).max() < 1e-6


@every_base
def test_rho_makes_a_difference_and_costs_two_gradients_a_step(base):
    theta, passes = run(SAM(base(), rho=0.1), 10)
    assert passes == [2] * 10
    assert np.abs(theta - run(base(), 10)[0]).max() > 1e-4


@pytest.mark.parametrize(
    ("rho", "passes"),
    [
        (lambda step: 0.1 if step % 3 == 0 else 0, [2, 1, 1, 2, 1, 1, 2, 1]),
        (lambda step: 0.1 if step >= 5 else 0, [1, 1, 1, 1, 1, 2, 2, 2]),
    ],
    ids=["every third step", "late"],
)
def test_rho_may_follow_a_schedule(rho, passes):
    theta, examples = run(SAM(GD(lr=0.1), rho), 8, np.float64)
    assert examples == passes
    expected = batch_of(0)[1]
    for step in range(8):
        batch = batch_of(step)[0]
        _, g = SAM(GD(lr=0.1), rho(step)).gradient(expected, batch)
        expected -= 0.1 * g
    np.testing.assert_allclose(theta, expected, rtol=1e-12)


def test_the_schedules_of_rho_and_lr_count_the_same_steps():
    asked = {"rho": [], "lr": []}

    def schedule(name):
        return lambda step: asked[name].append(step) or 0.1

    run(SAM(Momentum(schedule("lr")), schedule("rho")), 4)
    assert asked == {"rho": [0, 1, 2, 3], "lr": [0, 1, 2, 3]}


@pytest.mark.parametrize("rho", [-0.05, -math.inf, math.inf, math.nan])
def test_rho_must_be_a_finite_number_from_0(rho):
    with pytest.raises(ValueError, match=f"^rho must be a finite number ≥ 0, got {rho}$"):
        SAM(GD(lr=0.1), rho)


# --- composition ----------------------------------------------------------------------------------


def test_weight_decay_of_the_base_acts_at_theta_alone():
    theta = np.array([3.0, 2.0])
    SAM(GD(lr=0.1, weight_decay=0.1), rho=0.5).step(theta, Bowl([1.0, 2.0]))
    # Hθ = (3, 4), ε̂ = (0.3, 0.4), H (θ + ε̂) = (3.3, 4.8), and then 0.1 θ is added
    np.testing.assert_allclose(theta, [3 - 0.1 * (3.3 + 0.3), 2 - 0.1 * (4.8 + 0.2)], rtol=1e-14)


def test_weight_decay_in_the_objective_is_seen_by_both_passes():
    theta = np.array([3.0, 2.0])
    at_theta = SAM(GD(lr=0.1), rho=0.5).step(theta, Penalised(Bowl([0.5, 1.5]), l2=0.5))
    # (H + λ) θ = (3, 4), ε̂ = (0.3, 0.4), (H + λ)(θ + ε̂) = (3.3, 4.8)
    np.testing.assert_allclose(theta, [3 - 0.33, 2 - 0.48], rtol=1e-14)
    # ½ (0.5 · 9 + 1.5 · 4) + ½ 0.5 (9 + 4)
    assert at_theta.loss == pytest.approx(5.25 + 3.25)


def test_decoupled_weight_decay_acts_at_theta_alone():
    theta = np.array([3.0, -2.0])
    SAM(Adam(lr=0.1, weight_decay=0.2), rho=0.5).step(theta, Bowl([1.0, 2.0]))
    # the first step of Adam is lr along every axis, whatever the gradient; θ shrinks by lr λ
    np.testing.assert_allclose(theta, [3 * 0.98 - 0.1, -2 * 0.98 + 0.1], rtol=1e-8)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("m", [1, 2, 4, 6])
@every_base
def test_a_batch_in_parts_gives_the_step_of_the_whole(net, m, base):
    batch, theta = batch_of(4, net)
    in_parts, whole, parts = theta.copy(), theta.copy(), Counted(batch)
    one, other = (SAM(base(), rho=0.1).step for _ in range(2))
    for _ in range(3):
        first, second = one(whole, batch), other(in_parts, Mean(parts.split(m)))
        assert first.loss == pytest.approx(second.loss, rel=1e-12)
        assert first.accuracy == pytest.approx(second.accuracy)
    np.testing.assert_allclose(in_parts, whole, rtol=1e-7, atol=1e-10)
    assert parts.examples == 3 * 2 * batch.n
