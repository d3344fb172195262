"""How minibatches are made: each random choice is keyed, exact, and uniform where promised."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from minisam.data.batches import Batches, Normalisation, augment, redraw_labels
from minisam.rng import Stream, keyed_rng


def assert_uniform(counts, degrees, bound):
    """Pearson's χ² against equal counts is below its 99.9 % quantile; the seed is fixed."""
    counts = np.asarray(counts)
    assert counts.size - 1 >= degrees
    expected = counts.sum() / counts.size
    assert ((counts - expected) ** 2 / expected).sum() < bound


# --- keyed_rng ------------------------------------------------------------------------------------


def test_every_part_of_the_key_changes_the_numbers():
    streams = Stream.__members__.values()  # two names of one number would be one stream
    keys = itertools.product((0, 1, 2, 2**40), streams, (0, 1, 2), (0, 1, 2))
    draws = {tuple(keyed_rng(*key).integers(2**62, size=2).tolist()) for key in keys}
    assert len(draws) == 4 * len(streams) * 3 * 3


@given(seed=st.integers(0, 2**64), epoch=st.integers(0, 10**6), step=st.integers(0, 10**6))
def test_the_same_key_gives_the_same_numbers(seed, epoch, step):
    one, other = (keyed_rng(seed, Stream.AUGMENT, epoch, step).random(3) for _ in range(2))
    assert np.array_equal(one, other)


def test_epoch_and_step_start_at_0():
    assert keyed_rng(3, Stream.INIT).random() == keyed_rng(3, Stream.INIT, 0, 0).random()


def test_seed_must_not_be_negative():
    with pytest.raises(ValueError, match=r"^seed must be an integer ≥ 0, got -1$"):
        keyed_rng(-1, Stream.INIT)


# --- redraw_labels --------------------------------------------------------------------------------


@given(seed=seeds, n=st.integers(0, 200), fraction=st.floats(0, 1), n_classes=st.integers(1, 10))
@settings(deadline=None)
def test_exactly_the_fraction_is_redrawn(seed, n, fraction, n_classes):
    y = np.full(n, -1)  # a label that is never drawn
    noisy = redraw_labels(y, fraction, n_classes, seed)
    redrawn = noisy[noisy != -1]
    assert len(redrawn) == round(fraction * n)
    assert ((redrawn >= 0) & (redrawn < n_classes)).all()
    assert (y == -1).all()
    assert np.array_equal(noisy, redraw_labels(y, fraction, n_classes, seed))


@given(seed=seeds, fraction=st.floats(0, 1))
def test_at_most_the_fraction_changes(seed, fraction):
    y = np.arange(100, dtype=np.uint8) % 10
    noisy = redraw_labels(y, fraction, 10, seed)
    assert noisy.dtype == y.dtype
    assert np.count_nonzero(noisy != y) <= round(fraction * 100)


def test_redrawn_labels_are_uniform_and_know_nothing_of_the_old_ones():
    y = np.arange(50_000) % 10
    noisy = redraw_labels(y, 1, 10, seed=4)
    pairs = np.bincount(10 * y + noisy, minlength=100)  # all 100 (old, new) equally often
    assert_uniform(pairs, degrees=99, bound=148.2)
    assert np.mean(noisy == y) == pytest.approx(0.1, abs=0.005)


def test_labels_are_redrawn_at_places_chosen_at_random():
    noisy = redraw_labels(np.full(50_000, -1), 0.4, 10, seed=5)
    counts = (noisy != -1).reshape(50, 1000).sum(axis=1)
    assert counts.sum() == 20_000
    assert_uniform(counts, degrees=49, bound=85.4)


def test_no_noise_is_a_copy():
    y = np.arange(10)
    clean = redraw_labels(y, 0, 10)
    assert np.array_equal(clean, y)
    assert not np.shares_memory(clean, y)


def test_another_seed_makes_other_noise():
    one, other = (redraw_labels(np.full(100, -1), 0.5, 10, seed) for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert not np.array_equal(one == -1, other == -1)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, np.nan, np.inf])
def test_fraction_must_be_from_0_to_1(fraction):
    with pytest.raises(ValueError, match=rf"^label-noise fraction must be in \[0, 1\], got {fraction}$"):
        redraw_labels(np.zeros(4, np.int64), fraction, 10)


@pytest.mark.parametrize("n_classes", [1, 9])
def test_a_label_beyond_the_classes_is_refused(n_classes):
    y = np.array([0, 9, 3])
    with pytest.raises(ValueError, match=rf"more than 9 n_classes \(the largest label\), got {n_classes}$"):
        redraw_labels(y, 0.5, n_classes)
    assert redraw_labels(y, 0.0, 10).tolist() == [0, 9, 3]  # ten classes are just enough


