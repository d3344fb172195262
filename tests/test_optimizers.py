"""GD, Momentum and Adam against hand-computed steps and closed forms; and the wrappers of objectives.

Everything an optimizer knows of the world is a gradient, so most tests hand it one.
"""

import math
from itertools import product

import numpy as np
import pytest
from counted import Counted
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BLOCK, seeds

from minisam.analysis.toy import Bowl
from minisam.kernels import reference
from minisam.nn import BatchLoss, Linear, MeanSquaredError, Sequential, Tanh
from minisam.objective import Evaluation, Mean, Penalised
from minisam.optim import GD, SAM, Adam, Momentum, Optimizer

DTYPES = [np.float32, np.float64]
ROUNDING = {np.float32: 1e-5, np.float64: 1e-12}  # relative, after a few dozen steps
SEVERAL_BLOCKS = 2 * BLOCK + 17

OPTIMIZERS = {
    "GD": lambda **how: GD(**how),
    "Momentum": lambda **how: Momentum(**how),
    "Nesterov": lambda **how: Momentum(nesterov=True, **how),
    "Adam": lambda **how: Adam(**how),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def follow(optimizer, theta, gradients):
    """Where theta (a list) is after each of the gradients (lists), all in float64."""
    theta, path = np.array(theta), []
    for g in gradients:
        optimizer.update(theta, np.array(g))
        path.append(theta.tolist())
    return path


def descend(optimizer, objective, theta, steps):
    theta = theta.copy()
    for _ in range(steps):
        optimizer.step(theta, objective)
    return theta


# --- by hand --------------------------------------------------------------------------------------


def test_gd_by_hand():
    path = follow(GD(lr=0.1), [1.0, -2.0], [[0.5, 2.0], [1.0, 0.0]])
    np.testing.assert_allclose(path, [[1 - 0.05, -2 - 0.2], [0.95 - 0.1, -2.2]], rtol=1e-14)


def test_gd_with_weight_decay_by_hand():
    path = follow(GD(lr=0.1, weight_decay=0.5), [1.0, -2.0], [[0.5, 2.0]])
    # θ - lr (g + λθ)
    expected = [1 - 0.1 * (0.5 + 0.5), -2 - 0.1 * (2.0 - 1.0)]
    np.testing.assert_allclose(path[0], expected, rtol=1e-14)


def test_heavy_ball_by_hand():
    path = follow(Momentum(lr=0.1, momentum=0.5), [1.0], [[1.0], [2.0], [-1.0]])
    # v = 1, then 0.5 · 1 + 2 = 2.5, then 0.5 · 2.5 - 1 = 0.25; θ falls by 0.1 v
    np.testing.assert_allclose(path, [[0.9], [0.65], [0.625]], rtol=1e-14)


def test_nesterov_by_hand():
    path = follow(Momentum(lr=0.1, momentum=0.5, nesterov=True), [1.0], [[1.0], [2.0], [-1.0]])
    # v as above; θ falls by 0.1 (g + 0.5 v): 0.1 · 1.5, 0.1 · 3.25, 0.1 · (-0.875)
    np.testing.assert_allclose(path, [[0.85], [0.525], [0.6125]], rtol=1e-14)


def test_heavy_ball_with_weight_decay_by_hand():
    path = follow(Momentum(lr=0.1, momentum=0.5, weight_decay=0.1), [1.0], [[1.0], [2.0]])
    # v = 1 + 0.1 · 1 = 1.1, θ = 1 - 0.11 = 0.89
    # v = 0.5 · 1.1 + 2 + 0.1 · 0.89 = 2.639, θ = 0.89 - 0.2639
    np.testing.assert_allclose(path, [[0.89], [0.6261]], rtol=1e-14)


def test_nesterov_with_weight_decay_by_hand():
    optimizer = Momentum(lr=0.1, momentum=0.5, weight_decay=0.1, nesterov=True)
    # slope g + λθ = 1.1, v = 1.1, θ = 1 - 0.1 (1.1 + 0.55) = 0.835
    # slope 2.0835, v = 0.55 + 2.0835 = 2.6335, θ = 0.835 - 0.1 (2.0835 + 1.31675)
    expected = [[0.835], [0.494975]]
    np.testing.assert_allclose(follow(optimizer, [1.0], [[1.0], [2.0]]), expected, rtol=1e-14)


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_adam_by_hand(weight_decay):
    optimizer = Adam(lr=0.1, weight_decay=weight_decay, beta1=0.5, beta2=0.75, eps=0.5)
    shrink = 1 - 0.1 * weight_decay  # decoupled: theta shrinks, and the moments do not notice
    # m = 0.5 · 1, m̂ = 0.5 / 0.5 = 1;   v = 0.25 · 1, v̂ = 0.25 / 0.25 = 1
    first = shrink * 1.0 - 0.1 * 1 / (1 + 0.5)
    # m = 0.5 · 0.5 + 0.5 · 3 = 1.75,        m̂ = 1.75 / (1 - 0.5²) = 7/3
    # v = 0.75 · 0.25 + 0.25 · 9 = 2.4375,   v̂ = 2.4375 / (1 - 0.75²) = 39/7
    second = shrink * first - 0.1 * (7 / 3) / (math.sqrt(39 / 7) + 0.5)
    path = follow(optimizer, [1.0], [[1.0], [3.0]])
    np.testing.assert_allclose(path, [[first], [second]], rtol=1e-14)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (Momentum(lr=0.1), {"momentum": 0.9, "nesterov": False, "weight_decay": 0}),
        (Adam(lr=0.1), {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0}),
    ],
)
def test_defaults_are_those_of_the_papers(optimizer, expected):
    assert {name: getattr(optimizer, name) for name in expected} == expected


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    h=st.lists(st.floats(0.1, 10), min_size=1, max_size=5),
    lr=st.floats(0.001, 0.15),
    weight_decay=st.sampled_from([0.0, 0.5]),
    steps=st.integers(1, 30),
)
@settings(max_examples=30, deadline=None)
def test_gd_on_a_bowl_is_a_geometric_sequence(dtype, h, lr, weight_decay, steps):
    start = np.arange(1.0, len(h) + 1).astype(dtype)
    theta = descend(GD(lr, weight_decay), Bowl(h), start, steps)
    expected = (1 - lr * (np.array(h) + weight_decay)) ** steps * start
    # Near lr h = 1 the factor 1 - lr h is itself a difference, so the tolerance is absolute.
    np.testing.assert_allclose(theta, expected, atol=10 * ROUNDING[dtype])


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@given(
    h=st.floats(0.1, 5),
    lr=st.floats(0.001, 0.2),
    momentum=st.floats(0, 0.95),
    weight_decay=st.sampled_from([0.0, 0.5]),
    steps=st.integers(1, 30),
)
@settings(max_examples=30, deadline=None)
def test_momentum_on_a_bowl_is_a_matrix_power(dtype, nesterov, h, lr, momentum, weight_decay, steps):
    a, mu = h + weight_decay, momentum
    heavy_ball = [[1 - lr * a, -lr * mu], [a, mu]]  # maps (θ, v) to (θ, v) one step later
    ahead = [[1 - lr * a * (1 + mu), -lr * mu**2], [a, mu]]
    expected = np.linalg.matrix_power(ahead if nesterov else heavy_ball, steps) @ [2.0, 0.0]
    optimizer = Momentum(lr, weight_decay, momentum, nesterov)
    theta = descend(optimizer, Bowl([h]), np.array([2.0], dtype), steps)
    tolerance = 100 * ROUNDING[dtype]
    np.testing.assert_allclose([theta[0], optimizer.velocity[0]], expected, atol=tolerance)


