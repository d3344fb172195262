"""Lanczos, traces and densities against dense linear algebra."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds
from test_hvp import batch_of
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from minisam.analysis import Bowl, curvature
from minisam.analysis.curvature import density, eigenvalues, lanczos, power_iteration, trace
from minisam.analysis.landscape import pca_plane, plane
from minisam.analysis.sharpness import sharpness
from minisam.kernels.cores import available_cores
from minisam.nn import Conv2d, Flatten, GlobalAvgPool2d, Linear, MaxPool2d, ReLU, Sequential, Tanh

NETWORKS = {
    "mlp": Sequential([Linear(6, 9), Tanh(), Linear(9, 7), ReLU(), Linear(7, 3)], (6,)),
    "cnn": Sequential(
        [Conv2d(2, 4, 3), ReLU(), MaxPool2d(2), Conv2d(4, 5, 3), Tanh(), GlobalAvgPool2d(), Linear(5, 3)], (6, 6, 2)
    ),
    "1,000 parameters": Sequential([Flatten(), Linear(48, 20), Tanh(), Linear(20, 3)], (4, 4, 3)),
}  # fmt: skip


def rng():
    return np.random.default_rng(0)


def symmetric(seed, size):
    A = np.random.default_rng(seed).standard_normal((size, size))
    return (A + A.T) / 2


def times(H):
    return lambda v: H.astype(v.dtype) @ v


def dense(product, like):
    return np.stack([product(e) for e in np.eye(len(like))])


def by_size(values):
    return values[np.argsort(-np.abs(values))]


@pytest.mark.parametrize("net", NETWORKS.values(), ids=NETWORKS)
def test_leading_eigenvalues_of_networks_are_those_of_the_dense_hessian(net):
    theta, batch = batch_of(net, n=20)
    product = batch.hessian(theta)
    H = dense(product, theta)
    exact = by_size(np.linalg.eigvalsh(H))[:5]
    found = eigenvalues(product, theta, 5, rng(), steps=len(theta), tolerance=1e-8)
    np.testing.assert_allclose(found.values, exact, rtol=1e-6)
    for value, vector, residual in zip(*found, strict=True):
        assert np.linalg.norm(vector) == pytest.approx(1, rel=1e-9)
        actual = np.linalg.norm(H @ vector - value * vector)
        assert actual <= residual + 1e-9 * abs(exact[0])
    value, vector = power_iteration(product, theta, rng(), steps=2000)
    if abs(exact[1] / exact[0]) < 0.98:
        assert value == pytest.approx(exact[0], rel=1e-6)
        assert abs(vector @ found.vectors[0]) == pytest.approx(1, abs=1e-4)


@given(seed=seeds, size=st.integers(1, 30), k=st.integers(1, 30))
@settings(max_examples=50)
def test_eigenvalues_of_any_symmetric_matrix(seed, size, k):
    H, k = symmetric(seed, size), min(k, size)
    found = eigenvalues(times(H), np.zeros(size), k, rng(), tolerance=1e-12)
    np.testing.assert_allclose(found.values, by_size(np.linalg.eigvalsh(H))[:k], atol=1e-9)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(k), atol=1e-7)
    np.testing.assert_allclose(H @ found.vectors.T, found.vectors.T * found.values, atol=1e-8)


@given(seed=seeds, values=st.lists(st.sampled_from([-3.0, 0.0, 1.0, 2.0]), min_size=1, max_size=8))
def test_multiple_eigenvalues_are_found_as_often_as_there_are_steps(seed, values):
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))
    H = basis @ np.diag(values) @ basis.T
    *_, (Q, T, _) = lanczos(times(H), np.zeros(len(values)), rng(), steps=20)
    np.testing.assert_allclose(np.linalg.eigvalsh(T), sorted(values), atol=1e-9)
    np.testing.assert_allclose(Q @ H @ Q.T, T, atol=1e-9)


def test_a_basis_stays_orthonormal_long_after_the_first_eigenvalue_has_converged():
    H = np.diag([1e4, 1e3, *np.linspace(0, 1, 300)])
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        *_, (Q, T, _) = lanczos(times(H), np.zeros(302, dtype), rng(), steps=120)
        assert Q.dtype == dtype
        np.testing.assert_allclose(Q @ Q.T, np.eye(120), atol=tolerance)
        assert np.sum(np.linalg.eigvalsh(T) > 900) == 2  # no ghosts: each is found once


@pytest.mark.parametrize("rest", [np.linspace(1e-4, 9e-4, 300), np.linspace(0, 1, 300)], ids=["far", "near"])
def test_small_eigenvalues_are_not_taken_before_they_are_resolved(rest):
    H = np.diag([10.0, *rest])
    found = eigenvalues(times(H), np.zeros(301), 5, rng(), steps=300)
    np.testing.assert_allclose(found.values, by_size(np.diag(H))[:5], rtol=5e-3)


def test_in_float32_a_residual_is_never_below_rounding():
    H = np.diag(np.linspace(1, 100, 300))
    found = eigenvalues(times(H), np.zeros(300, np.float32), 2, rng(), steps=300, tolerance=1e-12)
    for value, vector, residual in zip(*found, strict=True):
        assert np.linalg.norm(H @ vector - value * vector) < 3 * residual


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tolerance", [0.1, 1e-3, 1e-5])
def test_it_stops_after_the_first_product_that_makes_it_sure_enough(tolerance, dtype):
    """How sure it is after each product is computed once more, with H itself."""
    H, like, calls = np.diag([100.0, -50.0, *np.linspace(0, 1, 500)]), np.zeros(502, dtype), []

    def product(v):
        calls.append(v)
        return times(H)(v)

    found, sure = eigenvalues(product, like, 2, rng(), tolerance=tolerance), []
    for Q, T, _ in lanczos(times(H), like, rng(), steps=len(calls)):
        values, vectors = np.linalg.eigh(T)
        leading = np.argsort(-np.abs(values))[:2]
        values, vectors = values[leading], vectors[:, leading].T @ Q
        residuals = np.linalg.norm(vectors @ H - values[:, None] * vectors, axis=1)
        sure.append(len(leading) == 2 and bool(np.all(residuals <= tolerance * np.abs(values))))
    assert sure == [False] * (len(calls) - 1) + [True]
    np.testing.assert_allclose(found.residuals, residuals, rtol=0.01, atol=2e-4)  # rounding of 100 in float32
    np.testing.assert_allclose(found.values, [100, -50], rtol=10 * tolerance**2 + 1e-6)  # r²/δ, and the gaps are wide
    assert found.vectors.dtype == dtype


@pytest.mark.parametrize("net", NETWORKS.values(), ids=NETWORKS)
def test_the_trace_is_within_its_standard_error(net):
    theta, batch = batch_of(net, n=20)
    product = batch.hessian(theta)
    exact = np.trace(dense(product, theta))
    estimate, error = trace(product, theta, rng(), samples=200)
    assert abs(estimate - exact) < 4 * error
    assert error == pytest.approx(trace(product, theta, rng(), samples=50)[1] / 2, rel=0.3)


def test_a_traces_standard_error_is_that_of_its_samples():
    H, z, said = symmetric(0, 4), [], rng()
    for _ in range(3):
        signs = 2 * said.integers(2, size=4) - 1
        z.append(signs @ H @ signs)
    estimate, error = trace(times(H), np.zeros(4), rng(), samples=3)
    assert estimate == pytest.approx(np.mean(z))
    assert error == pytest.approx(math.sqrt(sum((z - np.mean(z)) ** 2) / 2 / 3))  # of three, one is spent on the mean


def test_without_curvature_the_leading_eigenvalue_is_0():
    value, vector = power_iteration(times(np.zeros((3, 3))), np.zeros(3), rng())
    assert value == 0
    assert np.linalg.norm(vector) == pytest.approx(1)


def test_the_error_of_a_trace_is_as_large_as_it_says():
    """(estimate - trace) / error over many repetitions is a standard normal."""
    H = symmetric(1, 40)
    z = []
    for seed in range(200):
        estimate, error = trace(times(H), np.zeros(40), np.random.default_rng(seed), samples=30)
        z.append((estimate - np.trace(H)) / error)
    assert abs(np.mean(z)) < 0.25
    assert 0.85 < np.std(z) < 1.2


@pytest.mark.parametrize("net", NETWORKS.values(), ids=NETWORKS)
def test_a_density_integrates_to_one_and_matches_the_histogram(net):
    theta, batch = batch_of(net, n=20)
    product = batch.hessian(theta)
    exact = np.linalg.eigvalsh(dense(product, theta))
    found = density(product, theta, rng(), steps=80, samples=40)
    assert found.weights.sum() == pytest.approx(1)
    assert found.weights.min() >= -1e-12
    low, high = exact.min(), exact.max()
    assert low - 1e-6 <= found.nodes.min() <= found.nodes.max() <= high + 1e-6
    # The share of eigenvalues below every point, at a resolution of a fiftieth of the spectrum.
    width = (high - low) / 50
    grid = np.linspace(low - 5 * width, high + 5 * width, 2000)
    smooth = found.smoothed(grid, width)
    assert np.sum(smooth) * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)
    dense_density = curvature.Density(exact, np.full(len(exact), 1 / len(exact))).smoothed(grid, width)
    distance = np.abs(np.cumsum(smooth - dense_density)).max() * (grid[1] - grid[0])
    assert distance < 0.05


def test_moments_of_a_density_are_those_of_the_matrix():
    H = symmetric(3, 30)
    found = density(times(H), np.zeros(30), rng(), steps=10, samples=3000)
    for power in (1, 2, 3):
        exact = np.trace(np.linalg.matrix_power(H, power)) / 30
        spread = np.abs(np.linalg.eigvalsh(H)).max() ** power
        assert found.weights @ found.nodes**power == pytest.approx(exact, abs=0.02 * spread)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_spectra_of_any_size_are_found_in_float32(size):
    """Products of 1e30 are finite, and so are their lengths, though squares of them are not."""
    diagonal = np.array([9.0, -5.0, 2.0, 1.0, 0.5, 0.1])

    def product(v):
        return (size * diagonal * v).astype(np.float32)

    like = np.zeros(6, np.float32)
    found = eigenvalues(product, like, 3, rng())
    np.testing.assert_allclose(found.values / size, diagonal[:3], rtol=1e-5)
    assert power_iteration(product, like, rng())[0] / size == pytest.approx(9, rel=1e-5)


@pytest.mark.skipif(available_cores() < 2, reason="on one core BLAS has one thread anyway")
def test_how_many_threads_blas_has_does_not_change_a_bit():
    """BLAS's sums over long vectors depend on it, so they must not be left to BLAS's own threads."""
    diagonal = rng().standard_normal(400_000)
    like = np.zeros_like(diagonal)

    def everything():
        product = diagonal.__mul__
        found = (*eigenvalues(product, like, 3, rng(), steps=20), *density(product, like, rng(), 20, 1))
        found += (*trace(product, like, rng(), 3), *power_iteration(product, like, rng(), 5))
        found += tuple(pca_plane(rng().standard_normal((9, len(like))), like))
        return [np.asarray(part).tobytes() for part in found]

    with threadpool_limits(1, "blas"):
        alone = everything()
    with threadpool_limits(2, "blas"):
        assert everything() == alone


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eigenvalues(times(np.eye(3)), np.zeros(3), 4, rng()), r"k must be at most .* parameters \(3\), got 4"),
        (lambda: eigenvalues(times(np.eye(3)), np.zeros(3), 0, rng()), "k must be an integer ≥ 1"),
        (lambda: eigenvalues(times(np.eye(9)), np.zeros(9), 5, rng(), steps=4), r"k must be at most steps \(4\)"),
        (lambda: eigenvalues(times(np.eye(3)), np.zeros(3), 1, rng(), tolerance=0), "tolerance must be"),
        (lambda: eigenvalues(lambda v: v * np.nan, np.zeros(3), 1, rng()), "products H v are not finite"),
        (lambda: trace(times(np.eye(3)), np.zeros(3), rng(), samples=1), "samples must be at least 2"),
        (lambda: density(times(np.eye(3)), np.zeros(3), rng(), samples=0), "samples must be an integer ≥ 1"),
        (lambda: density(times(np.eye(3)), np.zeros(3), rng()).smoothed(np.zeros(2), 0.0), "width must be"),
        (lambda: power_iteration(times(np.eye(3)), np.zeros(3), rng(), steps=0), "steps must be"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=rf"\b{message}"):
        call()


BARS = {  # what is counted, until when
    "power iteration": ("curvature", 7, lambda bowl, at: power_iteration(bowl.hessian(at), at, rng(), steps=7)),
    "Lanczos": ("curvature", 3, lambda bowl, at: eigenvalues(bowl.hessian(at), at, 3, rng(), steps=3)),
    "trace": ("curvature", 4, lambda bowl, at: trace(bowl.hessian(at), at, rng(), samples=4)),
    "spectral density": ("curvature", 2, lambda bowl, at: density(bowl.hessian(at), at, rng(), samples=2)),
    "sharpness": ("sharpness", 3 * 5 + 6, lambda bowl, at: sharpness(bowl, at, 0.1, rng(), None, 4, 3, 6)),
    "landscape": ("landscape", 5, lambda bowl, at: plane(bowl, at, at, at, np.zeros(2), np.zeros(5))),
}


@pytest.mark.parametrize("name", BARS)
def test_a_bar_counts_to_its_end_is_cleared_away_and_not_shown_at_all_if_it_is_soon_there(name, monkeypatch):
    module, total, work = BARS[name]
    made = []

    class Bar(tqdm):
        def __init__(self, *arguments, **how):
            super().__init__(*arguments, **how, file=io.StringIO())
            made.append((self, how))

    monkeypatch.setattr(f"minisam.analysis.{module}.tqdm", Bar)
    work(Bowl([1.0, 5.0, 2.0]), np.ones(3))
    ((bar, how),) = made
    assert (bar.n, bar.total, how["desc"]) == (total, total, name)
    assert (how["delay"], how["leave"]) == (2, False)
