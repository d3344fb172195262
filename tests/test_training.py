"""The training loop, its records, and models on disk."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from minisam.data import Dataset, Normalisation, redraw_labels, synthetic
from minisam.kernels import get_threads, set_threads
from minisam.nn import BatchLoss, Dropout, Sequential, build
from minisam.optim import (
    GD,
    GSAM,
    SAM,
    Adam,
    Adaptive,
    Ball,
    Clipped,
    Cosine,
    Every,
    ExactSAM,
    Friendly,
    Late,
    LookSAM,
    MicroBatched,
    Momentum,
    RandomDirection,
)  # fmt: skip
from minisam.rng import Stream, keyed_rng
from minisam.training import Config, Diverged, Model, Prepared, load_model, save_model, train
from minisam.training.config import make_optimizer
from minisam.training.loop import network

TINY = Config(epochs=2, batch_size=32)


@pytest.fixture(scope="module")
def data():
    return Prepared.of(synthetic(n_train=100, n_test=50))


def test_the_loop_is_what_its_parts_say(data):
    """The same run, written out by hand."""
    config = Config(optimizer="sam", rho=0.1, lr=0.02, epochs=2, batch_size=32, noise=0.4, seed=3)
    run = train(config, data)
    net = build("mlp", (32, 32, 3), 10)
    theta = net.init(keyed_rng(3, Stream.INIT))
    y = redraw_labels(data.y_train, 0.4, 10, seed=3)
    sam = SAM(Momentum(Cosine(0.02, steps=8), weight_decay=5e-4), rho=0.1)
    steps = []
    for epoch in range(2):
        order = keyed_rng(3, Stream.SHUFFLE, epoch).permutation(100)
        for i in range(0, 100, 32):
            chosen = order[i : i + 32]
            batch = BatchLoss(net, data.x_train[chosen], y[chosen])
            at_theta = sam.step(theta, batch)
            steps.append((at_theta.loss, at_theta.accuracy, len(chosen)))
    assert np.array_equal(run.theta, theta)
    for epoch in range(2):
        loss, accuracy, n = zip(*steps[4 * epoch : 4 * epoch + 4], strict=True)
        assert run.history[epoch]["loss"] == pytest.approx(np.dot(loss, n) / 100)
        assert run.history[epoch]["accuracy"] == pytest.approx(np.dot(accuracy, n) / 100)
    numbers = {"epoch", "lr", "seconds", "loss", "accuracy", "gradient_evaluations"}
    assert [set(epoch) for epoch in run.history] == [numbers, numbers | {"test_error"}]
    assert run.test_error == np.mean(net.predict(theta, data.x_test) != data.y_test)
    assert run.train_error == np.mean(net.predict(theta, data.x_train) != y)
    assert np.array_equal(run.test_predictions, net.predict(theta, data.x_test))


def test_a_tenth_of_each_batchs_statistics_at_theta_enters_the_running_ones(data):
    config = Config("cnn-bn", "sam", rho=0.5, epochs=1, batch_size=50, schedule="constant")
    net, sam = network(config, data), make_optimizer(config, 2)
    theta, stats = net.init(keyed_rng(0, Stream.INIT)), net.init_stats()
    for chosen in keyed_rng(0, Stream.SHUFFLE, 0).permutation(100).reshape(2, 50):
        batch = BatchLoss(net, data.x_train[chosen], data.y_train[chosen])
        stats = 0.9 * stats + 0.1 * batch(theta).stats
        sam.step(theta, batch)
    np.testing.assert_allclose(train(config, data).stats, stats, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        Config(epochs=1, batch_size=32, optimizer="sam", augment=True, noise=0.4),
        Config(epochs=1, batch_size=32, optimizer="adam", model="cnn", l1=1e-5, l2=1e-4),
        Config(epochs=1, batch_size=32, optimizer="momentum", nesterov=True, micro_batch=8),
    ],
)
def test_same_seed_same_bits_at_any_thread_count(data, config):
    before = get_threads()
    try:
        thetas = []
        for threads in (1, 2, 3):
            set_threads(threads)
            thetas.append(train(config, data).theta)
    finally:
        set_threads(before)
    assert np.array_equal(thetas[0], thetas[1])
    assert np.array_equal(thetas[0], thetas[2])
    assert not np.array_equal(thetas[0], train(replace(config, seed=1), data).theta)


def test_sam_spends_two_gradients_a_step_and_counts_them(data):
    assert train(TINY, data).gradient_evaluations == 2 * 4
    assert train(replace(TINY, optimizer="sam"), data).gradient_evaluations == 2 * 8
    assert train(replace(TINY, optimizer="sam", rho=0.0), data).gradient_evaluations == 2 * 4
    assert train(replace(TINY, micro_batch=5), data).gradient_evaluations == 2 * 4


def test_sam_at_rho_zero_is_its_base(data):
    sam = train(replace(TINY, optimizer="sam", rho=0.0), data)
    assert np.array_equal(sam.theta, train(TINY, data).theta)


def test_accumulation_changes_only_the_rounding(data):
    whole, parts = train(TINY, data), train(replace(TINY, micro_batch=7), data)
    assert not np.array_equal(whole.theta, parts.theta)
    np.testing.assert_allclose(whole.theta, parts.theta, atol=1e-5)


def test_every_option_that_changes_training_changes_the_weights(data):
    changes = {
        "optimizer": "gd", "lr": 0.02, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1,
        "epochs": 3, "batch_size": 16, "schedule": "constant", "warmup": 1,
        "label_smoothing": 0.1, "l1": 1e-3, "l2": 0.1, "noise": 0.4, "augment": True, "seed": 1,
    }  # fmt: skip
    plain = train(TINY, data).theta
    for name, value in changes.items():
        changed = train(replace(TINY, **{name: value}), data).theta
        assert not np.array_equal(plain, changed), name
    sam = train(replace(TINY, optimizer="sam"), data).theta
    for name, value in {"rho": 0.1, "base": "gd"}.items():
        changed = train(replace(TINY, optimizer="sam", **{name: value}), data).theta
        assert not np.array_equal(sam, changed), name


def test_learning_rate_follows_the_schedule(data):
    rates = [record["lr"] for record in train(replace(TINY, epochs=4, warmup=1), data).history]
    assert rates == pytest.approx([0.01 / 4, 0.01, 0.0075, 0.0025])
    steps = train(replace(TINY, epochs=4, schedule="step"), data).history
    assert [record["lr"] for record in steps] == pytest.approx([0.01, 0.01, 0.001, 0.0001])
    schedule = make_optimizer(replace(TINY, epochs=4, schedule="step"), steps_per_epoch=4).lr
    assert [schedule(step) for step in (7, 8, 11, 12)] == pytest.approx([0.01, 1e-3, 1e-3, 1e-4])


def test_evaluation_on_the_way_changes_nothing(data):
    seen = train(replace(TINY, epochs=4), data, evaluate_every=2)
    assert [record["epoch"] for record in seen.history if "test_error" in record] == [2, 4]
    assert np.array_equal(seen.theta, train(replace(TINY, epochs=4), data).theta)


@pytest.mark.parametrize("progress", [True, "a label"])
def test_a_bar_says_how_the_training_goes_and_is_cleared_away(data, progress, capsys):
    run = train(replace(TINY, optimizer="sam"), data, progress=progress, diagnostics=True)
    out, err = capsys.readouterr()
    *shown, gone = err.split("\r")
    assert (out, gone, shown[-1].strip()) == ("", "", "")
    label = "training with SAM(Momentum)" if progress is True else progress
    assert all(line.startswith(f"{label}: ") for line in shown[1:-1])
    assert "| 0/2 [" in err
    for epoch in run.history:
        numbers = f"loss={epoch['loss']:.3f}, accuracy={epoch['accuracy']:.1%}"
        inside = epoch["diagnostics"]
        inside = f"gradient norm={inside['gradient norm']:.2g}, cosine={inside['cosine']:.2g}"
        assert f"{numbers}, {inside}]" in err


def test_without_progress_nothing_is_shown(data, capsys):
    train(TINY, data)
    assert capsys.readouterr() == ("", "")


def test_kernels_are_compiled_before_the_clock_starts(data, monkeypatch):
    events = []
    monkeypatch.setattr("minisam.training.loop.compile_all", lambda dtype: events.append(dtype.name))
    monkeypatch.setattr("minisam.training.loop.time.perf_counter", lambda: float(len(events)))
    run = train(replace(TINY, epochs=1), data)
    assert (events, run.seconds) == (["float32"], 0.0)


def test_training_learns_and_overfits_noise():
    data = Prepared.of(synthetic(n_train=200, n_test=100))
    run = train(Config(epochs=30, batch_size=16, noise=0.4, weight_decay=0.0), data)
    assert run.train_error < 0.05 < run.test_error


@pytest.mark.parametrize("optimizer", ["gd", "sam"])
def test_a_diverging_run_stops_and_says_where_and_what_to_try(data, optimizer):
    config = replace(TINY, optimizer=optimizer, lr=1e6, epochs=5)
    with pytest.raises(Diverged, match=r"epoch [12], step \d+; lower --lr \(now 1e\+06\)") as failure:
        train(config, data)
    assert ("--rho" in str(failure.value)) == (optimizer == "sam")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_run_that_diverges_with_its_very_last_step_has_diverged_too(data):
    """No loss is computed after that step."""
    config = Config(optimizer="gd", lr=1e40, schedule="constant", epochs=1, batch_size=100)
    with pytest.raises(Diverged, match=r"the loss became nan at epoch 1, step 1; lower --lr"):
        train(config, data)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("batch_size", "when"), [(100, "epoch 2, step 2"), (50, "epoch 1, step 2")])
def test_epochs_and_steps_of_a_divergence_count_from_one(data, batch_size, when):
    config = Config(optimizer="gd", lr=1e40, schedule="constant", epochs=2, batch_size=batch_size)
    with pytest.raises(
        Diverged, match=rf"^GD on mlp, seed 0: the loss became nan at {when}; lower --lr \(now 1e\+40\)$"
    ):
        train(config, data)


def test_warmup_is_no_advice_where_there_can_be_none(data):
    for change in ({"schedule": "constant"}, {"epochs": 1}):
        with pytest.raises(Diverged) as failure:
            train(replace(TINY, lr=1e20, **change), data)
        assert "--warmup" not in str(failure.value)


def test_images_that_do_not_fit_are_no_divergence(data):
    object.__setattr__(broken := replace(data), "x_test", data.x_test[:, :-1])
    with pytest.raises(ValueError, match=r"expected x of shape \(N ≥ 1, 32, 32, 3\)"):
        train(TINY, broken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_test": lambda x: x.y_test[:, None]}, r"y_test \(N,\) with N ≥ 1, got \(50, 32, 32, 3\) and \(50, 1\)"),
        ({"y_test": lambda x: x.y_test[:1]}, r"got \(50, 32, 32, 3\) and \(1,\)"),
        ({"x_test": lambda x: x.x_test[:, :8]}, r"x_test \(N, H, W, C\), like x_train, .*, got \(50, 8, 32, 3\)"),
        ({"x_test": lambda x: x.x_test[:0], "y_test": lambda x: x.y_test[:0]}, r"got \(0, 32, 32, 3\) and \(0,\)"),
        ({"x_train": lambda x: x.x_train[0]}, r"expected x_train \(N, H, W, C\)"),
        ({"y_train": lambda x: x.y_train.tolist()}, "y_train must be a NumPy array, got list"),
    ],
)
def test_a_data_set_names_what_does_not_fit(change, message):
    dataset = synthetic(100, 50)
    assert replace(dataset, classes=list(dataset.classes)).classes == dataset.classes
    with pytest.raises((ValueError, TypeError), match=rf"\b{message}"):
        replace(dataset, **{name: make(dataset) for name, make in change.items()})


def test_a_batch_larger_than_the_data_is_refused(data):
    with pytest.raises(ValueError, match=r"^batch_size must be 1 to 100, got 101"):
        train(replace(TINY, batch_size=101), data)


def test_numbers_of_a_config_are_plain():
    given = {"seed": np.int64(3), "rho": np.float32(0.5), "lr": np.float64(0.1), "nesterov": np.True_, "clip": 1}
    config = Config(model=np.str_("mlp"), optimizer="sam", **given)
    assert json.loads(json.dumps(config.record())) == config.record()
    assert Config.of(config.record()) == config
    kinds = {name: type(value) for name, value in vars(config).items() if name in given}
    assert kinds == {"seed": int, "rho": float, "lr": float, "nesterov": bool, "clip": float}
    assert repr(config) == repr(Config.of(json.loads(json.dumps(config.record()))))
    assert Normalisation(np.ones(1), np.ones(1)) == Normalisation((1.0,), (1.0,))


def test_a_config_survives_json_which_knows_no_infinity():
    config = Config(optimizer="sam", p=math.inf, rho=0.3)
    assert Config.of(json.loads(json.dumps(config.record(), allow_nan=False))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "lenet"}, "unknown model 'lenet', expected one of mlp, cnn, cnn-bn, vgg, resnet8"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion', expected one of gd, momentum"),
        ({"base": "sam"}, "unknown base 'sam'"),
        ({"schedule": "linear"}, "unknown schedule 'linear'"),
        ({"lr": 0.0}, "lr must be a finite number above 0, got 0.0"),
        ({"lr": math.nan}, "lr must be a finite number above 0, got nan"),
        ({"optimizer": "sam", "rho": -0.1}, "rho must be a finite number ≥ 0, got -0.1"),
        ({"optimizer": "sam", "p": 0.5}, "p must be a number ≥ 1, or infinity, got 0.5"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number ≥ 0, got -1.0"),
        ({"epochs": 0}, "epochs must be an integer ≥ 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer ≥ 1, got 0"),
        ({"micro_batch": -1}, "micro_batch must be an integer ≥ 0, got -1"),
        ({"optimizer": "sam", "m": 9, "micro_batch": 8}, "m must be at most micro_batch 8, got 9"),
        ({"optimizer": "sam", "m": 2, "micro_batch": 1}, "m must be at most micro_batch 1, got 2"),
        ({"warmup": 2, "epochs": 2}, "warmup must be 0 to epochs - 1, got 2"),
        ({"noise": 1.5}, r"noise must be in \[0, 1\], got 1.5"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"l2": -1.0}, "l2 must be a finite number ≥ 0, got -1.0"),
        ({"l1": math.nan}, "l1 must be a finite number ≥ 0, got nan"),
        ({"nesterov": 1}, "nesterov must be True or False, got 1"),
        ({"seed": 1 << 63}, r"seed must be below 2\*\*63, got 9223372036854775808"),
        ({"seed": -1}, "seed must be an integer ≥ 0, got -1"),
    ],
)
def test_a_config_names_what_is_wrong_with_it(change, message):
    with pytest.raises(ValueError, match=rf"\b{message}"):
        Config(**change)


@pytest.mark.parametrize(
    "ends",
    [
        {"optimizer": "sam", "m": 8, "micro_batch": 8},
        {"optimizer": "sam", "m": 8, "micro_batch": 0},
        {"optimizer": "sam", "p": 1.0, "rho": 0.0, "late": 0.0, "every": 1},
        {"warmup": 1, "epochs": 2, "momentum": 0.0, "weight_decay": 0.0, "noise": 1.0},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(ends):
    assert vars(Config(**ends)).items() >= ends.items()


MOMENTUM = Momentum(0.01, 5e-4, 0.9)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"optimizer": "gd", "weight_decay": 0.1}, GD(0.1, 0.1)),
        ({"momentum": 0.5, "nesterov": True}, Momentum(0.01, 5e-4, 0.5, True)),
        ({"optimizer": "adam", "weight_decay": 0.1}, Adam(0.001, 0.1)),
        ({"decay": "in-loss"}, Momentum(0.01, 0.0, 0.9)),
        ({"clip": 0.5}, Clipped(MOMENTUM, 0.5)),
        ({"optimizer": "sam", "p": 3.0, "ascent_steps": 2}, SAM(MOMENTUM, 0.05, Ball(3.0), 2)),
        ({"optimizer": "sam", "clip": 0.5}, SAM(Clipped(MOMENTUM, 0.5), 0.05)),
        ({"optimizer": "sam", "m": 16}, MicroBatched(SAM(MOMENTUM, 0.05), 16)),
        ({"optimizer": "sam", "every": 3}, SAM(MOMENTUM, Every(3, 0.05))),
        ({"optimizer": "sam", "late": 0.25}, SAM(MOMENTUM, Late(50, 0.05))),
        ({"optimizer": "sam", "late": 0.5, "every": 2}, SAM(MOMENTUM, Every(2, Late(100, 0.05)))),
        ({"optimizer": "asam", "rho": 0.5, "eta": 0.1}, SAM(MOMENTUM, 0.5, Adaptive(0.1))),
        ({"optimizer": "gsam", "p": 3.0}, GSAM(MOMENTUM, 0.05, Ball(3.0), alpha=0.4)),
        ({"optimizer": "gsam", "alpha": 0.0, "ascent_steps": 2}, GSAM(MOMENTUM, 0.05, ascent_steps=2, alpha=0.0)),
        ({"optimizer": "looksam", "p": 3.0}, LookSAM(MOMENTUM, 0.05, Ball(3.0), k=5, alpha=0.7)),
        ({"optimizer": "looksam", "alpha": 0.0, "every": 2}, LookSAM(MOMENTUM, 0.05, k=2, alpha=0.0)),
        ({"optimizer": "friendly-sam", "sigma": 0.5, "lmbda": 0.9}, SAM(MOMENTUM, 0.05, Friendly(0.5, 0.9))),
        ({"optimizer": "exact-sam", "rho": 0.2}, ExactSAM(MOMENTUM, 0.2)),
        ({"optimizer": "random-sam", "seed": 4}, SAM(MOMENTUM, 0.05, RandomDirection(4))),
    ],
)
def test_a_config_makes_the_optimizer_that_it_names(options, expected):
    assert make_optimizer(Config(schedule="constant", epochs=20, **options), steps_per_epoch=10) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sam", SAM(MOMENTUM)),
        ("asam", SAM(MOMENTUM, ascent=Adaptive())),
        ("gsam", GSAM(MOMENTUM)),
        ("looksam", LookSAM(MOMENTUM)),
        ("friendly-sam", SAM(MOMENTUM, ascent=Friendly())),
        ("exact-sam", ExactSAM(MOMENTUM)),
    ],
)
def test_what_a_config_leaves_out_is_the_optimizers_own_default(name, expected):
    assert make_optimizer(Config(optimizer=name, schedule="constant"), steps_per_epoch=10) == expected


def test_default_learning_rates_follow_the_optimizer():
    assert Config().lr == 0.01
    assert Config(optimizer="gd").lr == 0.1
    assert Config(optimizer="sam", base="adam").lr == Config(optimizer="adam").lr == 0.001


# --- models on disk -------------------------------------------------------------------------------


@pytest.fixture(params=["mlp", "resnet8"])
def model(data, request):
    config = replace(TINY, epochs=1, optimizer="sam", model=request.param)
    run = train(config, data)
    classes = synthetic(1, 1).classes
    return Model(config, network(config, data), run.theta, run.stats, classes, data.normalisation)


def test_a_loaded_model_is_the_saved_one(tmp_path, model, data):
    save_model(tmp_path / "model.npz", model)
    loaded = load_model(tmp_path / "model.npz")
    assert np.array_equal(loaded.theta, model.theta)
    assert (loaded.config, loaded.classes) == (model.config, model.classes)
    assert loaded.normalise == model.normalise
    dataset = synthetic(100, 50)
    assert np.array_equal(loaded.predict(dataset.x_test), model.predict(dataset.x_test))
    assert np.array_equal(loaded.stats, model.stats)
    expected = np.mean(model.net.predict(model.theta, data.x_test, stats=model.stats) != data.y_test)
    assert loaded.test_error(dataset) == expected
    assert [file.name for file in tmp_path.iterdir()] == ["model.npz"]
    with pytest.raises(TypeError, match="expected images as data sets have them, uint8, got float32"):
        model.test_error(data)  # which are normalised already


def test_each_image_costs_sam_two_gradients():
    run = train(Config(optimizer="sam", batch_size=1, epochs=1), Prepared.of(synthetic(3, 1)))
    assert run.gradient_evaluations == 6


def test_a_data_set_must_be_prepared():
    with pytest.raises(TypeError, match=r"^expected data as Prepared.of\(dataset\), got Dataset$"):
        train(Config(epochs=1), synthetic(100, 50))


def test_other_classes_are_refused(model):
    x, y = np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1, np.int64)
    other = Dataset("cifar10", "here", ("cat", "dog"), x, y, x, y)
    with pytest.raises(ValueError, match="the model knows 10 classes"):
        model.test_error(other)


def damage(path, how):
    raw = path.read_bytes()
    about = {"format": 99}
    if how == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("hello")
    elif how == "foreign":
        np.savez(path, x=np.ones(3))
    elif how == "newer":
        np.savez(path, theta=np.ones(3), stats=np.ones(0), about=np.array(json.dumps(about)))
    elif how == "not json":
        np.savez(path, theta=np.ones(3), stats=np.ones(0), about=np.array("{"))
    elif how == "not a record":
        np.savez(path, theta=np.ones(3), stats=np.ones(0), about=np.array("[]"))
    elif how == "pickle":
        np.save(path.with_suffix(".npy"), np.array([{}], object), allow_pickle=True)
        path.with_suffix(".npy").replace(path)
    elif how == "other size":
        with np.load(path) as arrays:
            np.savez(path, theta=arrays["theta"][1:], stats=arrays["stats"], about=arrays["about"])
    elif how == "other statistics":
        with np.load(path) as arrays:
            np.savez(path, theta=arrays["theta"], stats=np.ones(3, np.float32), about=arrays["about"])


@pytest.mark.parametrize(
    "how",
    [
        *("truncated", "empty", "text", "foreign", "newer"),
        *("not json", "not a record", "pickle", "other size"),
        "other statistics",
    ],
)
def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path, model, how):
    path = tmp_path / "model.npz"
    save_model(path, model)
    damage(path, how)
    match = {"newer": "has format 99", "foreign": "is not a minisam model"}.get(how, "is .*damaged")
    with pytest.raises(ValueError, match=rf"model\.npz {match}"):
        load_model(path)


@pytest.mark.parametrize(("mean", "std"), [(1.0, 0.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf), (1.0, 2e99)])
def test_a_normalisation_that_cannot_be_is_damage(tmp_path, model, mean, std):
    match = f"expected finite means, and as many stds above 0, got .*{mean}.* and .*{re.escape(str(std))}"
    with pytest.raises(ValueError, match=match):
        Normalisation((1.0, 1.0, mean), (1.0, 1.0, std))
    path = tmp_path / "model.npz"
    save_model(path, model)
    with np.load(path) as arrays:
        parts, about = dict(arrays), json.loads(str(arrays["about"]))
    about["normalisation"] = {"mean": [1.0, 1.0, mean], "std": [1.0, 1.0, std]}
    np.savez(path, **parts | {"about": np.array(json.dumps(about))})
    with pytest.raises(ValueError, match=rf"model\.npz is .*damaged \({match}"):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ()}, "model.classes must be names"),
        ({"classes": tuple(range(10))}, "model.classes must be names"),
        ({"classes": ["cat"] * 10}, "model.classes must be tuple, got list"),
        ({"normalise": Normalisation((0.0,), (1.0,))}, r"model.normalise must be for images of shape \(32, 32, 3\)"),
        ({"config": TINY.record()}, "model.config must be Config, got dict"),
        ({"config": Config(model="cnn")}, "model.net must be the cnn that model.config names"),
        ({"theta": [0.0]}, "model.theta must be ndarray, got list"),
        ({"theta": np.zeros(3, np.float32)}, r"expected model.theta \(\d+,\) float32, got \(3,\) float32"),
        ({"theta": np.zeros(820_874)}, r"expected model.theta \(\d+,\) float32, got \(820874,\) float64"),
        ({"stats": np.zeros((0, 1), np.float32)}, r"expected model.stats \(\d+,\) float32, got \(0, 1\)"),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path, model, change, message):
    with pytest.raises((ValueError, TypeError), match=rf"\b{message}"):
        save_model(tmp_path / "model.npz", replace(model, **change))
    assert not list(tmp_path.iterdir())


def test_a_network_of_ones_own_is_not_written_as_another(tmp_path, model):
    layers = list(build("mlp", (32, 32, 3), 10).layers)
    own = Sequential([*layers[:-2], Dropout(0.3), layers[-1]], (32, 32, 3))  # with as many parameters
    theta = np.zeros(own.n_params, np.float32)
    with pytest.raises(ValueError, match="must be the mlp"):
        save_model(tmp_path / "m.npz", replace(model, config=TINY, net=own, theta=theta, stats=own.init_stats()))


def test_a_failed_write_leaves_the_old_model_and_nothing_else(tmp_path, model, monkeypatch):
    path = tmp_path / "model.npz"
    save_model(path, model)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        args[0].write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(path, model)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.npz"]


def test_a_constant_image_trains(data):
    flat = np.full((8, 32, 32, 3), 7, np.uint8)
    y = np.arange(8) % 2
    normalise = Normalisation.of(flat)
    constant = Prepared("flat", "made up", ("a", "b"), normalise(flat), y, normalise(flat), y, normalise)
    run = train(Config(epochs=1, batch_size=4), constant)
    assert math.isfinite(run.history[0]["loss"])
