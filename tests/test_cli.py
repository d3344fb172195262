"""The command line as a user sees it: output, files, exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from photographs import write_cifar10

import minisam
from minisam.cli import _parser, main
from minisam.cli import train as cli_train
from minisam.cli.train import GROUPS
from minisam.data import cifar, load, synthetic
from minisam.study.experiments import smoke
from minisam.study.recipes import MAIN
from minisam.training import Config, load_model
from minisam.training.config import FAMILY

COMMAND = [sys.executable, "-m", "minisam"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, tmp_path_factory):
    """An empty folder to work in, and no CIFAR to be found."""
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.getbasetemp()))  # Matplotlib's list of fonts
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINISAM_DATA", raising=False)
    monkeypatch.setattr(cifar, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # for child processes


@pytest.fixture
def archive(tmp_path):
    """A folder with a small CIFAR-10 in the official binary layout (with synthetic images)."""
    return write_cifar10(tmp_path / "data", synthetic(1200, 300))


def test_help_names_every_command_and_option(capsys):
    for words in (["--help"], *([command, "--help"] for command in ("reproduce", "train", "data", "landscape"))):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in ("reproduce", "train", "evaluate", "--preset", "--rho", "--fetch", "--threads", "--along"):
        assert word in text


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"minisam {minisam.__version__}\n"


@pytest.mark.parametrize(
    ("words", "every"), [("--epochs 10", 1), ("--epochs 40", 2), ("--epochs 59", 2), ("--epochs 40 --save-every 7", 7)]
)
def test_there_are_about_twenty_checkpoints_unless_told_otherwise(words, every, monkeypatch):
    def stop(config, data, evaluate_every, progress, diagnostics, path, checkpoints):
        assert (evaluate_every, progress, diagnostics, path) == (0, True, False, None)
        raise RuntimeError(f"every {checkpoints.every}")

    monkeypatch.setattr("minisam.cli.train.train", stop)
    with pytest.raises(RuntimeError, match=f"every {every}$"):
        cli_train.run(_parser().parse_args(["train", "--dataset", "synthetic", *words.split()]))


@pytest.mark.parametrize(("cores", "words", "jobs"), [(2, "", 2), (16, "", 4), (16, "--jobs 9", 9)])
def test_there_is_a_run_per_core_but_at_most_four_unless_told_otherwise(cores, words, jobs, monkeypatch, capsys):
    def stop(experiment, dataset, name, jobs, executor, folder):
        assert (name, executor, folder.as_posix()) == ("smoke", None, "minisam-results/synthetic-smoke/runs")
        assert (len(dataset.y_train), len(dataset.y_test)) == (1000, 2000)
        raise RuntimeError(f"{jobs} at a time")

    monkeypatch.setattr("minisam.cli.reproduce.available_cores", lambda: cores)
    monkeypatch.setattr("minisam.cli.reproduce.reproduce", stop)
    assert main(["reproduce", "--dataset", "synthetic", "--preset", "smoke", *words.split()]) == 1
    assert f"error: {jobs} at a time" in capsys.readouterr().err


def test_no_command_or_a_wrong_one_is_a_usage_error(capsys):
    for words in ([], ["fly"], ["train", "--model", "lenet"], ["train", "--epochs", "many"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert "usage: minisam" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "command", "message"),
    [
        ("trian", "minisam", "unknown 'trian', expected one of reproduce, .*: did you mean train?"),
        ("train --optimiser sam", "minisam train", r"unknown argument --optimiser sam: did you mean --optimizer\?"),
        ("train --rho=0.1 --ephocs=3", "minisam train", r"unknown argument --ephocs=3: did you mean --epochs\?"),
        ("train --optimizer adm", "minisam train", r"--optimizer: unknown 'adm', expected one of gd, .*mean adam\?"),
        ("train --optimizer lion", "minisam train", "unknown 'lion', expected one of gd, momentum, .*, random-sam$"),
        ("train net.npz", "minisam train", "unknown argument net.npz$"),
        ("train eta", "minisam train", "unknown argument eta$"),
        ("landscape a.npz --points 3 b.npz", "minisam landscape", "b.npz: name all files together, not between option"),
        ("reproduce --preset smal", "minisam reproduce", "--preset: unknown 'smal', expected one of smoke, quick"),
        ("reproduce --preset smok", "minisam reproduce", r"did you mean smoke\?"),
        ("data --fetch cifar", "minisam data", r"expected one of cifar10, cifar100: did you mean cifar10\?"),
    ],
)
def test_a_slip_is_answered_by_what_was_probably_meant(words, command, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"usage: {command} [-h]")
    assert re.search(message, err.strip())


def test_case_does_not_matter(capsys):
    shouted = ["--dataset", "Synthetic", "--optimizer", "SAM", "--model", "MLP", "--base", "Adam"]
    assert main(["train", *shouted, "--n-train", "64", "--epochs", "1"]) == 0
    assert "SAM(Adam) on synthetic" in capsys.readouterr().out


def test_every_choice_of_a_training_is_in_one_group_of_its_help(capsys):
    assert sorted(sum(GROUPS.values(), ())) == sorted(field.name for field in fields(Config))
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    titles = [text.index(f"\n{title}:\n") for title in ("what is kept", *GROUPS)]
    assert titles == sorted(titles)
    assert text.index("\n  --rho ") > text.index("SAM and its family:")


def test_train_save_evaluate(tmp_path, archive, capsys):
    common = ["--dataset", "cifar10", "--data-dir", str(archive)]
    options = ["--epochs", "2", "--n-train", "200", "--optimizer", "sam", "--save", "m/net.npz"]
    assert main(["train", *common, *options]) == 0
    out = capsys.readouterr().out
    told = r"^SAM\(Momentum\) on cifar10: test error (\d+\.\d\d%), train error (\d+\.\d\d)%, 16 gradients, \d+\.\d s$"
    error, of_training = re.search(told, out, re.MULTILINE).groups()
    images, model = load("cifar10", archive).first(200), load_model("m/net.npz")
    assert float(of_training) == pytest.approx(100 * np.mean(model.predict(images.x_train) != images.y_train))
    assert "820,874" in out  # the summary's total
    assert main(["evaluate", "m/net.npz", *common]) == 0
    assert capsys.readouterr().out.strip() == f"test error on cifar10: {error}"


def test_a_wider_network_is_trained_saved_and_read(capsys):
    words = [
        "train",
        "--dataset",
        "synthetic",
        "--n-train",
        "50",
        "--epochs",
        "1",
        "--width",
        "2",
        "--batch-size",
        "50",
        "--save",
        "m.npz",
    ]
    assert main(words) == 0
    assert "1,707,274" in capsys.readouterr().out
    assert load_model("m.npz").config.width == 2
    assert main(["evaluate", "m.npz", "--dataset", "synthetic"]) == 0


def test_reproduce_smoke_on_files(tmp_path, archive, monkeypatch, capsys):
    monkeypatch.setenv("MINISAM_DATA", str(archive))
    monkeypatch.setattr("minisam.cli.reproduce.PRESETS", {"smoke": tiny})
    assert main(["reproduce", "--preset", "smoke", "--out", "out", "--seeds", "2"]) == 0
    captured = capsys.readouterr()
    assert "SYNTHETIC" not in captured.out + captured.err
    assert "Report with pictures: " in captured.out
    assert "meets two Momentums" not in captured.out  # here is one
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["dataset"]["name"] == "cifar10"
    assert results["config"]["seeds"] == 2


def test_reproduce_full_has_a_report_of_every_part_and_a_page_of_the_whole(monkeypatch, capsys):
    monkeypatch.setattr("minisam.cli.reproduce.FULL", ("optimizers-mlp",))
    monkeypatch.setattr("minisam.cli.reproduce.PRESETS", {"optimizers-mlp": clean})
    assert main(["reproduce", "--preset", "full", "--dataset", "synthetic", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "After equal tuning SAM(Momentum) meets two Momentums" in out
    assert "In the papers' protocol SAM(Momentum)" not in out
    folder = Path("minisam-results", "full")
    assert re.search(r"Report with pictures: (.*)", out).group(1) == str(folder / "optimizers-mlp" / "report.html")
    page = Path(re.search(r"The whole study: (.*)", out).group(1))
    assert page.parent == folder
    assert page.is_file()


def clean():
    """All methods, on clean labels."""
    whole = smoke(n_train=64, epochs=1, seeds=1, n_test=40)
    return replace(whole, arms=whole.arms[: len(MAIN)])


def tiny():
    """Three of them."""
    whole, labels = clean(), ("GD", "Momentum", "SAM(Momentum)")
    arms = tuple(arm for arm in whole.arms if arm.label in labels)
    return replace(whole, arms=arms, pairs=tuple(pair for pair in whole.pairs if set(pair) <= set(labels)))


def test_reproduce_from_says_what_differs(tmp_path, archive, monkeypatch, capsys):
    monkeypatch.setattr("minisam.cli.reproduce.PRESETS", {"smoke": tiny})
    assert main(["reproduce", "--preset", "smoke", "--data-dir", "data", "--jobs", "1", "--out", "out"]) == 0
    monkeypatch.setattr("minisam.cli.reproduce.PRESETS", {})  # the file says what was done
    monkeypatch.setenv("MINISAM_DATA", str(archive))
    again = ["reproduce", "--from", "out/results.json", "--jobs", "1"]
    assert main(again) == 0
    out = capsys.readouterr().out
    assert out.endswith("\nAll 3 runs gave the same numbers, to the last bit.\n")
    assert "was read, not repeated" not in out
    folder = Path("minisam-results") / "cifar10-smoke-again"
    assert (folder / "report.html").exists()
    assert main(again) == 1
    assert f"{folder} already has results, which would only be read again" in capsys.readouterr().err
    for file in folder.glob("*.*"):  # as if it had been interrupted after its runs
        file.unlink()
    assert main(again) == 0
    assert f"What was in {folder / 'runs'} before, of an interrupted repetition, was read" in capsys.readouterr().out

    results = json.loads(Path("out/results.json").read_text(encoding="utf-8"))
    results["runs"][0]["weights"] = "0" * 64
    results["runs"][0]["test_error"] += 1e-16
    results["runs"][1]["geometry"]["worst"][-1] *= 1 + 1e-15
    results["runs"][2]["seconds"] = 1e9  # need not be the same again
    results["environment"] |= {"numpy": "1.0", "cores": "64"}
    Path("other.json").write_text(json.dumps(results), encoding="utf-8")
    assert main(["reproduce", "--from", "other.json", "--jobs", "1", "--out", "two"]) == 1
    out, err = capsys.readouterr()
    differing = re.findall(r"^mlp, noise (\S+), (.+), seed 0: (.*)$", out, re.MULTILINE)
    assert [(noise, name) for noise, name, _ in differing] == [("0", "GD"), ("0", "Momentum")]
    assert differing[0][2].startswith("weights was 0000")
    assert "geometry's worst was" in differing[1][2]
    assert re.search(r"minisam: error: 2 of 3 runs differ, perhaps because numpy was 1.0, is [\d.]+$", err.strip())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda results: results.pop("runs"), "bad.json is not a results.json, or it is damaged \\(no 'runs'\\)"),
        (lambda results: results["runs"].clear(), r"damaged \(no runs\)"),
        (lambda results: results["runs"][0]["config"].update(lr="fast"), "lr must be float or NoneType, got 'fast'"),
        (lambda results: results["runs"][0]["config"].update(speed=9), "unknown option 'speed'"),
        (lambda results: results["runs"][0].update(n_train=0), "n_train must be an integer ≥ 1, got 0"),
        (lambda results: results["dataset"].update(checksum="ff" * 32), "of images with checksum f{16}…, these have"),
        (lambda results: results["dataset"].update(name="mnist"), "name: expected one of cifar10, .*, got 'mnist'"),
    ],
)
def test_results_that_cannot_be_repeated(tmp_path, change, message, capsys):
    path = Path(__file__).parents[1] / "benchmarks" / "results" / "quick" / "results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    results["dataset"] |= {"name": "synthetic"}
    change(results)
    Path("bad.json").write_text(json.dumps(results), encoding="utf-8")
    assert main(["reproduce", "--from", "bad.json"]) == 1
    err = capsys.readouterr().err
    assert re.search(rf"minisam: error: .*(?<!\w){message}", err)
    assert main(["reproduce", "--from", "bad.json", "--preset", "quick"]) == 1
    assert "--from takes the preset and the seeds from its file" in capsys.readouterr().err
    assert not Path("minisam-results").exists()


def test_with_no_data_synthetic_images_are_announced_everywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("minisam.cli.reproduce.PRESETS", {"quick": tiny})
    assert main(["reproduce"]) == 0
    captured = capsys.readouterr()
    folder = tmp_path / "minisam-results" / "synthetic-quick"
    for text in (captured.err, captured.out, (folder / "report.html").read_text(encoding="utf-8")):
        assert "SYNTHETIC images, not CIFAR" in text
        assert "minisam data --fetch cifar10" in text
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (results["dataset"]["name"], results["dataset"]["synthetic"]) == ("synthetic", True)


def test_data_lists_what_is_there(archive, capsys):
    assert main(["data", "--data-dir", str(archive)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"cifar10 +1,200 training +300 test +.*cifar-10-batches-bin", out)
    assert "synthetic         4,000 training  10,000 test  embedded: drawn on demand\n" in out
    assert "cifar100        not found: `minisam data --fetch cifar100` downloads it" in out
    assert "--fetch cifar10`" not in out
    assert main(["data"]) == 0
    assert "cifar10         not found: `minisam data --fetch cifar10` downloads it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --lr 0", "lr must be a finite number above 0, got 0.0"),
        ("train --optimizer sam --rho -1", "rho must be a finite number ≥ 0, got -1.0"),
        ("train --noise 2", r"noise must be in \[0, 1\], got 2.0"),
        ("train --noise 40", r"noise must be in \[0, 1\], got 40.0: did you mean 0.4\?$"),
        ("train --noise 400", r"noise must be in \[0, 1\], got 400.0$"),
        ("train --dataset synthetic --n-train 99 --weight-decay 1e39", r"lower --lr .* --weight-decay \(now 1e\+39\)"),
        ("train --dataset synthetic --n-train 99 --l1 1e38", r"lower --lr \(now 0.01\) or --l1 \(now 1e\+38\), or add"),
        ("train --dataset synthetic --n-train 99 --optimizer gsam --alpha 1e30", r"or --alpha \(now 1e\+30\), or add"),
        ("train --dataset synthetic --batch-size 5000", "batch_size must be 1 to 4000, got 5000"),
        ("train --dataset synthetic --n-train 5000", "n_train between 1 and 4000"),
        ("train --dataset cifar100", "cifar100 not found in .* --fetch cifar100"),
        ("train --data-dir nowhere", "data_dir names nowhere, which is not there"),
        ("data --data-dir nowhere", "data_dir names nowhere, which is not there"),
        ("reproduce --dataset synthetic --out file", "can't write to output folder file: it is a file"),
        ("train --save .npz", "expected a name ending in .npz, got .npz: did you mean model.npz"),
        ("evaluate ~/no-such-model.npz", f"{re.escape(os.path.expanduser('~'))}.no-such-model.npz"),
        ("train --threads 0", "threads must be an integer ≥ 1, got 0"),
        ("train --dataset synthetic --lr 1e9 --optimizer gd", "the loss became .* lower --lr"),
        ("reproduce --seeds 0", "seeds must be an integer ≥ 1, got 0"),
        ("reproduce --dataset synthetic --dask=", "(missing port number|pip install distributed)"),
        ("reproduce --jobs 0", "jobs must be an integer ≥ 1, got 0"),
        ("reproduce --out file/sub", "file/sub"),
        ("reproduce --preset cifar100 --dataset cifar10", "cifar100 needs cifar100, got --dataset cifar10"),
        ("evaluate missing.npz", "missing.npz"),
        ("evaluate file", "file is damaged, or no .npz file"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow, when the loss diverges
def test_bad_input_is_one_line_and_exit_code_1(tmp_path, words, message, capsys):
    (tmp_path / "file").write_text("")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert main(words.split()) == 1
    err = capsys.readouterr().err.strip().splitlines()[-1].split("\r")[-1]
    assert re.search(rf"minisam: error: .*(?<!\w){message}", err)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_truncated_file_is_named(archive, capsys):
    path = archive / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["train", "--data-dir", str(archive)]) == 1
    assert "test_batch.bin: expected a multiple of 3073 bytes" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to consoles, not to processes")
@pytest.mark.parametrize(("jobs", "sent", "code"), [("1", signal.SIGINT, 130), ("2", signal.SIGTERM, 143)])
def test_a_sweep_that_is_interrupted_ends_quietly_and_keeps_what_is_finished(tmp_path, few_images, jobs, sent, code):
    command = [*COMMAND, "reproduce", "--preset", "smoke", *few_images, "--jobs", jobs, "--out", "out"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    seen = ""
    while not (first := re.search(r" 1/(\d+) runs", seen)):  # until the first run is finished
        letter = process.stderr.read(1)
        assert letter, seen  # or it has ended
        seen += letter
    for _ in range(5):  # an impatient user
        process.send_signal(sent)
        time.sleep(0.1)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (code, -sent), err  # a shell calls both 128 + the signal's number
    assert err.strip().splitlines()[-1].split("\r")[-1].endswith("minisam: interrupted")
    assert "Traceback" not in err
    assert "Exception" not in err
    (runs,) = (tmp_path / "out").iterdir()
    names = [path.name for path in runs.iterdir() if path.name != ".lock"]
    assert any(re.fullmatch(r"mlp-gd-seed\d-\w{16}\.npz", name) for name in names)
    assert not any(name.startswith(".") for name in names)  # nothing half-written
    assert len([name for name in names if name.endswith(".npz")]) < int(first[1])  # it did not finish the sweep first


def test_a_mistake_of_our_own_is_one_line_that_says_where(monkeypatch, capsys):
    monkeypatch.setattr("minisam.cli.data.run", lambda _: {}["no such\nkey"])
    assert main(["data"]) == 1
    told = r"a mistake in minisam, please report it: KeyError\('no such\\nkey'\) in test_cli.py, line \d+"
    assert re.fullmatch(f"minisam: error: {told}\n", capsys.readouterr().err)


HALF_MADE = """
import sys, warnings
import numpy as np
from minisam import cli

