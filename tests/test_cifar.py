"""CIFAR in every official version, found in every place, and refused when damaged or hostile."""

import gzip
import io
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisam.data import cifar, load, sources
from minisam.data.cifar import LABELS, LAYOUTS, available, find_cifar, load_cifar
from minisam.data.records import unpickle


def py2(value):
    """Pickle as Python 2 and NumPy 1 did with protocol 2: every string is bytes."""
    match value:
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            return b"J" + struct.pack("<i", value)
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case str():
            return py2(value.encode())
        case tuple():
            return b"(" + b"".join(map(py2, value)) + b"t"
        case list():
            return b"](" + b"".join(map(py2, value)) + b"e"
        case dict():
            return b"}(" + b"".join(py2(k) + py2(v) for k, v in value.items()) + b"u"
    dtype = b"cnumpy\ndtype\n" + py2(("u1", 0, 1)) + b"R"
    dtype += py2((3, "|", None, None, None, -1, -1, 0)) + b"b"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + py2((0,)) + py2("b") + b"tR"
    fortran = value.flags.fnc
    raw = value.tobytes("F" if fortran else "C")
    return array + b"(" + py2(1) + py2(value.shape) + dtype + py2(fortran) + py2(raw) + b"tb"


def with_arrays(value):
    """The labels as an array, too, as many a tool keeps them."""
    return {key: np.array(v) if type(v) is list and type(v[0]) is int else v for key, v in value.items()}


def other_numpy(raw):
    """A pickle in protocol 5 as the other NumPy writes it, 1 instead of 2: a module has another name."""
    names = [b"\x12numpy.core.numeric", b"\x13numpy._core.numeric"]
    old, new = names if names[0] in raw else names[::-1]
    assert raw[2:3] == pickle.FRAME  # a length, which pickles need not have
    return raw[:2] + raw[11:].replace(old, new)


VERSIONS = {
    "binary": None,
    "python2": lambda value: b"\x80\x02" + py2(value) + b".",
    "python3-protocol2": lambda value: pickle.dumps(value, 2),
    "python3-protocol4": lambda value: pickle.dumps(value, 4),
    "python3-protocol5": lambda value: pickle.dumps(value, 5),
    "python3-other-numpy": lambda value: other_numpy(pickle.dumps(value, 5)),
    "python3-arrays": lambda value: pickle.dumps(with_arrays(value), 5),
    "python3-arrays-protocol4": lambda value: pickle.dumps(with_arrays(value), 4),
}


def made_up(n, seed):
    """Images (n, 32, 32, 3), labels (n,) below 10, and other labels (n,) from 10 to 19."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
    return x, rng.integers(0, 10, n), rng.integers(10, 20, n)


TRAIN, TEST = made_up(4, 1), made_up(3, 2)


def official_files(family, dump=None, train=TRAIN, n_batches=1):
    """The layout and the contents of its files; `dump` writes the pickles, None means binary."""
    layout = LAYOUTS[family][dump is not None]
    names = [name for name in LABELS if name.removesuffix("-coarse") == family]
    parts = [[part[k::n_batches] for part in train] for k in range(n_batches)]
    files = {}
    for file, part in [*zip(layout.train, parts, strict=False), (layout.test, TEST)]:
        x, fine, coarse = part
        planes = x.transpose(0, 3, 1, 2).reshape(len(x), 3072)
        labels = {"cifar100-coarse": coarse, "cifar100": fine, "cifar10": fine}
        if dump:
            lists = {LABELS[name].key: labels[name].tolist() for name in names}
            files[file] = dump({"data": planes, "filenames": ["a.png"] * len(x), **lists})
        else:
            columns = [labels[name][:, None] for name in sorted(names, reverse=True)]
            files[file] = np.hstack([*columns, planes]).astype(np.uint8).tobytes()
    classes = {name: [f"{name}_{k}" for k in range(LABELS[name].n_classes)] for name in names}
    if dump:
        files[layout.meta] = dump({LABELS[name].names_key: classes[name] for name in names})
    for name in names if not dump else ():
        files[LABELS[name].names_file] = ("\n".join(classes[name]) + "\n\n").encode()
    return layout, files


def write_folder(place, layout, files):
    folder = place / layout.folder
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def write_archive(place, layout, files, *others):
    place.mkdir(exist_ok=True)
    with tarfile.open(place / layout.archive, "w:gz") as archive:
        for file, content in files.items():
            member = tarfile.TarInfo(f"{layout.folder}/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in others:
            archive.addfile(member)
    return place / layout.archive


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path, monkeypatch):
    """Keep the tests from finding this computer's own data."""
    monkeypatch.delenv("MINISAM_DATA", raising=False)
    monkeypatch.setattr(cifar, "cache_dir", lambda: tmp_path / "cache")


