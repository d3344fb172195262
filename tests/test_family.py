"""SAM's family: each ascent maximises gᵀε over its ball, and each member is SAM where it should be."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from minisam.analysis.diagnostics import Recorded
from minisam.analysis.toy import Bowl
from minisam.nn import BatchLoss, BatchNorm, Conv2d, Dropout, Flatten, Linear, ReLU, Residual, Sequential, Tanh
from minisam.objective import Evaluation
from minisam.optim import (
    GD,
    GSAM,
    SAM,
    Adaptive,
    Ball,
    Clipped,
    Every,
    ExactSAM,
    Friendly,
    Late,
    LookSAM,
    MicroBatched,
    Momentum,
    RandomDirection,
)  # fmt: skip

NET = Sequential(
    [
        Conv2d(1, 2, 3),
        BatchNorm(2),
        ReLU(),
        Residual((Conv2d(2, 2, 3), BatchNorm(2))),
        Flatten(),
        Dropout(),
        Linear(18, 3),
    ],
    (3, 3, 1),
)
NET_SMOOTH = Sequential([Linear(4, 5), Tanh(), Linear(5, 3)], (4,))
ASCENTS = {
    "L1": Ball(1),
    "L2": Ball(2),
    "L3": Ball(3),
    "L∞": Ball(math.inf),
    "ASAM": Adaptive(),
    "random": RandomDirection(),
}
MEMBERS = {
    **{name: lambda base, rho, ascent=ascent: SAM(base, rho, ascent) for name, ascent in ASCENTS.items()},
    "several ascents": lambda base, rho: SAM(base, rho, ascent_steps=3),
    "Friendly": lambda base, rho: SAM(base, rho, Friendly()),
    "GSAM": GSAM,
    "exact": ExactSAM,
    "LookSAM": LookSAM,
    "m-SAM": lambda base, rho: MicroBatched(SAM(base, rho), m=100),
}
every_member = pytest.mark.parametrize("make", MEMBERS.values(), ids=MEMBERS)


def batch_of(seed, step=0, n=8):
    rng = np.random.default_rng([seed, step])
    x = rng.standard_normal((n, *NET.input_shape)).astype(np.float32)
    return BatchLoss(NET, x, rng.integers(3, size=n), key=(seed, step))


def train(optimizer, steps, seed=0):
    theta = NET.init(np.random.default_rng(seed))
    losses = [optimizer.step(theta, batch_of(seed, step)).loss for step in range(steps)]
    return theta, losses


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 10, math.inf])
@given(seed=seeds, size=st.integers(1, 20))
def test_a_ball_is_climbed_where_the_slope_is_steepest(p, seed, size):
    """‖ε̂‖ₚ = ρ and gᵀε̂ = ρ‖g‖_q: Hölder's bound, so no other ε of that length gains more."""
    g = np.random.default_rng(seed).standard_normal(size)
    direction, length = Ball(p)(g, g)
    q = {1: math.inf, math.inf: 1}.get(p) or p / (p - 1)
    assert np.linalg.norm(direction / length, p) == pytest.approx(1)
    assert g @ direction / length == pytest.approx(np.linalg.norm(g, q))


@pytest.mark.parametrize("ascent", [*(Ball(p) for p in (1.1, 1.5, 3, math.inf)), Adaptive()], ids=str)
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e30, 1e38])
def test_every_ascent_bears_tiny_and_huge_gradients(ascent, scale):
    """In float32, where scale² is 0 or infinite."""
    g, theta = np.array([1, -2, 3], np.float32), np.array([20, 0, -1], np.float32)
    (direction, length), (expected, of_expected) = ascent(theta, g * np.float32(scale)), ascent(theta, g)
    np.testing.assert_allclose(direction / length, expected / of_expected, rtol=1e-5)


def test_gradients_are_combined_in_float32_without_leaving_its_range():
    for make, steps in ((GSAM, 7), (LookSAM, 7), (ExactSAM, 1)):  # ExactSAM's slope is rightly 1e38 here
        theta, optimizer = np.full(2, 1e-40, np.float32), make(GD(lr=0.1), np.float64(0.05))
        for _ in range(steps):
            at_theta = optimizer.step(theta, Bowl([1.0, 3.0]))
            assert at_theta.grad.dtype == theta.dtype == np.float32
            assert np.isfinite(theta).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=seeds, size=st.sampled_from([1, 20, 1000]))
