"""Every reader against damaged and hostile files: the right answer, or an error that says what is wrong.

MINISAM_FUZZ=100000 pytest tests/test_fuzz.py tries this many inputs, and keeps exploring; failures stay
in .hypothesis for the next run.
"""

import gzip
import io
import json
import os
import struct
import sys
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cifar import VERSIONS, official_files, write_archive, write_folder

from minisam.data import Normalisation, load_cifar, synthetic
from minisam.nn import build
from minisam.study import Outcome
from minisam.study.comparison import Repeat, reproduce
from minisam.study.experiments import Experiment
from minisam.study.kinds import Arm
from minisam.study.sweep import Store, Task
from minisam.training import Checkpoints, Config, Model, load_model
from minisam.training.checkpoint import State
from minisam.training.config import make_optimizer
from minisam.training.files import parse_json

INPUTS = int(os.environ.get("MINISAM_FUZZ", "2000"))
MEMORY = 64 << 20  # bytes a reader may take for files of about 10 kB
LINES = 100_000  # of Python that it may run; for a whole file that is 12,000 at most

# --- damage ---------------------------------------------------------------------------------------

NUMBERS = [0, 1, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
ODD = [None, True, False, 0, -1, 1.5, 2**31, 2**63, 10**30, float("nan"), float("inf"), "", "x" * 5000, "a\nb\x1b[31m",
       [], {}, [[]], [None] * 50, {"a": {}}, "mlp", "résumé", -0.0, 1e308]  # fmt: skip


def mutate(raw, rng):
    """Bytes with a few bits, bytes, words or pieces of them changed, repeated, deleted or swapped."""
    data = bytearray(raw)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(data))) if data else 0
        end = at + int(rng.integers(1, 1 + min(len(data), 200))) if data else 0
        match rng.integers(8):
            case 0 if data:
                data[at] ^= 1 << int(rng.integers(8))
            case 1 if data:
                data[at] = int(rng.integers(256))
            case 2:
                width, order = rng.choice([1, 2, 4, 8]), rng.choice(["<", ">"])
                number = NUMBERS[rng.integers(len(NUMBERS))] % 256 ** int(width)
                data[at : at + width] = struct.pack(order + "BHIQ"[int(width).bit_length() - 1], number)
            case 3:
                del data[at:]
            case 4:
                del data[at:end]
            case 5:
                data[at:at] = data[at:end] * int(rng.integers(1, 4))
            case 6:
                data[at:at] = rng.bytes(int(rng.integers(1, 50)))
            case 7 if data:
                other = int(rng.integers(len(data)))
                data[at:end], data[other : other + end - at] = data[other : other + end - at], data[at:end]
    return bytes(data)


