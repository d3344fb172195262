"""A training run that is stopped, however, ends with exactly the weights it would have had."""

import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minisam.cli import main
from minisam.data import synthetic
from minisam.training import Checkpoints, Config, Prepared, load_model, train
from minisam.training.config import FAMILY
from minisam.training.files import locked

KILLS = int(os.environ.get("MINISAM_KILLS", "3"))  # 25 take a minute
TINY = Config(epochs=4, batch_size=16, augment=True, noise=0.4)
BRANCHES = {  # everything an optimizer can remember, and everything else a step may depend on
    "gd": {"optimizer": "gd", "schedule": "step"},
    "momentum": {"nesterov": True, "warmup": 1, "clip": 0.5, "l1": 1e-5},
    "adam": {"optimizer": "adam", "micro_batch": 8},
    **{name: {"optimizer": name, "base": "adam"} for name in FAMILY},
    "late": {"optimizer": "sam", "late": 0.6, "decay": "in-loss"},
    "every third": {"optimizer": "sam", "every": 3, "ascent_steps": 2, "p": 1.0},
    "m-SAM": {"optimizer": "sam", "m": 4},
    "Dropout": {"optimizer": "sam", "model": "vgg", "epochs": 2},
    "BatchNorm": {"optimizer": "friendly-sam", "model": "resnet8", "epochs": 2},
}


@pytest.fixture(scope="module")
def data():
    return Prepared.of(synthetic(n_train=40, n_test=20))


class PowerCut(BaseException):
    pass


def interrupted(config, data, checkpoints, epoch, monkeypatch, **options):
    """Train until the checkpoint of this epoch is written, and no further."""
    with monkeypatch.context() as patch:
        keep = Checkpoints.keep

        def keep_and_stop(self, state, run):
            keep(self, state, run)
            if len(state.history) == epoch:
                raise PowerCut

        patch.setattr(Checkpoints, "keep", keep_and_stop)
        with pytest.raises(PowerCut):
            train(config, data, checkpoints=checkpoints, **options)


def timeless(history):
    return [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in history]


@pytest.mark.parametrize("name", BRANCHES)
def test_resuming_continues_bit_for_bit(tmp_path, data, name, monkeypatch, capsys):
    config = replace(TINY, **BRANCHES[name])
    whole = train(config, data, evaluate_every=1)
    checkpoints = Checkpoints(tmp_path / "m.npz", every=1)
    stop = config.epochs // 2
    interrupted(config, data, checkpoints, stop, monkeypatch, evaluate_every=1)
    resumed = train(config, data, evaluate_every=1, checkpoints=checkpoints)
    assert resumed.theta.tobytes() == whole.theta.tobytes()
    assert resumed.stats.tobytes() == whole.stats.tobytes()
    assert timeless(resumed.history) == timeless(whole.history)
    assert resumed.gradient_evaluations == whole.gradient_evaluations
    path = tmp_path / "m.checkpoints" / f"epoch-{stop:04}.npz"
    assert f"resumed after epoch {stop}, from {path}" in capsys.readouterr().err


def test_diagnostics_and_the_path_are_resumed_too(tmp_path, data, monkeypatch):
    config, whole, resumed = replace(TINY, optimizer="sam"), [], []
    run = train(config, data, diagnostics=True, path=whole)
    checkpoints = Checkpoints(tmp_path / "m.npz", every=2)
    interrupted(config, data, checkpoints, 2, monkeypatch, diagnostics=True, path=[])
    again = train(config, data, diagnostics=True, path=resumed, checkpoints=checkpoints)
    assert np.array_equal(whole, resumed)
    assert timeless(again.history) == timeless(run.history)


