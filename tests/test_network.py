"""Sequential over one flat theta, and the objectives made of it."""

import math
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from counted import Counted
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import networks, seeds, spaced

from minisam import kernels
from minisam.analysis.gradcheck import numerical_gradient, relative_error
from minisam.analysis.toy import Bowl
from minisam.nn import (
    AvgPool2d,
    BatchLoss,
    BatchNorm,
    Conv2d,
    Dropout,
    Env,
    FixedSlope,
    Flatten,
    Linear,
    MaxPool2d,
    MeanSquaredError,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
    build,
)
from minisam.nn.models import MODELS
from minisam.objective import Mean, Objective, Penalised
from minisam.optim import GD, SAM

LOSSES = (SoftmaxCrossEntropy(), SoftmaxCrossEntropy(label_smoothing=0.2), MeanSquaredError())


def small_cnn():
    layers = [Conv2d(2, 3, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(12, 3)]
    return Sequential(layers, input_shape=(4, 5, 2))


def drawn(net, rng, n=3, dtype=np.float64):
    """A theta whose biases are not zero, inputs, and labels."""
    theta = net.init(rng, dtype) + (0.1 * rng.standard_normal(net.n_params)).astype(dtype)
    x = rng.standard_normal((n, *net.input_shape)).astype(dtype)
    return theta, x, rng.integers(0, math.prod(net.output_shape), n)


def targets_of(loss, net, y):
    return np.eye(*net.output_shape)[y] if isinstance(loss, MeanSquaredError) else y


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# Gradients.


def kinks(net, theta, x):
    """The side of every ReLU, and the place in every window, that theta and x select."""
    sides = []
    for layer, params in zip(net.layers, net.params(theta), strict=True):
        y, cache = layer.forward(params, x, Env())
        if isinstance(layer, ReLU):
            sides.append((x > 0).tobytes())
        if isinstance(layer, MaxPool2d):
            sides.append(cache[0].tobytes())
        x = y
    return sides


@given(net=networks(), seed=seeds, n=st.integers(1, 3), loss=st.sampled_from(LOSSES))
@settings(max_examples=100)
def test_the_gradient_of_a_network_is_right(net, seed, n, loss):
    theta, x, labels = drawn(net, np.random.default_rng(seed), n)
    y = targets_of(loss, net, labels)
    here = kinks(net, theta, x)

    def at(theta):
        assume(kinks(net, theta, x) == here)  # no difference is taken across a kink
        return net.loss_and_grad(theta, x, y, loss)[0]

    _, grad = net.loss_and_grad(theta, x, y, loss)
    assert relative_error(grad, numerical_gradient(at, theta), floor=1e-4) < 1e-4


@given(net=networks(), seed=seeds)
def test_the_gradient_by_the_inputs_is_right(net, seed):
    theta, x, y = drawn(net, np.random.default_rng(seed))
    loss, here = SoftmaxCrossEntropy(label_smoothing=0.2), kinks(net, theta, x)

    def at(x):
        assume(kinks(net, theta, x) == here)
        return loss(net.forward(theta, x), y)[0]

    outputs, caches = net.chain.forward(net.views(theta), x, Env())
    grad = np.empty_like(theta)
    dx = net.chain.backward(net.views(theta), caches, loss(outputs, y)[1], net.views(grad), Env())
    assert relative_error(dx, numerical_gradient(at, x), floor=1e-4) < 1e-4
    np.testing.assert_array_equal(grad, net.loss_and_grad(theta, x, y, loss)[1])


@given(net=networks(), seed=seeds)
def test_everything_keeps_the_dtype_of_theta(net, seed):
    theta, x, y = drawn(net, np.random.default_rng(seed), dtype=np.float32)
    loss, grad = net.loss_and_grad(theta, x, y)
    assert type(loss) is float
    assert net.forward(theta, x).dtype == grad.dtype == np.float32
    double = net.loss_and_grad(theta.astype(np.float64), x.astype(np.float64), y)
    assert loss == pytest.approx(double[0], rel=1e-4)


def test_a_network_without_parameters_has_an_empty_gradient():
    net = Sequential([Flatten()], input_shape=(1, 3, 1))
    loss, grad = net.loss_and_grad(np.zeros(0), np.zeros((2, 1, 3, 1)), np.array([0, 2]))
    assert loss == pytest.approx(math.log(3))
    assert grad.shape == (0,)


# One flat vector.


@given(net=networks())
def test_params_are_views_that_cover_theta_in_order(net):
    theta = np.arange(net.n_params, dtype=np.float32)
    views = [view for params in net.params(theta) for view in params]
    assert all(np.shares_memory(view, theta) for view in views)
    np.testing.assert_array_equal(np.concatenate([view.ravel() for view in views]), theta)


def test_W_lies_before_b_layer_by_layer():
    net = Sequential([Linear(2, 3), ReLU(), Linear(3, 1)], input_shape=(2,))
    first, relu, second = net.params(np.arange(13.0))
    assert [view.tolist() for view in first] == [[[0, 1, 2], [3, 4, 5]], [6, 7, 8]]
    assert relu == []
    assert [view.tolist() for view in second] == [[[9], [10], [11]], [12]]


def test_init_has_variance_2_over_fan_in_and_no_bias(rng):
    net = Sequential([Conv2d(8, 40, 5), Flatten(), Linear(160, 300)], input_shape=(2, 2, 8))
    (W_conv, b_conv), _, (W, b) = net.params(net.init(rng))
    for weights, fan_in in ((W_conv, 5 * 5 * 8), (W, 160)):
        n = weights.size
        assert abs(weights.mean()) < 5 * math.sqrt(2 / fan_in / n)
        assert weights.var() == pytest.approx(2 / fan_in, rel=5 * math.sqrt(2 / n))
    assert not b_conv.any()
    assert not b.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_init_is_a_function_of_its_generator(dtype):
    net = small_cnn()
    theta, same, other = (net.init(np.random.default_rng(seed), dtype) for seed in (1, 1, 2))
    assert theta.dtype == dtype
    np.testing.assert_array_equal(theta, same)
    assert not np.array_equal(theta, other)


# What a network reports.


@given(net=networks(), seed=seeds, n=st.integers(1, 7), batch_size=st.integers(1, 8))
def test_predict_is_the_argmax_in_batches_of_any_size(net, seed, n, batch_size):
    theta, x, _ = drawn(net, np.random.default_rng(seed), n)
    outputs = net.forward(theta, x)
    highest = np.sort(outputs, axis=1)
    assume((highest[:, -1] - highest[:, -2]).min() > 1e-9)
    classes = net.predict(theta, x, batch_size)
    assert classes.dtype == np.int64
    np.testing.assert_array_equal(classes, outputs.argmax(axis=1))


@pytest.mark.parametrize(
    ("mean", "variance", "expected"), [([0, 0], [1, 1], 0), ([5, 0], [1, 1], 1), ([0, 0], [100, 0.01], 1)]
)
def test_predictions_are_made_with_the_running_statistics(mean, variance, expected):
    net, theta = Sequential([BatchNorm(2)], (2,)), np.array([1.0, 1.0, 0.0, 0.0])
    assert net.predict(theta, np.array([[3.0, 1.0]]), stats=np.array([*mean, *variance])) == expected


def test_the_summary_counts_parameters_and_multiply_adds():
    lines = small_cnn().summary().splitlines()
    assert [line.split()[-2:] for line in lines[1:]] == [
        [str(3 * 3 * 2 * 3 + 3), f"{4 * 5 * 3 * 3 * 3 * 2:,}"],
        ["0", "0"],
        ["0", "0"],
        ["0", "0"],
        [str(12 * 3 + 3), str(12 * 3)],
        ["96", "1,116"],
    ]
    assert "Conv2d(c_in=2, c_out=3, size=3" in lines[1]
    assert "(4, 5, 3)" in lines[1]


@pytest.mark.parametrize(
    ("name", "n_params"),
    [
        ("mlp", 3072 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10),
        ("cnn", 448 + 4640 + 18496 + 64 * 16 * 10 + 10),
        # Each 3×3 convolution, 9·C·F + F, with its γ and β, 2·F; then a 1×1 projection with its own.
        ("resnet8", (480 + 2 * 2352) + (4704 + 9312 + 608) + (18_624 + 37_056 + 2240) + 64 * 10 + 10),
    ],
)
def test_the_reference_networks_have_their_parameters(name, n_params):
    net = build(name, (32, 32, 3), 10)
    assert net.n_params == n_params
    assert net.output_shape == (10,)


def of_blocks(n):
    """What comes out of three blocks of n layers, each with its pooling, and of Flatten."""
    first, second, third = [(32, 32, 16)] * n, [(16, 16, 32)] * n, [(8, 8, 64)] * n
    return [*first, (16, 16, 16), *second, (8, 8, 32), *third, (4, 4, 64), (1024,)]


MODEL_SHAPES = {
    "mlp": [(3072,), (256,), (256,), (128,), (128,), (10,)],
    "cnn": [*of_blocks(2), (10,)],
    "cnn-bn": [*of_blocks(3), (10,)],
    "vgg": [*of_blocks(6), (1024,), (10,)],
    "resnet8": [*[(32, 32, 16)] * 5, *[(16, 16, 32)] * 2, *[(8, 8, 64)] * 2, (64,), (10,)],
}


@pytest.mark.parametrize("name", MODELS)
def test_models_have_their_shapes_from_layer_to_layer(name):
    assert build(name, (32, 32, 3), 10).shapes == [(32, 32, 3), *MODEL_SHAPES[name]]


@pytest.mark.parametrize("name", MODELS)
def test_a_wide_network_has_as_many_layers_and_wider_ones(name):
    net, inputs, outputs = build(name, (32, 32, 3), 10, width=3), (32, 32, 3), (10,)
    expected = [(*rest, 3 * channels) for *rest, channels in MODEL_SHAPES[name][:-1]]
    if name == "mlp":
        expected[0] = (3072,)  # the image itself
    assert net.shapes == [inputs, *expected, outputs]
    assert build(name, inputs, 10, width=1).layers == build(name, inputs, 10).layers
    with pytest.raises(ValueError, match="width must be an integer ≥ 1, got 0"):
        build(name, inputs, 10, width=0)


def test_the_blocks_of_the_residual_network_have_their_shapes():
    net = build("resnet8", (32, 32, 3), 10)
    blocks = [(block, net.shapes[i]) for i, block in enumerate(net.layers) if isinstance(block, Residual)]
    inside = [[path.shapes(shape)[1:] for path in block.paths] for block, shape in blocks]
    small, middle, large = (8, 8, 64), (16, 16, 32), (32, 32, 16)
    assert inside == [[[large] * 5, []], [[middle] * 5, [middle] * 2], [[small] * 5, [small] * 2]]


@pytest.mark.parametrize("name", ["cnn", "cnn-bn", "vgg"])
def test_images_need_not_be_square_nor_a_multiple_of_8(name):
    net = build(name, (17, 31, 1), 2)
    assert net.shapes[-2] == (2 * 3 * 64,)
    assert net.output_shape == (2,)


# What does not fit is refused.


def test_layers_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"layer 2: Linear expected x of shape \(N, 12\)"):
        Sequential([Conv2d(2, 3, 3), Flatten(), Linear(12, 3)], input_shape=(4, 5, 2))


