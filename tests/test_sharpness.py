"""Sharpness where it is known in closed form, and slices of the loss."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds
from test_hvp import batch_of, smooth_mlp

from minisam.analysis import Bowl
from minisam.analysis.landscape import filter_normalized, line, pca_plane, plane
from minisam.analysis.sharpness import sharpness
from minisam.nn import BatchNorm, Conv2d, GlobalAvgPool2d, Linear, ReLU, Sequential
from minisam.objective import Mean, Penalised


def rng(seed=0):
    return np.random.default_rng(seed)


# --- sharpness ------------------------------------------------------------------------------------


@given(seed=seeds, size=st.integers(2, 6), rho=st.floats(0.1, 2))
@settings(max_examples=20)
def test_at_the_bottom_of_a_bowl_the_worst_rise_is_half_rho_squared_lambda_max(seed, size, rho):
    h = np.random.default_rng(seed).uniform(0.1, 5, size)
    found = sharpness(Bowl(h), np.zeros(size), rho, rng(seed), steps=60, directions=500)
    assert found.one_step == 0  # no slope, nowhere to step
    assert found.worst[-1] == pytest.approx(0.5 * rho**2 * h.max(), rel=0.02)
    assert found.worst[-1] <= 0.5 * rho**2 * h.max() * (1 + 1e-9)
    assert np.mean(found.random) == pytest.approx(0.5 * rho**2 * h.mean(), rel=0.2)  # tr H / P
    assert found.random.max() <= found.worst[-1] * 1.02


def test_one_step_is_that_of_sam():
    theta, batch = smooth_mlp(0)
    g = batch(theta).grad
    rise = batch(theta + 0.3 * g / np.linalg.norm(g)).loss - batch(theta).loss
    assert sharpness(batch, theta, 0.3, rng()).one_step == pytest.approx(rise)
    T = np.abs(theta) + 0.05
    rise = batch(theta + 0.3 * T**2 * g / np.linalg.norm(T * g)).loss - batch(theta).loss
    assert sharpness(batch, theta, 0.3, rng(), eta=0.05).one_step == pytest.approx(rise)


@given(seed=seeds)
@settings(max_examples=10)
def test_more_steps_never_find_less(seed):
    theta, batch = smooth_mlp(seed)
    found = sharpness(batch, theta, 0.5, rng(), steps=10, starts=3, directions=50)
    assert np.all(np.diff(found.worst) >= 0)
    assert found.worst[0] >= found.one_step
    assert found.worst[-1] >= found.random.max()  # the worst of 50 random directions is mild


def test_adaptive_sharpness_does_not_change_when_layers_are_rescaled():
    net = Sequential([Linear(3, 4), ReLU(), Linear(4, 3)], (3,))
    theta, batch = batch_of(net, n=8)
    theta[12:16] = 0  # the first layer's biases, which scale with it
    scaled = theta.copy()
    scaled[:12], scaled[16:28] = 5 * theta[:12], theta[16:28] / 5
    assert batch.value(scaled) == pytest.approx(batch.value(theta))
    options = {"rho": 0.1, "steps": 30, "directions": 1}
    plain = [sharpness(batch, t, rng=rng(), **options).worst[-1] for t in (theta, scaled)]
    adaptive = [sharpness(batch, t, rng=rng(), eta=1e-9, **options).worst[-1] for t in (theta, scaled)]
    assert adaptive[0] == pytest.approx(adaptive[1], rel=1e-3)
    assert abs(plain[0] / plain[1] - 1) > 0.2


def test_a_step_back_to_the_centre_is_survived():
    """From a point of the sphere where the slope leads straight inwards, a step of length ρ ends at δ = 0."""
    for seed in range(5):
        found = sharpness(Bowl([-1.0]), np.array([0.01]), 1.0, rng(seed), steps=4, directions=1)
        assert np.isfinite(found.worst).all()


class Cliff(Bowl):
    """A bowl whose loss is NaN beyond a distance, as after an overflow."""

    def __call__(self, theta):
        here = super().__call__(theta)
        return here._replace(loss=math.nan, grad=np.full_like(theta, np.nan)) if np.abs(theta).max() > 1 else here


def test_a_loss_that_overflows_is_an_infinite_rise_and_spoils_nothing_else():
    found = sharpness(Cliff([1.0, 1.0]), np.array([0.5, 0.0]), 0.6, rng(), steps=3, starts=1, directions=200)
    assert found.worst.tolist() == [math.inf] * 3
    assert found.one_step == math.inf
    assert np.isinf(found.random).any()
    assert not np.isnan(found.random).any()
    found = sharpness(Cliff([1.0, 1.0]), np.array([0.5, 0.0]), 0.4, rng(), steps=3, starts=1, directions=5)
    assert np.isfinite(found.worst).all()
    with pytest.raises(ValueError, match="expected a finite loss at theta, got nan"):
        sharpness(Cliff([1.0]), np.array([2.0]), 0.1, rng())


def test_the_first_step_of_the_first_ascent_is_sams_own_and_others_go_on_from_it():
    found = sharpness(Bowl([1.0, 9.0]), np.array([1.0, 0.1]), 1.0, rng(), steps=3, starts=1, directions=1)
    assert found.one_step == found.worst[0] < found.worst[1] < found.worst[2]


@pytest.mark.parametrize("name", ["rho", "eta", "steps", "starts", "directions"])
def test_numbers_that_are_not_positive_are_refused(name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        sharpness(Bowl([1.0]), np.ones(1), **{"rho": 0.1, "rng": rng(), name: 0})


# --- landscapes -----------------------------------------------------------------------------------


def test_filters_of_a_direction_are_as_long_as_those_of_theta():
    net = Sequential([Conv2d(2, 3, 3), BatchNorm(3), ReLU(), GlobalAvgPool2d(), Linear(3, 4)], (4, 4, 2))
    theta = net.init(rng(), np.float32) + np.float32(0.1)
    direction = filter_normalized(net, theta, rng(1))
    assert direction.dtype == np.float32
    (W, _), _, _, _, (V, _) = net.params(theta)
    (dW, db), (dgamma, dbeta), _, _, (dV, dc) = net.params(direction)
    for f in range(3):
        assert np.linalg.norm(dW[..., f]) == pytest.approx(np.linalg.norm(W[..., f]), rel=1e-5)
    for f in range(4):
        assert np.linalg.norm(dV[:, f]) == pytest.approx(np.linalg.norm(V[:, f]), rel=1e-5)
    for vector in (db, dgamma, dbeta, dc):
        assert not vector.any()
    assert np.abs(dW).min() > 0


def test_a_line_and_a_plane_are_the_loss_there():
    theta, batch = smooth_mlp(0)
    other, u, v = theta + 1, *rng().standard_normal((2, len(theta)))
    t = np.linspace(0, 1, 4)
    between = line(batch, theta, other - theta, t)
    np.testing.assert_allclose(between, [batch.value(theta + s) for s in t])
    a, b = np.linspace(-1, 1, 3), np.linspace(-2, 2, 5)
    losses = plane(batch, theta, u, v, a, b)
    expected = [[batch.value(theta + x * u + y * v) for x in a] for y in b]
    np.testing.assert_allclose(losses, expected)


def test_an_interrupted_plane_goes_on_where_it_was():
    theta, batch = smooth_mlp(0)
    u, v = rng().standard_normal((2, len(theta)))
    a = b = np.linspace(-1, 1, 4)
    kept = []

    def keep(losses):
        kept.append(losses.copy())
        if len(kept) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plane(batch, theta, u, v, a, b, keep=keep)
    assert np.isnan(kept[-1]).any(axis=1).tolist() == [False, False, True, True]
    kept[-1][0] += 100  # to see that it is not computed again
    losses = plane(batch, theta, u, v, a, b, known=kept[-1])
    np.testing.assert_array_equal(losses[0], kept[-1][0])
    np.testing.assert_array_equal(losses[1:], plane(batch, theta, u, v, a, b)[1:])


@given(seed=seeds, n=st.integers(3, 8))
def test_the_plane_of_a_path_is_the_one_it_stays_nearest_to(seed, n):
    path = np.random.default_rng(seed).standard_normal((n, 20))
    found = pca_plane(path, path[-1])
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(2), atol=1e-9)
    centred = path - path[-1]
    residual = centred - found.path @ found.directions
    exact = np.linalg.svd(centred, compute_uv=False)
    assert np.sum(residual**2) == pytest.approx(np.sum(exact[2:] ** 2))
    np.testing.assert_allclose(found.share, exact[:2] ** 2 / np.sum(exact**2))


@pytest.mark.parametrize(
    ("u", "message"),
    [
        (np.ones(2), r"expected u as a vector \(31,\), like theta, got \(2,\)"),
        (np.full(31, np.inf), "u must be finite"),
    ],
)
def test_directions_that_do_not_fit_are_refused(u, message):
    theta, batch = smooth_mlp(0)
    with pytest.raises(ValueError, match=rf"\b{message}"):
        line(batch, theta, u, np.zeros(1))
    with pytest.raises(ValueError, match=rf"\b{message.replace('u ', 'v ')}"):
        plane(batch, theta, theta, u, np.zeros(1), np.zeros(1))


def test_known_losses_of_another_grid_are_refused():
    theta, batch = smooth_mlp(0)
    with pytest.raises(ValueError, match=r"known losses of shape \(3, 2\), got \(2, 2\)"):
        plane(batch, theta, theta, theta, np.zeros(2), np.zeros(3), known=np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (np.array([[1.0, 0, 0], [0, 1, 0]]), r"at least 3 thetas, got shape \(2, 3\)"),
        (np.ones(5), r"at least 3 thetas, got shape \(5,\)"),
        (np.outer(np.arange(4.0), np.ones(5)), "the path stays on a line: it spans no plane"),
        (np.arange(4.0)[:, None], "the path stays on a line: it spans no plane"),  # of one parameter
    ],
)
def test_a_path_without_a_plane_is_refused(path, message):
    with pytest.raises(ValueError, match=rf"\b{message}"):
        pca_plane(path, np.zeros_like(path[0]))


def test_a_value_is_the_loss_of_an_evaluation():
    theta, batch = batch_of()
    for objective in (batch, Mean(batch.split(4)), Penalised(batch, l2=0.5)):
        assert objective.value(theta) == pytest.approx(objective(theta).loss, rel=1e-12)