@pytest.mark.parametrize("nesterov", [False, True])
def test_without_momentum_it_is_gradient_descent(nesterov):
    start = np.array([1.0, -2.0])
    plain = descend(GD(0.05, 0.1), Bowl([1, 4]), start, 20)
    theta = descend(Momentum(0.05, 0.1, momentum=0, nesterov=nesterov), Bowl([1, 4]), start, 20)
    np.testing.assert_allclose(theta, plain, rtol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=seeds, lr=st.floats(1e-4, 0.1))
@settings(max_examples=20, deadline=None)
def test_adams_first_step_has_length_lr_along_every_axis(dtype, seed, lr):
    rng = np.random.default_rng(seed)
    g = (rng.choice([-1, 1], 9) * 10 ** rng.uniform(-3, 3, 9)).astype(dtype)
    theta = np.zeros(9, dtype)
    Adam(lr, eps=1e-12).update(theta, g)
    np.testing.assert_allclose(theta, -lr * np.sign(g), rtol=ROUNDING[dtype] * 1e3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_on_a_plane_walks_at_lr_a_step(dtype):
    """Under a constant gradient the corrected moments are exactly g and g²: m̂/√v̂ = sign g."""
    g, theta, optimizer = np.array([0.01, -30.0], dtype), np.zeros(2, dtype), Adam(lr=0.01)
    for t in range(1, 31):
        optimizer.update(theta, g)
        np.testing.assert_allclose(theta, [-0.01 * t, 0.01 * t], rtol=1e-4 if t > 1 else 1e-5)


@given(seed=seeds, scale=st.sampled_from([1e-6, 0.37, 1e6]))
@settings(max_examples=20, deadline=None)
def test_adam_ignores_the_scale_of_the_gradient(seed, scale):
    gradients = np.random.default_rng(seed).standard_normal((10, 5))
    one, other = (follow(Adam(lr=0.1, eps=1e-30), np.ones(5), g) for g in (gradients, scale * gradients))
    np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_adams_weight_decay_is_invisible_to_its_moments():
    theta, optimizer = np.array([3.0, -5.0]), Adam(lr=0.1, weight_decay=0.2)
    for _ in range(10):
        optimizer.update(theta, np.zeros(2))
    np.testing.assert_allclose(theta, np.array([3, -5]) * (1 - 0.1 * 0.2) ** 10, rtol=1e-14)
    assert not optimizer.m.any()
    assert not optimizer.v.any()


# --- one step, for all of them --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@every_optimizer
def test_theta_changes_in_place_and_keeps_its_dtype(make, dtype):
    storage = np.arange(1, 11).astype(dtype)
    theta = storage[2:8]
    optimizer, objective = make(lr=np.float64(0.01), weight_decay=0.1), Bowl([1.0] * 6)
    for _ in range(3):
        at_theta = optimizer.step(theta, objective)
        assert at_theta.grad.dtype == dtype
    assert theta.dtype == storage.dtype == dtype
    assert (storage[2:8] < np.arange(3, 9)).all()
    assert storage[[0, 1, 8, 9]].tolist() == [1, 2, 9, 10]


@every_optimizer
def test_a_step_reports_where_it_started_and_leaves_the_gradient_alone(make):
    theta, objective = np.array([2.0, -1.0]), Bowl([1.0, 3.0])
    at_theta = make(lr=0.1, weight_decay=0.1).step(theta, objective)
    assert at_theta.loss == 0.5 * (1 * 4 + 3 * 1)
    assert at_theta.grad.tolist() == [2.0, -3.0]
    assert theta.tolist() != [2.0, -1.0]


@pytest.mark.parametrize("dtype", DTYPES)
@every_optimizer
def test_many_blocks_are_as_good_as_one(make, dtype):
    """Equal elements with equal gradients stay equal, wherever the kernels' blocks end."""
    pattern, gradients = np.random.default_rng(0).standard_normal((2, 3, 7))
    few, many = pattern[0].astype(dtype), np.resize(pattern[0].astype(dtype), SEVERAL_BLOCKS)
    small, large = (make(lr=0.1, weight_decay=0.01) for _ in range(2))
    for g in gradients.astype(dtype):
        small.update(few, g)
        large.update(many, np.resize(g, SEVERAL_BLOCKS))
    assert np.array_equal(many, np.resize(few, SEVERAL_BLOCKS))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_runs_as_its_reference_reads(dtype, nesterov):
    rng = np.random.default_rng(1)
    theta = rng.standard_normal(SEVERAL_BLOCKS).astype(dtype)
    expected, velocity = theta.copy(), np.zeros_like(theta)
    optimizer = Momentum(lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=nesterov)
    for _ in range(3):
        g = rng.standard_normal(SEVERAL_BLOCKS).astype(dtype)
        optimizer.update(theta, g)
        reference.momentum_update(expected, g, velocity, 0.1, 0.8, 0.01, nesterov)
    np.testing.assert_allclose(theta, expected, atol=ROUNDING[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_runs_as_its_reference_reads(dtype):
    rng = np.random.default_rng(2)
    theta = rng.standard_normal(SEVERAL_BLOCKS).astype(dtype)
    expected, m, v = theta.copy(), np.zeros_like(theta), np.zeros_like(theta)
    optimizer = Adam(lr=0.1, weight_decay=0.2, beta1=0.8, beta2=0.9, eps=1e-6)
    for t in (1, 2, 3):
        g = rng.standard_normal(SEVERAL_BLOCKS).astype(dtype)
        optimizer.update(theta, g)
        step_size, root_bias2 = 0.1 / (1 - 0.8**t), math.sqrt(1 - 0.9**t)
        reference.adam_update(expected, g, m, v, step_size, 0.02, 0.8, 0.9, root_bias2, 1e-6)
    np.testing.assert_allclose(theta, expected, atol=ROUNDING[dtype])


@pytest.mark.parametrize("make", [GD, Momentum, Adam])
@pytest.mark.parametrize(("lr", "weight_decay"), [(1e-4, 1e-4), (1e-3, 1e-4)])
def test_float32_loses_no_weight_decay(make, lr, weight_decay):
    """1 - lr λ in float32 is 1, or 20 % off. What rounding does to single weights, the mean over many does not show."""
    n, steps, decayed = 20_000, 100, {}
    for dtype, decay in product(DTYPES, (0.0, weight_decay)):
        rng = np.random.default_rng(0)
        theta, optimizer = np.full(n, 1.5, dtype), make(lr=lr, weight_decay=decay)
        for _ in range(steps):
            optimizer.update(theta, rng.standard_normal(n).astype(dtype))
        decayed[dtype, decay] = theta.mean(dtype=np.float64)
    lost = {dtype: decayed[dtype, 0.0] - decayed[dtype, weight_decay] for dtype in DTYPES}
    assert lost[np.float64] > 0.9 * steps * lr * weight_decay
    assert lost[np.float32] == pytest.approx(lost[np.float64], rel=0.05)


# --- schedules of the learning rate ---------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [GD, lambda lr: Momentum(lr, momentum=0), Adam], ids=["GD", "Momentum", "Adam"])
def test_each_step_has_its_own_learning_rate(optimizer):
    """With gradient 1 each of these moves by exactly lr."""
    asked = []

    def schedule(step):
        asked.append(step)
        return (0.4, 0.1, 0.0, 0.2)[step]

    path = follow(optimizer(schedule), [0.0], [[1.0]] * 4)
    np.testing.assert_allclose(path, [[-0.4], [-0.5], [-0.5], [-0.7]], rtol=1e-7)
    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", DTYPES)
@every_optimizer
def test_learning_rate_0_leaves_every_bit_of_theta(make, dtype):
    theta = np.random.default_rng(3).standard_normal(100).astype(dtype)
    before = theta.tobytes()
    optimizer = make(lr=lambda step: 0.0, weight_decay=0.1)
    for _ in range(3):
        optimizer.step(theta, Bowl(np.ones(100)))
    assert theta.tobytes() == before


def test_moments_go_on_while_the_learning_rate_is_0():
    momentum, adam = Momentum(lambda step: 0.0, momentum=0.5), Adam(lambda step: 0.0, beta1=0.5)
    follow(momentum, [1.0], [[1.0], [2.0]])
    follow(adam, [1.0], [[1.0], [2.0]])
    assert momentum.velocity.tolist() == [2.5]
    assert adam.m.tolist() == [0.25 + 1.0]


def test_nothing_is_shared_between_two_optimizers():
    first, second = (Momentum(lr=0.1) for _ in range(2))
    paths = [follow(optimizer, [1.0], [[1.0], [1.0]]) for optimizer in (first, second)]
    assert paths[0] == paths[1]


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr", [0, 0.0, -0.1, math.nan, math.inf, -math.inf, "0.1", None])
@every_optimizer
def test_lr_must_be_a_finite_number_above_0(make, lr):
    with pytest.raises(ValueError, match=f"^lr must be a finite number above 0, got {lr!r}$"):
        make(lr=lr)


@pytest.mark.parametrize("weight_decay", [-1e-4, -math.inf, math.nan])
@every_optimizer
def test_weight_decay_must_not_be_negative(make, weight_decay):
    with pytest.raises(ValueError, match=f"^weight_decay must be a finite number ≥ 0, got {weight_decay}$"):
        make(lr=0.1, weight_decay=weight_decay)


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, math.nan])
@pytest.mark.parametrize(("kind", "name"), [(Momentum, "momentum"), (Adam, "beta1"), (Adam, "beta2")])
def test_averages_need_a_factor_from_0_to_1(kind, name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be in \[0, 1\), got {value}$"):
        kind(lr=0.1, **{name: value})


@pytest.mark.parametrize("eps", [0, -1e-8, math.nan, math.inf])
def test_eps_must_be_a_finite_number_above_0(eps):
    with pytest.raises(ValueError, match=f"^eps must be a finite number above 0, got {eps!r}$"):
        Adam(lr=0.1, eps=eps)


def read_only(theta):
    theta.flags.writeable = False
    return theta


@pytest.mark.parametrize("theta", [np.ones((3, 2)), np.ones(6)[::2], np.ones(6)[::-1], read_only(np.ones(6))])
@pytest.mark.parametrize("wrap", [lambda base: base, SAM], ids=["base", "SAM"])
@every_optimizer
def test_theta_must_be_one_contiguous_vector(make, wrap, theta):
    message = rf"expected theta as a contiguous, writeable vector, got shape \({theta.shape[0]}"
    with pytest.raises(ValueError, match=rf"\b{message}"):
        wrap(make(lr=0.1)).step(theta, Counted(None))  # refused before it is evaluated
    assert (theta == 1).all()


@pytest.mark.parametrize(
    ("other", "got"), [(np.ones(3), r"\(3,\) float64"), (np.ones(2, np.float32), r"\(2,\) float32")]
)
@pytest.mark.parametrize("wrap", [lambda base: base, SAM], ids=["base", "SAM"])
@pytest.mark.parametrize("kind", [Momentum, Adam])
def test_moments_belong_to_one_theta(kind, wrap, other, got):
    optimizer = wrap(kind(lr=0.1))
    optimizer.step(np.ones(2), Bowl([1.0]))
    message = rf"{kind.__name__} began with a theta \(2,\) float64, got {got}"
    with pytest.raises(ValueError, match=rf"\b{message}"):
        optimizer.step(other, Bowl([1.0]))
    assert (other == 1).all()


@pytest.mark.parametrize(("g", "got"), [(np.ones(3), r"\(3,\) float64"), (np.ones(2, np.float32), r"\(2,\) float32")])
@every_optimizer
def test_a_gradient_unlike_theta_is_refused(make, g, got):
    theta = np.ones(2)
    with pytest.raises(ValueError, match=rf"gradient like theta, \(2,\) float64, got {got}$"):
        make(lr=0.1).step(theta, lambda theta: Evaluation(0.0, g))
    assert (theta == 1).all()


def test_an_optimizer_must_say_how_it_updates():
    class Forgetful(Optimizer):
        pass

    with pytest.raises(NotImplementedError, match="Forgetful must define update"):
        Forgetful().step(np.ones(1), Bowl([1.0]))


# --- objectives -----------------------------------------------------------------------------------


def batch_of(seed, n=7, dtype=np.float64, **how):
    """A batch of a small smooth network, and a theta for it."""
    net = Sequential([Linear(3, 4), Tanh(), Linear(4, 2)], input_shape=(3,))
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 3)).astype(dtype), rng.integers(2, size=n)
    return BatchLoss(net, x, y, **how), rng.standard_normal(net.n_params).astype(dtype)