@pytest.mark.parametrize("size", [0, -4, 2.5, True])
def test_an_input_has_sizes_from_1(size):
    with pytest.raises(ValueError, match=f"a size in input_shape must be an integer ≥ 1, got {size}$"):
        Sequential([Flatten()], input_shape=(3, size))


@pytest.mark.parametrize(("shape", "got"), [((0,), r"\(0,\)"), ((3,), r"\(3,\)"), ((1, 4), r"\(1, 4\)")])
def test_running_statistics_that_do_not_fit_are_refused(shape, got, rng):
    net = Sequential([BatchNorm(2)], (2,))
    theta, x, y = drawn(net, rng)
    for use in (lambda stats: net.predict(theta, x, stats=stats), lambda stats: BatchLoss(net, x, y, stats=stats)):
        with pytest.raises(ValueError, match=rf"running statistics stats of shape \(4,\), got {got}"):
            use(np.zeros(shape))
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(0,\)"):
        net.predict(theta, x)  # there is no batch whose statistics could replace them


BAD_INPUTS = {
    "theta too short": (lambda t, x: (t[1:], x), ValueError, r"theta .*\(96,\), got \(95,\)"),
    "theta as a matrix": (lambda t, x: (t[None], x), ValueError, r"theta .* got \(1, 96\)"),
    "theta with gaps": (lambda t, x: (np.repeat(t, 2)[::2], x), ValueError, "contiguous"),
    "integer theta": (lambda t, x: (t.astype(int), x), TypeError, "theta .* got int64"),
    "half theta": (lambda t, x: (t.astype(np.float16), x), TypeError, "theta .* got float16"),
    "x of another size": (lambda t, x: (t, x[:, 1:]), ValueError, r"x .* got \(3, 3, 5, 2\)"),
    "x without batch": (lambda t, x: (t, x[0]), ValueError, r"x .*4, 5, 2\), got \(4, 5, 2\)"),
    "empty batch": (lambda t, x: (t, x[:0]), ValueError, r"N ≥ 1.*got \(0, 4, 5, 2\)"),
    "x in float32": (lambda t, x: (t, x.astype(np.float32)), TypeError, "x .* got float32"),
    "integer x": (lambda t, x: (t, x.astype(int)), TypeError, "x .* got int64"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_inputs_are_refused(case, rng):
    net = small_cnn()
    theta, x, y = drawn(net, rng)
    spoil, error, message = BAD_INPUTS[case]
    theta, x = spoil(theta, x)
    for use in (net.forward, net.predict, lambda t, x: net.loss_and_grad(t, x, y[: len(x)])):
        with pytest.raises(error, match=rf"\b{message}"):
            use(theta, x)
    with pytest.raises(error, match=rf"\b{message}"):
        BatchLoss(net, x, y[: len(x)] if len(x) != 4 else np.zeros(4, int))(theta)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_that_are_not_finite_are_refused_wherever_they_come_in(value, rng):
    net = small_cnn()
    theta, x, y = drawn(net, rng)
    x.flat[7] = value
    for use in (
        net.forward, net.predict, lambda t, x: net.loss_and_grad(t, x, y), lambda t, x: net.hvp(t, t, x, y),
        lambda _, x: BatchLoss(net, x, y),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"^x must be finite"):
            use(theta, x)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_that_are_not_finite_have_such_a_loss_but_no_classes(value, rng):
    net = small_cnn()
    theta, x, y = drawn(net, rng)
    theta[-1] = value  # a bias of the outputs
    batch = BatchLoss(net, x, y)
    losses = [net.loss_and_grad(theta, x, y)[0], batch(theta).loss, batch.value(theta)]
    losses.append(SAM(GD(lr=0.1)).step(theta, batch).loss)
    assert not np.isfinite(losses).any()
    with pytest.raises(ValueError, match=r"^theta must be finite"):
        net.predict(theta, x)


def test_outputs_that_overflow_have_no_classes(rng):
    net = small_cnn()
    theta, x, _ = drawn(net, rng)
    with pytest.raises(FloatingPointError, match=r"outputs are not finite, with weights of up to 3\.0e\+38"):
        net.predict(np.full_like(theta, 3e38, np.float32), x.astype(np.float32))


def test_a_gradient_that_nobody_wrote_is_named_by_every_network(rng):
    """A backward that rebinds would leave uninitialised memory: numbers, but no gradient."""

    class Rebinding(Linear):
        def backward(self, params, x, dy, grads, env):
            grads[0], grads[1] = x.T @ dy, dy.sum(axis=0)
            return dy @ params[0].T

        def backward_tangent(self, at, moving, grads_dot, env):
            grads_dot[0][...] = 0
            return moving.dy_dot @ at.params[0].T

    net = Sequential([Linear(4, 4), ReLU(), Residual([Rebinding(4, 4)]), Linear(4, 3)], (4,))
    theta, x, y = drawn(net, rng)
    wrong = r"^layer 2: Residual\.backward left grads\[0\] \(block\.0\.W\) unassigned.* write grads\[0\]\[\.\.\.\] ="
    for use in (net.loss_and_grad, lambda t, x, y: BatchLoss(net, x, y)(t)):
        with pytest.raises(ValueError, match=wrong):
            use(theta, x, y)
    with pytest.raises(ValueError, match=r"^layer 2: Residual\.backward_tangent left grads\[1\] \(block\.0\.b\)"):
        net.linearize(theta, x, y).hvp(theta)


@pytest.mark.parametrize("y", [np.array([0, 1]), np.array([0, 1, 3]), np.array([0.0, 1.0, 2.0])])
def test_labels_that_do_not_fit_are_refused(y, rng):
    net = small_cnn()
    theta, x, _ = drawn(net, rng)
    with pytest.raises((ValueError, TypeError), match="labels y"):
        net.loss_and_grad(theta, x, y)
    with pytest.raises((ValueError, TypeError), match="labels y"):
        BatchLoss(net, x, y)


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), MeanSquaredError()])
def test_outputs_that_are_no_vectors_have_no_loss(loss, rng):
    net = Sequential([Conv2d(1, 2, 3, padding=0)], input_shape=(3, 3, 1))
    theta, x, y = drawn(net, rng)
    y = np.eye(2)[y] if isinstance(loss, MeanSquaredError) else y
    with pytest.raises(ValueError, match=r"\(1, 1, 2\)"):
        net.loss_and_grad(theta, x, y, loss)