def test_the_last_two_are_kept_and_each_is_a_model(tmp_path, data):
    run = train(TINY, data, checkpoints=Checkpoints(tmp_path / "m.npz", every=1))
    assert [path.name for path in tmp_path.iterdir()] == ["m.checkpoints"]
    kept = sorted(path.name for path in (tmp_path / "m.checkpoints").iterdir())
    assert kept == ["epoch-0003.npz", "epoch-0004.npz"]
    assert np.array_equal(load_model(tmp_path / "m.checkpoints" / "epoch-0004.npz").theta, run.theta)
    with np.load(tmp_path / "m.checkpoints" / "epoch-0003.npz", allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        assert {name: arrays[name].dtype.kind for name in arrays} == {
            "theta": "f", "stats": "f", "optimizer.t": "i", "optimizer.velocity": "f", "about": "U",
        }  # fmt: skip
        assert arrays["optimizer.t"] == 3 * 3  # steps
    assert set(about["environment"]) >= {"minisam", "numpy", "numba", "cpu"}
    assert [epoch["epoch"] for epoch in about["history"]] == [1, 2, 3]


def rewrite(path, change):
    """Change the text of a checkpoint but not its arrays."""
    with np.load(path) as file:
        arrays = dict(file)
    about = json.loads(str(arrays["about"]))
    change(about)
    np.savez(path, **arrays | {"about": np.array(json.dumps(about))})


def test_an_older_checkpoint_of_another_run_is_left_alone(tmp_path, data):
    mine, others = (Checkpoints(tmp_path / name, every=1) for name in ("m.npz", "n.npz"))
    whole = train(TINY, data, checkpoints=mine)
    train(replace(TINY, seed=1), data, checkpoints=others)
    older = mine.folder / "epoch-0003.npz"
    (others.folder / older.name).replace(older)
    before = older.read_bytes()
    assert train(TINY, data, checkpoints=mine).theta.tobytes() == whole.theta.tobytes()
    mine.delete()
    assert older.read_bytes() == before


def test_another_run_or_a_newer_format_is_refused_with_the_difference(tmp_path, data):
    checkpoints = Checkpoints(tmp_path / "m.npz", every=1)
    train(TINY, data, checkpoints=checkpoints)
    before = {path: path.read_bytes() for path in checkpoints.paths()}
    others = {
        "lr was 0.01, is 0.02; seed was 0, is 5": replace(TINY, lr=0.02, seed=5),
        "optimizer was momentum, is sam": replace(TINY, optimizer="sam"),
        "epochs was 4, is 6": replace(TINY, epochs=6),  # the schedule differs from the first step on
    }
    for difference, config in others.items():
        with pytest.raises(ValueError, match=rf"epoch-0004\.npz is of another run: {difference}"):
            train(config, data, checkpoints=checkpoints)
    with pytest.raises(ValueError, match="is of another run: diagnostics was False, is True"):
        train(TINY, data, diagnostics=True, checkpoints=checkpoints)
    with pytest.raises(ValueError, match="is of another run: path was False, is True"):
        train(TINY, data, path=[], checkpoints=checkpoints)
    with pytest.raises(ValueError, match=r"is of another run: data was [0-9a-f]{64}, is [0-9a-f]{64}"):
        train(TINY, Prepared.of(synthetic(41, 20)), checkpoints=checkpoints)
    rewrite(tmp_path / "m.checkpoints" / "epoch-0004.npz", lambda about: about.update(format=99))
    with pytest.raises(ValueError, match=r"epoch-0004\.npz has format 99, this minisam reads 2"):
        train(TINY, data, checkpoints=checkpoints)
    assert (tmp_path / "m.checkpoints" / "epoch-0003.npz").read_bytes() == before[
        tmp_path / "m.checkpoints" / "epoch-0003.npz"
    ]


def test_other_versions_are_no_obstacle_but_are_mentioned(tmp_path, data, capsys):
    checkpoints = Checkpoints(tmp_path / "m.npz", every=1)
    train(TINY, data, checkpoints=checkpoints)
    rewrite(
        tmp_path / "m.checkpoints" / "epoch-0004.npz", lambda about: about["environment"].update(numpy="1.0", cores=64)
    )
    train(TINY, data, checkpoints=checkpoints)
    message = capsys.readouterr().err
    assert "last digits may differ from those of an uninterrupted run, since numpy was 1.0, is " in message
    assert "cores" not in message  # no result depends on them


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, data, damaged, monkeypatch, capsys):
    """The newest is the one with the last epoch, whatever the file times: clocks may go backwards."""
    checkpoints = Checkpoints(tmp_path / "m.npz", every=1)
    interrupted(TINY, data, checkpoints, 3, monkeypatch)
    newest, older = checkpoints.paths()
    os.utime(newest, (1, 1))  # 1970
    for path in (newest, older)[:damaged]:
        path.write_bytes(path.read_bytes()[:-100])
    (checkpoints.folder / ".minisam-0123456789abcdef.tmp").write_bytes(b"what a killed process was writing")
    resumed = train(TINY, data, checkpoints=checkpoints)
    assert resumed.theta.tobytes() == train(TINY, data).theta.tobytes()
    message = capsys.readouterr().err
    assert "epoch-0003.npz is damaged, or no .npz file: passed over" in message
    assert ("resumed after epoch 2" in message) == (damaged == 1)
    names = {"epoch-0003.npz", "epoch-0004.npz"} | {f"{path.name}.damaged" for path in (newest, older)[:damaged]}
    assert {path.name for path in checkpoints.folder.iterdir()} == names


