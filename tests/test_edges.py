"""Edge cases: their results are defined, and these are the definitions."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import dtypes

from minisam.checks import AtLeastOne, BelowOne, Count, Fraction, Natural, NonNegative, Positive, require
from minisam.data import Normalisation, synthetic
from minisam.nn import BatchLoss, BatchNorm, Linear, ReLU, Sequential, SoftmaxCrossEntropy, build
from minisam.nn.models import MODELS
from minisam.objective import Evaluation
from minisam.optim import GD, SAM, Ball, Cosine, Momentum
from minisam.rng import Stream, keyed_rng
from minisam.training import Config, Diverged, Prepared, train
from minisam.training.config import FAMILY, make_optimizer

OPTIMIZERS = ("gd", "momentum", "adam", *FAMILY)


def optimizer(name, **options):
    base = {"base": "adam"} if name in FAMILY else {}
    return make_optimizer(Config(optimizer=name, schedule="constant", weight_decay=0.0, **base, **options), 10)


class Slope:
    """A loss with the same gradient everywhere, whatever the batch; the gradient is all that optimizers see."""

    def __init__(self, grad):
        self.grad = grad

    def __call__(self, theta):
        return Evaluation(0.0, self.grad.copy())

    def value(self, theta):
        return 0.0

    def hessian(self, theta):
        return np.zeros_like


# --- the loss -------------------------------------------------------------------------------------


@given(
    dtype=dtypes,
    size=st.sampled_from([88.8, 1e4, 1e30]),
    signs=st.lists(st.sampled_from([-1, 0, 1]), min_size=6, max_size=6),
)
def test_softmax_of_huge_logits_is_that_of_their_differences(dtype, size, signs):
    """exp(88.8) is infinite in float32. The loss is the distance to the largest logit plus log(number of ties)."""
    logits = (size * np.array(signs)).reshape(2, 3).astype(dtype)
    y = np.array([0, 2])
    loss, dlogits = SoftmaxCrossEntropy()(logits, y)
    exact = logits.astype(np.longdouble)
    shifted = exact - exact.max(axis=1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    expected = np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[[0, 1], y])
    assert loss == pytest.approx(float(expected), rel=1e-6, abs=1e-7)
    np.testing.assert_allclose(dlogits, (p - np.eye(3)[y]) / 2, atol=1e-6)


# --- the data -------------------------------------------------------------------------------------


def prepared(x, y, classes):
    normalise = Normalisation.of(x)
    return Prepared("edge", "made up", classes, normalise(x), y, normalise(x), y, normalise)


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("name", ["adam", "sam"])
def test_one_class_is_learnt_already(model, name):
    """Its probability is 1 whatever the logit: no loss and no gradient, so only weight decay moves theta."""
    data = synthetic(8, 4)
    one = prepared(data.x_train, np.zeros(8, np.int64), ("thing",))
    config = Config(model=model, optimizer=name, epochs=1, batch_size=4, weight_decay=0.0)
    run = train(config, one)
    assert run.history[0]["loss"] == 0
    assert (run.train_error, run.test_error) == (0, 0)
    start = build(model, (32, 32, 3), 1).init(keyed_rng(config.seed, Stream.INIT))
    for epochs in (1, 3):
        np.testing.assert_array_equal(train(replace(config, epochs=epochs), one).theta, start)


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("name", ["momentum", "sam"])
def test_one_image_is_enough_to_train_on(model, name):
    """BatchNorm then has the variance over one image's pixels; if there is only one, it is 0, and ε replaces it."""
    data = synthetic(1, 2)
    alone = replace(Prepared.of(data))
    run = train(Config(model=model, optimizer=name, epochs=3, batch_size=1), alone)
    assert np.isfinite(run.theta).all()
    assert np.isfinite(run.stats).all()
    assert all(math.isfinite(epoch["loss"]) for epoch in run.history)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_constant_images_have_zero_variance_and_train(model):
    flat = np.full((8, 32, 32, 3), 7, np.uint8)
    data = prepared(flat, np.arange(8) % 2, ("a", "b"))
    assert not data.x_train.any()  # a deviation of 0 counts as 1
    run = train(Config(model=model, optimizer="sam", epochs=2, batch_size=4), data)
    assert np.isfinite(run.theta).all()
    assert math.isfinite(run.history[-1]["loss"])


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 3)])
def test_batch_norm_of_zero_variance_is_its_shift(shape):
    net = Sequential([BatchNorm(shape[1]), Linear(shape[1], 2)], (shape[1],))
    theta = net.init(np.random.default_rng(0))
    theta[shape[1] : 2 * shape[1]] = 0.5  # the shift
    x = np.full(shape, 3.0, np.float32)
    other = np.full(shape, -8.0, np.float32)
    y = np.zeros(shape[0], np.int64)
    one, two = BatchLoss(net, x, y)(theta), BatchLoss(net, other, y)(theta)
    assert one.loss == pytest.approx(two.loss, rel=1e-4)  # x γ/σ and μ γ/σ cancel, up to rounding
    assert np.isfinite(one.grad).all()


