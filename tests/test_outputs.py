"""A finished training is never lost, whatever becomes of its other outputs; and no file is replaced by mistake."""

import io
import json
import os
import platform
import re
import signal
import stat
import subprocess
import sys
import tracemalloc
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest

import minisam
from minisam.cli import main
from minisam.cli.streams import Lasting
from minisam.kernels import set_threads
from minisam.study.experiments import smoke
from minisam.training import Checkpoints, load_model, train
from minisam.training.environment import environment
from minisam.training.files import TEMPORARY, brief, read_arrays, read_bytes, replacing, require_plain, require_writable

TRAIN = ["train", "--dataset", "synthetic", "--n-train", "64", "--epochs", "2", "--optimizer", "sam"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.getbasetemp()))  # Matplotlib's list of fonts
    monkeypatch.chdir(tmp_path)


def files(folder="."):
    return {str(path) for path in Path(folder).rglob("*") if path.is_file() or path.is_symlink()}


def last_line(text):
    return text.strip().splitlines()[-1].split("\r")[-1]


# --- before the first step ------------------------------------------------------------------------

REFUSED = {
    "--save m": "--save expected a name ending in .npz, got m: did you mean m.npz",
    "--save sub/m": "got sub/m: did you mean sub/m.npz",
    "--save m.pth": "--save expected a name ending in .npz, got m.pth",
    "--save .": "--save expected a name ending in .npz, got .",
    "--save folder.npz": "--save expected the name of a file, got the folder folder.npz",
    "--save old.npz": "--save old.npz exists: choose another name, or add --overwrite",
    f"--save {'m' * 252}.npz": "File name too long",
    f"--save {'m' * 250}.npz": "File name too long",  # its checkpoints' folder
    "--save old.npz/m.npz": "can't write to output folder old.npz",
    "--save z.checkpoints/epoch-0007.npz": "--save expected another folder: files in z.checkpoints come and go",
    "--save-every 0": "--save-every must be an integer ≥ 1, got 0",
    "--save m.npz --path m.npz": "--save and --path expected different files, got m.npz twice",
    "--save m.npz --path ./M.npz": "--save and --path expected different files",
    "--save m.npz --path folder.npz": "--path expected the name of a file, got the folder folder.npz",
    "--save m.npz --path old.npz": "--path old.npz exists",
    "--save m.npz --path p.txt": "--path expected a name ending in .npz, got p.txt",
    "--save m.npz --diagnostics d.xyz": "--diagnostics expected a name ending in .png or .pdf or .svg, got d.xyz",
    "--save m.npz --diagnostics diag": "got diag: did you mean diag.png",
    "--save m.npz --diagnostics old.npz/d.png": "can't write to output folder old.npz",
}


@pytest.mark.parametrize("words", REFUSED)
def test_an_output_that_would_fail_is_refused_before_the_first_step(words, capsys):
    Path("folder.npz").mkdir()
    Path("old.npz").write_bytes(b"old")
    assert main([*TRAIN, *words.split()]) == 1
    _, err = capsys.readouterr()
    assert REFUSED[words] in last_line(err)
    assert "training with" not in err  # the progress bar
    assert files() == {"old.npz"}
    assert Path("old.npz").read_bytes() == b"old"


def test_overwrite_replaces(capsys):
    for name in ("m.npz", "p.npz", "d.png"):
        Path(name).write_bytes(b"old")
    outputs = ["--save", "m.npz", "--path", "p.npz", "--diagnostics", "d.png"]
    assert main([*TRAIN, *outputs, "--overwrite"]) == 0
    out, _ = capsys.readouterr()
    assert re.findall(r"^(.*) saved: (.*)$", out, re.MULTILINE) == [
        ("Model", "m.npz"), ("Weights of every epoch", "p.npz"), ("Picture of the diagnostics", "d.png")
    ]  # fmt: skip
    assert load_model("m.npz").config.optimizer == "sam"
    assert np.load("p.npz")["thetas"].shape[0] == 3
    assert Path("d.png").read_bytes().startswith(b"\x89PNG")
    assert files() == {"m.npz", "p.npz", "d.png"}  # the checkpoints are gone


# --- after the last step --------------------------------------------------------------------------