@pytest.mark.parametrize("write", [write_folder, write_archive])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", LABELS)
def test_every_version_gives_the_same_data(tmp_path, name, version, write):
    layout, files = official_files(name.removesuffix("-coarse"), VERSIONS[version])
    path = write(tmp_path, layout, files)
    for data_dir in (tmp_path, path, str(path)):
        data = load_cifar(name, data_dir)
        for x, y, (images, *labels) in ((data.x_train, data.y_train, TRAIN), (data.x_test, data.y_test, TEST)):
            assert x.dtype == np.uint8
            assert x.flags.c_contiguous
            np.testing.assert_array_equal(x, images)
            assert y.dtype == np.int64
            np.testing.assert_array_equal(y, labels[name == "cifar100-coarse"])
        assert data.classes == tuple(f"{name}_{k}" for k in range(LABELS[name].n_classes))
        assert data.name == name
        assert data.source == f"{path.name}: {layout.train[0]}, {layout.test}"
        assert not data.synthetic


def test_fortran_ordered_pickle_is_read_in_its_order(tmp_path):
    def dump(value):
        if "data" in value:
            value = {**value, "data": np.asfortranarray(value["data"])}
        return VERSIONS["python2"](value)

    write_folder(tmp_path, *official_files("cifar10", dump))
    np.testing.assert_array_equal(load_cifar("cifar10", tmp_path).x_train, TRAIN[0])


@pytest.mark.parametrize("version", VERSIONS)
def test_batches_are_joined_in_order_and_may_be_fewer(tmp_path, version):
    layout, files = official_files("cifar10", VERSIONS[version], n_batches=3)
    write_archive(tmp_path, layout, dict(reversed(files.items())))
    expected = np.concatenate([TRAIN[0][k::3] for k in range(3)])
    np.testing.assert_array_equal(load_cifar("cifar10", tmp_path).x_train, expected)
    del files[layout.train[1]]
    write_archive(tmp_path, layout, files)
    expected = np.concatenate([TRAIN[0][0::3], TRAIN[0][2::3]])
    np.testing.assert_array_equal(load_cifar("cifar10", tmp_path).x_train, expected)


def test_checksum_names_the_numbers_not_the_file(tmp_path):
    write_folder(tmp_path / "all", *official_files("cifar10"))
    subset = [part[:2] for part in TRAIN]
    write_archive(tmp_path / "subset", *official_files("cifar10", VERSIONS["python2"], subset))
    full, small = (load_cifar("cifar10", tmp_path / place) for place in ("all", "subset"))
    assert full.first(n_train=2).checksum == small.checksum != full.checksum
    pixels = full.x_train.copy()
    pixels[-1, -1, -1, -1] ^= 1
    others = [
        full.first(n_test=2),
        replace(full, x_train=pixels),
        replace(full, x_test=255 - full.x_test),
        replace(full, y_train=full.y_train + 1),
        replace(full, y_test=full.y_test + 1),
    ]
    assert len({data.checksum for data in (full, *others)}) == 6
    blank = replace(full, x_train=full.x_train * 0, y_train=full.y_train * 0,
                    x_test=full.x_train * 0, y_test=full.y_train * 0)  # fmt: skip
    assert blank.first(n_train=1, n_test=2).checksum != blank.first(n_train=2, n_test=1).checksum
    assert replace(full, name="x", source="y", classes=()).checksum == full.checksum
    big_endian = {name: getattr(full, name).astype(">i8") for name in ("y_train", "y_test")}
    assert replace(full, **big_endian).checksum == full.checksum


