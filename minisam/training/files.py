"""Files that can be trusted: replaced whole or not at all, and read without believing what they claim."""

import io
import json
import os
import secrets
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from numpy.lib import format as npy
from tqdm import tqdm

from minisam.checks import Array

LARGEST = 1 << 32  # bytes that are read of one file
RESULTS = "minisam-results"  # where files go if no place was named
STARTS = {".npz": b"PK", ".json": b"{", ".png": b"\x89PNG", ".gif": b"GIF8", ".html": b"<!"}  # how they begin
TEMPORARY = ".minisam-{}.tmp"  # the name of a file that is still being written


class Damaged(ValueError):
    """A file that is not what it should be."""


def printable(text: str) -> str:
    """The text without what a terminal might obey: a question mark for each letter that can't be seen.

    >>> printable("\\x1b[31mred")
    '?[31mred'
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def say(text: str) -> None:
    """Tell the user something on stderr, above any progress bar, and with nothing that a terminal would obey."""
    tqdm.write(printable(text), file=sys.stderr)


def brief(value: Any, most: int = 80) -> str:
    """A value for use in a message: one short, printable line, whatever a file contained.

    >>> brief("two\\nlines " * 100, most=20)
    'two lines two lines…'
    """
    text = printable(" ".join(str(value).split())[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"


def reason(error: Exception) -> str:
    """An error's text, in one line."""
    return brief(f"no {error}" if isinstance(error, KeyError) else error, 200)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new binary file beside `path`: moved over it if the block ends well, otherwise deleted.

    A reader sees the old file or the new one, never half of one, even if the power fails.

    Raises:
        OSError: the folder can't be made or written; the text names `path`.
    """
    require_no_link_in_results(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(TEMPORARY.format(secrets.token_hex(8)))
    try:
        with temporary.open("xb") as file:  # x: never a file that is there, nor one that a planted link names
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    with suppress(OSError):  # sync the new name, too, on systems where a folder can be
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def delete_leftovers(folder: Path) -> None:
    """Delete the files in a folder that a process was still writing when it was killed."""
    for leftover in folder.glob(TEMPORARY.format("*")):
        with suppress(OSError):  # a folder of this name is not ours
            leftover.unlink()


def require_current_folder() -> None:
    """Raise OSError if the current folder was deleted, or can't be read: nothing could be found or kept there."""
    try:
        os.getcwd()
    except OSError as error:
        raise OSError(f"the current folder is no longer there ({error.strerror}): change to another one") from error


def require_no_link(folder: Path) -> None:
    """Raise OSError if a folder in which files are replaced and deleted is a link to another one."""
    if os.path.islink(folder):  # Path.is_symlink fails in a folder that may not be entered
        raise OSError(f"expected a folder of minisam's own, got {folder}, which is a link: remove it")


def require_no_link_in_results(folder: Path) -> None:
    """Raise OSError if the way to a folder in RESULTS, a place that nobody named, leads over a link."""
    if folder.parts[:1] == (RESULTS,):
        for place in (folder, *folder.parents):
            require_no_link(place)


