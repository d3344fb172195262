"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), read exactly as their authors distribute them.

An experiment starts from the official files, in any form: the binary or the Python (pickle) version,
the original .tar.gz or unpacked, complete or only the first records. Archives are read in place,
member by member, and never unpacked to disk.
"""

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from minisam.data.dataset import Dataset
from minisam.data.records import Labels, binary_records, class_names, pickle_records

LARGEST = 1 << 28  # bytes that all files may claim to have; the official ones have 185 MB
MOST_MEMBERS = 100  # of an archive; the official ones have nine
EXTENDED = b"xgXLK"  # the types of headers that say more about the next member


class Layout(NamedTuple):
    """File names of one official version."""

    folder: str
    archive: str
    train: tuple[str, ...]  # all but the first may be missing
    test: str
    meta: str = ""  # the pickle of class names; the binary versions have none


LAYOUTS = {
    "cifar10": (
        Layout("cifar-10-batches-bin", "cifar-10-binary.tar.gz",
               tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"),
        Layout("cifar-10-batches-py", "cifar-10-python.tar.gz",
               tuple(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"),
    ),
    "cifar100": (
        Layout("cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), "test.bin"),
        Layout("cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test", "meta"),
    ),
}  # fmt: skip

LABELS = {
    "cifar10": Labels(10, 0, 1, "batches.meta.txt", "labels", "label_names"),
    "cifar100": Labels(100, 1, 2, "fine_label_names.txt", "fine_labels", "fine_label_names"),
    "cifar100-coarse":
        Labels(20, 0, 2, "coarse_label_names.txt", "coarse_labels", "coarse_label_names"),
}  # fmt: skip


def cache_dir() -> Path:
    """Return the folder for downloads, in the user's cache."""
    import pooch  # takes longer to import than the rest of this package

    return Path(pooch.os_cache("minisam"))


def find_cifar(name: str, data_dir: str | os.PathLike | None = None) -> Path | None:
    """Return the first folder or archive with the data set, or None.

    `data_dir` may be that folder or archive, or the folder that contains it. Without it the
    environment variable MINISAM_DATA and then the cache are searched. Raises ValueError unless the
    name is "cifar10", "cifar100" or "cifar100-coarse", and FileNotFoundError if a place that was named is not there.
    """
    return next((path for path, _ in _search(name, data_dir)), None)