def test_looksam_takes_no_rounding_noise_for_a_pull(dtype, seed, size):
    """On a round bowl g_s is parallel to g: its sideways part is only rounding."""
    theta = np.random.default_rng(seed).standard_normal(size).astype(dtype)
    looksam, bowl = LookSAM(GD(lr=0.1), rho=0.05, k=2), Bowl(np.ones(size))
    looksam.step(theta, bowl)
    np.testing.assert_array_equal(looksam.gradient(theta, bowl)[1], bowl(theta).grad)


@pytest.mark.parametrize("member", [SAM, GSAM, LookSAM, ExactSAM])
def test_on_a_step_without_rho_a_member_follows_its_base(member):
    optimizer = member(GD(lr=0.05), lambda step: 0.1 if step < 2 else 0.0)
    theta = NET.init(np.random.default_rng(0))
    for step in range(4):
        expected = theta - np.float32(0.05) * batch_of(0, step)(theta).grad
        optimizer.step(theta, batch_of(0, step))
        assert np.allclose(theta, expected, rtol=0, atol=1e-7) == (step >= 2)


def test_every_seed_and_step_has_a_random_direction_of_its_own_and_always_the_same_one():
    theta = np.zeros(5)
    keys = [(seed, step) for seed in (0, 1, 2) for step in (0, 1, 2)]
    one, again = ([RandomDirection(seed)(theta, theta, step)[0].tolist() for seed, step in keys] for _ in range(2))
    assert one == again
    assert len(set(map(tuple, one))) == len(keys)


def test_where_the_worst_point_has_no_slope_gsam_stays():
    """It does not climb the slope at θ, the only term left of its formula."""
    dead_there = lambda theta: Evaluation(0.0, np.array([1.0, 0.0]) * (theta[0] == 0))  # noqa: E731
    np.testing.assert_array_equal(GSAM(GD(lr=0.1), 0.5).gradient(np.zeros(2), dead_there)[1], 0)


def test_a_step_enters_friendly_sams_memory_once():
    bowl, theta, g = Bowl([1.0, 2.0]), np.array([1.0, 1.0]), np.array([1.0, 2.0])
    friendly = Friendly(sigma=1.0, lmbda=0.6)
    sam = SAM(GD(lr=0.1), 0.1, friendly, ascent_steps=3)
    first = sam.gradient(theta, bowl)[1]
    np.testing.assert_allclose(friendly.m, 0.4 * g)
    np.testing.assert_array_equal(sam.gradient(theta, bowl)[1], first)  # asked again, it says the same


def test_friendly_sam_is_its_formula_step_by_step():
    """At first d is a multiple of g, whatever the sign of σ m; here the bowl's narrow axis soon turns g away from m."""
    h, theta, path = np.array([1.0, 3.0, 10.0]), np.array([2.0, -1.0, 1.0]), []
    optimizer = SAM(GD(lr=0.05), 0.3, Friendly(sigma=0.8, lmbda=0.7))
    w, m, expected = theta.copy(), np.zeros(3), []
    for _ in range(8):
        optimizer.step(theta, Bowl(h))
        path.append(theta.copy())
        g = h * w
        m = 0.7 * m + 0.3 * g
        d = g - 0.8 * m
        w = w - 0.05 * h * (w + 0.3 * d / np.linalg.norm(d))
        expected.append(w)
    np.testing.assert_allclose(path, expected, rtol=1e-12)


def test_a_step_that_was_refused_has_not_been_taken():
    sam = SAM(Momentum(lr=lambda step: -1.0), 0.1)
    with pytest.raises(ValueError, match="schedule's value at step 0"):
        sam.step(np.ones(2), Bowl([1.0, 2.0]))
    assert sam.t == sam.base.t == 0


@pytest.mark.parametrize("wrap", [SAM, LookSAM, lambda base: Clipped(base, 1.0)])
@pytest.mark.parametrize("base", [SAM(GD(lr=0.1)), MicroBatched(GD(lr=0.1), m=2)], ids=["SAM", "MicroBatched"])
def test_a_base_that_would_not_be_asked_for_its_gradient_is_refused(wrap, base):
    with pytest.raises(ValueError, match=r"^base must be GD, Momentum, Adam or another optimizer that follows"):
        wrap(base)