# --- the gradient ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_zero_gradient_moves_nothing(name):
    theta = np.linspace(-1, 1, 50, dtype=np.float32)
    before = theta.tobytes()
    descend = optimizer(name)
    for _ in range(3):
        descend.step(theta, Slope(np.zeros_like(theta)))
    assert theta.tobytes() == before


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("size", [1e-45, 1e-39, 1e30])
def test_subnormal_and_huge_gradients_give_finite_steps(name, size):
    theta = np.linspace(-1, 1, 50, dtype=np.float32)
    descend = optimizer(name, lr=1e-3)
    with np.errstate(over="ignore"):  # Adam's g²
        for _ in range(3):
            descend.step(theta, Slope(np.full_like(theta, size)))
    assert np.isfinite(theta).all()


# --- divergence -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("option", ["lr", "rho"])
def test_an_lr_or_rho_that_diverges_ends_with_advice(name, option):
    data = Prepared.of(synthetic(40, 10))
    config = Config(optimizer=name, epochs=3, batch_size=10, **{option: 1e18})
    with pytest.raises(Diverged, match=r"the loss became (nan|inf) at epoch \d, step \d+; lower --lr .* or --rho"):
        train(config, data)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SAM(GD(0.1), 0.05, ascent="ball"),
        lambda: SAM(GD(0.1), 0.05, ascent=Ball),
        lambda: Momentum(Cosine),
        lambda: Sequential([Linear(3, 4), ReLU], input_shape=(3,)),
    ],
)
def test_a_class_is_no_instance_and_a_name_no_function(make):
    with pytest.raises(ValueError, match=r"(ascent|lr|a layer) must be .*, got "):
        make()


RANGES = {  # the ends that are allowed, and what is just outside
    Positive: ([5e-324, 1e308], [0, -1, math.inf]),
    NonNegative: ([0, 1e308], [-5e-324, math.inf]),
    AtLeastOne: ([1, math.inf], [1 - 1e-16]),
    BelowOne: ([0, 1 - 1e-16], [-5e-324, 1]),
    Fraction: ([0, 1], [-5e-324, 1 + 1e-15]),
    Count: ([1, 10**30], [0, 1.0]),
    Natural: ([0, 10**30], [-1, 0.0]),
}


@pytest.mark.parametrize("range_", RANGES, ids=lambda one: one.__metadata__[0].expected)
def test_a_range_has_its_ends_and_no_more(range_):
    allowed, outside = RANGES[range_]
    for value in allowed:
        assert require("it", value, range_) == value
    for value in (*outside, math.nan, True, "1", None):
        with pytest.raises(ValueError, match=f"^it must be .*, got {value!r}"):
            require("it", value, range_)


@pytest.mark.parametrize(("value", "meant"), [(2, "0.02"), (100, "1"), (1.5, None), (101, None), ("40", None)])
def test_what_may_be_per_cent_is_asked_for_as_a_fraction(value, meant):
    hint = rf": did you mean {meant}\?" if meant else ""
    with pytest.raises(ValueError, match=rf"^it must be in \[0, 1\], got {value!r}{hint}$"):
        require("it", value, Fraction)
    with pytest.raises(ValueError, match=rf"got {value!r}$"):
        require("it", value, BelowOne)