class Bar:
    def __init__(self):
        np.float32(1e30) * np.float32(1e30)
        warnings.warn("glyph")
        raise KeyboardInterrupt

    def __del__(self):
        self.position

cli.data.run = lambda args: Bar()
sys.argv[1:] = ["data"]
sys.exit(cli.main())
"""


@pytest.mark.parametrize(("option", "shown"), [("", False), ("-Walways", True)])
def test_an_interrupted_command_says_nothing_more(option, shown):
    command = [sys.executable, *option.split(), "-c", HALF_MADE]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 130
    assert ended.stderr.endswith("minisam: interrupted\n")
    assert ("glyph" in ended.stderr) == shown  # only if somebody asks
    assert "overflow" not in ended.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the current folder from being deleted")
def test_a_current_folder_that_was_deleted_is_named(tmp_path, capsys):
    Path("gone").mkdir()
    os.chdir("gone")
    (tmp_path / "gone").rmdir()
    for words in (["train", "--dataset", "synthetic"], ["reproduce"], ["data"], ["toy"]):
        assert main(words) == 1
        assert "the current folder is no longer there (No such file" in capsys.readouterr().err
    os.chdir(tmp_path)


@pytest.mark.parametrize(("haste", "tidied"), [(60, [1, 2]), (0, [1])])
def test_a_hasty_second_ctrl_c_does_not_stop_the_tidying_up(haste, tidied, monkeypatch, capsys):
    def run(args):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            done.append(1)
            signal.raise_signal(signal.SIGINT)
            done.append(2)

    done = []
    monkeypatch.setattr("minisam.cli.HASTE", haste)
    monkeypatch.setattr("minisam.cli.data.run", run)
    before = signal.getsignal(signal.SIGINT)
    assert main(["data"]) == 130
    assert done == tidied
    assert capsys.readouterr().err == "minisam: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before  # who calls main may have a use for it


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to consoles, not to processes")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_late_signal_does_not_interrupt_the_end_of_the_interpreter(sent):
    end = f"atexit.register(lambda: (signal.raise_signal({sent:d}), print('tidied')))"
    code = f"import atexit, signal, sys\nfrom minisam.cli import main\n{end}\nsys.argv[1:] = ['data']\nsys.exit(main())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("tidied\n")


@pytest.mark.parametrize("optimizer", FAMILY)
def test_every_member_trains_with_diagnostics(tmp_path, archive, optimizer, capsys):
    common = ["--dataset", "cifar10", "--data-dir", str(archive), "--n-train", "100", "--epochs", "1"]
    assert main(["train", *common, "--optimizer", optimizer, "--diagnostics", "inside.png"]) == 0
    number = r"-?\d[\d.e+-]*"
    lines = [f"  {name:<15} {number}" for name in ("gradient norm", "cosine", "predicted rise", "measured rise")]
    shares = [f"{layer} {number}" for layer in ("1 Linear", "3 Linear", "5 Linear")]
    text = "\n".join(("Diagnostics of the last epoch:", *lines, f"  {'share':<15} {', '.join(shares)}\n"))
    assert re.search(text, capsys.readouterr().out)
    assert Path("inside.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--optimizer momentum --rho 0.1", "rho is for sam, .*, got optimizer momentum"),
        ("--optimizer sam --alpha 0.1", "alpha is for gsam, looksam, got optimizer sam"),
        ("--optimizer asam --p inf", "p is for sam, gsam, looksam, got optimizer asam"),
        ("--optimizer sam --p 0.5", "p must be a number ≥ 1, or infinity, got 0.5"),
        ("--optimizer friendly-sam --ascent-steps 2", "ascent_steps is for .*, got optimizer friendly-sam"),
        ("--optimizer adam --momentum 0.5", "momentum is for momentum, got optimizer adam"),
        ("--optimizer sam --base gd --nesterov", "nesterov is for momentum, got optimizer gd"),
        ("--schedule constant --warmup 1", "warmup is for cosine, got schedule constant"),
        ("--optimizer looksam --m 8", "m is for .*, got optimizer looksam"),
        ("--micro-batch 65", "micro_batch must be at most batch_size 64, got 65"),
        ("--optimizer sam --m 65", "m must be at most batch_size 64, got 65"),
        ("--optimizer sam --m 17 --micro-batch 16", "m must be at most micro_batch 16, got 17"),
    ],
)
def test_options_of_another_optimizer_are_refused(words, message, capsys):
    assert main(["train", *words.split()]) == 1
    assert re.search(message, capsys.readouterr().err)
