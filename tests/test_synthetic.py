"""The drawn data set is the same for the same seed, balanced, and neither trivial nor noise."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisam.data.shapes import BLOCK, SHAPES, SIDE, _draw, synthetic


@pytest.fixture(scope="module")
def data():
    return synthetic(n_train=2000, n_test=1000, seed=3)


def arrays(data):
    return data.x_train, data.y_train, data.x_test, data.y_test


def pixel_grid(n=1, extent=1.0):
    """Coordinates u, v of shape (n, SIDE, SIDE) from -extent to extent."""
    axis = (2 * np.arange(SIDE, dtype=np.float32) + 1) / SIDE - 1
    u, v = np.meshgrid(extent * axis, extent * axis)
    return np.tile(u, (n, 1, 1)), np.tile(v, (n, 1, 1))


def test_it_says_what_it_is(data):
    assert (data.name, data.source, data.synthetic) == ("synthetic", "embedded", True)
    assert data.classes == tuple(SHAPES)
    assert len(data.classes) == 10


def test_shapes_and_dtypes(data):
    for x, y, n in ((data.x_train, data.y_train, 2000), (data.x_test, data.y_test, 1000)):
        assert x.shape == (n, 32, 32, 3)
        assert y.shape == (n,)
        assert (x.dtype, y.dtype) == (np.uint8, np.int64)
        assert x.flags.c_contiguous


def test_pixels_use_their_range_and_seldom_clip(data):
    assert data.x_train.min() == 0
    assert data.x_train.max() == 255
    assert 100 < data.x_train.mean() < 155
    assert np.mean((data.x_train == 0) | (data.x_train == 255)) < 0.05


@given(seed=st.integers(0, 2**40))
@settings(max_examples=5, deadline=None)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(seed):
    once, again, other = (synthetic(110, 10, s) for s in (seed, seed, seed + 1))
    assert all(np.array_equal(a, b) for a, b in zip(arrays(once), arrays(again), strict=True))
    assert all(not np.array_equal(a, b) for a, b in zip(arrays(once), arrays(other), strict=True))


@given(n_train=st.integers(1, 2 * BLOCK + 5), n_test=st.integers(1, 2 * BLOCK + 5))
@settings(max_examples=8, deadline=None)
def test_fewer_pictures_are_the_first_ones(data, n_train, n_test):
    few = synthetic(n_train, n_test, seed=3)
    expected = data.first(n_train, n_test)
    assert all(np.array_equal(a, b) for a, b in zip(arrays(few), arrays(expected), strict=True))


def test_no_picture_occurs_twice_in_training_or_test(data):
    pictures = {picture.tobytes() for x in (data.x_train, data.x_test) for picture in x}
    assert len(pictures) == 3000


def test_training_and_test_orders_differ(data):
    assert np.mean(data.y_train[:1000] == data.y_test) < 0.2


def test_every_ten_are_one_of_each_class_in_varying_order(data):
    for y in (data.y_train, data.y_test):
        tens = y.reshape(-1, 10)
        assert np.array_equal(np.sort(tens, axis=1), np.tile(np.arange(10), (len(tens), 1)))
        assert len(np.unique(tens, axis=0)) == len(tens)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_train": 0}, "n_train must be an integer ≥ 1, got 0"),
        ({"n_test": -3}, "n_test must be an integer ≥ 1, got -3"),
        ({"seed": -1}, "seed must be an integer ≥ 0, got -1"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=rf"\b{message}"):
        synthetic(**arguments)


def test_outlines_fit_their_radius_and_cannot_be_mistaken_for_each_other():
    u, v = pixel_grid(extent=1.5)
    inside = {name: shape(u, v) < 0 for name, shape in SHAPES.items()}
    for name, mask in inside.items():
        # The corners of bars reach out farthest, to 1.2.
        assert not mask[u * u + v * v > 1.22**2].any(), name
        assert 0.06 < mask.mean() < 0.35, name
    for one, other in itertools.combinations(inside, 2):
        overlap = (inside[one] & inside[other]).sum() / (inside[one] | inside[other]).sum()
        assert overlap < 0.9, (one, other)


def test_shapes_are_turned_to_both_sides(monkeypatch):
    angles = []

    def noted(canvas, kinds, u, v, r, colour):
        angles.append(np.arctan2(u[:, 1, 0] - u[:, 0, 0], u[:, 0, 1] - u[:, 0, 0]))

    monkeypatch.setattr("minisam.data.shapes._draw", noted)
    synthetic(BLOCK, 1)
    for of_kind, turn in zip(angles[:2], (np.pi, 0.5), strict=True):  # in the background, in front
        assert turn * 0.9 < of_kind.max() < turn * 1.01
        assert turn * 0.9 < -of_kind.min() < turn * 1.01


def test_each_picture_gets_the_shape_of_its_kind():
    kinds = np.array([3, 0, 9, 3])
    u, v = pixel_grid(len(kinds))
    canvas = np.zeros((len(kinds), 3, SIDE, SIDE), np.float32)
    colour = np.array([0.2, 0.4, 0.8], np.float32).reshape(1, 3, 1, 1)
    _draw(canvas, kinds, u, v, np.full((len(kinds), 1, 1), 0.7, np.float32), colour)
    for picture, kind in zip(canvas, kinds, strict=True):
        distance = list(SHAPES.values())[kind](u[0] / 0.7, v[0] / 0.7)
        np.testing.assert_allclose(picture[:, distance < -0.1].T - colour.ravel(), 0, atol=1e-6)
        assert not picture[:, distance > 0.1].any()


def test_colours_hint_at_the_class_without_giving_it_away(data):
    """The nearest class mean, a linear classifier, is better than chance and far from good."""
    x_train, x_test = (x.reshape(len(x), -1) / 255 for x in (data.x_train, data.x_test))
    means = np.stack([x_train[data.y_train == k].mean(axis=0) for k in range(10)])
    # ‖x - m‖² without ‖x‖², which is the same for every class
    distance = (means**2).sum(axis=1) - 2 * x_test @ means.T  # (1000, 10)
    accuracy = np.mean(distance.argmin(axis=1) == data.y_test)
    assert 0.17 < accuracy < 0.4