def test_an_unknown_model_is_named():
    with pytest.raises(ValueError, match="'resnet', expected one of mlp, cnn"):
        build("resnet", (32, 32, 3), 10)


# Objectives.


@pytest.mark.parametrize(
    ("method", "message"), [("__call__", "must define __call__"), ("hessian", "has no second der")]
)
def test_an_objective_says_by_its_name_what_is_missing(method, message):
    class Unfinished(Objective):
        pass

    with pytest.raises(NotImplementedError, match=f"^Unfinished {message}"):
        getattr(Unfinished(), method)(np.zeros(2))


def batch_loss(rng, n=7, dtype=np.float64, **options):
    net = small_cnn()
    theta, x, y = drawn(net, rng, n, dtype)
    return BatchLoss(net, x, y, **options), theta


def same(a, b):
    """Whether two evaluations agree to the last bit."""
    return a.loss == b.loss and a.accuracy == b.accuracy and np.array_equal(a.grad, b.grad)


def test_a_batch_loss_is_the_loss_and_grad_of_its_network(rng):
    batch, theta = batch_loss(rng)
    loss, grad, accuracy, stats = batch(theta)
    assert stats.shape == (0,)
    expected = batch.net.loss_and_grad(theta, batch.x, batch.y)
    assert loss == expected[0]
    np.testing.assert_array_equal(grad, expected[1])
    assert accuracy == np.mean(batch.net.predict(theta, batch.x) == batch.y)