def test_a_model_is_saved_whatever_becomes_of_the_rest(monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "p.npz")

    with monkeypatch.context() as patch:
        patch.setattr("minisam.cli.train.write_arrays", full)
        patch.setattr("minisam.cli.train._draw_diagnostics", full)
        outputs = ["--save", "m.npz", "--path", "p.npz", "--diagnostics", "d.png"]
        assert main([*TRAIN, *outputs]) == 1
    out, err = capsys.readouterr()
    assert "Model saved: m.npz" in out
    assert "SAM(Momentum) on synthetic: test error" in out  # the numbers are not lost either
    assert "Weights of every epoch not saved: [Errno 28] No space left on device: 'p.npz'; Picture" in last_line(err)
    theta = load_model("m.npz").theta
    assert "the same command with --resume --save m.npz --overwrite goes on from m.checkpoints" in err
    assert main([*TRAIN, *outputs, "--resume", "--overwrite"]) == 0
    assert "resumed after epoch 2" in capsys.readouterr().err
    assert np.array_equal(load_model("m.npz").theta, theta)
    assert files() == {"m.npz", "p.npz", "d.png"}


def test_a_model_that_could_not_be_saved_is_still_in_its_last_checkpoint(monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "m.npz")

    with monkeypatch.context() as patch:
        patch.setattr("minisam.cli.train.save_model", full)
        assert main([*TRAIN, "--save", "m.npz", "--save-every", "9"]) == 1
    assert "Model not saved: [Errno 28] No space left on device: 'm.npz'" in capsys.readouterr().err
    assert main([*TRAIN, "--save", "m.npz", "--save-every", "9", "--resume"]) == 0
    assert "resumed after epoch 2" in capsys.readouterr().err
    assert files() == {"m.npz"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away_does_not_stop_a_training(few_images, stream):
    """`minisam train | head -1`: the pipe breaks in the middle of the training."""
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, stream: writing}
    command = [sys.executable, "-m", "minisam", *TRAIN, *few_images, "--save", "m.npz"]
    ended = subprocess.run(command, **streams, timeout=120)
    os.close(writing)
    assert ended.returncode == (1 if stream == "stdout" else 0)
    if stream == "stdout":
        assert last_line(ended.stderr.decode()).startswith("minisam: error: the output was lost: ")
    assert load_model("m.npz").config.optimizer == "sam"


def test_a_stream_that_lasts_says_like_any_other_how_much_was_written():
    assert Lasting(io.StringIO()).write("three") == 5


def test_a_stream_that_nobody_lost_stays_where_it_was():
    with open("out", "w") as file:
        stream = Lasting(file)
        for text in ("before ", "after"):
            stream.write(text)
            stream.close_if_lost()
    assert Path("out").read_text() == "before after"


def test_a_file_that_appears_during_the_training_is_not_replaced(monkeypatch, capsys):
    def train_while_others_write(*arguments):
        Path("m.npz").write_bytes(b"precious")
        return train(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("minisam.cli.train.train", train_while_others_write)
        assert main([*TRAIN, "--save", "m.npz"]) == 1
    assert "Model not saved: m.npz has appeared during the training" in capsys.readouterr().err
    assert Path("m.npz").read_bytes() == b"precious"
    Path("m.npz").rename("theirs.npz")
    assert main([*TRAIN, "--save", "m.npz", "--resume"]) == 0
    assert "resumed after epoch 2" in capsys.readouterr().err


def test_checkpoints_that_cannot_be_written_stop_no_training(monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "m.checkpoints/epoch-0001.npz")

    monkeypatch.setattr(Checkpoints, "keep", full)
    assert main([*TRAIN, "--save", "m.npz", "--save-every", "1"]) == 0
    assert (
        capsys.readouterr().err.count("No space left on device: 'm.checkpoints/epoch-0001.npz'; the training goes") == 2
    )
    assert load_model("m.npz").config.optimizer == "sam"


def test_only_its_own_checkpoints_are_deleted(capsys):
    Path("m.checkpoints").mkdir()
    others = {"epoch-0001.npz": b"notes", "epoch-0099.npz": b"", "notes.txt": b"more"}
    for name, content in others.items():
        Path("m.checkpoints", name).write_bytes(content)
    assert main([*TRAIN, "--save", "x.npz", "--path", "m.checkpoints/../m.checkpoints/p.npz"]) == 1
    Path("m.checkpoints/epoch-0002.npz").mkdir()
    assert main([*TRAIN, "--save", "m.npz", "--save-every", "1", "--resume"]) == 0
    assert "and now called epoch-0099.npz.damaged" in capsys.readouterr().err
    kept = {Path(name).name: Path(name).read_bytes() for name in files("m.checkpoints")}
    kept.pop(".lock", None)
    assert kept == {"epoch-0001.npz.damaged": b"notes", "epoch-0099.npz.damaged": b"", "notes.txt": b"more"}


def test_a_folder_in_the_default_place_is_refused_before_the_training(monkeypatch, capsys):
    assert main(TRAIN) == 0
    (place,) = Path("minisam-results/models").glob("*.npz")
    place.unlink()
    place.mkdir()
    monkeypatch.setattr("minisam.cli.train.train", lambda *_: pytest.fail("trained"))
    assert main([*TRAIN, "--overwrite"]) == 1
    assert f"expected the name of a file for the model, got the folder {place}" in capsys.readouterr().err


def test_an_interrupt_before_the_command_is_known_is_one_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("minisam.cli._parser", interrupted)
    assert main(["data"]) == 130
    assert capsys.readouterr().err == "minisam: interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for rights to make links")