def test_damaged_checkpoints_of_later_epochs_do_not_displace_new_ones(tmp_path, data, monkeypatch):
    """Both newest damaged: the run begins anew, and must keep what it writes, though the damaged ones seem newer."""
    checkpoints = Checkpoints(tmp_path / "m.npz", every=1)
    interrupted(TINY, data, checkpoints, 4, monkeypatch)
    for path in checkpoints.paths():
        path.write_bytes(b"")
    interrupted(TINY, data, checkpoints, 2, monkeypatch)
    assert [path.name for path in checkpoints.paths() if path.stat().st_size] == ["epoch-0002.npz", "epoch-0001.npz"]
    resumed = train(TINY, data, checkpoints=checkpoints)
    assert resumed.theta.tobytes() == train(TINY, data).theta.tobytes()
    assert len(checkpoints.paths()) == 2


def test_a_name_that_a_damaged_checkpoint_has_got_is_not_taken_again(tmp_path, data, monkeypatch, capsys):
    checkpoints = Checkpoints(tmp_path / "m.npz", every=1)
    for number in ("", "-2", "-3"):
        interrupted(TINY, data, checkpoints, 1, monkeypatch)
        newest = checkpoints.paths()[0]
        newest.write_bytes(damaged := f"damaged{number}".encode())
        train(TINY, data, checkpoints=Checkpoints(tmp_path / "m.npz", every=9))
        assert newest.with_name(f"{newest.name}.damaged{number}").read_bytes() == damaged
        assert f"now called {newest.name}.damaged{number}\n" in capsys.readouterr().err
        for path in checkpoints.paths():
            path.unlink()


def test_a_checkpoint_that_is_no_file_is_passed_over(tmp_path, data, monkeypatch, capsys):
    """Read to its end, /dev/zero would fill the memory."""
    checkpoints = Checkpoints(tmp_path / "m.npz", every=1)
    interrupted(TINY, data, checkpoints, 1, monkeypatch)
    (checkpoints.folder / "epoch-0002.npz").symlink_to("/dev/zero")
    (checkpoints.folder / "epoch-0003.npz").mkdir()
    train(replace(TINY, epochs=4), data, checkpoints=Checkpoints(tmp_path / "m.npz", every=9))
    message = capsys.readouterr().err
    assert message.count("which is a folder or a device: passed over") == 1
    assert "resumed after epoch 1" in message


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda arrays: arrays.pop("optimizer.velocity"), "optimizer.velocity is missing"),
        (
            lambda arrays: arrays.update({"optimizer.velocity": np.ones(3, np.float32)}),
            "optimizer.velocity is neither a number nor a vector like theta",
        ),
        (lambda arrays: arrays.update({"optimizer.t": np.int64(-1)}), "optimizer.t is -1"),
        (
            lambda arrays: arrays.update({"optimizer.t": np.float64(9)}),
            "optimizer.t is neither a number nor a vector like theta",
        ),
    ],
)
def test_an_optimizer_state_that_does_not_fit_is_damage(tmp_path, data, change, text, capsys):
    checkpoints = Checkpoints(tmp_path / "m.npz", every=4)
    whole = train(TINY, data, checkpoints=checkpoints)
    path = tmp_path / "m.checkpoints" / "epoch-0004.npz"
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)
    assert train(TINY, data, checkpoints=checkpoints).theta.tobytes() == whole.theta.tobytes()
    message = capsys.readouterr().err
    assert f"is not a checkpoint, or it is damaged ({text}): passed over" in message


