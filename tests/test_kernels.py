"""Every fast kernel computes what its readable twin in `kernels.reference` does."""

import inspect

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BLOCK, dtypes, pairs, seeds

from minisam import kernels
from minisam.kernels import channel, compiled, pool, reference, tile

# How an input may lie in memory: kernels accept all of these.
LAYOUTS = {
    "contiguous": lambda x: x,
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "Fortran order": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: x[::-1].copy()[::-1],
}


class Draw:
    """Draws a kernel's arguments: shapes and a seed by hypothesis, values from the seed."""

    def __init__(self, data):
        self.draw, self.dtype = data.draw, data.draw(dtypes)
        self.rng = np.random.default_rng(data.draw(seeds))
        self.written = []

    def integer(self, low, high):
        return self.draw(st.integers(low, high))

    def length(self):
        """The length of a vector: short, or about as long as the blocks it is cut into, or longer."""
        return self.draw(st.integers(1, 40) | st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1]))

    def number(self):
        return float(self.rng.uniform(0.1, 1))

    def floor(self):
        """The least value that a kernel writes: none, ReLU's or another."""
        return self.draw(st.sampled_from([-np.inf, 0.0, 0.25]))

    def array(self, *shape):
        """An input, in any layout. Multiples of 1/4, so that zeros and ties occur."""
        values = np.round(4 * self.rng.standard_normal(shape)).astype(self.dtype) / 4
        return LAYOUTS[self.draw(st.sampled_from(sorted(LAYOUTS)))](values)

    def state(self, *shape):
        """An array that the kernel updates."""
        self.written.append(np.abs(self.rng.standard_normal(shape)).astype(self.dtype))
        return self.written[-1]

    def blank(self, *shape, dtype=None):
        """An array that the kernel overwrites: entries it leaves out stay 123."""
        self.written.append(np.full(shape, 123, dtype or self.dtype))
        return self.written[-1]

    def copy(self, arguments):
        """The same arguments, with copies of those that the kernel writes to."""
        return {
            name: value.copy() if any(value is array for array in self.written) else value
            for name, value in arguments.items()
        }


def convolution(d):
    """Shapes of x, W and y, stride and padding; y may have any size, as kernels allow."""
    N, C, F = d.integer(1, 3), d.integer(1, 3), d.integer(1, 4)
    (H, width), (H_out, W_out), (kH, kW) = (d.draw(pairs(1, n)) for n in (8, 9, 6))
    stride = d.integer(1, 3)
    if d.draw(st.booleans()):  # a case with its own kernel: whole vectors of channels, and images of several tiles
        kH, kW, stride = 3, 3, 1
        C, F = (d.draw(st.sampled_from([16, 32, 48])) for _ in "CF")
        H_out, W_out = d.draw(pairs(4, 9))
    shapes = (N, H, width, C), (kH, kW, C, F), (N, H_out, W_out, F)
    return *shapes, {"stride": stride, "padding": d.draw(pairs(0, 7))}


def conv2d(d):
    x, W, y, geometry = convolution(d)
    inputs = {"x": d.array(*x), "W": d.array(*W), "b": d.array(W[-1])}
    return {**inputs, **geometry, "out": d.blank(*y), "floor": d.floor()}


def conv2d_weight_grad(d):
    x, W, y, geometry = convolution(d)
    inputs = {"x": d.array(*x), "dy": d.array(*y)}
    return {**inputs, **geometry, "dW": d.blank(*W), "db": d.blank(W[-1])}


def conv2d_input_grad(d):
    x, W, y, geometry = convolution(d)
    return {"dy": d.array(*y), "W": d.array(*W), **geometry, "out": d.blank(*x)}


def pooling(d):
    """Shapes of x and y, size and stride; some of x may lie outside every window."""
    N, C, size, stride = d.integer(1, 3), d.integer(1, 4), d.integer(1, 4), d.integer(1, 4)
    outputs, unused = d.draw(pairs(1, 5)), d.draw(pairs(0, 2))
    H, W = ((n - 1) * stride + size + more for n, more in zip(outputs, unused, strict=True))
    return (N, H, W, C), (N, *outputs, C), {"size": size, "stride": stride}


def max_pool2d(d):
    x, y, geometry = pooling(d)
    winner = d.blank(*y, dtype=np.uint8)
    return {"x": d.array(*x), **geometry, "out": d.blank(*y), "winner": winner}


def max_pool2d_grad(d):
    x, y, geometry = pooling(d)
    winner = d.rng.integers(0, geometry["size"] ** 2, y).astype(np.uint8)
    return {"dy": d.array(*y), "winner": winner, **geometry, "out": d.blank(*x)}