def test_a_link_to_nowhere_is_not_replaced(capsys):
    Path("m.npz").symlink_to("unmounted/m.npz")
    assert main([*TRAIN, "--save", "m.npz"]) == 1
    assert "--save m.npz exists: choose another name" in capsys.readouterr().err
    assert Path("m.npz").is_symlink()


def tiny(n_test=20):
    whole = smoke(n_train=64, epochs=1, seeds=1, n_test=n_test)
    return replace(whole, arms=whole.arms[:2], pairs=((whole.arms[0].label, whole.arms[1].label),))


def test_other_results_are_not_replaced(monkeypatch, capsys):
    presets = {"quick": tiny, "smoke": tiny, "rho": tiny}
    monkeypatch.setattr("minisam.cli.reproduce.PRESETS", presets)
    monkeypatch.setattr("minisam.cli.reproduce.FULL", ("rho",))

    def reproduce(*words):
        code = main(["reproduce", "--dataset", "synthetic", "--out", "out", "--jobs", "1", *words])
        return last_line(capsys.readouterr().err) if code else None

    assert reproduce() is None
    assert reproduce() is None  # the same once more
    before = {name: Path(name).read_bytes() for name in files("out")}
    assert "out has other results (preset was quick, is smoke): choose another --out" in reproduce("--preset", "smoke")
    assert "out has other results (seeds was 1, is 2)" in reproduce("--seeds", "2")
    assert "out has other results than those of a study" in reproduce("--preset", "full")
    with monkeypatch.context() as patch:
        patch.setitem(presets, "quick", lambda: tiny(n_test=21))
        assert "out has other results (images was " in reproduce()
    assert {name: Path(name).read_bytes() for name in files("out")} == before
    report = Path("study/report.html")  # of a study, which has its results elsewhere
    report.parent.mkdir()
    report.write_text("the whole study")
    assert f"{report} is not of these results" in reproduce("--out", "study")


@pytest.mark.parametrize("text", ["{", "[]", '{"config": {"preset": "quick"}}', '{"config": [], "dataset": {}}'])
def test_results_of_others_are_not_replaced(text, capsys):
    Path("out").mkdir()
    Path("out/results.json").write_text(text)
    assert main(["reproduce", "--dataset", "synthetic", "--out", "out"]) == 1
    assert "results.json is not minisam's, or it is damaged: choose another --out" in last_line(capsys.readouterr().err)
    assert Path("out/results.json").read_text() == text


@pytest.mark.parametrize("name", ["report.html", "protocols.png", "overview.png"])
def test_files_of_a_study_that_is_none_are_not_replaced(name, monkeypatch, capsys):
    monkeypatch.setattr("minisam.cli.reproduce.PRESETS", {"rho": tiny})
    monkeypatch.setattr("minisam.cli.reproduce.FULL", ("rho",))
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    assert main(["reproduce", "--preset", "full", "--dataset", "synthetic", "--out", "out"]) == 1
    assert f"{Path('out', name)} is not of a study: choose another --out" in last_line(capsys.readouterr().err)
    assert files("out") == {str(Path("out", name))}