@pytest.mark.parametrize(("argument", "n"), [("n_train", 5), ("n_test", 4), ("n_train", 0)])
def test_first_refuses_more_than_there_is(tmp_path, argument, n):
    write_folder(tmp_path, *official_files("cifar10"))
    with pytest.raises(ValueError, match=rf"{argument} .*got {n}$"):
        load_cifar("cifar10", tmp_path).first(**{argument: n})


def test_search_order(tmp_path, monkeypatch):
    sizes = {"given": 1, "variable": 2, "cache": 3}
    for place, n in sizes.items():
        write_folder(tmp_path / place, *official_files("cifar10", train=[a[:n] for a in TRAIN]))
    assert len(load_cifar("cifar10").y_train) == sizes["cache"]
    monkeypatch.setenv("MINISAM_DATA", str(tmp_path / "variable"))
    assert len(load_cifar("cifar10").y_train) == sizes["variable"]
    assert len(load_cifar("cifar10", tmp_path / "given").y_train) == sizes["given"]
    found = [(path.parent.name, len(data.y_train), len(data.y_test)) for path, data in available()]
    assert found == [("variable", 2, 3), ("cache", 3, 3)]
    monkeypatch.setenv("MINISAM_DATA", str(tmp_path))  # a folder without images
    assert len(load_cifar("cifar10").y_train) == sizes["cache"]
    assert find_cifar("cifar10") == tmp_path / "cache" / "cifar-10-batches-bin"
    (tmp_path / "empty").mkdir()
    assert find_cifar("cifar10", tmp_path / "empty") is None


def test_a_place_that_was_named_is_not_passed_over_in_silence(tmp_path, monkeypatch):
    """Nobody who named a folder wants synthetic images instead."""
    assert load().synthetic
    monkeypatch.setenv("MINISAM_DATA", str(tmp_path / "missing"))
    write_folder(tmp_path / "cache", *official_files("cifar10"))
    for use in (load, lambda: load("cifar10"), lambda: list(available())):
        with pytest.raises(FileNotFoundError, match=r"MINISAM_DATA names .*missing, which is not there: correct it"):
            use()
    with pytest.raises(FileNotFoundError, match=r"data_dir names .*nowhere, which is not there"):
        list(available(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"cifar100-coarse \(or synthetic, in load\), got 'mnist'"):
        load("mnist", tmp_path)
    assert load("synthetic").synthetic
    assert load("cifar10", tmp_path / "cache").name == "cifar10"
    monkeypatch.setenv("MINISAM_DATA", str(tmp_path))  # there, but without images
    assert load().name == "cifar10"  # from the cache
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"\(MINISAM_DATA\).* or --dataset synthetic$"):
        load()


@pytest.mark.parametrize("name", LABELS)
def test_not_found_says_where_it_looked_and_what_to_do(tmp_path, monkeypatch, name):
    (tmp_path / "variable").mkdir()
    monkeypatch.setenv("MINISAM_DATA", str(tmp_path / "variable"))
    write_folder(tmp_path / "cache", *official_files({"cifar10": "cifar100"}.get(name, "cifar10")))
    with pytest.raises(FileNotFoundError) as caught:
        load_cifar(name)
    text = str(caught.value)
    family = name.removesuffix("-coarse")
    for part in (f"{tmp_path / 'variable'} (MINISAM_DATA)", f"{tmp_path / 'cache'} (cache)",
                 *(layout.archive for layout in LAYOUTS[family])):  # fmt: skip
        assert part in text
    assert text.endswith(f"minisam data --fetch {family}, or --dataset synthetic")
    assert "\n" not in text
    # A folder given explicitly is not replaced by another.
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        load_cifar({"cifar10": "cifar100"}.get(name, "cifar10"), tmp_path / "elsewhere")


def test_only_where_nothing_was_asked_for_are_missing_images_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "synthetic", lambda: "made up")
    assert load() == load("synthetic", tmp_path) == "made up"
    for name, folder in ((None, tmp_path), ("cifar10", None), ("cifar100", tmp_path)):
        with pytest.raises(FileNotFoundError, match="not found"):
            load(name, folder)
    write_folder(tmp_path / "cache", *official_files("cifar10"))
    assert load().name == "cifar10"