def avg_pool2d(d):
    x, y, geometry = pooling(d)
    return {"x": d.array(*x), **geometry, "out": d.blank(*y)}


def avg_pool2d_grad(d):
    x, y, geometry = pooling(d)
    return {"dy": d.array(*y), **geometry, "out": d.blank(*x)}


def max_pool2d_picked(d):
    x, y, geometry = pooling(d)
    winner = d.rng.integers(0, geometry["size"] ** 2, y).astype(np.uint8)
    return {"x": d.array(*x), "winner": winner, **geometry, "out": d.blank(*y)}


def matmul(d):
    M, K, N = (d.draw(st.integers(1, 9) | st.sampled_from([64, 200, 257])) for _ in range(3))
    return {"a": d.array(M, K), "b": d.array(K, N), "out": d.blank(M, N)}


def some_shape(d):
    return d.draw(st.sampled_from([(d.length(),), (3, 5), (2, 3, 4, 5), (3, BLOCK // 16, 8, 1)]))


def rows_of_channels(d):
    channels = d.integer(1, 5)
    block = channel._RUN // channels
    rows = d.draw(st.sampled_from([(7,), (2, 3, 4), (block,), (block + 1,), (2, block)]))
    return (*rows, channels)


def channel_sums(d):
    shape = rows_of_channels(d)
    shifts = {name: d.array(shape[-1]) for name in ("x_shift", "y_shift")}
    return {"x": d.array(*shape), "y": d.array(*shape), **shifts}


def channel_affine(d):
    shape = rows_of_channels(d)
    per_channel = {name: d.array(shape[-1]) if d.draw(st.booleans()) else d.number() for name in "abc"}
    return {"x": d.array(*shape), "y": d.array(*shape), **per_channel, "out": d.blank(*shape), "floor": d.floor()}


def relu(d):
    shape = some_shape(d)
    return {"x": d.array(*shape), "out": d.blank(*shape)}


def relu_grad(d):
    shape = some_shape(d)
    return {"y": d.array(*shape), "dy": d.array(*shape), "out": d.blank(*shape)}


def dot(d):
    n = d.length()
    return {"a": d.array(n), "b": d.array(n)}


def norm(d):
    return {"g": d.array(d.length())}


def add_scaled(d):
    n = d.length()
    return {"theta": d.array(n), "scale": d.number(), "g": d.array(n), "out": d.blank(n)}


def gd_update(d):
    n = d.length()
    return {"theta": d.state(n), "g": d.array(n), "lr": d.number(), "weight_decay": d.number()}


def momentum_update(d):
    n = d.length()
    vectors = {"theta": d.state(n), "g": d.array(n), "velocity": d.state(n)}
    scalars = {name: d.number() for name in ("lr", "momentum", "weight_decay")}
    return {**vectors, **scalars, "nesterov": d.draw(st.booleans())}


def adam_update(d):
    n = d.length()
    vectors = {"theta": d.state(n), "g": d.array(n), "m": d.state(n), "v": d.state(n)}
    names = ("step_size", "decay", "beta1", "beta2", "root_bias2", "eps")
    return {**vectors, **{name: d.number() for name in names}}


ARGUMENTS = {
    function.__name__: function
    for function in (
        *(matmul, conv2d, conv2d_weight_grad, conv2d_input_grad),
        *(max_pool2d, max_pool2d_grad, max_pool2d_picked, avg_pool2d, avg_pool2d_grad),
        *(channel_sums, channel_affine),
        *(relu, relu_grad, dot, norm, add_scaled, gd_update, momentum_update, adam_update),
    )
}


def assert_close(actual, expected):
    """Equal up to rounding in the expected array's own precision; NaN only where it has NaN."""
    if expected is None:
        assert actual is None
        return
    expected = np.asarray(expected)
    eps = np.finfo(expected.dtype).eps if expected.dtype.kind == "f" else 0
    scale = np.abs(expected).max(initial=1)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=100 * eps * scale, strict=True)


@pytest.mark.parametrize("name", ARGUMENTS)
@given(data=st.data())
@settings(max_examples=100)
def test_a_kernel_equals_its_twin(name, data):
    d = Draw(data)
    arguments = ARGUMENTS[name](d)
    for_actual, for_expected = d.copy(arguments), d.copy(arguments)
    actual = getattr(kernels, name)(**for_actual)
    expected = getattr(reference, name)(**for_expected)
    for key, value in for_expected.items():
        assert_close(for_actual[key], value)
    assert_close(actual, expected)


@pytest.mark.parametrize("name", ARGUMENTS)
@given(data=st.data())
def test_a_kernel_leaves_its_inputs_alone(name, data):
    d = Draw(data)
    arguments = ARGUMENTS[name](d)
    before = {key: np.copy(value) for key, value in arguments.items()}
    getattr(kernels, name)(**d.copy(arguments))
    for key, value in arguments.items():
        np.testing.assert_array_equal(value, before[key])


@given(data=st.data(), name=st.sampled_from(sorted(ARGUMENTS)))
@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_no_layout_makes_a_kernel_compile_anew(data, name):
    d = Draw(data)
    getattr(kernels, name)(**ARGUMENTS[name](d))
    for kernel in compiled._kernels:
        assert len(kernel.code.run.signatures) <= 2  # float32 and float64


def test_every_reference_has_a_fast_twin_that_is_tested():
    functions = inspect.getmembers(reference, inspect.isfunction)
    public = {name for name, _ in functions if not name.startswith("_")} - {"strip"}  # only compiled code can call it
    assert public == set(ARGUMENTS)
    assert public == set(kernels.__all__) - {"compile_all", "get_threads", "set_threads", "set_winograd"}
    for name in public:
        parameters = [inspect.signature(getattr(twin, name)).parameters.values() for twin in (kernels, reference)]
        assert len({tuple((one.name, one.default) for one in twin) for twin in parameters}) == 1


@numba.njit
def compiled_strip(n, width, A, a, a_steps, B, b, b_steps, S, s, s_step, C, c, c_step, R, P, floor):
    tile.strip(n, width, A, a, a_steps, B, b, b_steps, S, s, s_step, C, c, c_step, R, P, floor)


@given(data=st.data())
@settings(max_examples=100)
def test_a_strip_equals_its_twin(data):
    """Rows of A may overlap, as windows do; C may be where the sums start; what lies between its rows is left alone."""
    d = Draw(data)
    n, R, P = d.integer(0, 21), d.integer(0, 4), d.integer(0, 5)
    width = tile.lanes(np.dtype(d.dtype)) * d.integer(0, 5)
    (a, *a_steps), (b, *b_steps), (s, s_step) = ([d.integer(0, 7) for _ in range(k)] for k in (4, 3, 2))
    c, c_step = d.integer(0, 7), width + d.integer(0, 3)
    A, B, S = (d.rng.standard_normal(500).astype(d.dtype) for _ in range(3))
    C = d.rng.standard_normal(c + 22 * c_step).astype(d.dtype)
    expected = C.copy()
    for run, out in ((compiled_strip, C), (reference.strip, expected)):
        start = {0: (out, c, c_step), 1: (None, 0, 0)}.get(s, (S, s, s_step))
        run(n, width, A, a, tuple(a_steps), B, b, tuple(b_steps), *start, out, c, c_step, R, P, d.dtype(-0.5))
    assert_close(C, expected)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_twins_have_the_same_parameters(name):
    twins = getattr(kernels, name), getattr(reference, name)
    assert twins[0] is not twins[1] or name.startswith("avg_pool")  # plain NumPy serves for both
    assert inspect.signature(twins[0]) == inspect.signature(twins[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("stride", "F", "N"), [(1, 5, 20), (2, 5, 20), (2, 16, 20), (1, 16, 70)])
def test_convolutions_cut_into_many_blocks_equal_their_twins(dtype, stride, F, N):
    rng = np.random.default_rng(0)
    side, C = 32 // stride, 16
    x = rng.standard_normal((N, 32, 32, C)).astype(dtype)
    W, b = rng.standard_normal((3, 3, C, F)).astype(dtype), np.ones(F, dtype)
    dy = rng.standard_normal((N, side, side, F)).astype(dtype)
    results = []
    for twin in (kernels, reference):
        y = twin.conv2d(x, W, b, stride, (1, 1), np.empty_like(dy))
        dx = twin.conv2d_input_grad(dy, W, stride, (1, 1), np.empty_like(x))
        dW, db = np.empty_like(W), np.empty_like(b)
        twin.conv2d_weight_grad(x, dy, stride, (1, 1), dW, db)
        results.append((y, dx, dW, db))
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [2, 3])
def test_pools_cut_into_many_blocks_equal_their_twins(dtype, size):
    rng, results = np.random.default_rng(0), []
    side, images_a_block = 32, 4
    x = rng.standard_normal((9, side, side, pool._RUN // side**2 // images_a_block)).astype(dtype)
    y = np.empty((9, *2 * [(side - size) // 2 + 1], x.shape[3]), dtype)
    dy = rng.standard_normal(y.shape).astype(dtype)
    for twin in (kernels, reference):
        winner, picked, dx = np.empty(y.shape, np.uint8), np.empty_like(y), np.empty_like(x)
        largest = twin.max_pool2d(x, size, 2, y.copy(), winner)
        twin.max_pool2d_picked(-x, winner, size, 2, picked)
        twin.max_pool2d_grad(dy, winner, size, 2, dx)
        results.append((largest, winner, picked, dx))
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected)


def test_a_convolution_by_tiles_rounds_little_more_than_plain_sums():
    rng = np.random.default_rng(0)
    x, W = rng.standard_normal((2, 16, 16, 64)), rng.standard_normal((3, 3, 64, 64))
    y = np.empty((2, 16, 16, 64))
    reference.conv2d(x, W, np.zeros(64), 1, (1, 1), y)
    single = [array.astype(np.float32) for array in (x, W, np.zeros(64), y)]
    kernels.conv2d(*single[:3], 1, (1, 1), single[3])
    assert np.abs(single[3] - y).max() < 2e-6 * np.abs(y).max()


TWINS = pytest.mark.parametrize("twin", [kernels, reference], ids=["fast", "reference"])
nan, inf = np.nan, np.inf


@TWINS
def test_relu_keeps_a_nan(twin):
    x = np.array([nan, -inf, -1.0, 0.0, 2.0, inf])
    np.testing.assert_array_equal(twin.relu(x, np.empty(6)), [nan, 0, 0, 0, 2, inf])


@TWINS
@pytest.mark.parametrize("channels", [3, 16])
def test_a_floor_keeps_a_nan(twin, channels):
    """As ReLU does: a convolution or an affine map that applies it must not hide what has gone wrong."""
    x = np.zeros((1, 5, 5, channels), np.float32)
    x[0, 2, 2, 0] = nan
    W, b, y = np.ones((3, 3, channels, channels), np.float32), np.full(channels, -1, np.float32), np.empty_like(x)
    twin.conv2d(x, W, b, 1, (1, 1), y, 0.0)
    assert np.isnan(y[0, 1:4, 1:4]).all()
    assert not np.nanmax(y)
    twin.channel_affine(x, 1, x, 1, -1, y, 0.0)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("shape", [(1, 6), (2, 3), (3, 9), (1, 1)])
def test_a_weight_that_meets_only_padding_has_no_gradient_at_all(shape):
    """1e-8 would do harm: Adam divides it by its own size."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 3, *shape, 16)).astype(np.float32)
    dW, db = np.empty((3, 3, 16, 16), np.float32), np.empty(16, np.float32)
    kernels.conv2d_weight_grad(x, dy, 1, (1, 1), dW, db)
    meets = [[[0 <= r + i - 1 < n for r in range(n)] for i in range(3)] for n in shape]
    rows, columns = (np.any(along, axis=1) for along in meets)
    np.testing.assert_array_equal(dW.any(axis=(2, 3)), np.outer(rows, columns))


def test_plain_sums_compute_every_convolution_if_asked():
    """Integers tell: plain sums of them are exact in float32, Winograd's are not."""
    rng = np.random.default_rng(0)
    x, W, dy = (rng.integers(-9, 10, s).astype(np.float32) for s in [(2, 8, 8, 16), (3, 3, 16, 16), (2, 8, 8, 16)])

    def results(twin):
        y, dx, dW, db = (np.empty_like(array) for array in (dy, x, W, W[0, 0, 0]))
        twin.conv2d(x, W, np.zeros(16, np.float32), 1, (1, 1), y)
        twin.conv2d_input_grad(dy, W, 1, (1, 1), dx)
        twin.conv2d_weight_grad(x, dy, 1, (1, 1), dW, db)
        return [y, dx, dW]

    expected, fast = results(reference), results(kernels)
    kernels.set_winograd(False)
    try:
        plain = results(kernels)
    finally:
        kernels.set_winograd(True)
    assert all(np.array_equal(one, other) for one, other in zip(plain, expected, strict=True))
    assert not any(np.array_equal(one, other) for one, other in zip(fast, expected, strict=True))


@TWINS
def test_float32_takes_nothing_from_a_shift(twin):
    """At 1e6 its numbers are 1/16 apart: rounded, a mean would be wrong by 3 % of these deviations from it."""
    x, y = (10**6 + np.arange(4).reshape(4, 1)).astype(np.float32), np.full((4, 1), 10, np.float32)
    np.testing.assert_allclose(twin.channel_sums(x, np.array([10**6 + 1.03]), y)[1], [10 * (6 - 4 * 1.03)], rtol=1e-6)


@TWINS
def test_relu_grad_is_zero_where_y_is_whatever_dy_is(twin):
    y, dy = np.array([0.0, 1.0, 0.0, 2.0, 0.0]), np.array([-3.0, 4.0, 0.0, -5.0, 7.0])
    np.testing.assert_array_equal(twin.relu_grad(y, dy, np.empty(5)), [0, 4, 0, -5, 0])


def window(*values):
    """One 2×2 window, as a batch of one image with one channel."""
    return np.array(values, np.float64).reshape(1, 2, 2, 1)


@TWINS
@pytest.mark.parametrize(
    ("values", "largest", "place"),
    [
        ((1, 4, 3, 2), 4, 1),
        ((5, 5, 5, 5), 5, 0),
        ((1, 3, 2, 3), 3, 1),
        ((-inf, -inf, -inf, -inf), -inf, 0),
        ((-inf, -7, -8, -9), -7, 1),
        ((9, nan, inf, 1), nan, 1),
        ((nan, 1, nan, 2), nan, 0),
        ((1, 2, nan, nan), nan, 2),
    ],
)
def test_the_first_maximum_wins_and_a_nan_over_all_numbers(twin, values, largest, place):
    y, winner = np.empty((1, 1, 1, 1)), np.empty((1, 1, 1, 1), np.uint8)
    twin.max_pool2d(window(*values), 2, 2, y, winner)
    np.testing.assert_array_equal(y.ravel(), [largest])
    assert winner.ravel() == [place]


@TWINS
@pytest.mark.parametrize("slope", [inf, nan])
def test_an_infinite_slope_reaches_only_the_winner(twin, slope):
    dx = np.empty((1, 2, 2, 1))
    dy, winner = np.full((1, 1, 1, 1), slope), np.full((1, 1, 1, 1), 2, np.uint8)
    twin.max_pool2d_grad(dy, winner, 2, 2, dx)
    np.testing.assert_array_equal(dx, window(0, 0, slope, 0))


@pytest.mark.parametrize("twin", [kernels, reference])
def test_an_infinite_slope_does_not_pass_a_relu_that_is_off(twin):
    y, dy = np.array([0.0, 1.0, 0.0]), np.array([inf, inf, nan])
    np.testing.assert_array_equal(twin.relu_grad(y, dy, np.empty(3)), [0, inf, 0])


@TWINS
@pytest.mark.parametrize("size", [1e-23, 1e30])
def test_a_float32_norm_does_not_underflow_or_overflow(twin, size):
    norm = twin.norm(np.full(100, size, np.float32))
    assert type(norm) is float
    assert norm == pytest.approx(10 * size, rel=1e-6)


@TWINS
def test_a_scale_beyond_float32_is_added(twin):
    theta, g = np.ones(3, np.float32), np.full(3, 1e-30, np.float32)
    total = twin.add_scaled(theta, 1e39, g, np.empty_like(theta))
    np.testing.assert_allclose(total, 1 + 1e9, rtol=1e-6)


@TWINS
def test_add_scaled_may_write_over_its_input(twin):
    theta = np.ones(BLOCK + 1, np.float32)
    assert twin.add_scaled(theta, -0.5, theta, out=theta) is theta
    assert np.all(theta == 0.5)


@pytest.mark.parametrize("dtype", [np.int64, np.float16])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match="float32 or float64"):
        kernels.relu_grad(np.ones(3, dtype), np.ones(3, dtype), np.empty(3, dtype))


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="Python takes any type")
def test_a_kernel_takes_no_other_types_than_its_own():
    """These are those of `dot`'s sums: machine code for them would read float64 as float32."""
    single = np.ones(3, np.float32)
    kernels.dot(single, single)
    with pytest.raises(TypeError, match="No matching definition"):
        kernels.relu_grad(single, single, np.empty(3))


def test_arrays_of_different_lengths_are_refused():
    """Compiled loops do not check their bounds."""
    with pytest.raises(ValueError, match=r"one shape, got \[\(3, 2\), \(2, 2\)\]"):
        kernels.channel_sums(np.ones((3, 2)), np.ones(2), np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"one length, got \[3, 2, 3\]"):
        kernels.add_scaled(np.ones(3), 1.0, np.ones(2), np.empty(3))
    with pytest.raises(ValueError, match="one length, got 3 and 2"):
        kernels.dot(np.ones(3), np.ones(2))
