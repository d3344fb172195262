"""Every layer against its own definition and against finite differences, at every index."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import LAYERS, any_layer, convolutions, dtypes, images, pools, seeds, spaced

from minisam import nn
from minisam.analysis.gradcheck import gradcheck, hvpcheck
from minisam.nn import (
    AvgPool2d,
    BatchNorm,
    Bilinear,
    Conv2d,
    Dropout,
    Env,
    FixedSlope,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    Linear,
    MaxPool2d,
    Motion,
    Point,
    ReLU,
    Residual,
    Tanh,
)

TOLERANCE = 1e-5  # a wrong gradient is off by about 1

batch_sizes = st.integers(1, 4)


def arrays(layer, input_shape, batch_size, seed, dtype=np.float64):
    """An input away from kinks and ties, and parameters away from 0."""
    rng = np.random.default_rng(seed)
    params = [spaced(rng, shape).astype(dtype) for shape in layer.param_shapes.values()]
    return spaced(rng, (batch_size, *input_shape)).astype(dtype), params, rng


def forward(layer, x, *params, running=None):
    return layer.forward(list(params), x, Env(key=(0,), running=running))[0]


def running_stats(layer, seed):
    """Means and variances as training leaves them."""
    rng = np.random.default_rng(seed)
    stats = [np.empty(0), *(start + rng.uniform(0.1, 0.9, len(start)) for start in layer.init_stats(np.float64))]
    return np.concatenate(stats)


def backward(layer, x, params, dy, garbage=np.nan):
    """dL/dx and dL/dparams, the latter in memory that held garbage."""
    _, cache = layer.forward(params, x, Env(key=(0,)))
    grads = [np.full_like(param, garbage) for param in params]
    return layer.backward(params, cache, dy, grads, Env()), grads


def test_every_layer_is_tested():
    classes = {value for _, value in inspect.getmembers(nn, inspect.isclass)}
    assert {c for c in classes if issubclass(c, Layer)} - {Layer, FixedSlope, Bilinear} == set(LAYERS)


@pytest.mark.parametrize("kind", LAYERS)
@given(data=st.data(), batch_size=batch_sizes, seed=seeds)
def test_gradients_are_right(kind, data, batch_size, seed):
    layer, input_shape = data.draw(LAYERS[kind])
    x, params, rng = arrays(layer, input_shape, batch_size, seed)
    assert gradcheck(layer, x, params, rng) < TOLERANCE
    assert gradcheck(layer, x, params, rng, running_stats(layer, seed)) < TOLERANCE


@pytest.mark.parametrize("kind", LAYERS)
@given(data=st.data(), batch_size=batch_sizes, seed=seeds)
def test_tangents_are_right(kind, data, batch_size, seed):
    layer, input_shape = data.draw(LAYERS[kind])
    x, params, rng = arrays(layer, input_shape, batch_size, seed)
    assert hvpcheck(layer, x, params, rng) < 1e-6
    assert hvpcheck(layer, x, params, rng, running_stats(layer, seed)) < 1e-6


@given(case=any_layer, batch_size=batch_sizes, seed=seeds, dtype=dtypes)
def test_shapes_and_dtypes_are_as_announced(case, batch_size, seed, dtype):
    layer, input_shape = case
    x, params, _ = arrays(layer, input_shape, batch_size, seed, dtype)
    y = forward(layer, x, *params)
    assert y.shape == (batch_size, *layer.output_shape(input_shape))
    dx, grads = backward(layer, x, params, np.ones_like(y))
    assert dx.shape == x.shape
    assert {array.dtype for array in (y, dx, *grads)} == {np.dtype(dtype)}


# Of a layer without parameters the next tests would say nothing.
WITH_PARAMETERS = [kind for kind in LAYERS if kind.param_shapes is not Layer.param_shapes]


@pytest.mark.parametrize("kind", WITH_PARAMETERS)
@given(data=st.data(), seed=seeds)
def test_init_writes_every_parameter(kind, data, seed):
    layer, _ = data.draw(LAYERS[kind])
    params = [np.full(shape, np.nan) for shape in layer.param_shapes.values()]
    layer.init(params, np.random.default_rng(seed))
    assert params
    assert all(np.isfinite(param).all() for param in params)


def test_batch_norm_starts_as_a_normalisation_and_nothing_more():
    gamma, beta = np.full(3, np.nan), np.full(3, np.nan)
    BatchNorm(3).init([gamma, beta], np.random.default_rng(0))
    assert (gamma.tolist(), beta.tolist()) == ([1, 1, 1], [0, 0, 0])


@pytest.mark.parametrize("kind", WITH_PARAMETERS)
@given(data=st.data(), batch_size=batch_sizes, seed=seeds)
def test_gradients_are_assigned_whatever_was_there(kind, data, batch_size, seed):
    layer, input_shape = data.draw(LAYERS[kind])
    x, params, rng = arrays(layer, input_shape, batch_size, seed)
    dy = rng.standard_normal((batch_size, *layer.output_shape(input_shape)))
    _, once = backward(layer, x, params, dy, garbage=7.0)
    _, again = backward(layer, x, params, dy, garbage=np.nan)
    assert once
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a, b)


@given(case=any_layer, batch_size=batch_sizes, seed=seeds)
def test_half_a_backward_is_half_of_backward(case, batch_size, seed):
    """If dL/dx or the gradients are left out, the other half has the same bits."""
    layer, input_shape = case
    x, params, rng = arrays(layer, input_shape, batch_size, seed)
    dy = rng.standard_normal((batch_size, *layer.output_shape(input_shape)))
    dx, expected = backward(layer, x, params, dy)
    _, cache = layer.forward(params, x, Env(key=(0,)))
    grads = [np.full_like(param, np.nan) for param in params]
    assert layer.backward_at_input(params, cache, dy, grads, Env()) is None
    for a, b in zip(grads, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(layer.linearize(params, cache, dy, Env())[0], dx)


@given(case=any_layer, batch_size=batch_sizes, seed=seeds)
def test_an_input_that_stands_still_may_be_left_out_of_the_tangents(case, batch_size, seed):
    layer, input_shape = case
    x, params, rng = arrays(layer, input_shape, batch_size, seed)
    dy, dy_dot = rng.standard_normal((2, batch_size, *layer.output_shape(input_shape)))
    params_dot = [rng.standard_normal(param.shape) for param in params]
    _, cache = layer.forward(params, x, Env(key=(0,)))
    at = Point(params, cache, layer.linearize(params, cache, dy, Env())[1])
    found = []
    for tangent in (layer.tangent, layer.tangent_at_input):
        y_dot, cache_dot = tangent(at, params_dot, np.zeros_like(x), Env())
        grads_dot = [np.full_like(param, np.nan) for param in params]
        layer.backward_tangent(at, Motion(params_dot, cache_dot, dy_dot), grads_dot, Env())
        found.append([y_dot, *grads_dot])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@given(case=any_layer, batch_size=batch_sizes, seed=seeds)
def test_inputs_and_parameters_are_only_read(case, batch_size, seed):
    layer, input_shape = case
    x, params, rng = arrays(layer, input_shape, batch_size, seed)
    dy = rng.standard_normal((batch_size, *layer.output_shape(input_shape)))
    before = [array.copy() for array in (x, dy, *params)]
    backward(layer, x, params, dy)
    for array, value in zip((x, dy, *params), before, strict=True):
        np.testing.assert_array_equal(array, value)


@given(case=any_layer, batch_size=st.integers(2, 4), seed=seeds)
def test_examples_do_not_influence_each_other(case, batch_size, seed):
    layer, input_shape = case
    x, params, _ = arrays(layer, input_shape, batch_size, seed)
    running = running_stats(layer, seed)  # in training, BatchNorm mixes the examples
    alone = np.concatenate([forward(layer, x[n : n + 1], *params, running=running) for n in range(batch_size)])
    np.testing.assert_allclose(forward(layer, x, *params, running=running), alone, rtol=1e-12, atol=1e-12)


# Forward passes against the definitions, written as loops.


def convolve(x, W, b, stride, above, before, H_out, W_out):
    """The definition, in seven loops."""
    (N, H, width, C), (kH, kW, _, F) = x.shape, W.shape
    y = np.zeros((N, H_out, W_out, F))
    for n, r, c, f in np.ndindex(y.shape):
        y[n, r, c, f] = b[f]
        for i, j, k in np.ndindex(kH, kW, C):
            row, column = r * stride + i - above, c * stride + j - before
            if 0 <= row < H and 0 <= column < width:
                y[n, r, c, f] += x[n, row, column, k] * W[i, j, k, f]
    return y


def windows(x, size, stride):
    """Yield (n, r, c, channel) and that window of x, for every window that fits."""
    N, H, W, C = x.shape
    for n, top, left, k in np.ndindex(N, H - size + 1, W - size + 1, C):
        if top % stride == left % stride == 0:
            place = n, top // stride, left // stride, k
            yield place, x[n, top : top + size, left : left + size, k]


@given(shape=images(5), batch_size=st.integers(2, 4), seed=seeds)
def test_batch_norm_is_its_definition(shape, batch_size, seed):
    layer = BatchNorm(shape[2], eps=1e-3)
    x, (gamma, beta), _ = arrays(layer, shape, batch_size, seed)
    env = Env()
    y, _ = layer.forward([gamma, beta], x, env)
    axes, n = (0, 1, 2), x.size // shape[2]
    mean, var = x.mean(axis=axes), x.var(axis=axes)
    np.testing.assert_allclose(y, gamma * (x - mean) / np.sqrt(var + 1e-3) + beta, atol=1e-12)
    np.testing.assert_allclose(env.stats[0], mean, atol=1e-14)
    np.testing.assert_allclose(env.stats[1], var * n / max(n - 1, 1), atol=1e-14)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.75])
def test_dropout_keeps_the_mean(rate):
    x = np.full((100, 100), 3.0)
    y = forward(Dropout(rate), x)
    share = np.mean(y == 0)
    assert share == pytest.approx(rate, abs=5 * math.sqrt(rate * (1 - rate) / x.size))  # five standard deviations
    np.testing.assert_allclose(y[y != 0], 3 / (1 - rate))
    np.testing.assert_array_equal(forward(Dropout(rate), x, running=np.empty(0)), x)


def test_every_dropout_layer_has_a_mask_of_its_own_and_the_same_one_in_the_next_pass():
    x, env, passes = np.ones((50, 50)), Env(), []
    for _ in range(2):
        env.begin(key=(3,))
        passes.append([Dropout(0.5).forward([], x, env)[0].copy() for _ in range(2)])
    np.testing.assert_array_equal(*passes)
    assert not np.array_equal(*passes[0])


@given(channels=st.integers(1, 6), batch_size=st.integers(2, 4), seed=seeds)
def test_batch_norm_of_vectors(channels, batch_size, seed):
    layer = BatchNorm(channels, eps=0.1)
    x, params, rng = arrays(layer, (channels,), batch_size, seed)
    assert gradcheck(layer, x, params, rng) < TOLERANCE
    assert hvpcheck(layer, x, params, rng) < 1e-6


def test_batch_norm_of_a_value_alone_is_beta():
    layer, x = BatchNorm(2), np.array([[5.0, -3.0]])
    dx, (dgamma, dbeta) = backward(layer, x, [np.ones(2), np.array([1.0, 2.0])], np.array([[7.0, 8.0]]))
    np.testing.assert_allclose(forward(layer, x, np.ones(2), np.array([1.0, 2.0])), [[1, 2]])
    np.testing.assert_allclose([dx[0], dgamma, dbeta], [[0, 0], [0, 0], [7, 8]], atol=1e-11)


@pytest.mark.parametrize("offset", [0, 1e3, 1e6, -1e6])
def test_a_large_mean_does_not_drown_the_variance(offset):
    """E[x²] - μ² would be off by 1e12 · 1e-7 in float32: no digit of a variance of 1 would be right."""
    x = (np.random.default_rng(0).standard_normal((64, 8, 8, 3)) + offset).astype(np.float32)
    x[..., 1] = offset  # a channel without variance
    exact = x.astype(np.float64)
    env = Env()
    y, _ = BatchNorm(3).forward([np.ones(3, np.float32), np.zeros(3, np.float32)], x, env)
    mean, var = exact.mean(axis=(0, 1, 2)), exact.var(axis=(0, 1, 2))
    np.testing.assert_allclose(env.stats[1], var * 4096 / 4095, rtol=1e-5, atol=1e-9)
    expected = (exact - mean) / np.sqrt(var + 1e-5)
    spacing = np.spacing(np.float32(max(abs(offset), 1))) / np.sqrt(var + 1e-5)  # of x itself, in y's units
    assert np.all(np.abs(y - expected) <= 4 * spacing + 1e-6)


@given(data=st.data(), batch_size=st.integers(1, 2), seed=seeds)
def test_conv2d_is_its_definition(data, batch_size, seed):
    shape = data.draw(images(5))
    layer = data.draw(convolutions(shape).filter(lambda layer: layer.padding != "same"))
    x, (W, b), _ = arrays(layer, shape, batch_size, seed)
    above, before = np.broadcast_to(layer.padding, 2)
    H_out = (shape[0] + 2 * above - W.shape[0]) // layer.stride + 1
    W_out = (shape[1] + 2 * before - W.shape[1]) // layer.stride + 1
    expected = convolve(x, W, b, layer.stride, above, before, H_out, W_out)
    np.testing.assert_allclose(forward(layer, x, W, b), expected, rtol=1e-12, atol=1e-11)


@given(shape=images(6), size=st.tuples(st.integers(1, 6), st.integers(1, 6)), stride=st.integers(1, 3), seed=seeds)
def test_same_padding_puts_an_odd_zero_below_or_behind(shape, size, stride, seed):
    layer, bare = (Conv2d(shape[2], 2, size, stride, padding) for padding in ("same", 0))
    x, params, _ = arrays(layer, shape, 2, seed)
    outputs = [math.ceil(n / stride) for n in shape[:2]]
    zeros = [max(0, (out - 1) * stride + k - n) for out, k, n in zip(outputs, size, shape, strict=False)]
    padded = np.pad(x, ((0, 0), *((z // 2, z - z // 2) for z in zeros), (0, 0)))
    y = forward(layer, x, *params)
    assert y.shape[1:3] == tuple(outputs)
    np.testing.assert_allclose(y, forward(bare, padded, *params)[:, : outputs[0], : outputs[1]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "size", "stride", "padding", "expected"),
    [
        ([1, 2, 3], 2, 1, "same", [3, 5, 3]),
        ([1, 2, 3, 4], 3, 2, "same", [6, 7]),
        ([1, 2, 3, 4, 5], 3, 2, "same", [3, 9, 9]),
        ([1, 2, 3], 3, 1, (0, 1), [3, 6, 5]),
        ([1, 2, 3], 2, 1, (0, 2), [0, 1, 3, 5, 3, 0]),
        ([1, 2, 3, 4, 5], 1, 3, 0, [1, 4]),
    ],
)
def test_conv2d_by_hand(x, size, stride, padding, expected):
    layer = Conv2d(1, 1, (1, size), stride, padding)
    row = np.array(x, np.float64).reshape(1, 1, -1, 1)
    y = forward(layer, row, np.ones((1, size, 1, 1)), np.zeros(1))
    np.testing.assert_array_equal(y.ravel(), expected)


def test_conv2d_does_not_turn_its_kernel():
    x = np.zeros((1, 3, 3, 1))
    x[0, 1, 1, 0] = 1
    W = np.arange(1.0, 10).reshape(3, 3, 1, 1)
    y = forward(Conv2d(1, 1, 3), x, W, np.full(1, 10.0))
    np.testing.assert_array_equal(y[0, :, :, 0], 10 + W[::-1, ::-1, 0, 0])


def test_the_gradients_of_a_convolution_with_many_channels_are_right():
    """Such a convolution has its own kernel."""
    layer = Conv2d(16, 17, 3, padding=(1, 0))
    x, params, rng = arrays(layer, (5, 6, 16), 1, 0)
    assert gradcheck(layer, x, params, rng) < TOLERANCE


@given(data=st.data(), shape=images(6), seed=seeds)
def test_max_pooling_is_its_definition(data, shape, seed):
    layer = data.draw(pools(MaxPool2d, shape))
    x, _, _ = arrays(layer, shape, 2, seed)
    y = forward(layer, x)
    expected = {place: window.max() for place, window in windows(x, layer.size, layer.stride)}
    assert expected == dict(np.ndenumerate(y))


@given(data=st.data(), shape=images(6), seed=seeds)
def test_average_pooling_is_its_definition(data, shape, seed):
    layer = data.draw(pools(AvgPool2d, shape))
    x, _, _ = arrays(layer, shape, 2, seed)
    y = forward(layer, x)
    expected = {place: window.mean() for place, window in windows(x, layer.size, layer.stride)}
    assert dict(np.ndenumerate(y)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_pooling_windows_lie_side_by_side_by_default():
    x = np.array([[1.0, 2, 5, 0, 9], [4, 3, 6, 7, 9]]).reshape(1, 2, 5, 1)
    assert forward(MaxPool2d(2), x).ravel().tolist() == [4, 7]
    assert forward(AvgPool2d(2), x).ravel().tolist() == [2.5, 4.5]


def test_linear_is_x_W_plus_b():
    x, W, b = np.array([[1.0, 2], [3, 4], [5, 6]]), np.array([[1.0, 0], [10, 100]]), np.ones(2)
    y = forward(Linear(2, 2), x, W, b)
    np.testing.assert_array_equal(y, [[22, 201], [44, 401], [66, 601]])


def test_relu_and_tanh_are_elementwise():
    x = np.array([[-2.0, -0.5], [0.0, 3.0]])
    np.testing.assert_array_equal(forward(ReLU(), x), [[0, 0], [0, 3]])
    expected = [[math.tanh(value) for value in row] for row in x]
    np.testing.assert_allclose(forward(Tanh(), x), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("layer", "input_shape", "expected"),
    [
        (Linear(7, 5), (7,), 7 * 5),
        (Conv2d(2, 4, (5, 3), stride=2, padding=0), (9, 8, 2), (3 * 3) * (5 * 3) * 2 * 4),
        (Residual((Conv2d(2, 4, 3),), (Conv2d(2, 4, 1),)), (5, 6, 2), (5 * 6) * (3 * 3 + 1) * 2 * 4),
        (ReLU(), (7,), 0),
        (MaxPool2d(2), (4, 4, 1), 0),
    ],
)
def test_multiply_adds_by_hand(layer, input_shape, expected):
    assert layer.multiply_adds(input_shape) == expected


def test_flatten_goes_pixel_by_pixel():
    x = np.arange(24.0).reshape(2, 2, 3, 2)
    np.testing.assert_array_equal(forward(Flatten(), x), np.arange(24).reshape(2, 12))


def test_global_average_is_the_mean_over_pixels():
    x = np.array([[1.0, 10], [2, 20], [3, 60]]).reshape(1, 3, 1, 2)
    np.testing.assert_array_equal(forward(GlobalAvgPool2d(), x), [[2, 30]])


def test_at_the_kink_relu_has_slope_0():
    dx, _ = backward(ReLU(), np.array([[-1.0, 0.0, 1.0]]), [], np.full((1, 3), 5.0))
    np.testing.assert_array_equal(dx, [[0, 0, 5]])


def test_among_ties_the_first_maximum_gets_the_gradient():
    dx, _ = backward(MaxPool2d(2), np.ones((1, 2, 2, 1)), [], np.full((1, 1, 1, 1), 5.0))
    np.testing.assert_array_equal(dx.ravel(), [5, 0, 0, 0])


def test_the_largest_maximum_pool_knows_all_its_places():
    x = np.zeros((1, 16, 16, 1))
    x[0, 15, 15, 0] = 1
    dx, _ = backward(MaxPool2d(16), x, [], np.full((1, 1, 1, 1), 5.0))
    np.testing.assert_array_equal(dx, 5 * x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0, 3), "n_in .* got 0"),
        (lambda: Linear(3, -1), "n_out .* got -1"),
        (lambda: Linear(2.5, 1), "n_in .* got 2.5"),
        (lambda: Conv2d(0, 1, 3), "c_in .* got 0"),
        (lambda: Conv2d(1, 0, 3), "c_out .* got 0"),
        (lambda: Conv2d(1, 1, 0), "Conv2d size .* got 0"),
        (lambda: Conv2d(1, 1, (3, 0)), r"Conv2d size .* got \(3, 0\)"),
        (lambda: Conv2d(1, 1, (3, 3.5)), r"Conv2d size .* got \(3, 3.5\)"),
        (lambda: Conv2d(1, 1, 3, stride=0), "stride .* got 0"),
        (lambda: Conv2d(1, 1, 3, padding=-1), "Conv2d padding .* got -1"),
        (lambda: Conv2d(1, 1, 3, padding=(0, -1)), r"Conv2d padding .* got \(0, -1\)"),
        (lambda: Conv2d(1, 1, 3, padding="valid"), "Conv2d padding .* got 'valid'"),
        (lambda: Conv2d(1, 1, (3, 3, 3)), r"Conv2d size .* got \(3, 3, 3\)"),
        (lambda: Conv2d(1, 1, 2.5), r"Conv2d size .* got 2.5"),
        (lambda: Conv2d(1, 1, 3, padding=(1, 2, 3)), r"Conv2d padding .* got \(1, 2, 3\)"),
        (lambda: Conv2d(1, 1, 3, padding=None), r"Conv2d padding .* got None"),
        (lambda: Conv2d(1, 1, 3, padding=0.5), r"Conv2d padding .* got 0.5"),
        (lambda: MaxPool2d(0), "size .* got 0"),
        (lambda: MaxPool2d(17), "MaxPool2d size .* at most 16, got 17"),
        (lambda: AvgPool2d(2, stride=-1), "stride .* got -1"),
    ],
)
def test_impossible_configurations_are_refused(make, message):
    with pytest.raises(ValueError, match=rf"\b{message}"):
        make()


@pytest.mark.parametrize(
    ("layer", "input_shape", "message"),
    [
        (Linear(4, 2), (5,), r"Linear expected x of shape \(N, 4\), got \(N, 5\)"),
        (Linear(4, 2), (2, 2, 1), r"Linear expected .* got \(N, 2, 2, 1\)"),
        (Conv2d(3, 2, 3), (8, 8, 1), r"Conv2d expected .*\(N, H, W, 3\), got \(N, 8, 8, 1\)"),
        (Conv2d(3, 2, 3), (3,), r"Conv2d expected .* got \(N, 3\)"),
        (Conv2d(1, 2, (5, 3), padding=(1, 0)), (2, 9, 1), "H ≥ 3, W ≥ 3"),
        (Conv2d(1, 2, 3), (0, 5, 1), r"Conv2d expected .*H ≥ 1, W ≥ 1.* got \(N, 0, 5, 1\)"),
        (MaxPool2d(3), (2, 5, 1), r"MaxPool2d expected .*H ≥ 3.* got \(N, 2, 5, 1\)"),
        (AvgPool2d(3), (5, 2, 1), r"AvgPool2d expected .*W ≥ 3.* got \(N, 5, 2, 1\)"),
        (MaxPool2d(2), (8,), r"MaxPool2d expected .* got \(N, 8\)"),
        (GlobalAvgPool2d(), (8,), r"GlobalAvgPool2d expected .* got \(N, 8\)"),
        (BatchNorm(3), (4, 5, 2), r"BatchNorm expected x of shape \(N, …, 3\), got \(N, 4, 5, 2\)"),
        (Residual((Linear(4, 3),)), (4,), r"Residual expected .* of one output shape, got \(3,\) and \(4,\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(layer, input_shape, message):
    with pytest.raises(ValueError, match=rf"\b{message}"):
        layer.output_shape(input_shape)


@pytest.mark.parametrize(
    ("kind", "method", "message"),
    [
        (Layer, "forward", "must define forward"),
        (Layer, "backward", "must define backward"),
        (Layer, "tangent", "has no tangent: no Hessian-vector product"),
        (Layer, "backward_tangent", "has no tangent: no Hessian-vector product"),
        (Bilinear, "affine", "must define affine"),
        (Bilinear, "weight_gradient", "must define weight_gradient"),
        (Bilinear, "input_gradient", "must define input_gradient"),
    ],
)
def test_a_layer_says_by_its_name_what_is_missing(kind, method, message):
    unfinished = type("Unfinished", (kind,), {})()
    arguments = [None] * len(inspect.signature(getattr(unfinished, method)).parameters)
    with pytest.raises(NotImplementedError, match=f"^Unfinished {message}$"):
        getattr(unfinished, method)(*arguments)


# A check that cannot fail proves nothing: each of these backwards is wrong.


def zero(dx, grads, x, dy):
    return np.zeros_like(dx)


def sign_flipped(dx, grads, x, dy):
    return -dx


def examples_in_reverse(dx, grads, x, dy):
    return dx[::-1]


def bias_forgotten(dx, grads, x, dy):
    grads[1][...] = np.nan  # as gradcheck left it
    return dx


def bias_averaged(dx, grads, x, dy):
    grads[1][...] = dy.mean(axis=0)
    return dx


def axes_swapped(dx, grads, x, dy):
    grads[0][...] = dy.T @ x
    return dx


def one_entry_wrong(dx, grads, x, dy):
    grads[0][1, 2] *= 1.01
    return dx


@pytest.mark.parametrize(
    "mistake", [zero, sign_flipped, examples_in_reverse, bias_forgotten, bias_averaged, axes_swapped, one_entry_wrong]
)
def test_gradcheck_catches(mistake):
    class Wrong(Linear):
        def backward(self, params, x, dy, grads, env):
            dx = super().backward(params, x, dy, grads, env)
            return mistake(dx, grads, x, dy)

    x, params, rng = arrays(Linear(3, 3), (3,), 2, seed=0)
    assert gradcheck(Linear(3, 3), x, params, rng) < TOLERANCE
    assert not gradcheck(Wrong(3, 3), x, params, rng) < 1e-3


def rebinds(x, dy, grads):
    grads[0], grads[1] = x.T @ dy, dy.sum(axis=0)


def adds(x, dy, grads):
    grads[0] += x.T @ dy
    grads[1][...] = dy.sum(axis=0)


def leaves_a_column(x, dy, grads):
    grads[0][:, 1:] = (x.T @ dy)[:, 1:]
    grads[1][...] = dy.sum(axis=0)


def leaves_the_bias(x, dy, grads):
    grads[0][...] = x.T @ dy


@pytest.mark.parametrize("slip", [rebinds, adds, leaves_a_column, leaves_the_bias])
def test_gradcheck_names_a_gradient_that_was_never_assigned(slip):
    class Wrong(Linear):
        def backward(self, params, x, dy, grads, env):
            slip(x, dy, grads)
            return dy @ params[0].T

        def backward_tangent(self, at, moving, grads_dot, env):
            slip(at.cache, moving.dy_dot, grads_dot)
            return moving.dy_dot @ at.params[0].T

    x, params, rng = arrays(Linear(3, 3), (3,), 2, seed=0)
    missing = r"grads\[1\] \(b\)" if slip is leaves_the_bias else r"grads\[0\] \(W\)"
    with pytest.raises(ValueError, match=rf"^Wrong\.backward left {missing} unassigned"):
        gradcheck(Wrong(3, 3), x, params, rng)
    Wrong.backward = Linear.backward
    with pytest.raises(ValueError, match=rf"^Wrong\.backward_tangent left {missing} unassigned"):
        hvpcheck(Wrong(3, 3), x, params, rng)


@pytest.mark.parametrize("method", ["tangent", "backward_tangent"])
def test_hvpcheck_catches(method):
    class Wrong(Tanh):
        pass

    def off_by_a_hundredth(self, *args):
        right = getattr(Tanh, method)(self, *args)
        return 1.01 * right if method == "backward_tangent" else (1.01 * right[0], right[1])

    setattr(Wrong, method, off_by_a_hundredth)
    x, _, rng = arrays(Tanh(), (3,), 2, seed=0)
    assert hvpcheck(Wrong(), x, [], rng) > 1e-3


def test_gradcheck_refuses_a_gradient_of_another_shape():
    class Wrong(Tanh):
        def backward(self, params, y, dy, grads, env):
            return dy.T

    with pytest.raises(ValueError, match=r"shape \(2, 3\), got \(3, 2\)"):
        gradcheck(Wrong(), np.ones((2, 3)), [], np.random.default_rng(0))


@pytest.mark.parametrize("size", [1e6, 1e18, 1e25, 1e37])
def test_batch_norm_keeps_its_gradient_however_large_its_inputs_are(size):
    """In float32, where γ/σ · x̂/(σ n) is 0 and σ² may be infinite: as for inputs of size 1, scaled down."""
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((16, 3)).astype(np.float32) for _ in range(2))
    params = [np.array([1.0, 2.0, 0.5], np.float32), np.zeros(3, np.float32)]

    def slopes(x):
        env, grads = Env(), [np.empty(3, np.float32) for _ in range(2)]
        _, cache = BatchNorm(3, eps=1e-30).forward(params, x, env)
        assert np.isfinite(env.stats).all()
        return BatchNorm(3, eps=1e-30).backward(params, cache, dy, grads, env), *grads

    (dx, *grads), (huge_dx, *huge_grads) = slopes(x), slopes(np.float32(size) * x)
    np.testing.assert_allclose(huge_dx.astype(np.float64) * size, dx, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(huge_grads, grads, rtol=1e-3, atol=1e-4)


def test_dropout_of_nothing_needs_no_key():
    x = np.ones((2, 3))
    y, cache = Dropout(0.0).forward([], x, Env())
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(Dropout(0.0).backward([], cache, x, [], Env()), x)


def test_gradcheck_needs_its_random_cotangent():
    """Softmax outputs sum to 1, so with a cotangent of ones even a zero gradient seems right."""

    class Softmax(Layer):
        def forward(self, params, x, env):
            e = np.exp(x)
            return e / e.sum(axis=1, keepdims=True), None

        def backward(self, params, cache, dy, grads, env):
            return np.zeros_like(dy)

    class Ones:
        def standard_normal(self, shape):
            return np.ones(shape)

    x = np.array([[1.0, 2.0, 3.0]])
    assert gradcheck(Softmax(), x, [], Ones()) < TOLERANCE
    assert gradcheck(Softmax(), x, [], np.random.default_rng(0)) > 0.5


@pytest.mark.parametrize("numbers", [(3, 4, True), (True, 4, 3), (3, 4, (2, True))])
def test_true_is_no_number(numbers):
    with pytest.raises(ValueError, match="must be"):
        Conv2d(*numbers)