def mutate_tree(value, rng):
    """A JSON value with something in it replaced, deleted or added."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key, copy = keys[rng.integers(len(keys))], value.copy()
        match rng.integers(8):
            case 0:
                del copy[key]
            case 1 if isinstance(copy, dict):
                copy[f"{key}'" * int(rng.choice([1, 500]))] = copy[key]
            case _:
                copy[key] = mutate_tree(value[key], rng)
        return copy
    return ODD[rng.integers(len(ODD))]


def mutate_json(raw, rng):
    text = json.dumps(mutate_tree(json.loads(raw), rng))
    return ("[" * 100_000 if rng.random() < 0.02 else text).encode()


def mutate_npz(raw, rng):
    """An archive with altered contents but correct checksums."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = list(members)[rng.integers(len(members))]
    match rng.integers(4):
        case 0 if "about.npy" in members:
            about = json.loads(str(np.load(io.BytesIO(members["about.npy"]))))
            stream = io.BytesIO()
            np.save(stream, np.array(json.dumps(mutate_tree(about, rng))))
            members["about.npy"] = stream.getvalue()
        case 1:
            members[name] = mutate(members[name][:128], rng) + members[name][128:]  # its header
        case 2:
            del members[name]
        case _:
            members[name] = mutate(members[name], rng)
    out = io.BytesIO()
    how = [zipfile.ZIP_STORED] * 7 + [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    with zipfile.ZipFile(out, "w", how[rng.integers(len(how))]) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def mutate_tar(raw, rng):
    """An intact .gz of a damaged .tar, often with a correct checksum in the damaged header."""
    tar = bytearray(gzip.decompress(raw))
    header = 512 * int(rng.choice([i for i in range(len(tar) // 512) if tar[512 * i + 257 :][:5] == b"ustar"]))
    tar[header : header + 512] = mutate(bytes(tar[header : header + 512]), rng)[:512].ljust(512, b"\0")
    if rng.random() < 0.5:
        tar[header + 156] = int(rng.choice(np.frombuffer(b"0123456LKSxgVNMDIE7", np.uint8)))  # another kind of member
    if rng.random() < 0.7:
        tar[header + 148 : header + 156] = b" " * 8
        tar[header + 148 : header + 156] = b"%06o\0 " % sum(tar[header : header + 512])
    return gzip.compress(bytes(tar) if rng.random() < 0.8 else mutate(bytes(tar), rng), 1, mtime=0)


# --- readers --------------------------------------------------------------------------------------


def read_cifar(name):
    def read(path):
        data = load_cifar(name, path.parent if path.suffix != ".gz" else path)
        for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
            assert (x.dtype, x.shape[1:], len(x)) == (np.uint8, (32, 32, 3), len(y))
            assert y.dtype == np.int64
            assert y.min() >= 0
            assert y.max() < len(data.classes)

    return read


def read_model(path):
    model = load_model(path)
    assert (model.theta.shape, model.theta.dtype) == ((model.net.n_params,), np.float32)
    assert model.predict(np.zeros((1, *model.net.input_shape), np.uint8)).shape == (1,)


CONFIG = Config(model="cnn", optimizer="gsam", base="adam", epochs=3)
CLASSES = ("cat", "dog")


def small_model(seed=0):
    net = build("cnn", (8, 8, 1), 2)
    theta = net.init(np.random.default_rng(seed))
    return Model(CONFIG, net, theta, net.init_stats(), CLASSES, Normalisation((1.0,), (2.0,)))


def state(epochs=0):
    optimizer = make_optimizer(CONFIG, 5)
    optimizer.base.t = 5 * epochs
    optimizer.base.m = optimizer.base.v = small_model().theta if epochs else None
    record = {"lr": 0.1, "seconds": 1.0, "loss": 1.0, "accuracy": 0.5}
    history = [record | {"epoch": i + 1, "gradient_evaluations": 10 * i + 10} for i in range(epochs)]
    return State(small_model(epochs), optimizer, history, [])


RUN = asdict(CONFIG) | {"diagnostics": False, "path": False, "evaluate_every": 0, "data": "0" * 64}


def read_checkpoint(path):
    fresh = state()
    Checkpoints(path.parent.with_name("m.npz"), every=1).restore(fresh, RUN)
    assert len(fresh.history) in (0, 1, 2, 3)
    assert [epoch["epoch"] for epoch in fresh.history] == [1, 2, 3][: len(fresh.history)]
    m = fresh.optimizer.base.m
    assert m is None or m.shape == fresh.model.theta.shape
    if not fresh.history:
        assert fresh.optimizer.base.t == 0
        raise ValueError("passed over")


@pytest.mark.parametrize("epochs", [[1, 2, 3, 4], [1, 3], [2], []])
def test_a_history_of_other_epochs_than_a_run_of_three_can_have_is_damage(tmp_path, epochs, capsys):
    checkpoints, kept, fresh = Checkpoints(tmp_path / "m.npz", every=1), state(4), state()
    kept.history[:] = [kept.history[epoch - 1] for epoch in epochs]
    checkpoints.keep(kept, RUN)
    checkpoints.restore(fresh, RUN)
    assert fresh.history == []
    assert "the epochs of its history do not count from 1" in capsys.readouterr().err


TASK = Task(Config(epochs=1), 0, 0, "cifar10", 4, 3, "0" * 64)
IMAGES = synthetic(4, 3)


def read_run(path):
    outcome = Store(path.parent).load(TASK, IMAGES)
    if outcome is None:
        raise ValueError("done again")
    assert outcome.diverged or outcome.predictions.shape == (3,)


def read_results(path):
    repeat = Repeat.of(path)
    assert all(isinstance(run.config, Config) for run in repeat.experiment.runs())
    assert repeat.differences(repeat.before) == []


def read_config(path):
    assert isinstance(Config.of(parse_json(path.read_bytes())), Config)


def seeds(folder):
    """Whole files of every kind: reader → (reading function, path, its bytes, how to damage those bytes)."""
    found = {}

    def add(name, read, path, *mutations):
        found[name] = read, path, path.read_bytes(), (mutate, *mutations)

    for family in ("cifar10", "cifar100"):
        part = write_folder(folder / family, *official_files(family))
        name = {"cifar10": "data_batch_1.bin", "cifar100": "train.bin"}[family]
        add(f"{family} binary", read_cifar(family), part / name)
        add(f"{family} archive", read_cifar(family), write_archive(folder / f"{family}-gz", *official_files(family)),
            mutate_tar, mutate_tar)  # fmt: skip
        for version in ("python2", "python3-protocol4", "python3-arrays"):
            part = write_folder(folder / f"{family}-{version}", *official_files(family, VERSIONS[version]))
            name = {"cifar10": "data_batch_1", "cifar100": "train"}[family]
            add(f"{family} pickle, {version}", read_cifar(family), part / name)
            name = {"cifar10": "batches.meta", "cifar100": "meta"}[family]
            part = write_folder(folder / f"{family}-{version}-names", *official_files(family, VERSIONS[version]))
            add(f"{family} names, {version}", read_cifar(family), part / name)
    Checkpoints(folder / "checkpoint" / "m.npz", every=1).keep(state(2), RUN)
    path = folder / "checkpoint" / "m.checkpoints" / "epoch-0002.npz"
    add("checkpoint", read_checkpoint, path, mutate_npz, mutate_npz)
    (folder / "model.npz").write_bytes(path.read_bytes())
    add("model", read_model, folder / "model.npz", mutate_npz, mutate_npz)
    record = {"config": TASK.config.record(), "environment": {}, "test_error": 0.0, "train_error": 0.25, "seconds": 1.0}
    history = [state(1).history[0] | {"test_error": 0.0}]
    record |= {"gradient_evaluations": 10, "history": history, "weights": "0" * 64, "geometry": None}
    Store(folder / "runs").keep(TASK, Outcome(record, IMAGES.y_test.astype(np.uint8)))
    add("stored run", read_run, next((folder / "runs").glob("*.npz")), mutate_npz, mutate_npz)
    arm = Arm("SAM", 32, Config(optimizer="sam", epochs=1, batch_size=32))
    results, _ = reproduce(Experiment("ingredients", (arm,), (("SAM", "SAM"),), seeds=2), synthetic(32, 8))
    (folder / "results.json").write_text(json.dumps(results))
    add("results.json", read_results, folder / "results.json", mutate_json, mutate_json)
    (folder / "config.json").write_text(json.dumps(asdict(CONFIG)))
    add("configuration", read_config, folder / "config.json", mutate_json, mutate_json, mutate_json)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return seeds(tmp_path_factory.mktemp("fuzz"))


NAMES = [f"{family} {part}" for family in ("cifar10", "cifar100") for part in (
    "archive", "binary", "names, python2", "names, python3-protocol4", "names, python3-arrays",
    "pickle, python2", "pickle, python3-protocol4", "pickle, python3-arrays"
)]  # fmt: skip
NAMES += ["checkpoint", "configuration", "model", "results.json", "stored run"]


class Endless(BaseException):
    """Not an Exception: readers catch those, and take them for damage."""


@contextmanager
def at_most(lines):
    """Raise Endless in what goes on for more lines of Python.

    A clock would measure the machine and what else it is doing; lines are about as many everywhere, and
    a loop without an end is stopped instead of waited for. The time inside one call of C is not seen.
    """
    left, before = lines, sys.gettrace()

    def watch(frame, event, argument):
        nonlocal left
        left -= event == "line"
        if left < 0:
            raise Endless
        return watch

    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


def attempt(read, path):
    """What becomes of a file: "read" or "refused"; anything else is a failure."""
    tracemalloc.start()
    try:
        with at_most(LINES):
            read(path)
        outcome = "read"
    except Endless:
        raise AssertionError(f"more than {LINES} lines of Python for a file of {path.stat().st_size} bytes") from None
    except (ValueError, OSError) as error:
        outcome, text = "refused", str(error)
        assert text
        assert text.isprintable()  # one line, without escape codes
        assert len(text) < 600 + 2 * len(str(path)), text
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MEMORY, f"{peak >> 20} MB for a file of {path.stat().st_size} bytes"
    return outcome


def test_a_reader_that_never_ends_is_stopped(tmp_path):
    def read(path):
        while True:
            try:
                path.read_bytes()
            except Exception as error:
                raise ValueError("damaged") from error

    (tmp_path / "file").write_bytes(b"")
    before = sys.gettrace()
    with pytest.raises(AssertionError, match=f"more than {LINES} lines of Python for a file of 0 bytes"):
        attempt(read, tmp_path / "file")
    assert sys.gettrace() is before


def test_whole_files_are_read(files):
    assert set(files) == set(NAMES)
    for read, path, raw, _ in files.values():
        path.write_bytes(raw)
        assert attempt(read, path) == "read"


@pytest.mark.filterwarnings("ignore")  # zipfile warns of names, NumPy of versions; an error follows
@pytest.mark.parametrize("name", NAMES)
def test_damage_is_read_rightly_or_refused(files, name, record_property):
    read, path, raw, mutations = files[name]
    counts = Counter()

    def damaged(how_and_seed):
        how, seed = how_and_seed
        return how(raw, np.random.default_rng(seed))

    mutated = st.tuples(st.sampled_from(mutations), st.integers(0, 2**32 - 1)).map(damaged)

    @settings(max_examples=INPUTS // len(NAMES) + 1, suppress_health_check=list(HealthCheck))
    @given(content=st.one_of(mutated, mutated, mutated, st.binary(max_size=2000)))
    def try_one(content):
        path.write_bytes(content)
        counts[attempt(read, path)] += 1

    try_one()
    path.write_bytes(raw)
    record_property("fuzz", (name, counts["read"], counts["refused"]))
    assert counts["refused"]  # otherwise it was no damage


def npy(header, rest=b""):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + rest


def archive_of(content, how=zipfile.ZIP_STORED, name="theta.npy"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def sparse_tar():
    """A 200 MB member in GNU's format for files with holes: all of it a hole, it takes 512 bytes."""
    header = bytearray(tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:482] = (b"%011o\0" % (200 << 20) + b"%011o\0" % 0).ljust(96, b"\0")
    header[483:495] = b"%011o\0" % (200 << 20)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return gzip.compress(bytes(header) + bytes(1024))


CLAIMS = b"{'descr': '%s', 'fortran_order': False, 'shape': (%d,)}"
TEXT = b"{'descr': '<U2', 'fortran_order': False, 'shape': ()}"
LARGE = {
    "a bytearray of 2 GB": ("cifar10 pickle, python2", b"\x80\x05\x96" + struct.pack("<Q", 1 << 31) + b"."),
    "an array of 2 GB": ("cifar10 pickle, python3-arrays", b"\x80\x05cnumpy._core.numeric\n_frombuffer\n(\x96" +
                         struct.pack("<Q", 1 << 31) + b"tR."),
    "a file of holes": ("cifar10 archive", sparse_tar()),
    "zeros, packed": ("cifar10 archive", gzip.compress(bytes(200 << 20))),
    "2^31 numbers": ("model", archive_of(npy(CLAIMS % (b"<f4", 1 << 31)))),
    "2^31 texts of no length": ("model", archive_of(npy(CLAIMS % (b"<U0", 1 << 31)))),
    "a text of 2^31 letters": ("checkpoint", archive_of(npy(CLAIMS % (b"<U2147483647", 0)))),
    "letters that are none": ("stored run", archive_of(npy(TEXT, struct.pack("<2I", 0x110000, 0)), name="about.npy")),
    "an archive that grows": ("stored run", archive_of(bytes(1 << 28), zipfile.ZIP_LZMA)),
    "deep nesting": ("results.json", b"[" * 1_000_000),
    "many digits": ("configuration", b'{"lr": ' + b"9" * 1_000_000 + b"}"),
}  # fmt: skip


@pytest.mark.parametrize("what", LARGE)
def test_what_a_file_claims_is_not_believed(files, what):
    name, content = LARGE[what]
    read, path, raw, _ = files[name]
    path.write_bytes(content)
    assert attempt(read, path) == "refused"
    path.write_bytes(raw)