def assert_same(one, other, rtol):
    assert one.loss == pytest.approx(other.loss, rel=rtol)
    np.testing.assert_allclose(one.grad, other.grad, rtol=rtol, atol=rtol)
    assert one.accuracy == pytest.approx(other.accuracy)
    assert one.grad.dtype == other.grad.dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_is_a_pure_function_and_its_gradients_are_the_callers_own(dtype):
    batch, theta = batch_of(0, dtype=dtype)
    first = batch(theta)
    kept = first.grad.copy()
    elsewhere = batch(theta + 1)
    again = batch(theta)
    assert first.grad.tobytes() == kept.tobytes() == again.grad.tobytes()
    assert (first.loss, first.accuracy) == (again.loss, again.accuracy)
    assert not np.shares_memory(first.grad, elsewhere.grad)
    assert isinstance(first.loss, float)


def test_a_batch_is_the_networks_loss_and_grad_with_the_accuracy():
    batch, theta = batch_of(1)
    loss, grad = batch.net.loss_and_grad(theta, batch.x, batch.y)
    at_theta = batch(theta)
    assert at_theta.loss == loss
    assert np.array_equal(at_theta.grad, grad)
    assert at_theta.accuracy == np.mean(batch.net.predict(theta, batch.x) == batch.y)


def test_accuracy_has_no_meaning_for_a_regression():
    batch, theta = batch_of(2)
    regression = BatchLoss(batch.net, batch.x, np.zeros((7, 2)), MeanSquaredError())
    assert math.isnan(regression(theta).accuracy)
    assert math.isnan(Mean(regression.split(3))(theta).accuracy)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 2, 3, 7, 100])
