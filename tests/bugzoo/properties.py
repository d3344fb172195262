"""Properties that every implementation of SAM must have, each as a function that asserts it.

A property gets the implementation to judge: `sam`, called as sam(base, rho), returns an optimizer.
It knows nothing of how that is written, so it judges right and wrong ones alike.
"""

from collections.abc import Callable
from functools import wraps

import numpy as np
from hypothesis import Phase, given, settings
from strategies import seeds

from minisam.analysis.toy import Bowl
from minisam.nn import BatchLoss, BatchNorm, Dropout, Linear, Sequential, Tanh
from minisam.objective import Evaluation
from minisam.optim import GD, SAM, Momentum

RHO = 0.3
PLAIN = Sequential([Linear(3, 8), Tanh(), Linear(8, 3)], (3,))
NORMALISED = Sequential([Linear(3, 8), BatchNorm(8), Tanh(), Linear(8, 3)], (3,))
DROPPED_OUT = Sequential([Linear(3, 8), Tanh(), Dropout(0.5), Linear(8, 3)], (3,))


class Watched(BatchLoss):
    """A batch that remembers where it was evaluated."""

    points: tuple[np.ndarray, ...] = ()

    def __call__(self, theta):
        self.points = (*self.points, theta.copy())
        return super().__call__(theta)


class Plane:
    """The gradient is g at 0, and theta everywhere else."""

    n = 1

    def __init__(self, g):
        self.g = g

    def __call__(self, theta):
        return Evaluation(0.0, theta.copy() if theta.any() else self.g)


def example(seed: int, net: Sequential = PLAIN, dtype: type = np.float64):
    """An initial theta, with every bias 0, and a batch of 8 examples."""
    rng = np.random.default_rng(seed)
    theta, x, y = net.init(rng, dtype), rng.standard_normal((8, 3)).astype(dtype), rng.integers(3, size=8)
    return theta, Watched(net, x, y, key=(seed,))


def for_all_seeds(check: Callable) -> Callable:
    """Turn check(sam, seed) into property(sam), which tries many seeds."""

    @wraps(check)
    def for_these(sam) -> None:
        # An animal is expected to fail: there is nothing to shrink, to store or to report in detail.
        @settings(max_examples=10, deadline=None, phases=[Phase.generate], database=None, report_multiple_bugs=False)
        @given(seed=seeds)
        def holds(seed: int) -> None:
            check(sam, seed)

        holds()

    return for_these


# --- the perturbation -----------------------------------------------------------------------------


@for_all_seeds
def perturbation_has_length_rho(sam, seed):
    """‖ε̂‖₂ = ρ over all parameters together, whatever the length of the gradient."""
    theta, batch = example(seed)
    sam(GD(lr=0.1), RHO).gradient(theta, batch)
    start, worst = batch.points
    np.testing.assert_allclose(np.linalg.norm(worst - start), RHO, rtol=1e-9)
    for scale in (1e-20, 1e20):
        _, g = sam(GD(lr=0.1), RHO).gradient(np.zeros(3), Plane(scale * np.array([2.0, -1.0, 2.0])))
        np.testing.assert_allclose(g, RHO * np.array([2.0, -1.0, 2.0]) / 3, rtol=1e-9)


@for_all_seeds
def zero_weights_are_perturbed(sam, seed):
    """Every weight that has a gradient climbs, even one at 0, such as a bias at the start."""
    theta, batch = example(seed)
    at_theta, _ = sam(GD(lr=0.1), RHO).gradient(theta, batch)
    start, worst = batch.points
    assert np.array_equal(worst != start, at_theta.grad != 0)