MANY = {f"layer {i}": 0.5 for i in range(100)}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda about: about.update(classes=["a", "b"]), "its .* that of another run|expected"),
        (lambda about: about["config"].update(epochs=200), "its config is that of another run"),
        (lambda about: about["normalisation"].update(mean=[1.0, 2.0, 3.0]), "its normalise is that of another run"),
        (lambda about: about["history"][0].pop("diagnostics"), "no 'diagnostics'"),
        (lambda about: about["history"][0].update(diagnostics=None), "its history has no diagnostics"),
        (lambda about: about["history"][-1].update(diagnostics={"cosine": "high"}), "its history has no diagnostics"),
        (lambda about: about["history"][-1].update(diagnostics={"share": 1.0}), "its history has no diagnostics"),
        (lambda about: about["history"][-1]["diagnostics"].update(share={"0": None}), "its history has no diagnostics"),
        (lambda about: about["history"][-1]["diagnostics"].update(share=MANY), "its history has no diagnostics"),
        (lambda about: about["history"][0].update(x=math.nan), "its history has x"),
        (lambda about: about["history"][0].update(test_error=0.5), "its history has the test error of other epochs"),
        (lambda about: about["history"][0].update(gradient_evaluations=1 << 53), "9,007,199,254,740,992 gradients"),
        (lambda about: about["history"][-1].update(epoch=True), "the epochs of its history do not count"),
        (lambda about: about["history"][-1].update(seconds=float("nan")), "seconds of epoch 4 must be a finite number"),
        (lambda about: about["history"][-1].update(gradient_evaluations=-1), "gradient_evaluations of epoch 4 must be"),
        (lambda about: about["history"][0].update(gradient_evaluations=10**300), "a number of over 63 bits"),
        (lambda about: about["history"][0].update(diagnostics={"\x1b[31m": 1.0}), "a text that can't be printed"),
    ],
)
def test_a_checkpoint_whose_parts_do_not_fit_is_damaged(tmp_path, data, change, text, capsys):
    checkpoints = Checkpoints(tmp_path / "m.npz", every=4)
    whole = train(TINY, data, diagnostics=True, checkpoints=checkpoints)
    rewrite(checkpoints.paths()[0], change)
    again = train(TINY, data, diagnostics=True, checkpoints=checkpoints)
    assert again.theta.tobytes() == whole.theta.tobytes()
    message = capsys.readouterr().err
    assert re.search(rf"damaged \(.*({text}).*\): passed over", message)


@pytest.mark.parametrize("path", [np.zeros((2, 3), np.float32), np.array("path")])
def test_a_path_that_does_not_fit_is_damage(tmp_path, data, path, capsys):
    checkpoints, kept = Checkpoints(tmp_path / "m.npz", every=4), []
    train(TINY, data, path=kept, checkpoints=checkpoints)
    newest = checkpoints.paths()[0]
    with np.load(newest) as file:
        arrays = dict(file)
    np.savez(newest, **arrays | {"path": path})
    again = []
    train(TINY, data, path=again, checkpoints=checkpoints)
    assert np.array_equal(again, kept)
    assert "its path has shape" in capsys.readouterr().err