def test_unknown_name():
    with pytest.raises(ValueError, match=r"^name: expected one of cifar10, .* got 'mnist'$"):
        load_cifar("mnist")


def edited(**entries):
    """A function that replaces entries of a pickled dictionary."""
    return lambda raw: pickle.dumps({**pickle.loads(raw), **entries}, 4)


BINARY, PICKLE = VERSIONS["binary"], VERSIONS["python3-protocol4"]
X = np.zeros((4, 3072), np.uint8)


@pytest.mark.parametrize(
    ("dump", "file", "damage", "message"),
    [
        (BINARY, "data_batch_1.bin", lambda raw: raw[:-1], "multiple of 3073 bytes, got 12291"),
        (BINARY, "data_batch_1.bin", lambda raw: b"", "multiple of 3073 bytes, got 0"),
        (BINARY, "test_batch.bin", lambda raw: b"\x0a" + raw[1:], "0 to 9 in record 0, got 10"),
        (BINARY, "batches.meta.txt", lambda raw: b"cat\ndog\n", "10 class names, got a list of 2"),
        (BINARY, "batches.meta.txt", lambda raw: raw + b"cat\n", "10 class names, got a list of 11"),
        (PICKLE, "data_batch_1", lambda raw: raw[:-9], "it is damaged"),
        (PICKLE, "data_batch_1", lambda raw: b"", "refused"),
        (PICKLE, "data_batch_1", lambda raw: pickle.dumps([1]), "refused"),
        (PICKLE, "data_batch_1", lambda raw: pickle.dumps({"data": X}, 4), "key 'labels', got"),
        (PICKLE, "data_batch_1", lambda raw: pickle.dumps({2: X}, 4), "a string, got 2"),
        (PICKLE, "data_batch_1", edited(data=X[:, 1:]), r"\(N, 3072\), got .*\(4, 3071\)"),
        (PICKLE, "data_batch_1", edited(data=X[:0]), r"\(N, 3072\), got .*\(0, 3072\)"),
        (PICKLE, "data_batch_1", edited(data=np.array(7, np.uint8)), r"got uint8 of shape \(\)"),
        (PICKLE, "data_batch_1", edited(data=[1, 2]), r"\(N, 3072\), got a list of 2"),
        (PICKLE, "data_batch_1", edited(data=X.astype(np.int64)), r"uint8 .*, got int64 of shape \(4, 3072\)"),
        (PICKLE, "data_batch_1", edited(data=X.astype(np.float32)), "dtype 'f4', expected one of u1, i4, i8"),
        (PICKLE, "data_batch_1", edited(data=np.array([print, len])), "refused"),
        (PICKLE, "data_batch_1", edited(labels=[1, 2, 3]), "4 labels, got a list of 3"),
        (PICKLE, "data_batch_1", edited(labels="1234"), "4 labels, got str"),
        (PICKLE, "data_batch_1", edited(labels=np.zeros((4, 1), int)), r"4 labels, got int64 of shape \(4, 1\)"),
        (PICKLE, "data_batch_1", edited(labels=np.full(4, 10)), "0 to 9 in record 0, got 10"),
        (PICKLE, "test_batch", edited(labels=[0, -1, 0]), "0 to 9 in record 1, got -1"),
        (PICKLE, "test_batch", edited(labels=[0, 0, 1.5]), "0 to 9 in record 2, got float"),
        (PICKLE, "test_batch", edited(labels=[0, 1 << 99999, 0]), "0 to 9 in record 1, got int"),
        (PICKLE, "batches.meta", edited(label_names=list(range(10))), "a string, got 0"),
        (PICKLE, "batches.meta", edited(label_names={}), "10 class names, got dict"),
    ],
)  # fmt: skip
def test_damage_is_named(tmp_path, dump, file, damage, message):
    layout, files = official_files("cifar10", dump)
    files[file] = damage(files[file])
    for write in (write_folder, write_archive):
        with pytest.raises(ValueError, match=f"{re.escape(file)}: .*({message})") as caught:
            load_cifar("cifar10", write(tmp_path, layout, files))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [write_folder, write_archive])
