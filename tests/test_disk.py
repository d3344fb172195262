"""Full disks and folders that can't be written: one line says so, and no file is left that looks whole."""

import importlib
import os
import re
import subprocess
import sys

import pytest

from minisam.cli import main
from minisam.training import Checkpoints, load_model

TRAIN = ["train", "--dataset", "synthetic", "--n-train", "64", "--epochs", "2", "--save", "m.npz", "--save-every", "1"]
REPRODUCE = ["reproduce", "--dataset", "synthetic", "--preset", "smoke", "--jobs", "1", "--out", "out"]


def run_with_room(folder, words, room):
    """Run the command with files limited to `room` bytes: as on a full disk, a write then fails halfway."""
    import resource

    return subprocess.run(
        [sys.executable, "-m", "minisam", *words], cwd=folder, capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize(("words", "room"), [(TRAIN, 1 << 20), (REPRODUCE, 4096)])
def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, few_images, words, room):
    ended = run_with_room(tmp_path, [*words, *few_images], room)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1].split("\r")[-1]
    assert re.search(r"minisam: error: .*\[Errno 27\] File too large: '(m|out).*\.npz'", last)  # which file
    assert not {path.name for path in tmp_path.rglob("*") if path.is_file()} - {".lock"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
def test_a_disk_that_fills_up_leaves_the_last_checkpoint_to_go_on_from(tmp_path, few_images, monkeypatch):
    train = [*TRAIN, *few_images]
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "delete", lambda _: None)  # as if interrupted before the end
        assert main(train) == 0
    whole = load_model("m.npz").theta.tobytes()
    (tmp_path / "m.npz").unlink()
    first = tmp_path / "m.checkpoints" / "epoch-0001.npz"
    first.with_name("epoch-0002.npz").unlink()
    before = first.read_bytes()
    ended = run_with_room(tmp_path, [*train, "--resume"], 1 << 20)
    assert ended.returncode == 1
    assert "no checkpoint after epoch 2: [Errno 27] File too large" in ended.stderr
    assert "Model not saved: [Errno 27] File too large: 'm.npz'; the same command with --resume" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["m.checkpoints"]
    assert {path.name for path in first.parent.iterdir()} == {".lock", "epoch-0001.npz"}
    assert first.read_bytes() == before
    assert main([*train, "--resume"]) == 0  # with room again
    assert load_model("m.npz").theta.tobytes() == whole


@pytest.mark.skipif(os.name == "nt", reason="Windows folders have other permissions")
@pytest.mark.parametrize("words", [TRAIN, REPRODUCE])
def test_a_folder_without_permission_is_reported_before_any_work(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o500)
    importlib.import_module("matplotlib.figure")  # the user nobody could not import it
    importlib.import_module("minisam.study.report")
    user = os.geteuid()
    if user == 0:  # root may write anywhere: be nobody for a while
        os.seteuid(65534)
    try:
        assert main(words) == 1
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
    captured = capsys.readouterr()
    assert "minisam: error: can't write to output folder" in captured.err
    assert "Permission denied" in captured.err
    assert not captured.out  # no summary, no table: no work was begun
    assert not list(tmp_path.iterdir())