@pytest.mark.parametrize("name", ["predictions.npz", "errors.png", "flatness.png", "report.html"])
def test_files_of_these_names_that_belong_to_no_results_are_not_replaced(name, capsys):
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    assert main(["reproduce", "--dataset", "synthetic", "--out", "out"]) == 1
    assert f"{Path('out', name)} is not of these results: choose another" in last_line(capsys.readouterr().err)
    assert files("out") == {str(Path("out", name))}


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for rights to make links")
def test_a_part_of_a_study_is_not_written_where_a_link_leads(capsys, monkeypatch):
    monkeypatch.setattr("minisam.cli.reproduce.PRESETS", {"rho": tiny})
    monkeypatch.setattr("minisam.cli.reproduce.FULL", ("rho",))
    Path("out").mkdir()
    Path("elsewhere").mkdir()
    Path("out/rho").symlink_to("../elsewhere")
    assert main(["reproduce", "--preset", "full", "--dataset", "synthetic", "--out", "out"]) == 1
    assert f"{Path('out/rho')}, which is a link: remove it" in last_line(capsys.readouterr().err)
    assert not list(Path("elsewhere").iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for rights to make links")
def test_a_checkpoint_that_is_a_link_to_nothing_is_passed_over(capsys):
    Path("m.checkpoints").mkdir()
    Path("m.checkpoints/epoch-0009.npz").symlink_to("nowhere")
    assert main([*TRAIN, "--save", "m.npz", "--resume"]) == 0
    assert "epoch-0009.npz, which is a link to nothing: passed over" in capsys.readouterr().err
    assert files() == {"m.npz", str(Path("m.checkpoints/epoch-0009.npz.damaged"))}


def test_a_terminal_obeys_no_name_of_a_file(capsys):
    words = [*TRAIN, "--save", "\x1b[31mm.npz", "--save-every", "1"]
    Path("\x1b[31mm.checkpoints").mkdir()
    Path("\x1b[31mm.checkpoints/epoch-0001.npz").write_bytes(b"damaged")
    assert main([*words, "--resume"]) == 0
    _, err = capsys.readouterr()
    assert "passed over" in err
    assert "\x1b[31mm" not in err


@pytest.mark.parametrize("name", ["results.json", "report.html"])
@pytest.mark.parametrize("preset", ["quick", "full"])
def test_a_folder_in_the_way_is_noticed_before_the_first_run(name, preset, capsys, monkeypatch):
    monkeypatch.setattr("minisam.cli.reproduce.FULL", ("rho",))
    Path("out", name).mkdir(parents=True)
    assert main(["reproduce", "--preset", preset, "--dataset", "synthetic", "--out", "out"]) == 1
    assert "choose another --out" in last_line(capsys.readouterr().err)
    assert not Path("out/runs").exists()


@pytest.mark.parametrize("words", [["--optimizer", "looksam"], ["--optimizer", "sam", "--every", "3"]])
def test_diagnostics_of_epochs_without_a_climb_are_drawn(words):
    assert main([*TRAIN[:-2], "--epochs", "4", *words, "--save", "m.npz", "--diagnostics", "d.png"]) == 0
    assert Path("d.png").read_bytes().startswith(b"\x89PNG")


def test_closed_streams_stop_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main([*TRAIN, "--save", "m.npz"]) == 0
    assert Path("m.npz").exists()


def test_a_console_without_greek_letters_shows_question_marks(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True))
    out, err = sys.stdout.buffer, sys.stderr.buffer
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert b"added to |?|, so that weights at 0 can move" in b" ".join(out.getvalue().split())
    assert main(["evaluate", "\u03b8.npz"]) == 1
    assert b"'?.npz'" in err.getvalue()


# --- by default -----------------------------------------------------------------------------------