@pytest.mark.parametrize("file", ["test_batch.bin", "batches.meta.txt"])
def test_missing_file_is_named(tmp_path, file, write):
    layout, files = official_files("cifar10")
    del files[file]
    with pytest.raises(ValueError, match=f"expected a file {file}, got data_batch_1.bin"):
        load_cifar("cifar10", write(tmp_path, layout, files))


@pytest.mark.parametrize("file", ["data_batch_1.bin", "cifar-10-binary.tar.gz"])
def test_a_folder_named_as_a_file_is_passed_over(tmp_path, file):
    """Both names are looked for before the pickles, which are there."""
    (tmp_path / file).mkdir()
    (tmp_path / "cifar-10-batches-bin" / file).mkdir(parents=True)
    folder = write_folder(tmp_path, *official_files("cifar10", PICKLE))
    assert find_cifar("cifar10", tmp_path) == folder
    assert find_cifar("cifar10", tmp_path / file) is None


def test_folders_among_the_files_are_no_files(tmp_path):
    layout, files = official_files("cifar10")
    del files[layout.test]
    folder = write_folder(tmp_path, layout, files)
    for name in (layout.train[1], layout.test):
        (folder / name).mkdir()
    with pytest.raises(ValueError, match=r"expected a file test_batch\.bin, got data_batch_1\.bin, batches"):
        load_cifar("cifar10", tmp_path)