# --- Normalisation --------------------------------------------------------------------------------


def photographs(seed, n=40):
    """uint8 images (n, 6, 5, 4): a bright, a dim, a skewed and a constant channel."""
    rng = np.random.default_rng(seed)
    shape = (n, 6, 5)
    skewed = 255 * rng.random(shape) ** 4
    channels = [rng.normal(220, 12, shape), rng.normal(9, 2, shape), skewed, np.full(shape, 137)]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


@given(seed=seeds, n=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_normalised_training_images_have_mean_0_and_variance_1(seed, n):
    images = photographs(seed, n)
    x = Normalisation.of(images)(images)
    assert x.dtype == np.float32
    assert x.shape == images.shape
    mean, std = x.mean(axis=(0, 1, 2), dtype=np.float64), x.std(axis=(0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(mean, 0, atol=1e-5)
    np.testing.assert_allclose(std, [1, 1, 1, 0], atol=1e-5)


def test_normalisation_is_what_float64_would_compute():
    images = photographs(0)
    columns = images.reshape(-1, 4).astype(np.float64)
    mean, std = columns.mean(axis=0), columns.std(axis=0)
    std[3] = 1  # the constant channel
    normalise = Normalisation.of(images)
    np.testing.assert_allclose(normalise.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(normalise.std, std, rtol=1e-12)
    np.testing.assert_allclose(normalise(images), (images - mean) / std, rtol=1e-5, atol=1e-5)


def test_test_images_are_normalised_as_the_training_images_were():
    train, test = photographs(1), 255 - photographs(2, n=10)
    before = test.copy()
    x = Normalisation.of(train)(test)
    columns = train.reshape(-1, 4).astype(np.float64)
    expected = (test - columns.mean(axis=0)) / [*columns.std(axis=0)[:3], 1]
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(test, before)


@pytest.mark.parametrize("grey", [0, 1, 77, 255])
@pytest.mark.parametrize("n", [1, 3, 1000])
def test_a_constant_channel_becomes_0(n, grey):
    images = np.full((n, 3, 7, 1), grey, np.uint8)
    assert not Normalisation.of(images)(images).any()


# --- augment --------------------------------------------------------------------------------------


def crops(image, pad):
    """Every flipped and shifted version of an image (H, W, C), found by moving single pixels."""
    H, W, _ = image.shape
    for flip, down, right in itertools.product((0, 1), *2 * [range(-pad, pad + 1)]):
        moved = np.zeros_like(image)
        for r, c in np.ndindex(H, W):
            source = image[r, W - 1 - c if flip else c]
            if 0 <= r + down < H and 0 <= c + right < W:
                moved[r + down, c + right] = source
        yield moved


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "pad"), [((4, 5, 2), 2), ((5, 3, 1), 1), ((3, 4, 3), 0)])
def test_augmented_images_are_all_flips_and_shifts_equally_often(shape, pad, dtype):
    size = int(np.prod(shape))
    image = np.arange(1, size + 1).reshape(shape).astype(dtype)  # no zeros, no two alike
    x = np.tile(image, (4000, 1, 1, 1))
    out = augment(x, keyed_rng(0, Stream.AUGMENT), pad)
    assert out.dtype == dtype
    assert (x == image).all()
    counts = [np.count_nonzero((out == crop).all(axis=(1, 2, 3))) for crop in crops(image, pad)]
    assert sum(counts) == 4000  # nothing else occurs
    quantile = {50: 85.4, 18: 40.8, 2: 10.8}
    assert_uniform(counts, degrees=len(counts) - 1, bound=quantile[len(counts)])


def test_flips_and_shifts_are_independent():
    image = np.arange(1.0, 13.0).reshape(3, 4, 1)
    out = augment(np.tile(image, (8000, 1, 1, 1)), np.random.default_rng(1), pad=1)
    middle = out[:, 1, 1:3, 0]
    flipped = middle[:, 0] > middle[:, 1]
    up = (out[:, 2] == 0).all(axis=(1, 2))
    assert flipped.mean() == pytest.approx(1 / 2, abs=0.02)
    assert up.mean() == pytest.approx(1 / 3, abs=0.02)
    assert (flipped & up).mean() == pytest.approx(1 / 6, abs=0.02)


@given(seed=seeds, n=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_each_image_keeps_its_place_in_the_batch(seed, n):
    x = np.broadcast_to(np.arange(1.0, n + 1)[:, None, None, None], (n, 5, 5, 1))
    out = augment(x, keyed_rng(seed, Stream.AUGMENT), pad=2)
    assert np.array_equal(out[:, 2, 2, 0], np.arange(1, n + 1))  # the centre is never padding


def test_augmentation_moves_up_to_4_pixels_unless_told_otherwise():
    out = augment(np.ones((1000, 8, 8, 1)), np.random.default_rng(0))
    blank_rows = (out == 0).all(axis=(2, 3)).sum(axis=1)
    assert set(blank_rows.tolist()) == {0, 1, 2, 3, 4}


# --- Batches --------------------------------------------------------------------------------------


def numbered(n=10, **how):
    """Batches of n images whose pixels and labels say which example they are."""
    x = np.broadcast_to(np.arange(1.0, n + 1, dtype=np.float32)[:, None, None, None], (n, 9, 9, 1))
    return Batches(x, np.arange(1, n + 1), **how)


def labels(batches, epoch):
    return [y.tolist() for _, y in batches.epoch(epoch)]


@given(seed=seeds, n=st.integers(1, 40), epoch=st.integers(0, 1000), data=st.data())
@settings(deadline=None)
def test_an_epoch_is_a_permutation_in_full_batches_but_for_the_last(seed, n, epoch, data):
    batch_size = data.draw(st.integers(1, n))
    batches = numbered(n, batch_size=batch_size, seed=seed)
    pairs = list(batches.epoch(epoch))
    sizes = [len(y) for _, y in pairs]
    assert len(batches) == len(pairs)
    assert sizes[:-1] == [batch_size] * (len(pairs) - 1)
    assert 1 <= sizes[-1] <= batch_size
    for x, y in pairs:
        assert x.dtype == np.float32
        assert (x == y[:, None, None, None]).all()  # labels stay with their images
    assert sorted(np.concatenate([y for _, y in pairs]).tolist()) == list(range(1, n + 1))


@pytest.mark.parametrize("augmented", [False, True])
def test_batches_depend_on_seed_and_epoch_and_on_nothing_before(augmented):
    batches = numbered(batch_size=4, seed=7, augmented=augmented)
    first = list(batches.epoch(2))
    next(batches.epoch(2))  # left unfinished
    list(batches.epoch(0))
    two_at_once = zip(first, batches.epoch(2), batches.epoch(2), strict=True)
    for (x, y), *others in two_at_once:
        for other_x, other_y in others:
            assert np.array_equal(x, other_x)
            assert np.array_equal(y, other_y)


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {
        tuple(labels(numbered(batch_size=10, seed=seed), epoch)[0])
        for seed, epoch in itertools.product(range(5), range(5))
    }
    assert len(orders) == 25


def test_every_example_comes_first_equally_often():
    batches = numbered(batch_size=10)
    counts = np.bincount([labels(batches, epoch)[0][0] for epoch in range(2000)])[1:]
    assert_uniform(counts, degrees=9, bound=27.9)


def test_augmentation_is_keyed_by_seed_epoch_and_step():
    """All pictures are alike, so that only their augmentation can differ."""
    one = Batches(np.ones((6, 9, 9, 1), np.float32), np.zeros(6, np.int64), 6, augmented=True)
    steps = replace(one, batch_size=3)
    (epoch_0,), (epoch_1,), (seed_1,) = (
        [x for x, _ in batches.epoch(epoch)] for batches, epoch in ((one, 0), (one, 1), (replace(one, seed=1), 0))
    )
    step_0, step_1 = [x for x, _ in steps.epoch(0)]
    assert not np.array_equal(epoch_0, epoch_1)
    assert not np.array_equal(epoch_0, seed_1)
    assert not np.array_equal(step_0, step_1)


def test_augmented_batches_are_the_same_examples_moved():
    plain = numbered(batch_size=4, seed=3)
    before, moved = plain.x.copy(), 0
    pairs = zip(plain.epoch(1), replace(plain, augmented=True).epoch(1), strict=True)
    for step, ((x, y), (augmented_x, augmented_y)) in enumerate(pairs):
        expected = augment(x, keyed_rng(3, Stream.AUGMENT, epoch=1, step=step))
        assert np.array_equal(augmented_x, expected)
        assert np.array_equal(augmented_y, y)
        moved += not np.array_equal(augmented_x, x)
    assert moved == 3
    assert np.array_equal(plain.x, before)


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_batch_size_must_be_from_1_to_the_number_of_examples(batch_size):
    with pytest.raises(ValueError, match=f"^batch_size must be .*, got {batch_size}$"):
        numbered(10, batch_size=batch_size)


def test_there_must_be_as_many_images_as_labels():
    with pytest.raises(ValueError, match=r"^expected as many x as y, got 3 and 4$"):
        Batches(np.zeros((3, 2)), np.zeros(4), batch_size=1)