@pytest.mark.parametrize("inner", [LookSAM(GD(lr=0.1)), SAM(GD(lr=0.1), 0.1, Friendly())], ids=["LookSAM", "Friendly"])
def test_micro_batches_share_no_memory(inner):
    with pytest.raises(ValueError, match=r"^inner must be an optimizer whose gradients do not depend on earlier ones"):
        MicroBatched(inner, m=2)


def test_every_example_counts_the_same_in_micro_batches_of_different_sizes():
    rng = np.random.default_rng(0)
    theta, x, y = rng.standard_normal(NET_SMOOTH.n_params), rng.standard_normal((8, 4)), rng.integers(3, size=8)
    at_theta, g = MicroBatched(SAM(GD(lr=0.1), 0.3), m=5).gradient(theta, BatchLoss(NET_SMOOTH, x, y))
    expected = 0
    for part in (slice(0, 5), slice(5, 8)):
        batch = BatchLoss(NET_SMOOTH, x[part], y[part])
        slope = batch(theta).grad
        expected += batch.n / 8 * batch(theta + 0.3 * slope / np.linalg.norm(slope)).grad
    np.testing.assert_allclose(g, expected, rtol=1e-12)
    assert at_theta.loss == pytest.approx(BatchLoss(NET_SMOOTH, x, y).value(theta))


def test_numbers_may_be_numpys():
    theta = np.ones(3, np.float32)
    base = Clipped(GD(lr=np.float64(0.1)), np.float64(0.5))
    for ascent in (Ball(np.float64(3)), Adaptive(np.float64(0.1)), Friendly(np.float64(1), np.float64(0.5))):
        SAM(base, np.float64(0.1), ascent).step(theta, Bowl([1.0, 2.0, 3.0]))
    assert theta.dtype == np.float32


@given(seed=seeds, eta=st.floats(0.01, 1))
def test_asam_climbs_the_ball_of_the_scaled_weights(seed, eta):
    theta, g = np.random.default_rng(seed).standard_normal((2, 9))
    direction, length = Adaptive(eta)(theta, g)
    T = np.abs(theta) + eta
    assert np.linalg.norm(direction / length / T) == pytest.approx(1)
    assert g @ direction / length == pytest.approx(np.linalg.norm(T * g))


@pytest.mark.parametrize("name", ["L1", "L2", "L3", "L∞", "ASAM"])
@given(seed=seeds)
@settings(max_examples=20)
def test_for_small_rho_the_loss_rises_by_rho_times_the_dual_norm(name, seed):
    """L(θ + ε̂) - L(θ) = ρ max gᵀε/ρ + O(ρ²): halving ρ halves the relative error."""
    rng = np.random.default_rng(seed)
    theta = rng.standard_normal(NET_SMOOTH.n_params)
    batch = BatchLoss(NET_SMOOTH, rng.standard_normal((8, 4)), rng.integers(3, size=8))
    here, T = batch(theta), np.abs(theta) + ASCENTS["ASAM"].eta
    dual = {
        "L1": np.linalg.norm(here.grad, math.inf),
        "L2": np.linalg.norm(here.grad),
        "L3": np.linalg.norm(here.grad, 1.5),
        "L∞": np.linalg.norm(here.grad, 1),
        "ASAM": np.linalg.norm(T * here.grad),
    }[name]
    errors = []
    for rho in (1e-4, 5e-5):
        recorded = Recorded(batch)
        SAM(GD(lr=0.1), rho, ASCENTS[name]).gradient(theta, recorded)
        errors.append((recorded.calls[-1][1].loss - here.loss) / (rho * dual) - 1)
    assert abs(errors[1]) < 0.02
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.05, abs=1e-5)


@every_member
def test_with_rho_0_a_member_is_its_base_bit_for_bit(make):
    theta, losses = train(make(Momentum(lr=0.05, weight_decay=1e-3), 0.0), 50)
    expected, of_base = train(Momentum(lr=0.05, weight_decay=1e-3), 50)
    assert theta.tobytes() == expected.tobytes()
    assert losses == of_base