def test_regression_has_no_accuracy(rng):
    net = small_cnn()
    theta, x, _ = drawn(net, rng)
    assert math.isnan(BatchLoss(net, x, np.zeros((3, 3)), MeanSquaredError())(theta).accuracy)


def test_the_same_theta_gives_the_same_bits_whatever_came_between(rng):
    batch, theta = batch_loss(rng, dtype=np.float32)
    first, other = batch(theta), batch(-theta)
    assert same(batch(theta), first)
    assert same(batch(-theta), other)
    assert same(batch(theta.copy()), first)
    assert not same(first, other)


def test_theta_is_only_read(rng):
    batch, theta = batch_loss(rng)
    before = theta.copy()
    batch(theta)
    np.testing.assert_array_equal(theta, before)


def test_a_gradient_outlives_the_next_evaluation_in_the_same_memory(rng):
    env = Env()
    (batch, theta), (larger, _) = batch_loss(rng, env=env), batch_loss(rng, 20, env=env)
    grad = batch(theta).grad
    before = grad.copy()
    larger(-theta)
    batch(-theta)
    np.testing.assert_array_equal(grad, before)


@given(n=st.integers(1, 9), m=st.integers(1, 10), seed=seeds)
def test_the_mean_of_the_parts_is_the_whole(n, m, seed):
    batch, theta = batch_loss(np.random.default_rng(seed), n)
    parts = batch.split(m)
    assert [part.n for part in parts] == [m] * (n // m) + [n % m] * (n % m > 0)
    mean, whole = Mean(parts)(theta), batch(theta)
    assert Mean(parts).n == n
    assert mean.loss == pytest.approx(whole.loss, rel=1e-12)
    assert mean.accuracy == pytest.approx(whole.accuracy)
    np.testing.assert_allclose(mean.grad, whole.grad, rtol=0, atol=1e-13)


def test_a_mean_can_be_split_again(rng):
    batch, theta = batch_loss(rng)
    again = Mean(batch.split(4)).split(3)
    assert [part.n for part in again] == [3, 1, 3]
    assert Mean(again)(theta).loss == pytest.approx(batch(theta).loss, rel=1e-12)


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Mean([])


@pytest.mark.parametrize("m", [0, -1])
def test_micro_batches_have_at_least_one_example(m, rng):
    with pytest.raises(ValueError, match=f"^micro-batch size m must be .* ≥ 1, got {m}"):
        batch_loss(rng)[0].split(m)


def test_micro_batches_have_masks_of_their_own(rng):
    """All examples are alike, so that only the masks can differ."""
    net = Sequential([Dropout(0.5), Linear(20, 3)], input_shape=(20,))
    theta, batch = net.init(rng, np.float64), BatchLoss(net, np.ones((6, 20)), np.zeros(6, int), key=(0,))
    one, other = batch.split(3)
    assert one(theta).loss != other(theta).loss
    assert same(one(theta), batch.split(3)[0](theta))


@given(seed=seeds, l1=st.sampled_from([0.0, 0.3]), l2=st.sampled_from([0.0, 0.7]))
def test_penalties_and_their_gradients_are_right(seed, l1, l2):
    theta = spaced(np.random.default_rng(seed), (6,))
    bowl = Bowl([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    penalised = Penalised(bowl, l1, l2)
    loss, grad, *_ = penalised(theta)
    penalty = sum(l1 * abs(w) + l2 * w * w / 2 for w in theta.tolist())
    assert loss == pytest.approx(bowl(theta).loss + penalty)
    assert relative_error(grad, numerical_gradient(lambda t: penalised(t).loss, theta)) < 1e-8


def test_l1_has_slope_0_at_0():
    assert Penalised(Bowl([1.0]), l1=1.0)(np.zeros(1)).grad == 0


def test_a_penalty_keeps_the_rest_of_the_evaluation(rng):
    batch, theta = batch_loss(rng, dtype=np.float32)
    penalised = Penalised(batch, l1=np.float64(0.1), l2=np.float64(0.1))
    assert penalised.n == batch.n
    assert penalised(theta).accuracy == batch(theta).accuracy
    assert penalised(theta).grad.dtype == np.float32


def test_a_penalty_counts_once_in_a_mean_of_parts(rng):
    batch, theta = batch_loss(rng)
    penalised = Penalised(batch, l1=0.1, l2=0.2)
    mean, whole = Mean(penalised.split(3))(theta), penalised(theta)
    assert mean.loss == pytest.approx(whole.loss, rel=1e-12)
    np.testing.assert_allclose(mean.grad, whole.grad, rtol=0, atol=1e-13)


@pytest.mark.parametrize("bad", [{"l1": -1.0}, {"l2": -0.1}, {"l2": math.nan}, {"l1": math.inf}])
def test_impossible_penalties_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be .*≥ 0"):
        Penalised(Bowl([1.0]), **bad)


def test_examples_are_counted_through_splits(rng):
    batch, theta = batch_loss(rng, n=7)
    counted = Counted(batch)
    assert (counted.n, counted.examples) == (7, 0)
    assert same(counted(theta), batch(theta))
    assert counted.examples == 7
    for part in counted.split(3)[1:]:
        part(theta)
    assert counted.examples == 7 + 3 + 1


# Layers in another order, outputs overwritten: the same function.


def as_given(layers, theta, x, cotangent):
    """Outputs and gradient of these very layers, one after the other, nothing overwritten."""
    grad, env = np.empty_like(theta), Env()
    params, grads, start = [], [], 0
    for layer in layers:
        for views, vector in ((params, theta), (grads, grad)):
            views.append([])
            at = start
            for shape in layer.param_shapes.values():
                views[-1].append(vector[at : at + math.prod(shape)].reshape(shape))
                at += math.prod(shape)
        start = at
    caches = []
    for layer, own in zip(layers, params, strict=True):
        x, cache = layer.forward(own, x.copy(), env)
        caches.append(cache)
    dy = cotangent
    for layer, own, cache, into in reversed(list(zip(layers, params, caches, grads, strict=True))):
        dy = layer.backward(own, cache, dy.copy(), into, env)
    return x, grad


ORDERS = [
    [Conv2d(2, 3, 3), ReLU(), MaxPool2d(2), ReLU(), Flatten(), Linear(18, 4)],
    [ReLU(), MaxPool2d(2), Conv2d(2, 2, 2), Tanh(), ReLU(), MaxPool2d(2, stride=1), Flatten(), Linear(4, 4)],
    [Tanh(), ReLU(), MaxPool2d(3), ReLU(), Flatten(), Linear(4, 5), ReLU(), Tanh(), Linear(5, 4)],
    [Conv2d(2, 2, 3), ReLU(), AvgPool2d(2), ReLU(), MaxPool2d(2), Flatten(), ReLU(), Linear(2, 4)],
]


@pytest.mark.parametrize("layers", ORDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_economy_changes_no_bit(layers, dtype, rng):
    net = Sequential(layers, input_shape=(5, 6, 2))
    assert net.layers == tuple(layers)  # as they were written
    assert net.chain.layers != net.layers
    theta, x, _ = drawn(net, rng, 3, dtype)
    before = x.copy()
    outputs, caches = net.chain.forward(net.views(theta), x, Env())
    np.testing.assert_array_equal(x, before)
    cotangent, grad = rng.standard_normal(outputs.shape).astype(dtype), np.empty_like(theta)
    net.chain.backward_at_input(net.views(theta), caches, cotangent, net.views(grad), Env())
    y, expected = as_given(layers, theta, x, cotangent)
    np.testing.assert_array_equal(outputs, y)
    np.testing.assert_array_equal(grad, expected)


def test_the_input_is_not_overwritten_through_a_view_of_it(rng):
    net = Sequential([Flatten(), ReLU(), Linear(60, 4)], input_shape=(5, 6, 2))
    theta, x, y = drawn(net, rng, 3)
    before = x.copy()
    net.loss_and_grad(theta, x, y)
    np.testing.assert_array_equal(x, before)


def test_every_gradient_is_counted(rng):
    env = Env()
    (batch, theta), (larger, _) = batch_loss(rng, 4, env=env), batch_loss(rng, 6, env=env)
    batch(theta), larger(theta), batch(theta)
    assert env.examples == 4 + 6 + 4


# The same bits on any number of threads.


def mlp():
    return Sequential([Linear(300, 400), ReLU(), Linear(400, 10)], input_shape=(300,))


def cnn():
    layers = [Conv2d(3, 16, 3), ReLU(), MaxPool2d(2), Conv2d(16, 16, 3), ReLU(), Flatten()]
    return Sequential([*layers, Linear(16 * 12 * 11, 10)], input_shape=(24, 22, 3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("make", "n"), [(mlp, 150), (cnn, 21)])
def test_the_bits_do_not_depend_on_the_threads(make, n, dtype, rng):
    net = make()
    theta, x, y = drawn(net, rng, n, dtype)
    batch, results = BatchLoss(net, x, y), []
    for n_threads in (1, 2, 5, 1):
        kernels.set_threads(n_threads)
        results.append(batch(theta))
    assert all(same(result, results[0]) for result in results)


@pytest.mark.parametrize("name", ["linear", "conv", "norm", "residual", "pool"])
def test_a_relu_that_the_layer_before_applies_is_the_same_relu(name, rng):
    before, shape = {
        "linear": (Linear(6, 5), (6,)),
        "conv": (Conv2d(2, 16, 3), (5, 4, 2)),
        "norm": (BatchNorm(3), (4, 4, 3)),
        "residual": (Residual((Conv2d(3, 3, 3), ReLU(), Conv2d(3, 3, 3))), (4, 4, 3)),
        "pool": (MaxPool2d(2), (6, 6, 3)),
    }[name]
    fused, apart = (Sequential([before, *between, ReLU(), Flatten()], shape) for between in ([], [Passing()]))
    theta, x = rng.standard_normal(fused.n_params), rng.standard_normal((7, *shape))
    y = rng.integers(0, *fused.output_shape, 7)
    assert (fused.forward(theta, x) == 0).any()
    np.testing.assert_array_equal(fused.forward(theta, x), apart.forward(theta, x))
    np.testing.assert_array_equal(fused.loss_and_grad(theta, x, y)[1], apart.loss_and_grad(theta, x, y)[1])
    v = rng.standard_normal(len(theta))
    np.testing.assert_allclose(fused.hvp(theta, v, x, y), apart.hvp(theta, v, x, y), rtol=1e-10, atol=1e-12)


@dataclass(frozen=True)
class Passing(FixedSlope):
    """y = x: keeps its neighbours apart."""

    def forward(self, params, x, env):
        return x, None

    def backward(self, params, cache, dy, grads, env):
        return dy

    def tangent(self, at, params_dot, x_dot, env):
        return x_dot, None


def test_a_forward_of_ones_own_need_not_apply_the_relu_after_it(rng):
    class Negative(Linear):
        def forward(self, params, x, env):
            return -self.affine(params, x, env), x

    net, x = Sequential([Negative(3, 4), ReLU()], (3,)), rng.standard_normal((5, 3))
    theta = rng.standard_normal(net.n_params)
    W, b = net.views(theta)
    np.testing.assert_allclose(net.forward(theta, x), np.maximum(-(x @ W + b), 0))


def test_running_statistics_are_counted_in_no_memory():
    """A file may ask for a network of any width, and is refused only afterwards."""
    width = 1 << 50
    assert Sequential([BatchNorm(width)], (width,)).n_stats == 2 * width


@pytest.mark.skipif("numba" not in sys.modules, reason="plain NumPy cuts nothing into runs")
@pytest.mark.parametrize(("make", "n", "least"), [(mlp, 150, 4), (cnn, 21, 3)])
def test_work_is_cut_into_runs_by_shapes_alone(make, n, least, rng, monkeypatch):
    def counted(kernel, n, count, *args):
        counts[-1].append(count)
        kernels.threads.parallel(kernel, n, count, *args)

    for module in ("channel", "conv", "gemm", "pool", "vector", "winograd"):
        monkeypatch.setattr(sys.modules[f"minisam.kernels.{module}"], "parallel", counted)
    net, counts = make(), []
    inputs = drawn(net, rng, n, np.float32)
    for n_threads in (1, 2, 5):
        kernels.set_threads(n_threads)
        counts.append([])
        net.loss_and_grad(*inputs)
    assert counts[0] == counts[1] == counts[2]
    assert max(counts[0]) >= least


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, theta, x, y: net.forward(theta.tolist(), x), "theta must be a NumPy array, got list"),
        (lambda net, theta, x, y: net.forward(theta, x.tolist()), "x must be a NumPy array, got list"),
        (lambda net, theta, x, y: net.loss_and_grad(theta, x, y.tolist()), "y must be a NumPy array, got list"),
        (lambda net, theta, x, y: net.predict(theta, x, stats=[]), "stats must be a NumPy array, got list"),
        (lambda net, theta, x, y: net.hvp(theta, theta.tolist(), x, y), "v must be a NumPy array, got list"),
        (lambda net, theta, x, y: BatchLoss(net, x.tolist(), y), "x must be a NumPy array, got list"),
        (lambda net, theta, x, y: BatchLoss(net, x, y.tolist()), "y must be a NumPy array, got list"),
        (lambda net, theta, x, y: Sequential([Flatten()], 4), r"input_shape must be a tuple, such as .*, got 4"),
    ],
)
def test_what_is_no_array_is_refused_by_its_name(call, message, rng):
    net = small_cnn()
    theta, x, y = drawn(net, rng)
    with pytest.raises(TypeError, match=rf"\b{message}"):
        call(net, theta, x, y)


@pytest.mark.parametrize("wrong", [lambda theta: theta[:-1], lambda theta: theta.astype(np.float32), np.ndarray.tolist])
def test_the_loss_alone_refuses_the_weights_that_its_gradient_refuses(wrong, rng):
    net = small_cnn()
    theta, x, y = drawn(net, rng)
    batch = BatchLoss(net, x, y)
    for evaluate in (batch, batch.value):
        with pytest.raises((TypeError, ValueError), match="theta"):
            evaluate(wrong(theta))


def test_a_single_image_is_an_error_of_x_not_of_the_labels(rng):
    net = small_cnn()
    _, x, y = drawn(net, rng)
    with pytest.raises(ValueError, match=r"expected x of shape \(N ≥ 1, 4, 5, 2\), got \(4, 5, 2\): x\[None\] is"):
        BatchLoss(net, x[0], y)


@pytest.mark.parametrize("between", [[], [ReLU()], [Tanh()]])
def test_a_gradient_is_not_written_over_while_it_is_read(between, rng):
    """Flatten hands back a view of its dy; the layer below must not get that memory for its own dx."""
    layers = [Conv2d(2, 3, 3), Tanh(), Conv2d(3, 2, 3), *between, MaxPool2d(2), Flatten(), Linear(8, 4)]
    net = Sequential(layers, input_shape=(4, 5, 2))
    theta, x, y = drawn(net, rng)
    expected, env = net.loss_and_grad(theta, x, y)[1], Env()
    for _ in range(3):  # from the second time on all buffers are large enough to be used again
        np.testing.assert_array_equal(BatchLoss(net, x, y, env=env)(theta).grad, expected)
