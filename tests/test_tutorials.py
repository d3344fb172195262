"""The key equations of the lessons, evaluated as written, against the library's results."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from minisam import GD, SAM, Adam, BatchLoss, Conv2d, ExactSAM, Linear, Momentum, ReLU, Sequential
from minisam.analysis import Bowl
from minisam.analysis.toy import TwoMinima
from minisam.nn import Env, SoftmaxCrossEntropy

LESSONS = sorted((Path(__file__).parents[1] / "tutorials").glob("[0-9][0-9]_*.py"))


def equation(lesson: int, *texts: str) -> None:
    """Assert that the lesson contains these formulas, so that neither changes without the other."""
    source = LESSONS[lesson - 1].read_text(encoding="utf-8")
    for text in texts:
        assert text in source


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def objective(rng):
    """The loss of a small network, in float64, with no kink of its ReLUs nearby."""
    net = Sequential([Linear(6, 9), ReLU(), Linear(9, 4)], input_shape=(6,))
    x, y = rng.standard_normal((8, 6)), rng.integers(0, 4, 8)
    return net, x, y, BatchLoss(net, x, y), net.init(rng, np.float64)


def test_there_are_ten_lessons_each_with_its_notebook():
    assert [path.name[:2] for path in LESSONS] == [f"{n:02}" for n in range(1, 11)]
    assert all(path.with_suffix(".ipynb").exists() for path in LESSONS)


def test_1_gradient_descent_momentum_and_adam(rng):
    equation(1, r"\theta \leftarrow \theta - \eta\, \nabla L(\theta)")
    equation(1, r"v \leftarrow \mu v + \nabla L(\theta), \qquad \theta \leftarrow \theta - \eta\, v")
    equation(1, r"m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2")
    equation(1, r"\eta\, \frac{\hat m}{\sqrt{\hat v} + \epsilon}", r"\hat m = m / (1 - \beta_1^t)")
    bowl, eta, mu, b1, b2, eps = Bowl([30.0, 2.0]), 0.01, 0.9, 0.9, 0.999, 1e-8
    start = rng.standard_normal(2)
    for optimizer in (GD(eta), Momentum(eta, momentum=mu), Adam(eta, beta1=b1, beta2=b2, eps=eps)):
        theirs, theta, m, v = start.copy(), start.copy(), np.zeros(2), np.zeros(2)
        for t in range(1, 6):
            optimizer.step(theirs, bowl)
            g = np.array([30.0, 2.0]) * theta
            if isinstance(optimizer, Adam):
                m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
                theta = theta - eta * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
            else:
                v = (mu if isinstance(optimizer, Momentum) else 0.0) * v + g
                theta = theta - eta * v
        np.testing.assert_allclose(theirs, theta, rtol=1e-9)


def test_2_linear_relu_and_softmax_cross_entropy(rng):
    equation(2, r"x^\top \mathrm{d}y", r"\sum_n \mathrm{d}y_n", r"\mathrm{d}y\, W^\top", r"\mathrm{d}y \cdot [x > 0]")
    equation(2, r"\frac{1}{N}\left(p_k - [k = y]\right)")
    x, dy, W, b = (rng.standard_normal(shape) for shape in ((5, 3), (5, 4), (3, 4), (4,)))
    dW, db = np.empty_like(W), np.empty_like(b)
    y, cache = Linear(3, 4).forward([W, b], x, Env())
    dx = Linear(3, 4).backward([W, b], cache, dy, [dW, db], Env())
    for mine, its in ((y, x @ W + b), (dW, x.T @ dy), (db, dy.sum(axis=0)), (dx, dy @ W.T)):
        np.testing.assert_allclose(mine, its)
    _, cache = ReLU().forward([], x, Env())
    np.testing.assert_allclose(ReLU().backward([], cache, dy[:, :3], [], Env()), dy[:, :3] * (x > 0))
    labels = rng.integers(0, 4, 5)
    loss, dlogits = SoftmaxCrossEntropy()(y, labels)[:2]
    p = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loss, -np.log(p[range(5), labels]).mean())
    np.testing.assert_allclose(dlogits, (p - np.eye(4)[labels]) / 5)


def test_3_convolution(rng):
    equation(3, r"y[n, r, c, f] = b[f] + \sum_{i,j,k} x[n,\, r + i - 1,\, c + j - 1,\, k]\; W[i, j, k, f]")
    equation(3, r"\mathrm{d}W[i,j,k,f] = \sum_{n,r,c} x[n,\, r+i-1,\, c+j-1,\, k]\; \mathrm{d}y[n,r,c,f]")
    equation(3, r"\mathrm{d}x[n,r,c,k] = \sum_{i,j,f} \mathrm{d}y[n,\, r-i+1,\, c-j+1,\, f]\; W[i,j,k,f]")
    x, W, b, dy = (rng.standard_normal(shape) for shape in ((2, 4, 5, 3), (3, 3, 3, 2), (2,), (2, 4, 5, 2)))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y, dW = np.tile(b, (2, 4, 5, 1)), np.zeros_like(W)
    for i, j, r, c in product(range(3), range(3), range(4), range(5)):  # x[r + i - 1] is padded[r + i]
        y[:, r, c] += padded[:, r + i, c + j] @ W[i, j]
        dW[i, j] += padded[:, r + i, c + j].T @ dy[:, r, c]
    layer, found = Conv2d(3, 2, 3), [np.empty_like(W), np.empty_like(b)]
    its, cache = layer.forward([W, b], x, Env())
    dx = layer.backward([W, b], cache, dy, found, Env())
    flipped = W[::-1, ::-1].swapaxes(2, 3)
    for mine, theirs in ((y, its), (dW, found[0]), (Conv2d(2, 3, 3).forward([flipped, np.zeros(3)], dy, Env())[0], dx)):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_4_two_minima_and_a_step_of_sam(rng):
    equation(
        4,
        r"-\log\left(e^{-q_1(\theta)} + e^{-q_2(\theta)}\right)",
        r"q_i(\theta) = \tfrac12 h_i (\theta - c_i)^2",
        "h_1 = 400",
        "h_2 = 10",
    )
    equation(
        4,
        r"\hat\epsilon = \rho\, \frac{\nabla L(\theta)}{\|\nabla L(\theta)\|}",
        r"\theta \leftarrow \theta - \eta\, \nabla L(\theta + \hat\epsilon)",
    )
    surface = TwoMinima()
    for theta in np.linspace(-1.5, 1.5, 7):
        q = np.array([400 * (theta + 1) ** 2, 10 * (theta - 1) ** 2]) / 2
        value = q.min() - np.log(np.exp(q.min() - q).sum())
        np.testing.assert_allclose(surface.value(np.array([theta, 0.0])), value, atol=1e-9)
    theta = rng.standard_normal(2)
    g, theirs = surface(theta).grad, theta.copy()
    SAM(GD(0.01), rho=0.1).step(theirs, surface)
    np.testing.assert_allclose(theirs, theta - 0.01 * surface(theta + 0.1 * g / np.linalg.norm(g)).grad)


def test_5_the_gradient_of_sam_and_the_term_it_drops(objective):
    """The whole derivative of L(θ + ε̂(θ)) has a second part; only with that does it match central differences."""
    equation(5, r"\hat\epsilon(\theta) = \rho\, \frac{g}{\|g\|_2}")
    equation(5, r"g_{\mathrm{SAM}} = \nabla L(\theta + \hat\epsilon(\theta))")
    equation(5, r"\left(\frac{\mathrm{d} \hat\epsilon}{\mathrm{d} \theta}\right)^{\!\top} \nabla L")
    _, _, _, loss, theta = objective
    rho, h = 0.05, 1e-6

    def perturbed(theta):
        g = loss(theta).grad
        return theta + rho * g / np.linalg.norm(g)

    first_part = loss(perturbed(theta)).grad
    np.testing.assert_allclose(SAM(GD(1.0), rho).gradient(theta, loss)[1], first_part)
    basis = np.eye(len(theta)) * h
    measured = [(loss(perturbed(theta + e)).loss - loss(perturbed(theta - e)).loss) / (2 * h) for e in basis]
    jacobian = np.array([(perturbed(theta + e) - perturbed(theta - e) - 2 * e) / (2 * h) for e in basis])
    np.testing.assert_allclose(first_part + jacobian @ first_part, measured, atol=1e-6)
    np.testing.assert_allclose(ExactSAM(GD(1.0), rho).gradient(theta, loss)[1], measured, atol=1e-6)
    assert np.abs(first_part - measured).max() > 1e-4


def test_6_to_first_order_sam_penalises_the_norm_of_the_gradient(objective):
    """The error of the expansion falls like rho²."""
    equation(6, r"\approx g + \rho\, \frac{H g}{\|g\|} = \nabla\Big( L(\theta) + \rho\, \|\nabla L(\theta)\| \Big)")
    net, x, y, loss, theta = objective
    g = loss(theta).grad
    Hg = net.linearize(theta, x, y).hvp(g)
    off = []
    for rho in (1e-3, 1e-4):
        sam = loss(theta + rho * g / np.linalg.norm(g)).grad
        off.append(np.abs(sam - g - rho * Hg / np.linalg.norm(g)).max())
    assert off[0] < 1e-4
    assert off[1] == pytest.approx(off[0] / 100, rel=0.1)
    h = 1e-6
    norms = [
        (np.linalg.norm(loss(theta + e).grad) - np.linalg.norm(loss(theta - e).grad)) / (2 * h)
        for e in h * np.eye(len(theta))
    ]
    np.testing.assert_allclose(Hg / np.linalg.norm(g), norms, atol=1e-6)


def test_7_a_hessian_vector_product_is_the_slope_of_the_gradient(objective, rng):
    equation(7, r"H v = \lim_{h \to 0} \frac{\nabla L(\theta + h v) - \nabla L(\theta)}{h}")
    net, x, y, loss, theta = objective
    v, h = rng.standard_normal(len(theta)), 1e-7
    differences = (loss(theta + h * v).grad - loss(theta).grad) / h
    np.testing.assert_allclose(net.linearize(theta, x, y).hvp(v), differences, atol=1e-5)