@pytest.mark.parametrize("member", [SAM, GSAM, LookSAM])
def test_a_second_pass_at_the_same_place_changes_no_bit(member):
    """BatchNorm and Dropout included: the second pass is the same function."""
    here = lambda theta, g, step: (np.zeros_like(g), 1.0)  # noqa: E731
    theta, losses = train(member(Momentum(lr=0.05), 0.1, here), 50)
    expected, of_base = train(Momentum(lr=0.05), 50)
    assert theta.tobytes() == expected.tobytes()
    assert losses == of_base


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("surface", [Bowl([1.0, 2.0, 0.0]), Bowl([0.0, 0.0, 0.0])], ids=["at the bottom", "on a plain"])
def test_without_a_gradient_nothing_moves(name, surface):
    theta, optimizer = np.array([0.0, 0.0, 0.5]), MEMBERS[name](GD(lr=0.1), 0.5)
    for _ in range(3):
        optimizer.step(theta, surface)
    if name == "random" and surface.h.any():
        assert theta[0] != 0 != theta[1]  # a random direction climbs even from the bottom
        theta[:2] = 0
    assert theta.tolist() == [0, 0, 0.5]


def test_limits_in_which_members_are_sam():
    base = lambda: Momentum(lr=0.05)  # noqa: E731
    theta, _ = train(SAM(base(), 0.1), 10)
    same = {
        "m is the batch": MicroBatched(SAM(base(), 0.1), m=8),
        "every step": SAM(base(), Every(1, 0.1)),
        "from the start": SAM(base(), Late(0, 0.1)),
        "LookSAM, k = 1": LookSAM(base(), 0.1, k=1),
        "one ascent": SAM(base(), 0.1, ascent_steps=1),
        "wide clipping": SAM(Clipped(base(), 1e9), 0.1),
    }
    for name, optimizer in same.items():
        assert np.array_equal(train(optimizer, 10)[0], theta), name
    for almost in (GSAM(base(), 0.1, alpha=0), SAM(base(), 0.1, Friendly(sigma=0))):
        np.testing.assert_allclose(train(almost, 10)[0], theta, atol=1e-6)
    different = (
        LookSAM(base(), 0.1, k=2),
        GSAM(base(), 0.1),
        SAM(base(), Every(2, 0.1)),
        MicroBatched(SAM(base(), 0.1), 4),
    )
    assert all(np.abs(train(other, 10)[0] - theta).max() > 1e-4 for other in different)


@given(seed=seeds, rho=st.floats(0.01, 1))
@settings(max_examples=20)
def test_closed_forms_on_a_quadratic(seed, rho):
    """∇L(θ + ε̂) = H (θ + ε̂), with every member's ε̂ and combination written out."""
    rng = np.random.default_rng(seed)
    h, theta = rng.uniform(0.5, 3, 5), rng.standard_normal(5)
    g, bowl = h * theta, Bowl(h)
    sam = h * (theta + rho * g / np.linalg.norm(g))
    T = np.abs(theta) + 0.1
    expected = [
        (SAM(GD(0.1), rho), sam),
        (SAM(GD(0.1), rho, Ball(math.inf)), h * (theta + rho * np.sign(g))),
        (SAM(GD(0.1), rho, Adaptive(0.1)), h * (theta + rho * T**2 * g / np.linalg.norm(T * g))),
        (SAM(GD(0.1), rho, Friendly(1.0, 0.6)), sam),  # d = 0.6 g at first
        (GSAM(GD(0.1), rho, alpha=0.3), sam - 0.3 * (g - (g @ sam) / (sam @ sam) * sam)),
    ]
    for optimizer, gradient in expected:
        np.testing.assert_allclose(optimizer.gradient(theta, bowl)[1], gradient, rtol=1e-9)
    look = LookSAM(GD(0.1), rho, k=2, alpha=0.7)
    look.gradient(theta, bowl)
    look.t = 1
    pull = sam - (sam @ g) / (g @ g) * g
    np.testing.assert_allclose(
        look.gradient(theta, bowl)[1], g + 0.7 * np.linalg.norm(g) / np.linalg.norm(pull) * pull, rtol=1e-6
    )


def test_clipping_sees_the_gradient_that_is_followed():
    theta = np.array([3.0, 4.0])
    SAM(Clipped(GD(lr=1.0), max_norm=0.5), rho=5.0).step(theta, Bowl([1.0, 1.0]))  # ∇L(6, 8) = (6, 8)
    np.testing.assert_allclose(theta, [2.7, 3.6])


@pytest.mark.parametrize("p", ["2", None, 0.5, math.nan, True])
def test_a_ball_needs_a_norm(p):
    with pytest.raises(ValueError, match=r"^p must be a number ≥ 1, or infinity"):
        Ball(p)