class Call:
    """Pickles as a call to function(*args)."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def hostile(protocol):
    return lambda path: pickle.dumps({"data": Call(os.mkdir, path), "labels": []}, protocol)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        *((hostile(protocol), rf"load '{os.mkdir.__module__}\.mkdir'") for protocol in range(6)),
        (lambda path: b"(S'%s'\nios\nmkdir\n." % path.encode(), r"load 'os\.mkdir'"),
        (lambda path: b"(cos\nmkdir\nS'%s'\no." % path.encode(), r"load 'os\.mkdir'"),
        (lambda path: pickle.dumps(Call(eval, f"__import__('os').mkdir({path!r})")), "eval"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("file", ["data_batch_1", "batches.meta"])
def test_hostile_pickle_does_nothing(tmp_path, payload, message, file):
    marker = tmp_path / "executed"
    layout, files = official_files("cifar10", PICKLE)
    raw = files[file] = payload(marker.as_posix())
    write_folder(tmp_path, layout, files)
    with pytest.raises(ValueError, match=f"{file}: .*{message}"):
        load_cifar("cifar10", tmp_path)
    assert not marker.exists()
    pickle.loads(raw)
    assert marker.exists(), "this test would also pass with a harmless pickle"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"cnumpy.f2py\ncompile\n.", r"numpy\.f2py\.compile"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "fromfile"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.", "dump"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "rot13"),
        (b"\x82\x01.", "extension"),  # EXT1: a function from the registry of short codes
        (b"Pname\n.", "persistent"),
        (b"\x80\x02\x8e" + b"\xff" * 7 + b"\x3f" + b".", "refused"),  # 4 EB of bytes
        (b"Np2305843009213693951\n.", "it would remember 2305843009213693951 things"),  # whose hash is that of 0
        (b"}B" + (3000).to_bytes(4, "little") + b"x" * 3000 + b"Ns.", "a key of 3,000 letters, more than 100"),
        (b"cnumpy\nndarray\n(NNNNNNNNNNt\x81.", "damaged"),  # which no array needs
        (b"Nr\xff\xff\xff\x7f.", "refused"),  # memo entry 2³¹, 16 GB in C's table
        (pickle.dumps({"data": np.array([None, len], object), "labels": [0, 1]}, 2), "len"),
        (pickle.dumps({"data": np.array([None, 1], object), "labels": [0, 1]}, 2), "dtype 'O8'"),
    ],
)
def test_pickle_of_anything_else_is_refused(tmp_path, raw, message):
    layout, files = official_files("cifar10", PICKLE)
    write_folder(tmp_path, layout, {**files, "data_batch_1": raw})
    with pytest.raises(ValueError, match=f"data_batch_1: .*{message}"):
        load_cifar("cifar10", tmp_path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def broken(_):
        raise OSError(5, "Input/output error")  # as while reading: it names no file

    monkeypatch.setattr(cifar, "_contents", broken)
    (tmp_path / "data_batch_1.bin").write_bytes(b"")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        load_cifar("cifar10", tmp_path)


def test_archive_members_that_are_not_the_expected_files_are_ignored(tmp_path):
    layout, files = official_files("cifar10")
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
    others = [tarfile.TarInfo(f"{layout.folder}/{layout.test}") for _ in kinds]
    for other, kind in zip(others, kinds, strict=True):
        other.type, other.linkname = kind, "/etc/hostname"
    others += [tarfile.TarInfo("../outside"), tarfile.TarInfo(str(tmp_path / "absolute"))]
    archive = write_archive(tmp_path / "in", layout, files, *others)
    before = sorted(tmp_path.rglob("*"))
    np.testing.assert_array_equal(load_cifar("cifar10", archive).x_test, TEST[0])
    assert sorted(tmp_path.rglob("*")) == before

    del files[layout.test]
    elsewhere = tarfile.TarInfo(layout.test)
    write_archive(tmp_path / "in", layout, files, *others, elsewhere)
    with pytest.raises(ValueError, match=r"expected a file test_batch\.bin"):
        load_cifar("cifar10", archive)


def lying_size(size, content=bytes(100), rest=b""):
    """An archive whose only header claims a file of that size; its compressed end is `rest`."""
    member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    member.size = size
    stream = zlib.compressobj(wbits=31)
    start = stream.compress(member.tobuf(tarfile.GNU_FORMAT) + content)
    return start + (stream.flush(zlib.Z_FULL_FLUSH) + rest if rest else stream.flush())


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-4],
        lambda raw: raw[:-8] + bytes(8),  # the checksum, after everything that is needed
        lambda raw: gzip.compress(gzip.decompress(raw) + bytes(1 << 21))[:-8] + bytes(8),
        lambda raw: lying_size(1 << 22, bytes(1 << 21), b"\xff" * 99),  # no such kind of block
        lambda raw: b"<html>404</html>",
        lambda raw: b"",
        lambda raw: gzip.compress(b"not a tar file" * 99),
        lambda raw: lying_size(3073),
        lambda raw: lying_size(1 << 40),
        lambda raw: lying_size(-512),
    ],
)
def test_damaged_archive_is_named(tmp_path, damage):
    path = write_archive(tmp_path, *official_files("cifar10"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: expected a whole") as caught:
        load_cifar("cifar10", path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [write_folder, write_archive])
def test_more_than_the_official_ones_have_is_not_read(tmp_path, monkeypatch, write):
    layout, files = official_files("cifar10")
    place, total = write(tmp_path, layout, files), sum(map(len, files.values()))
    if place.is_file():  # headers count as well
        total = len(gzip.decompress(place.read_bytes()))
    monkeypatch.setattr(cifar, "LARGEST", total)
    assert len(load_cifar("cifar10", place).x_train) == 4  # exactly as much is not too much
    monkeypatch.setattr(cifar, "LARGEST", total - 1)
    with pytest.raises(ValueError, match=rf"(at most|more than) {total - 1} bytes"):
        load_cifar("cifar10", place)


def test_an_archive_of_very_many_members_is_not_read_to_its_end(tmp_path):
    archive = write_archive(tmp_path, *official_files("cifar10"), *(tarfile.TarInfo(f"{i}") for i in range(200)))
    with pytest.raises(ValueError, match=r"more than 100 members"):
        load_cifar("cifar10", archive)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_long_headers_are_not_parsed(tmp_path, kind):
    """tarfile reads them whole, and may take a time that grows with the square of their length."""
    header = tarfile.TarInfo("long")
    header.type, header.size = kind, 1 << 16
    raw = header.tobuf(tarfile.GNU_FORMAT) + b"1" * (1 << 16)
    path = tmp_path / LAYOUTS["cifar10"][0].archive
    path.write_bytes(gzip.compress(raw + bytes(1024)))
    with pytest.raises(ValueError, match="a part of 65536 bytes, expected at most 4096"):
        load_cifar("cifar10", path)


BATCH = "cifar-10-batches-bin/data_batch_1.bin"


def stored(kind, size):
    """The header of a member that claims any size; a sparse one is empty, but its list of holes goes on."""
    header = bytearray(tarfile.TarInfo(BATCH).tobuf(tarfile.GNU_FORMAT))
    header[156:157], header[124:136] = kind, b"\x80" + size.to_bytes(11, "big")
    if kind == tarfile.GNUTYPE_SPARSE:
        header[386:482], header[482], header[483:495] = bytes(96), 1, b"%011o\0" % 0
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def extended(**records):
    """The headers of a member about which an extended header says more."""
    about = tarfile.TarInfo(BATCH)
    about.pax_headers = {name.replace("_", "."): text for name, text in records.items()}
    return about.tobuf(tarfile.PAX_FORMAT)


HOLES = b"00000001000\0" * 42 + b"\1" * 8  # a block of them; more follow
LONG = {
    "holes": (stored(b"S", 0) + HOLES * 100, "a sparse member"),
    "holes that are cut off": (stored(b"S", 0), "a sparse member"),
    "holes of any size": (stored(b"S", 1 << 80), "a part of 1208925819614629174706176 bytes|a sparse member"),
    "nothing, of any size": (extended(GNU_sparse_realsize="0")[:-512] + stored(b"0", 1 << 80), "a part of 12"),
    "holes, the first way": (extended(GNU_sparse_size="0"), "a sparse member"),
    "holes, the second way": (extended(GNU_sparse_map="0,0," * 99), "a sparse member"),
    "holes, the third way": (extended(GNU_sparse_major="1", GNU_sparse_minor="0") + b"999999999\n" * 9, "a sparse"),
    "another size": (extended(GNU_sparse_realsize="0", size=f"{1 << 80}"), "a part of 12"),
    "a size below zero": (extended(size="-1024"), "a part of -1024 bytes"),
    "an end that goes on": (bytes(1 << 22), "more than 2097152 bytes"),
}


@pytest.mark.parametrize("what", LONG)
def test_an_archive_is_read_to_its_end_only_if_that_is_near(tmp_path, monkeypatch, what):
    monkeypatch.setattr(cifar, "LARGEST", 1 << 21)
    content, message = LONG[what]
    path = tmp_path / LAYOUTS["cifar10"][0].archive
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=f"expected .*({message})"):
        load_cifar("cifar10", path)


# {"a": [encode(text), encode(text), …]}, with one text
TWENTY_TIMES = b"\x80\x02}X\1\0\0\0a(c_codecs\nencode\nq\0X\x10\0\0\0" + b"x" * 16 + b"q\1X\6\0\0\0latin1q\2\x86Rq\3"
TWENTY_TIMES += b"h\0h\1h\2\x86R" * 20 + b"ls."


MANY = b"\x80\x02(" + b"N" * 20 + b"tq\x00cnumpy\nndarray\nq\x01" + b"h\x01h\x00R."  # ndarray(*twenty things)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (MANY, "an array has a few properties, not 20"),
        (pickle.dumps({1: "one"}), "a string, got 1"),
        (pickle.dumps({1: "one"}, 0), "a string, got 1"),  # DICT, in the oldest protocol
        (pickle.dumps({("deep",): 1}), "a string, got tuple"),
        (pickle.dumps({"a": {1, 2}}, 4), "refused this pickle"),
        (pickle.dumps({"a": frozenset([1])}, 4), "refused this pickle"),
        (TWENTY_TIMES, "more than it holds"),
        (b"(" * (1 << 21), "it would do more than 1,048,576 operations"),
        (b"\x80\x04\x95" + (1 << 21).to_bytes(8, "little") + b"]" * (1 << 21), "it would do more than"),  # in a frame
    ],
)  # fmt: skip
def test_what_would_take_very_long_or_much_memory_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        unpickle(content, "data_batch_1")


def test_a_long_list_of_class_names_is_not_made(tmp_path):
    layout, files = official_files("cifar10")
    folder = write_folder(tmp_path, layout, {**files, "batches.meta.txt": b"ab " * 30_000})
    with pytest.raises(ValueError, match=r"class names of at most 65,536 bytes, got 90,000"):
        load_cifar("cifar10", folder)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="only Linux has files that do not say how long they are")
def test_a_file_of_the_system_is_not_read_as_long_as_it_goes_on(tmp_path):
    layout, files = official_files("cifar10")
    folder = write_folder(tmp_path, layout, files)
    (folder / "data_batch_1.bin").unlink()
    (folder / "data_batch_1.bin").symlink_to("/proc/version")
    with pytest.raises(ValueError, match="expected a multiple of 3073 bytes, got 0"):
        load_cifar("cifar10", folder)
    (tmp_path / layout.archive).symlink_to("/proc/version")
    with pytest.raises(ValueError, match=r"expected a whole \.tar\.gz archive: 0 bytes, expected 1 to"):
        load_cifar("cifar10", tmp_path / layout.archive)


def test_class_names_must_be_printable(tmp_path):
    layout, files = official_files("cifar10")
    folder, names = write_folder(tmp_path, layout, files), files["batches.meta.txt"].split()
    for name in (b"\x1b[31mred", b"x" * 101):
        (folder / "batches.meta.txt").write_bytes(b"\n".join([name, *names[1:]]))
        with pytest.raises(ValueError, match=r"batches\.meta\.txt: expected class names of at most 100 printable"):
            load_cifar("cifar10", folder)


@pytest.mark.parametrize("version", ["binary", "python2", "python3-protocol4", "python3-arrays"])
@given(data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_damage_anywhere_is_data_or_a_value_error(tmp_path_factory, version, data):
    layout, files = official_files("cifar10", VERSIONS[version])
    file = data.draw(st.sampled_from(sorted(files)))
    raw = bytearray(files[file])
    at = data.draw(st.integers(0, len(raw) - 1) | st.integers(0, min(400, len(raw) - 1)))
    raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    write = data.draw(st.sampled_from([write_folder, write_archive]))
    path = write(tmp_path_factory.mktemp("fuzz"), layout, {**files, file: bytes(raw)})
    try:
        outcome = load_cifar("cifar10", path)
    except ValueError as error:
        outcome = str(error)
    if isinstance(outcome, str):
        assert outcome.startswith(f"{path}: ")
        assert "\n" not in outcome
    else:
        assert outcome.x_train.shape == (len(outcome.y_train), 32, 32, 3)
        assert set(outcome.y_train) | set(outcome.y_test) <= set(range(10))


def test_importing_the_reader_does_not_import_the_downloader():
    code = "import sys, minisam.data.download; print({'pooch', 'requests'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


REAL = os.environ.get("MINISAM_DATA")


@pytest.mark.skipif(not REAL, reason="MINISAM_DATA does not point to real CIFAR images")
@pytest.mark.parametrize("name", LABELS)
def test_real_data(name):
    if find_cifar(name, REAL) is None:
        pytest.skip(f"MINISAM_DATA has no {name}")
    data = load_cifar(name, REAL)
    assert data.x_test.shape == (10_000, 32, 32, 3)
    assert set(np.bincount(data.y_test)) == {10_000 // len(data.classes)}
    assert (
        data.classes[:2]
        == {
            "cifar10": ("airplane", "automobile"),
            "cifar100": ("apple", "aquarium_fish"),
            "cifar100-coarse": ("aquatic_mammals", "fish"),
        }[name]
    )
    # Neighbouring pixels of photographs are alike, unless the planes are read in the wrong order.
    x = data.x_test[:100].astype(float)
    assert np.corrcoef(x[:, :, 1:].ravel(), x[:, :, :-1].ravel())[0, 1] > 0.9
    assert np.corrcoef(x[:, 1:].ravel(), x[:, :-1].ravel())[0, 1] > 0.9
    if name == "cifar10":
        assert data.y_train[:5].tolist() == [6, 9, 9, 4, 1]  # frog, truck, truck, deer, car


def test_zeros_behind_an_archive_are_not_read_without_end(tmp_path):
    path = write_archive(tmp_path, *official_files("cifar10"))
    assert len(load_cifar("cifar10", tmp_path).y_test)
    os.truncate(path, 1 << 40)  # holes take no room on disk
    with pytest.raises(ValueError, match=r"expected a whole .tar.gz archive: 1099511627776 bytes, expected 1 to"):
        load_cifar("cifar10", tmp_path)