def require_writable(folder: Path) -> None:
    """Raise OSError, naming the folder, unless files can be made in it (it is made if missing)."""
    require_no_link_in_results(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        why = "it is a file" if os.path.isfile(folder) else error.strerror
        raise OSError(f"can't write to output folder {folder}: {why}") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the operating system releases it when its owner dies, however it dies.

    Raises:
        OSError: another process holds it, it can't be made, or it is a link or another file, too.
    """
    if os.path.lexists(path) and ((about := path.lstat()).st_nlink > 1 or not stat.S_ISREG(about.st_mode)):
        raise OSError(f"expected a lock of minisam's own, got {path}, which is another file, too: remove it")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OSError(f"another minisam is at work in {path.parent}: wait for it, or choose another place") from None
    except OSError as error:  # such as a link in its place
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield
    finally:
        lock.release()


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write an .npz file.

    Raises:
        OSError: it can't be written; an old file stays as it was.
    """
    with replacing(path) as file:
        np.savez(file, **arrays)


def read_bytes(path: Path, kind: str) -> bytes:
    """The contents of a file, which must be a regular one: a device or a pipe might go on for ever.

    Raises:
        OSError: it can't be read.
        Damaged: it is not a regular file, or not one of this kind, which is one of STARTS.
        ValueError: it is larger than LARGEST.
    """
    if path.is_symlink() and not path.exists():
        raise Damaged(f"expected a file, got {path}, which is a link to nothing")
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise Damaged(f"expected a file, got {path}, which is a folder or a device")
    if about.st_size > LARGEST:
        raise ValueError(f"expected a file of at most {LARGEST:,} bytes, got {path} with {about.st_size:,}")
    with path.open("rb") as file:
        if file.read(len(STARTS[kind])) != STARTS[kind]:  # before a sparse file fills the memory
            raise Damaged(f"{path} is damaged, or no {kind} file")
        return STARTS[kind] + file.read(about.st_size)


class _Archive(zipfile.ZipFile):
    """Closed by `with`. ZipFile's own __del__ runs where a KeyboardInterrupt is printed, and lost; this one is in C."""

    __del__ = object.__init__


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file. Memory is bounded by the file's size, whatever it claims; nothing is unpickled.

    Raises:
        OSError: the file can't be read.
        Damaged: it is not an .npz file, or not whole, or compressed: then it could be of any size.
    """
    raw = read_bytes(path, ".npz")
    try:
        with _Archive(io.BytesIO(raw)) as archive:
            members = archive.infolist()
            if any(member.compress_type for member in members):
                held = brief(", ".join(member.filename.removesuffix(".npy") for member in members))
                raise Damaged(f"expected an uncompressed .npz file, as np.savez writes it, got {path} with {held}")
            total, names = sum(member.file_size for member in members), {member.filename for member in members}
            if total > len(raw) or len(names) < len(members):
                raise ValueError("parts that overlap, or of one name")
            return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
    except Damaged:
        raise
    except Exception as error:  # a damaged archive can fail in any way
        raise Damaged(f"{path} is damaged, or no .npz file") from error


def _array(raw: bytes) -> Array:
    """The same array as np.load's, which would allocate whatever the header claims before reading on."""
    stream = io.BytesIO(raw)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(stream)]
    shape, fortran_order, dtype = read_header(stream)
    if dtype.kind not in "fiubU" or not dtype.itemsize:  # any number of things without a size fits
        raise ValueError(f"an array of dtype {dtype}")
    array: Array = np.ndarray(shape, dtype, raw, stream.tell(), order="F" if fortran_order else "C")
    if dtype.kind == "U" and array.size:  # a list of any number of empty ones would be large
        array.tolist()  # fails here, not later, for numbers that are not characters
    return array.copy()


def require_plain(value: Any, levels: int = 20) -> None:
    """Raise TypeError unless a value from a file is such as minisam writes: numbers, short printable texts, and records
    and lists of them, not nested in each other more often than `levels`.

    >>> require_plain([{"epoch": 1, "name": "sam"}])
    >>> require_plain({"name": "\\x1b[31m"})
    Traceback (most recent call last):
    TypeError: a text that can't be printed, or of over 1000 letters
    """
    if isinstance(value, dict | list):
        if not levels:
            raise TypeError("records or lists nested too deeply")
        for part in (*value, *value.values()) if isinstance(value, dict) else value:
            require_plain(part, levels - 1)
    elif isinstance(value, str):
        if len(value) > 1000 or not value.isprintable():
            raise TypeError("a text that can't be printed, or of over 1000 letters")
    elif type(value) is int and not abs(value) < 1 << 63:
        raise TypeError("a number of over 63 bits")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: this is not JSON, or it is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
