"""Products with the Hessian against differences of the gradient, and their uses."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import networks, seeds
from test_network import drawn, kinks

from minisam import kernels
from minisam.analysis import Bowl, numerical_gradient, relative_error
from minisam.analysis.diagnostics import Recorded
from minisam.nn import (
    BatchLoss,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    Linear,
    MaxPool2d,
    MeanSquaredError,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
)  # fmt: skip
from minisam.objective import Mean, Penalised
from minisam.optim import GD, SAM, Ball, ExactSAM

EVERYTHING = Sequential(
    [
        Conv2d(2, 4, 3),
        BatchNorm(4),
        ReLU(),
        Residual((Conv2d(4, 4, 3), BatchNorm(4), Tanh(), Conv2d(4, 6, 3, 2)), (Conv2d(4, 6, 1, 2),)),
        MaxPool2d(2),
        Dropout(0.3),
        GlobalAvgPool2d(),
        Linear(6, 3),
    ],
    (8, 8, 2),
)


def batch_of(net=EVERYTHING, n=6, seed=0, dtype=np.float64, **options):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, *net.input_shape)).astype(dtype)
    theta = (net.init(rng) + 0.1 * rng.standard_normal(net.n_params)).astype(dtype)
    return theta, BatchLoss(net, x, rng.integers(3, size=n), key=(1,), **options)


def difference(objective, theta, v, h=1e-6):
    return (objective(theta + h * v).grad - objective(theta - h * v).grad) / (2 * h)


def smooth_mlp(seed):
    net = Sequential([Linear(3, 4), Tanh(), Linear(4, 3)], (3,))
    theta, batch = batch_of(net, n=5, seed=seed)
    return theta, batch


@given(net=networks(), seed=seeds, loss=st.sampled_from([SoftmaxCrossEntropy(0.1), MeanSquaredError()]))
def test_a_product_is_the_change_of_the_gradient(net, seed, loss):
    rng = np.random.default_rng(seed)
    theta, x, y = drawn(net, rng)
    if isinstance(loss, MeanSquaredError):
        y = rng.standard_normal((len(x), *net.output_shape))
    u, v = rng.standard_normal((2, net.n_params))
    h = 1e-6
    assume(kinks(net, theta + h * v, x) == kinks(net, theta, x) == kinks(net, theta - h * v, x))
    here = net.linearize(theta, x, y, loss)
    above, below = (net.loss_and_grad(theta + t * v, x, y, loss)[1] for t in (h, -h))
    product, scale = here.hvp(v), max(1e-3, np.abs(above - below).max() / (2 * h))
    np.testing.assert_allclose(product, (above - below) / (2 * h), rtol=0, atol=1e-6 * scale)
    np.testing.assert_array_equal(net.hvp(theta, v, x, y, loss), product)
    assert here.loss == net.loss_and_grad(theta, x, y, loss)[0]
    # H is symmetric and linear, and here.hvp has no memory.
    np.testing.assert_allclose(u @ product, v @ here.hvp(u), rtol=1e-9, atol=1e-12 * scale)
    np.testing.assert_allclose(here.hvp(2 * u - v), 2 * here.hvp(u) - product, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("stats", ["batch", "running"])
@given(seed=seeds)
@settings(max_examples=20)
def test_with_batch_norm_dropout_and_residuals(stats, seed):
    given_stats = EVERYTHING.init_stats(np.float64) + 0.3 if stats == "running" else None
    theta, batch = batch_of(seed=seed, stats=given_stats)
    v = np.random.default_rng(seed).standard_normal(len(theta))
    changes = [difference(batch, theta, v, h) for h in (1e-6, 2e-6)]
    assume(relative_error(*changes) < 1e-7)  # otherwise a kink lies between
    product = batch.hessian(theta)
    assert relative_error(product(v), changes[0]) < 1e-6
    np.testing.assert_array_equal(product(v), batch.hessian(theta)(v))


@given(seed=seeds)
@settings(max_examples=20)
def test_gauss_newton_is_the_loss_seen_through_the_linearised_network(seed):
    """G = Jᵀ ∇²ℓ J with J by differences of the outputs, column by column."""
    theta, batch = smooth_mlp(seed)
    outputs = batch.net.forward(theta, batch.x)
    J = np.empty((outputs.size, len(theta)))
    for i, e in enumerate(np.eye(len(theta))):
        above, below = (batch.net.forward(theta + t * e, batch.x) for t in (1e-6, -1e-6))
        J[:, i] = ((above - below) / 2e-6).ravel()
    p = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    of_loss = np.zeros((outputs.size, outputs.size))
    for n in range(len(outputs)):
        block = slice(3 * n, 3 * n + 3)
        of_loss[block, block] = (np.diag(p[n]) - np.outer(p[n], p[n])) / len(outputs)
    here = batch.net.linearize(theta, batch.x, batch.y)
    G = np.stack([here.gauss_newton(e) for e in np.eye(len(theta))])
    np.testing.assert_allclose(G, J.T @ of_loss @ J, atol=1e-7)
    H = np.stack([here.hvp(e) for e in np.eye(len(theta))])
    assert np.linalg.eigvalsh(G).min() > -1e-12
    assert np.abs(H - G).max() > 1e-3  # they differ by the network's own curvature


def test_gauss_newton_leaves_what_is_kept_alone():
    theta, batch = batch_of()
    here = batch.net.linearize(theta, batch.x, batch.y, key=(1,))
    v = np.random.default_rng(0).standard_normal(len(theta))
    before = here.hvp(v)
    here.gauss_newton(v)
    np.testing.assert_array_equal(here.hvp(v), before)


def test_a_product_outlives_other_evaluations():
    theta, batch = batch_of()
    v = np.random.default_rng(0).standard_normal(len(theta))
    product = batch.hessian(theta)
    expected = product(v)
    batch(theta + 1)
    other = batch.hessian(theta + 1)
    other(v)
    np.testing.assert_array_equal(product(v), expected)


@pytest.mark.parametrize("wrap", [lambda batch: batch, lambda batch: Mean(batch.split(2), recompute=True)])
def test_products_stay_where_theta_was(wrap):
    """Optimizers move theta in place."""
    theta, batch = smooth_mlp(0)
    v = np.ones(len(theta))
    product = wrap(batch).hessian(theta)
    expected = product(v)
    theta *= 1.7
    np.testing.assert_array_equal(product(v), expected)


def test_float32_and_any_number_of_threads():
    theta, batch = batch_of(n=40)
    v = np.random.default_rng(0).standard_normal(len(theta))
    exact = batch.hessian(theta)(v)
    theta, batch = batch_of(n=40, dtype=np.float32)
    products = []
    for n_threads in (1, 2, 3):
        kernels.set_threads(n_threads)
        products.append(batch.hessian(theta)(v.astype(np.float32)))
    assert products[0].dtype == np.float32
    assert products[0].tobytes() == products[1].tobytes() == products[2].tobytes()
    assert relative_error(products[0], exact) < 1e-3


@pytest.mark.parametrize(("recompute", "passes"), [(False, [2, 2]), (True, [2, 4])])
def test_parts_keep_their_passes_unless_memory_is_short(recompute, passes, monkeypatch):
    theta, batch = smooth_mlp(0)
    done, hessian = [], BatchLoss.hessian
    monkeypatch.setattr(BatchLoss, "hessian", lambda part, theta: (done.append(part), hessian(part, theta))[1])
    product = Mean([batch, batch], recompute).hessian(theta)
    assert [(product(theta), len(done))[1] for _ in passes] == passes


@given(seed=seeds)
@settings(max_examples=10)
def test_objectives_hand_their_curvature_on(seed):
    theta, batch = smooth_mlp(seed)
    v = np.random.default_rng(seed).standard_normal(len(theta))
    product = batch.hessian(theta)(v)
    for recompute in (False, True):
        np.testing.assert_allclose(Mean(batch.split(2), recompute).hessian(theta)(v), product, atol=1e-12)
    np.testing.assert_allclose(Penalised(batch, l1=0.3, l2=0.7).hessian(theta)(v), product + 0.7 * v, atol=1e-14)
    np.testing.assert_array_equal(Recorded(batch).hessian(theta)(v), product)
    bowl = Bowl([1.0, 4.0])
    np.testing.assert_array_equal(bowl.hessian(theta[:2])(v[:2]), [v[0], 4 * v[1]])


def test_products_are_counted_as_the_gradients_they_cost():
    theta, batch = smooth_mlp(0)
    product = batch.hessian(theta)
    product(theta)
    product(theta)
    assert batch.env.examples == 5 * batch.n


# --- SAM with its second-order term ---------------------------------------------------------------


@given(seed=seeds, rho=st.floats(0.1, 0.5))
@settings(max_examples=20)
def test_exact_sam_follows_the_slope_of_the_perturbed_loss(seed, rho):
    theta, batch = smooth_mlp(seed)

    def worst_nearby(theta):
        g = batch(theta).grad
        return batch(theta + rho * g / np.linalg.norm(g)).loss

    exact = ExactSAM(GD(lr=0.1), rho).gradient(theta, batch)[1]
    slope = numerical_gradient(worst_nearby, theta)
    error = relative_error(exact, slope)
    assert error < 1e-6
    assert relative_error(SAM(GD(lr=0.1), rho).gradient(theta, batch)[1], slope) > 10 * error


def test_exact_sam_sees_one_function_with_batch_norm_and_dropout():
    theta, batch = batch_of()
    g = batch(theta).grad
    g_s = batch(theta + 0.1 * g / np.linalg.norm(g)).grad
    sideways = g_s - (g_s @ g) / (g @ g) * g
    expected = g_s + 0.1 / np.linalg.norm(g) * difference(batch, theta, sideways)
    np.testing.assert_allclose(ExactSAM(GD(lr=0.1), 0.1).gradient(theta, batch)[1], expected, atol=1e-6)


def test_exact_sam_with_nowhere_to_climb():
    theta = np.zeros(2)
    ExactSAM(GD(lr=0.1), 0.5).step(theta, Bowl([1.0, 2.0]))
    assert not theta.any()
    theta = np.array([1.0, 2.0])
    at_rho_0 = ExactSAM(GD(lr=0.1), 0.0).gradient(theta, Bowl([1.0, 2.0]))[1]
    assert at_rho_0.tolist() == [1.0, 4.0]


@pytest.mark.parametrize("options", [{"ascent": Ball(math.inf)}, {"ascent_steps": 2}])
def test_exact_sam_is_for_one_step_in_l2(options):
    with pytest.raises(ValueError, match="ExactSAM is for one step"):
        ExactSAM(GD(lr=0.1), **options)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("v", "message"),
    [
        (np.ones(3), r"expected v like theta, \(31,\) float64, got \(3,\)"),
        (np.ones(31, np.float32), "got .* float32"),
        (np.full(31, np.nan), "v must be finite"),
    ],
)
def test_a_direction_that_does_not_fit_is_refused(v, message):
    theta, batch = smooth_mlp(0)
    with pytest.raises(ValueError, match=rf"\b{message}"):
        batch.hessian(theta)(v)


def test_a_layer_without_tangents_is_refused():
    class Square(Layer):
        def forward(self, params, x, env):
            return x * x, x

        def backward(self, params, x, dy, grads, env):
            return 2 * x * dy

    net = Sequential([Linear(2, 3), Square()], (2,))
    with pytest.raises(NotImplementedError, match="Square has no tangent"):
        net.hvp(np.ones(9), np.ones(9), np.ones((1, 2)), np.array([0]))
    Square.tangent = lambda self, at, params_dot, x_dot, env: (2 * at.cache * x_dot, x_dot)  # half of it is not enough
    with pytest.raises(NotImplementedError, match="Square has no tangent"):
        net.hvp(np.ones(9), np.ones(9), np.ones((1, 2)), np.array([0]))


def test_a_network_without_parameters_has_no_curvature():
    net = Sequential([Flatten()], input_shape=(1, 3, 1))
    assert net.hvp(np.zeros(0), np.zeros(0), np.zeros((2, 1, 3, 1)), np.array([0, 2])).shape == (0,)


def test_layers_before_the_first_parameters_are_passed_by():
    net = Sequential([Tanh(), Flatten(), Linear(6, 4), Tanh(), Linear(4, 3)], input_shape=(1, 3, 2))
    theta, batch = batch_of(net, n=5)
    v = np.random.default_rng(0).standard_normal(len(theta))
    assert relative_error(batch.hessian(theta)(v), difference(batch, theta, v)) < 1e-6