def test_the_mean_of_the_parts_is_the_batch(m, dtype):
    batch, theta = batch_of(3, dtype=dtype)
    mean = Mean(batch.split(m))
    assert mean.n == batch.n == 7
    assert [part.n for part in batch.split(m)] == [m] * (7 // m) + [7 % m] * (7 % m > 0)
    assert_same(mean(theta), batch(theta), rtol=ROUNDING[dtype])


def test_a_mean_can_be_split_again():
    batch, theta = batch_of(4)
    parts = Mean(batch.split(4)).split(2)
    assert [part.n for part in parts] == [2, 2, 2, 1]
    assert_same(Mean(parts)(theta), batch(theta), rtol=1e-12)


@pytest.mark.parametrize("m", [0, -1])
def test_micro_batches_need_an_example(m):
    with pytest.raises(ValueError, match=f"^micro-batch size m must be an integer ≥ 1, got {m}$"):
        batch_of(0)[0].split(m)


def test_a_mean_needs_an_objective():
    with pytest.raises(ValueError, match="Mean expected at least one objective, got none"):
        Mean([])


def test_penalties_by_hand():
    theta = np.array([3.0, -2.0, 0.0])
    at_theta = Penalised(Bowl([1.0, 1.0, 1.0]), l1=0.1, l2=0.5)(theta)
    # ½ (9 + 4) + 0.1 (3 + 2) + ½ 0.5 (9 + 4)
    assert at_theta.loss == pytest.approx(6.5 + 0.5 + 3.25)
    # θ + 0.1 sign θ + 0.5 θ
    np.testing.assert_allclose(at_theta.grad, [3 + 0.1 + 1.5, -2 - 0.1 - 1.0, 0], rtol=1e-14)


@given(seed=seeds, l1=st.floats(0, 1), l2=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_penalised_loss_and_gradient_agree(seed, l1, l2):
    batch, theta = batch_of(seed)
    theta += 0.1 * np.sign(theta)  # away from the kink of |θ|
    penalised, h = Penalised(batch, l1, l2), 1e-6
    numeric = [(penalised(theta + h * e).loss - penalised(theta - h * e).loss) / (2 * h) for e in np.eye(len(theta))]
    np.testing.assert_allclose(penalised(theta).grad, numeric, atol=1e-7)


def test_penalised_passes_everything_else_on():
    batch, theta = batch_of(5, dtype=np.float32)
    penalised = Penalised(batch, l1=0.01, l2=0.1)
    assert penalised.n == batch.n
    assert penalised(theta).accuracy == batch(theta).accuracy
    assert penalised(theta).grad.dtype == np.float32
    assert_same(Mean(penalised.split(3))(theta), penalised(theta), rtol=1e-5)
    assert_same(Penalised(batch)(theta), batch(theta), rtol=0)


def test_penalties_of_a_long_float32_vector_keep_their_digits():
    zero = lambda theta: Evaluation(0.0, np.zeros_like(theta))  # noqa: E731
    theta = np.full(3_000_000, 0.1, np.float32)
    tenth = float(theta[0])
    assert Penalised(zero, l1=1)(theta).loss == pytest.approx(3e6 * tenth, rel=1e-10)
    assert Penalised(zero, l2=2)(theta).loss == pytest.approx(3e6 * tenth**2, rel=1e-10)


@pytest.mark.parametrize("name", ["l1", "l2"])
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_penalties_must_not_be_negative(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be a finite number ≥ 0, got {value}$"):
        Penalised(Bowl([1.0]), **{name: value})


def test_counted_counts_examples_whole_or_in_parts():
    batch, theta = batch_of(6)
    counted = Counted(batch)
    assert (counted.n, counted.examples) == (7, 0)
    assert_same(counted(theta), batch(theta), rtol=0)
    assert counted.examples == 7
    Mean(counted.split(3))(theta)
    assert counted.examples == 14
    assert Counted(batch).examples == 0


def test_a_list_is_no_theta():
    with pytest.raises(TypeError, match=r"^theta must be a NumPy array, got list"):
        GD(lr=0.1).step([1.0, 2.0], Bowl([1.0, 4.0]))