def zero_gradient_is_survived(sam):
    """If the gradient vanishes there is nowhere to climb: ε̂ = 0, and theta stays."""
    theta = np.zeros(3)
    sam(GD(lr=0.1), RHO).step(theta, Bowl([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(theta, 0)


# --- the gradient ---------------------------------------------------------------------------------


@for_all_seeds
def gradient_is_that_at_the_perturbed_weights(sam, seed):
    """On ½ θᵀHθ the gradient at θ + ε̂ has a closed form, Hθ + ρ H²θ / ‖Hθ‖."""
    rng = np.random.default_rng(seed)
    h, theta = rng.uniform(0.1, 10, 5), rng.standard_normal(5)
    _, g = sam(GD(lr=0.1), RHO).gradient(theta.copy(), Bowl(h))
    np.testing.assert_allclose(g, h * theta + RHO * h**2 * theta / np.linalg.norm(h * theta), rtol=1e-12)


@for_all_seeds
def both_passes_see_the_same_function(sam, seed):
    """As ρ → 0 SAM's gradient tends to the gradient at θ, with dropout or without."""
    theta, batch = example(seed, DROPPED_OUT)
    at_theta, g = sam(GD(lr=0.1), 1e-7).gradient(theta, batch)
    np.testing.assert_allclose(g, at_theta.grad, atol=1e-5)


@for_all_seeds
def micro_batches_are_averaged(sam, seed):
    """With m = 2, every two examples climb on their own, and the step follows the mean of their gradients."""
    theta, batch = example(seed)
    _, g = sam(GD(lr=0.1), RHO).gradient(theta, batch)
    of_parts = [SAM(GD(lr=0.1), RHO).gradient(theta, part)[1] for part in batch.split(2)]
    np.testing.assert_allclose(g, np.mean(of_parts, axis=0), atol=1e-12)


# --- the update -----------------------------------------------------------------------------------


@for_all_seeds
def momentum_sees_one_gradient_a_step(sam, seed):
    """v ← μ v + ∇L(θ + ε̂), and nothing else enters v."""
    rng = np.random.default_rng(seed)
    h, theta, v = rng.uniform(0.1, 2, 5), rng.standard_normal(5), np.zeros(5)
    found, optimizer = theta.copy(), sam(Momentum(lr=0.01, momentum=0.9), RHO)
    for _ in range(3):
        optimizer.step(found, Bowl(h))
        v = 0.9 * v + h * theta + RHO * h**2 * theta / np.linalg.norm(h * theta)
        theta = theta - 0.01 * v
    np.testing.assert_allclose(found, theta, atol=1e-12)


@for_all_seeds
def weights_decay_once(sam, seed):
    """θ ← θ - lr (∇L(θ + ε̂) + λ θ): the decay is λ θ, and if the loss is flat nothing else moves θ."""
    theta = np.random.default_rng(seed).standard_normal(5)
    for h in (0.0, 2.0):
        found = theta.copy()
        sam(GD(lr=0.1, weight_decay=0.5), RHO).step(found, Bowl(np.full(5, h)))
        worst = theta + RHO * theta / np.linalg.norm(theta) * bool(h)
        np.testing.assert_allclose(found, theta - 0.1 * (h * worst + 0.5 * theta))


# --- what is left behind --------------------------------------------------------------------------


@for_all_seeds
def theta_is_restored_bit_for_bit(sam, seed):
    """After the two passes, and before the update, theta is unchanged to the last bit."""
    theta, batch = example(seed, dtype=np.float32)
    before = theta.tobytes()
    sam(GD(lr=0.1), RHO).gradient(theta, batch)
    assert theta.tobytes() == before


class Interrupted(Exception):
    """Ctrl-C, no memory left, a server that goes down."""


class Interrupting(Watched):
    """A batch whose second evaluation is interrupted."""

    def __call__(self, theta):
        evaluation = super().__call__(theta)
        if len(self.points) == 2:
            raise Interrupted
        return evaluation


@for_all_seeds
def theta_is_unchanged_whenever_training_stops(sam, seed):
    """After an exception in the second pass theta is unchanged, as a checkpoint saved on the way out would find it."""
    theta, batch = example(seed)
    before = theta.copy()
    try:
        sam(GD(lr=0.1), RHO).step(theta, Interrupting(batch.net, batch.x, batch.y, key=batch.key))
    except Interrupted:
        np.testing.assert_array_equal(theta, before)
    else:
        raise RuntimeError("there was no second pass")  # no failure of this property


@for_all_seeds
def loss_is_reported_at_theta(sam, seed):
    """The loss and the accuracy that a step returns are those at θ, where it starts."""
    theta, batch = example(seed)
    at_theta = batch(theta)
    reported = sam(GD(lr=0.1), RHO).step(theta, batch)
    assert (reported.loss, reported.accuracy) == (at_theta.loss, at_theta.accuracy)


@for_all_seeds
def running_statistics_are_those_at_theta(train_step, seed):
    """BatchNorm's running statistics move once per step, towards the batch's statistics at θ."""
    theta, batch = example(seed, NORMALISED)
    stats = NORMALISED.init_stats(np.float64)
    expected = stats + BatchNorm.MOMENTUM * (batch(theta).stats - stats)
    train_step(SAM(GD(lr=0.1), RHO), theta, stats, batch)
    np.testing.assert_allclose(stats, expected, rtol=1e-12)


# --- and a check that catches none ----------------------------------------------------------------


def loss_goes_down(sam):
    """Two hundred steps, with momentum, weight decay and dropout, halve the loss: in the curve and in evaluation."""
    theta, batch = example(0, DROPPED_OUT)
    x, y = batch.x, batch.y
    evaluation = BatchLoss(DROPPED_OUT, x, y, stats=DROPPED_OUT.init_stats(np.float64))
    before, optimizer = evaluation(theta).loss, sam(Momentum(lr=0.02, weight_decay=1e-3), 0.05)
    curve = [optimizer.step(theta, BatchLoss(DROPPED_OUT, x, y, key=(0, step))).loss for step in range(200)]
    assert np.mean(curve[-20:]) < np.mean(curve[:5]) / 2
    assert evaluation(theta).loss < before / 2
