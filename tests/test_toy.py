"""Surfaces whose derivatives are right, and on which optimizers do what the textbook says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisam.analysis import numerical_gradient
from minisam.analysis.toy import Bowl, Rosenbrock, TwoMinima, run
from minisam.optim import GD, SAM, Adam, Momentum

SURFACES = {"bowl": Bowl([1.0, 30.0]), "rosenbrock": Rosenbrock(), "two minima": TwoMinima(20.0, 2.0)}
points = st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5)).map(np.array)


@pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)
@given(theta=points)
def test_derivatives_are_right(surface, theta):
    here = surface(theta)
    assert surface.value(theta) == here.loss
    np.testing.assert_allclose(here.grad, numerical_gradient(surface.value, theta), atol=1e-5)
    H = np.stack([numerical_gradient(lambda t, i=i: float(surface(t).grad[i]), theta) for i in range(2)])
    product = surface.hessian(theta)
    np.testing.assert_allclose(np.stack([product(e) for e in np.eye(2)]), H, atol=1e-4)
    assert surface(theta.astype(np.float32)).grad.dtype == np.float32
    assert product(np.ones(2, np.float32)).dtype == np.float32


def test_a_bowls_loss_is_summed_in_float64():
    """2²⁴ + 1 is no float32: it would be rounded to 2²⁴."""
    assert Bowl([1.0, 1.0])(np.array([4096, 1], np.float32)).loss == (2**24 + 1) / 2


def test_gd_zigzags_in_a_long_bowl_and_momentum_does_not():
    bowl, start = Bowl([1.0, 30.0]), (-3.0, 1.0)
    gd = run(GD(lr=0.06), bowl, start, 40).thetas
    momentum = run(Momentum(lr=0.03, momentum=0.7), bowl, start, 40).thetas
    assert np.sum(np.diff(np.sign(gd[:, 1])) != 0) > 30  # from side to side at every step
    assert np.sum(np.diff(np.sign(momentum[:, 1])) != 0) < 20
    assert np.linalg.norm(momentum[-1]) < np.linalg.norm(gd[-1]) / 20


def test_gd_falls_into_the_sharp_minimum_and_sam_does_not():
    surface, start = TwoMinima(), (-2.2, 0.3)
    sharp, flat = surface.centres
    gd, sam = run(GD(lr=0.004), surface, start, 400), run(SAM(GD(lr=0.004), rho=0.6), surface, start, 400)
    np.testing.assert_allclose(gd.thetas[-1], sharp, atol=0.01)
    np.testing.assert_allclose(sam.thetas[-1], flat, atol=0.05)
    assert surface.value(sharp) == pytest.approx(surface.value(flat), abs=1e-3)


@pytest.mark.parametrize(
    "optimizer", [GD(lr=0.002), Adam(lr=0.05), SAM(Momentum(lr=0.001), rho=0.05)], ids=["GD", "Adam", "SAM"]
)
def test_any_optimizer_runs_down_rosenbrocks_valley(optimizer):
    path = run(optimizer, Rosenbrock(), (-1.2, 1.0), 3000)
    assert path.losses[-1] < 0.05
    assert path.thetas.shape == (3001, 2)


def test_a_path_holds_every_point_that_one_would_draw():
    path = run(SAM(GD(lr=0.1), rho=0.5), Bowl([2.0, 1.0]), (1.0, 0.0), 1)
    np.testing.assert_allclose(path.thetas, [[1, 0], [0.7, 0]])
    np.testing.assert_allclose(path.worst, [[1.5, 0]])
    assert path.losses.tolist() == [1.0]