def test_a_training_keeps_its_model_somewhere_announced(capsys):
    assert main(TRAIN) == 0
    (file,) = re.findall(r"^Model saved: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert re.fullmatch(r"minisam-results.models.mlp-sam-seed0-[0-9a-f]{8}\.npz", file)
    theta = load_model(file).theta
    before = Path(file).read_bytes()
    assert main(TRAIN) == 0  # nothing is replaced
    assert main([*TRAIN, "--rho", "0.1"]) == 0  # another training
    assert len(files()) == 3
    assert Path(file).read_bytes() == before
    assert np.array_equal(load_model(file.replace(".npz", "-2.npz")).theta, theta)
    assert main([*TRAIN, "--overwrite"]) == 0
    assert len(files()) == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to consoles, not to processes")
def test_ctrl_c_says_how_to_go_on(tmp_path, few_images, capsys):
    words = [*TRAIN[:-4], *few_images, "--epochs", "2000", "--save-every", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "minisam", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.rglob("epoch-*.npz")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"kept: minisam-results.models.*epoch-\d+\.npz; the same command with --resume goes on", err)
    assert last_line(err).endswith("minisam: interrupted")
    assert "Traceback" not in err


def test_ctrl_c_while_a_model_is_saved_says_how_to_go_on_too(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    for name, more in (
        ("save_model", ""),
        ("write_arrays", " --save m.npz --overwrite"),
    ):  # when there is a model already
        with monkeypatch.context() as patch:
            patch.setattr(f"minisam.cli.train.{name}", interrupted)
            assert main([*TRAIN, "--save", "m.npz", "--path", "p.npz", "--resume"]) == 130
        last = Path("m.checkpoints/epoch-0002.npz")
        assert f"kept: {last}; the same command with --resume{more} goes on from there" in capsys.readouterr().err


def test_a_training_that_diverges_at_once_leaves_nothing_to_go_on_from():
    assert main([*TRAIN, "--lr", "1e39", "--save", "m.npz", "--save-every", "1"]) == 1
    assert not files()
    assert not Path("m.checkpoints").exists()


def test_a_training_that_diverges_late_keeps_the_network_of_before(capsys):
    words = [*TRAIN, "--epochs", "4", "--late", "0.5", "--rho", "1e30", "--save", "m.npz", "--save-every", "1"]
    for resume in ([], ["--resume"]):
        assert main([*words, *resume]) == 1
        message = last_line(capsys.readouterr().err)
        assert re.search(r"the network of before is kept in m.checkpoints.epoch-0002.npz; --resume would dive", message)
        assert {Path(name).name for name in files()} == {".lock", "epoch-0001.npz", "epoch-0002.npz"}  # none with NaN
    assert np.isfinite(load_model("m.checkpoints/epoch-0002.npz").theta).all()


def test_a_model_with_a_checkpoints_name_is_not_deleted():
    assert main([*TRAIN, "--save", "z.epoch-0007.npz"]) == 0
    before = Path("z.epoch-0007.npz").read_bytes()
    assert main([*TRAIN, "--epochs", "9", "--save", "z.npz", "--save-every", "1", "--resume"]) == 0
    assert Path("z.epoch-0007.npz").read_bytes() == before


# --- links, and what is read ----------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for rights to make links")
def test_a_planted_link_is_not_followed(monkeypatch):
    """Whoever may write to a shared folder knows the names that others are about to write there."""
    Path("precious").write_bytes(b"precious")
    Path(TEMPORARY.format("guessed")).symlink_to("precious")
    with monkeypatch.context() as patch:
        patch.setattr("minisam.training.files.secrets.token_hex", lambda _: "guessed")
        with pytest.raises(FileExistsError, match=r"m\.npz"), replacing(Path("m.npz")) as file:
            file.write(b"new")
    assert Path("precious").read_bytes() == b"precious"
    Path("link.npz").symlink_to("precious")
    with replacing(Path("link.npz")) as file:
        file.write(b"new")
    assert (Path("link.npz").read_bytes(), Path("precious").read_bytes()) == (b"new", b"precious")


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for rights to make links")
def test_a_lock_is_no_link(capsys):
    Path("precious").write_bytes(b"precious")
    Path("m.checkpoints").mkdir()
    Path("m.checkpoints/.lock").symlink_to("../precious")
    assert main([*TRAIN, "--save", "m.npz"]) == 1
    assert "m.checkpoints/.lock" in last_line(capsys.readouterr().err)
    assert Path("precious").read_bytes() == b"precious"


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for rights to make links")
def test_checkpoints_are_in_no_folder_of_others(capsys):
    """Through a planted link, files of the same names would be replaced and deleted elsewhere."""
    Path("others").mkdir()
    for name in ("epoch-0001.npz", ".lock", ".minisam-abc.tmp"):
        Path("others", name).write_bytes(b"precious")
    Path("m.checkpoints").symlink_to("others")
    before = files()
    for words in ([], ["--resume"]):
        assert main([*TRAIN, "--save", "m.npz", *words]) == 1
        assert "expected a folder of minisam's own, got m.checkpoints, which is a link" in capsys.readouterr().err
    Path("out").mkdir()
    Path("out/runs").symlink_to("../others")
    assert main(["reproduce", "--dataset", "synthetic", "--preset", "smoke", "--out", "out"]) == 1
    assert "got out/runs, which is a link" in capsys.readouterr().err
    assert files() == before | {"out/runs"}


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for rights to make links")
def test_a_finished_run_deletes_nothing_through_a_link():
    """Elsewhere somebody else's checkpoints have the same names; and a worker may have no access to the folder."""
    Path("others").mkdir()
    Path("others/epoch-0001.npz").write_bytes(b"precious")
    checkpoints = Checkpoints(Path("m.npz"), every=1)
    Path("m.checkpoints").symlink_to("others")
    checkpoints.ours[:] = checkpoints.paths()
    with pytest.raises(OSError, match=r"got m\.checkpoints, which is a link"):
        checkpoints.delete()
    assert Path("others/epoch-0001.npz").read_bytes() == b"precious"


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for rights to make links")
@pytest.mark.parametrize("words", [TRAIN, ["toy"], ["reproduce", "--dataset", "synthetic", "--preset", "smoke"]])
def test_a_place_that_nobody_named_is_no_link(words, capsys):
    Path("others").mkdir()
    for link, target in (("minisam-results", "others"), (f"minisam-results/{default_folder(words)}", "../others")):
        Path(link).parent.mkdir(exist_ok=True)
        Path(link).symlink_to(target)
        assert main(words) == 1
        assert f"got {link}, which is a link: remove it" in last_line(capsys.readouterr().err)
        assert not list(Path("others").iterdir())
        Path(link).unlink()


def default_folder(words):
    return {"train": "models", "reproduce": "synthetic-smoke"}.get(words[0], words[0])


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for rights to make links")
def test_a_place_that_was_named_may_be_a_link():
    Path("elsewhere").mkdir()
    Path("link").symlink_to("elsewhere")
    with replacing(Path("link/m.npz")) as file:
        file.write(b"new")
    require_writable(Path("link"))
    assert Path("elsewhere/m.npz").read_bytes() == b"new"
    Path("minisam-results").symlink_to("elsewhere")
    with pytest.raises(OSError, match="minisam-results, which is a link"), replacing(Path("minisam-results/a/b")):
        pass


IN_A_POOL = """
from dataclasses import replace
from minisam.data import synthetic
from minisam.study import run_all
from minisam.training import Config
if __name__ == "__main__":
    images = replace(synthetic(8, 8), name="nowhere")
    run_all([Config(epochs=1, batch_size=8, seed=seed) for seed in (0, 1)], images, jobs=2)
"""


def test_workers_run_nothing_that_lies_in_the_current_folder(tmp_path):
    Path("socket.py").write_text("open('was here', 'w')")
    Path("scripts").mkdir()  # the parent looks there, not here
    Path("scripts/run.py").write_text(IN_A_POOL)
    ended = subprocess.run([sys.executable, "scripts/run.py"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert not Path("was here").exists()


WITHOUT_PICTURES = """
import sys
import minisam.study.tasks  # as a worker process does
from minisam.cli import main
words = "train --dataset synthetic --n-train 64 --epochs 1 --save m.npz"
for command in (words, "evaluate m.npz --dataset synthetic", "data --data-dir ."):
    assert main(command.split()) == 0
print("matplotlib" in sys.modules)
"""


def test_a_matplotlibrc_in_the_current_folder_is_not_obeyed():
    """Matplotlib reads it before the user's own, and before minisam could check what it says."""
    Path("matplotlibrc").write_text("no colon \x1b[31m")
    Path("own").write_text("savefig.dpi: 7")
    pictures = "import sys, minisam.cli as cli; cli._import_matplotlib()\n"  # as every command that draws does
    pictures += "print(sys.modules['matplotlib'].rcParams['savefig.dpi'])"
    shown = []
    for code in (pictures, WITHOUT_PICTURES):
        own = os.environ | {"MATPLOTLIBRC": "own"}
        ended = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
        assert "matplotlibrc" not in ended.stderr
        shown.append(ended.stdout.splitlines()[-1])
    assert shown == ["7.0", "False"]


@pytest.mark.parametrize("words", ["reproduce", "sharpness m.npz", "landscape m.npz", "train --diagnostics", "toy"])
def test_every_command_that_draws_imports_matplotlib_elsewhere(words, monkeypatch, capsys):
    def imported():
        raise ValueError("imported before the command")

    monkeypatch.setattr("minisam.cli._import_matplotlib", imported)
    assert main(words.split()) == 1
    assert "imported before the command" in capsys.readouterr().err


def test_pictures_start_no_latex():
    Path("matplotlibrc").write_text("text.usetex: True")
    code = "import matplotlib, minisam.study.plots; print(matplotlib.rcParams['text.usetex'])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.strip() == "False"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere open files are counted in other ways")
def test_a_file_is_written_and_nothing_stays_open():
    def n_open():
        return len(os.listdir("/proc/self/fd"))

    before = n_open()
    with replacing(Path("m.npz")) as file:
        file.write(b"new")
        assert n_open() == before + 1
    assert n_open() == before


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no folders")
def test_a_file_is_on_the_disk_before_it_has_its_name(monkeypatch):
    synced = []

    def fsync(opened):
        about = os.fstat(opened)
        synced.append(("folder" if stat.S_ISDIR(about.st_mode) else about.st_size, Path("m.npz").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(Path("m.npz")) as file:
        file.write(b"new")
    assert synced == [(3, False), ("folder", True)]


def test_temporary_names_cannot_be_foreseen(tmp_path):
    names = set()
    for _ in range(3):
        with replacing(tmp_path / "m.npz"):
            names |= {path.name for path in tmp_path.iterdir()}
    assert len(names - {"m.npz"}) == 3


def test_no_python_runs_where_ctrl_c_would_be_lost():
    np.savez("m.npz", x=np.ones(3))
    called = []
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        read_arrays(Path("m.npz"))
    finally:
        sys.setprofile(None)
    assert "close" in called
    assert "__del__" not in called


def test_what_is_no_file_is_not_read(capsys):
    devices = ["/dev/zero"] if Path("/dev/zero").exists() else []
    for name in (".", *devices):
        for words in (["evaluate", name], ["reproduce", "--from", name]):
            assert main(words) == 1
            assert f"expected a file, got {name}, which is a folder or a device" in capsys.readouterr().err


def test_what_would_be_too_large_to_be_read_is_refused_before_the_first_step(monkeypatch, capsys):
    monkeypatch.setattr("minisam.cli.train.LARGEST", 4 * 820_874 * 3)
    assert main([*TRAIN, "--save", "m.npz", "--path", "p.npz", "--epochs", "3"]) == 1
    assert "--path would have 13,133,984 bytes, more than the 9,850,488 that are read" in capsys.readouterr().err
    monkeypatch.setattr("minisam.cli.train.LARGEST", 4 * 820_874 - 1)
    assert main([*TRAIN, "--save", "m.npz"]) == 1
    assert "the model would have 3,283,496 bytes, more than the 3,283,495 that" in capsys.readouterr().err
    assert not files()
    monkeypatch.setattr("minisam.cli.train.LARGEST", 4 * 820_874 * 3)
    assert main([*TRAIN, "--save", "m.npz", "--path", "p.npz"]) == 0  # two epochs and the start: as much as may be


@pytest.mark.skipif(os.name == "nt", reason="Windows has other links")
def test_a_lock_that_is_also_another_file_is_refused(capsys):
    """Some versions of filelock would empty it."""
    Path("m.checkpoints").mkdir()
    Path("best.npz").write_bytes(b"precious")
    os.link("best.npz", "m.checkpoints/.lock")
    assert main([*TRAIN, "--save", "m.npz"]) == 1
    assert f"{Path('m.checkpoints/.lock')}, which is another file, too: remove it" in capsys.readouterr().err
    assert Path("best.npz").read_bytes() == b"precious"


def test_an_array_of_nothing_takes_no_memory():
    header = b"{'descr':'<U1','fortran_order':False,'shape':(3000000,0)}".ljust(117) + b"\n"
    with zipfile.ZipFile("m.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    tracemalloc.start()
    try:
        assert read_arrays(Path("m.npz"))["x"].shape == (3_000_000, 0)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_huge_file_is_not_read(monkeypatch, capsys):
    monkeypatch.setattr("minisam.training.files.LARGEST", 1000)
    Path("m.npz").write_bytes(b"PK" + bytes(998))
    assert read_bytes(Path("m.npz"), ".npz") == b"PK" + bytes(998)  # exactly as much is not too much
    Path("m.npz").write_bytes(bytes(1001))
    assert main(["evaluate", "m.npz"]) == 1
    assert "expected a file of at most 1,000 bytes, got m.npz with 1,001" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["evaluate r.npz", "reproduce --from r.json"])
def test_holes_do_not_fill_the_memory(words, capsys):
    """They take no room on disk."""
    file = Path(words.split()[-1])
    file.touch()
    os.truncate(file, 1 << 32)
    tracemalloc.start()
    try:
        assert main(words.split()) == 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert f"{file} is damaged, or no {file.suffix} file" in capsys.readouterr().err


def test_what_is_too_large_to_be_read_is_not_written(monkeypatch, capsys):
    monkeypatch.setattr("minisam.training.model.LARGEST", 1000)
    assert main([*TRAIN, "--save", "m.npz"]) == 1
    err = capsys.readouterr().err
    assert re.search(
        r"no checkpoint after epoch 1: m.checkpoints.epoch-0001.npz would have [\d,]+ bytes, more than", err
    )
    assert "Model not saved: m.npz would have" in last_line(err)
    assert "--resume" not in err  # there is nothing to go on from
    assert not files()


def test_a_checkpoint_that_is_too_large_is_not_called_damaged(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("minisam.cli.train.save_model", lambda *_: 1 / 0)
        main([*TRAIN, "--save", "m.npz"])
    before = files()
    monkeypatch.setattr("minisam.training.files.LARGEST", 1000)
    assert main([*TRAIN, "--save", "m.npz", "--resume"]) == 1
    assert "expected a file of at most 1,000 bytes, got m.checkpoints" in last_line(capsys.readouterr().err)
    assert files() == before


def test_compressed_files_are_named_as_such(capsys):
    assert main([*TRAIN, "--save", "m.npz"]) == 0
    with np.load("m.npz") as arrays:
        np.savez_compressed("small.npz", **arrays)
    np.savez_compressed("predictions.npz", predictions=np.zeros(9), y_test=np.zeros(9))
    capsys.readouterr()
    for name, holds in (("small.npz", "theta, stats, about"), ("predictions.npz", "predictions, y_test")):
        assert main(["evaluate", name]) == 1
        expected = f"expected an uncompressed .npz file, as np.savez writes it, got {name} with {holds}"
        assert expected in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_parts_of_one_name_are_refused(capsys):
    """Each look-up of a name would read the same large part again."""
    with zipfile.ZipFile("m.npz", "w") as archive:
        for _ in range(2):
            archive.writestr("theta.npy", b"")
    assert main(["evaluate", "m.npz"]) == 1
    assert "m.npz is damaged, or no .npz file" in capsys.readouterr().err


def test_texts_and_numbers_at_their_bounds_are_whole():
    assert (brief("x" * 80), brief("x" * 81)) == ("x" * 80, "x" * 79 + "…")
    require_plain(["x" * 1000, 2**63 - 1, 1 - 2**63])
    deep = [1]
    for _ in range(19):
        deep = [deep]
    require_plain(deep)
    with pytest.raises(TypeError, match="nested too deeply"):
        require_plain([deep])
    for value in ("x" * 1001, 2**63, -(2**63)):
        with pytest.raises(TypeError):
            require_plain({"key": [value]})
        if isinstance(value, str):
            with pytest.raises(TypeError):
                require_plain({value: 1})


def test_an_environment_is_that_of_this_process(monkeypatch):
    monkeypatch.setattr("minisam.training.environment.available_cores", lambda: 7)
    set_threads(3)
    found = environment()
    assert (found["cores"], found["threads"], found["python"]) == (7, 3, platform.python_version())
    assert all(found[module.__name__] == module.__version__ for module in (minisam, np, numba))
    assert found["system"] == f"{platform.system()} {platform.release()} {platform.machine()}"
    assert re.fullmatch(r"\S+ \d+\.\d+.*", found["blas"])
    monkeypatch.setattr(Path, "read_text", lambda _: "model name\t: Fast One\nmodel name\t: Fast Two\n")
    assert environment()["cpu"] == "Fast One"
    monkeypatch.setattr(Path, "read_text", lambda _: "processor\t: 0\n")
    assert environment()["cpu"] == platform.machine()


def test_an_error_is_a_line_of_bounded_length(capsys):
    assert main(["evaluate", "no\nsuch\n" + "m" * 2000]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert len(err) < 1100


def test_a_foreign_model_sends_nothing_to_the_terminal(capsys):
    assert main([*TRAIN, "--save", "m.npz"]) == 0
    with np.load("m.npz") as file:
        arrays = dict(file)
    about = json.loads(str(arrays["about"]))
    about["classes"][0] = "\x1b]0;owned\x07\x1b[2J"
    np.savez("evil.npz", **arrays | {"about": np.array(json.dumps(about))})
    capsys.readouterr()
    for words in (["evaluate", "evil.npz"], ["evaluate", "\x1b[31mred.npz"], ["--\x1b[31m"], ["train", "--\x1b[31m"]):
        with suppress(SystemExit):
            assert main(words) == 1
        out, err = capsys.readouterr()
        assert all(letter.isprintable() or letter == "\n" for letter in out + err)


def test_weights_that_are_too_large_have_no_error_rate(capsys):
    assert main([*TRAIN, "--save", "m.npz"]) == 0
    with np.load("m.npz") as file:
        arrays = dict(file)
    np.savez("huge.npz", **arrays | {"theta": np.full_like(arrays["theta"], 3e38)})
    assert main(["evaluate", "huge.npz", "--dataset", "synthetic"]) == 1
    assert "the outputs are not finite, with weights of up to 3.0e+38" in capsys.readouterr().err
