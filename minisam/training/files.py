"""Files that can be trusted: replaced whole or not at all, and read without believing what they claim."""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.lib import format as npy

from minisam.checks import Array


class Damaged(ValueError):
    """A file that is not what it should be."""


def brief(value: Any, most: int = 80) -> str:
    """A value for use in a message: one short, printable line, whatever a file contained.

    >>> brief("two\\nlines " * 100, most=20)
    'two lines two lines…'
    """
    text = " ".join(str(value).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"


def reason(error: Exception) -> str:
    """An error's text, in one line."""
    return brief(f"no {error}" if isinstance(error, KeyError) else error, 200)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: moved over it if the block ends well, otherwise deleted.

    A reader sees the old file or the new one, never half of one, even if the power fails.

    Raises:
        OSError: the folder can't be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with temporary.open("r+b") as written:  # Windows syncs only files opened for writing
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    with suppress(OSError):  # sync the new name, too, on systems where a folder can be
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def require_writable(folder: Path) -> None:
    """Raise OSError, naming the folder, unless files can be made in it (it is made if missing)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"can't write to output folder {folder}: {error.strerror}") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the operating system releases it when its owner dies, however it dies.

    Raises:
        OSError: another process holds it.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OSError(f"another minisam is at work in {path.parent}: wait for it, or choose another place") from None
    try:
        yield
    finally:
        lock.release()


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write an .npz file.

    Raises:
        OSError: it can't be written; an old file stays as it was.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file. Memory is bounded by the file's size, whatever it claims; nothing is unpickled.

    Raises:
        OSError: the file can't be read.
        Damaged: it is not an .npz file, or not whole.
    """
    raw = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            if sum(member.file_size for member in archive.infolist()) > len(raw):
                raise ValueError("compressed, or with overlapping parts: it could be of any size")
            return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}
    except Exception as error:  # a damaged archive can fail in any way
        raise Damaged(f"{path} is damaged, or not an .npz file") from error


def _array(raw: bytes) -> Array:
    """The same array as np.load's, which would allocate whatever the header claims before reading on."""
    stream = io.BytesIO(raw)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(stream)]
    shape, fortran_order, dtype = read_header(stream)
    if dtype.kind not in "fiubU" or not dtype.itemsize:  # any number of things without a size fits
        raise ValueError(f"an array of dtype {dtype}")
    array: Array = np.ndarray(shape, dtype, raw, stream.tell(), order="F" if fortran_order else "C")
    if dtype.kind == "U":
        array.tolist()  # fails here, not later, for numbers that are not characters
    return array.copy()


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: this is not JSON, or it is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