def load_cifar(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Read "cifar10", "cifar100" (100 classes) or "cifar100-coarse" (20) from where `find_cifar` finds it.

    Images are uint8 (N, 32, 32, 3), labels int64 (N,), both in the files' order. Raises
    FileNotFoundError if there are none, and ValueError naming the file if one is damaged.
    """
    for path, layout in _search(name, data_dir):
        return _load(name, path, layout)
    family = name.removesuffix("-coarse")
    places = ", ".join(f"{place} ({origin})" for place, origin in _places(data_dir))
    wanted = " or ".join(f"{layout.folder}, {layout.archive}" for layout in LAYOUTS[family])
    cure = f"minisam data --fetch {family}, or --dataset synthetic"
    raise FileNotFoundError(f"{name} not found in {places}: expected {wanted}; or {cure}")


def available(data_dir: str | os.PathLike | None = None) -> Iterator[tuple[Path, Dataset]]:
    """Every data set that `load_cifar` can read, with its place, in search order; raises the same errors."""
    for name in LABELS:
        for path, layout in _search(name, data_dir):
            yield path, _load(name, path, layout)


def _places(data_dir: str | os.PathLike | None) -> Iterator[tuple[Path, str]]:
    origin, place = ("MINISAM_DATA", os.environ.get("MINISAM_DATA")) if data_dir is None else ("data_dir", data_dir)
    if place:
        if not Path(place).exists():
            raise FileNotFoundError(f"{origin} names {place}, which is not there: correct it, or leave it out")
        yield Path(place), origin
    if data_dir is None:
        yield cache_dir(), "cache"


def _search(name: str, data_dir: str | os.PathLike | None) -> Iterator[tuple[Path, Layout]]:
    if name not in LABELS:
        raise ValueError(f"name: expected one of {', '.join(LABELS)} (or synthetic, in load), got {name!r}")
    for place, _ in _places(data_dir):
        for layout in LAYOUTS[name.removesuffix("-coarse")]:
            for folder in (place / layout.folder, place):
                if (folder / layout.train[0]).is_file():
                    yield folder, layout
            for archive in (place / layout.archive, place):
                if archive.name == layout.archive and archive.is_file():
                    yield archive, layout


def _load(name: str, path: Path, layout: Layout) -> Dataset:
    labels, is_pickle = LABELS[name], bool(layout.meta)
    names = layout.meta or labels.names_file
    files = _read(path, layout.folder, (*layout.train, layout.test, names))
    for file in (layout.train[0], layout.test, names):
        if file not in files:
            raise ValueError(f"{path}: expected a file {file}, got {', '.join(files) or 'none'}")
    records = pickle_records if is_pickle else binary_records

    def arrays(parts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        pairs = [records(files[part], f"{path}: {part}", labels) for part in parts]
        x, y = (np.concatenate(column) for column in zip(*pairs, strict=True))
        return np.ascontiguousarray(x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), y

    x_train, y_train = arrays(part for part in layout.train if part in files)
    x_test, y_test = arrays([layout.test])
    classes = class_names(files[names], f"{path}: {names}", labels, is_pickle)
    source = f"{path.name}: {', '.join(file for file in files if file != names)}"
    return Dataset(name, source, classes, x_train, y_train, x_test, y_test)


class _Bounded(gzip.GzipFile):
    """A stream of at most LARGEST bytes: a few of them, compressed, can stand for any number."""

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        if self.tell() > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        return found


class _Plain(tarfile.TarInfo):
    """A member no larger than an archive may be, and with a short extended header, if it has one.

    tarfile reads such a header whole and takes long to parse it, and skips a size in steps although the file has ended.
    """

    def _block(self, count: int) -> int:  # the room that a header or a member takes, before it is read or skipped
        most = 4096 if self.type in EXTENDED else LARGEST
        if not 0 <= count <= most:
            raise ValueError(f"a part of {count} bytes, expected at most {most}")
        return super()._block(count)  # type: ignore[misc]

    def _sparse(self, *_: Any) -> NoReturn:
        raise ValueError("a sparse member: its holes may be of any number and size")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse


def _contents(file: Path) -> bytes:
    """As many bytes as the file says it has: a file of the system's own says none, and may go on for ever."""
    with file.open("rb") as stream:
        return stream.read(file.stat().st_size)


def _read(path: Path, folder: str, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Return the contents of the wanted files that exist in the folder or archive at path."""
    if path.is_dir():
        there = [file for file in wanted if (path / file).is_file()]
        if (total := sum((path / file).stat().st_size for file in there)) > LARGEST:
            raise ValueError(f"{path}: expected at most {LARGEST} bytes, got {total}")
        try:
            return {file: _contents(path / file) for file in there}
        except OSError as error:  # while reading; its text may name no file
            raise OSError(error.errno, error.strerror, str(path)) from error
    members = {f"{folder}/{file}": file for file in wanted}
    files = {}
    try:
        if not 0 < (size := path.stat().st_size) <= LARGEST:  # zeros behind an archive are skipped one by one
            raise ValueError(f"{size} bytes, expected 1 to {LARGEST}")
        with _Bounded(path) as stream:
            # "r|" never seeks back: a size that lies is an error, not a huge or an endless read.
            with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20, tarinfo=_Plain) as archive:
                for i, member in enumerate(archive):
                    if i >= MOST_MEMBERS:
                        raise ValueError(f"more than {MOST_MEMBERS} members")
                    if member.isreg() and member.name in members and (data := archive.extractfile(member)):
                        files[members[member.name]] = data.read()
            while stream.read(1 << 20):
                pass  # the checksum comes last
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected a whole .tar.gz archive: {error}") from error
    return {file: files[file] for file in wanted if file in files}