# --- as a user sees it ----------------------------------------------------------------------------

OPTIONS = ["--dataset", "synthetic", "--n-train", "256", "--optimizer", "sam", "--base", "adam", "--augment"]


def test_the_command_line_asks_before_it_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["train", *OPTIONS, "--epochs", "2"]
    assert main([*options, "--save", "m.npz", "--save-every", "0"]) == 1
    assert "--save-every must be an integer ≥ 1, got 0" in capsys.readouterr().err
    monkeypatch.setattr(Checkpoints, "delete", lambda _: None)  # as if interrupted before the end
    assert main([*options, "--save", "m.npz", "--save-every", "1"]) == 0
    first = load_model("m.npz").theta
    Path("m.npz").unlink()
    assert main([*options, "--save", "m.npz", "--save-every", "1"]) == 1
    assert "epoch-0002.npz exists: add --resume to continue from it, or remove m.checkp" in capsys.readouterr().err
    Path("m.checkpoints/epoch-0002.npz").unlink()
    assert main([*options, "--save", "m.npz", "--resume", "--save-every", "1"]) == 0
    assert "resumed after epoch 1, from m.checkpoints/epoch-0001.npz" in capsys.readouterr().err
    assert np.array_equal(load_model("m.npz").theta, first)
    Path("m.npz").unlink()
    assert main([*options, "--save", "m.npz", "--resume", "--rho", "0.1"]) == 1
    refused = "epoch-0002.npz is of another run: rho was 0.05, is 0.1; repeat the options that it was made with, or"
    assert refused in capsys.readouterr().err


def spawn(folder, *words):
    command = [sys.executable, "-m", "minisam", "train", *OPTIONS, "--save", "m.npz", "--save-every", "1", "--resume"]
    return subprocess.Popen([*command, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def digest(folder):
    return hashlib.sha256(load_model(folder / "m.npz").theta.tobytes()).hexdigest()


def newest_epoch(folder):
    found = Checkpoints(folder / "m.npz", every=1).paths()
    return int(re.search(r"epoch-(\d+)", found[0].name)[1]) if found else 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_process_killed_at_random_moments_ends_with_the_same_weights(tmp_path, few_images):
    """Real processes, real files; killed while starting or loading, within an epoch, or while writing."""
    options = [*few_images, "--epochs", str(2 * KILLS + 4)]
    folders = tmp_path / "whole", tmp_path / "killed"
    for folder in folders:
        folder.mkdir()
    process = spawn(folders[0], *options)
    assert process.wait(120) == 0, process.stdout.read()
    process.stdout.close()
    rng = np.random.default_rng(0)
    targets = np.sort(rng.integers(0, 2 * KILLS, KILLS))
    for target, delay in zip(targets, rng.uniform(0, 0.1, KILLS), strict=True):
        process = spawn(folders[1], *options)
        if newest_epoch(folders[1]) >= target:
            time.sleep(10 * delay)  # while it starts
        while newest_epoch(folders[1]) < target and process.poll() is None:
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, out  # it was still at work
    process = spawn(folders[1], *options)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert "resumed after epoch" in out
    assert digest(folders[1]) == digest(folders[0])
    assert {path.name for path in folders[1].iterdir()} == {"m.npz"}


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path, few_images):
    first = spawn(tmp_path, *few_images, "--epochs", "100000")
    try:
        while not newest_epoch(tmp_path):
            assert first.poll() is None
            time.sleep(0.01)
        second = spawn(tmp_path, *few_images, "--epochs", "100000")
        out, _ = second.communicate(timeout=60)
        assert second.returncode == 1
        assert "minisam: error: another minisam is at work in m.checkpoints: wait for it" in out.splitlines()[-1]
    finally:
        first.kill()
        first.communicate()
    with locked(tmp_path / "m.checkpoints" / ".lock"):  # the lock died with its owner
        pass
