"""Files of version 0.1.0 are still read: a model, a checkpoint, a results.json."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from minisam.data import synthetic
from minisam.nn import cnn
from minisam.study.comparison import Repeat
from minisam.training import Checkpoints, Config, Prepared, load_model, train

NAMES = ["circle", "square"]
CONFIG = {"model": "cnn", "optimizer": "sam", "rho": 0.1, "decay": "at-w", "p": 2.0, "lr": 0.02, "epochs": 2}


def test_a_model(tmp_path):
    net = cnn((8, 8, 3), 2)
    about = {"format": 2, "config": CONFIG, "input_shape": [8, 8, 3], "classes": NAMES}
    about["normalisation"] = {"mean": [120.0] * 3, "std": [60.0] * 3}
    theta = net.init(np.random.default_rng(0))
    np.savez(tmp_path / "old.npz", theta=theta, stats=np.zeros(0, np.float32), about=np.array(json.dumps(about)))
    model = load_model(tmp_path / "old.npz")
    np.testing.assert_array_equal(model.theta, theta)
    assert (model.config.decay, model.config.rho, model.classes) == ("at-theta", 0.1, tuple(NAMES))


def old(about):
    """The same facts as 0.1.0 wrote them."""
    for record in (about["config"], about["run"]):
        record["decay"] = "at-w"
    return np.array(json.dumps(about))


def test_a_checkpoint(tmp_path):
    data = Prepared.of(synthetic(60, 20))
    config = Config("cnn", "sam", epochs=2, batch_size=30)
    expected = train(config, data)
    checkpoints = Checkpoints(tmp_path / "m.npz", every=1)
    train(config, data, checkpoints=checkpoints)
    newest, first = checkpoints.paths()
    newest.unlink()
    with np.load(first) as file:
        arrays = dict(file)
    names = {"theta", "stats", "about", "optimizer.base.t", "optimizer.base.velocity", "optimizer.t"}
    assert arrays.keys() == names  # as 0.1.0 called them
    np.savez(first, **arrays | {"about": old(json.loads(str(arrays["about"])))})
    resumed = train(config, data, checkpoints=checkpoints)
    np.testing.assert_array_equal(resumed.theta, expected.theta)
    assert resumed.history[-1]["loss"] == expected.history[-1]["loss"]


def test_results(tmp_path):
    numbers = {"weights": "", "test_error": 0.5, "train_error": 0.5, "gradient_evaluations": 4}
    numbers["geometry"] = {"eigenvalues": [5.0, 4.0, 3.0, 2.0, 1.0], "trace": 9.0, "worst": [0.1]}
    epoch = {"gradient_evaluations": 2, "lr": 0.1, "seconds": 1.0, "loss": 2.0, "accuracy": 0.5}
    history = [{"epoch": n + 1} | epoch for n in range(CONFIG["epochs"])]
    run = numbers | {"optimizer": "SAM(Momentum)", "n_train": 64, "config": CONFIG, "history": history}
    asked = {"kind": "methods", "preset": "quick", "pairs": [["SAM(Momentum)"] * 2], "evaluate_every": 1}
    about = {"environment": {"numpy": "1.0"}, "dataset": {"name": "synthetic", "checksum": "0", "n_test": 20}}
    results = about | {"config": asked, "runs": [run]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (arm,) = Repeat.of(tmp_path / "results.json").experiment.arms
    assert asdict(arm.config)["decay"] == "at-theta"


def test_an_unknown_decay_is_still_refused():
    with pytest.raises(ValueError, match="unknown decay 'at-v'"):
        Config.of({"decay": "at-v"})
