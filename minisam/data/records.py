"""From the bytes of one CIFAR file to arrays: the binary records, and pickles read as plain data.

A pickle is a program: the standard loader calls whatever functions the file names. This one builds
arrays, lists, dictionaries, strings and numbers and refuses everything else, so a data set can be
opened without trusting its source. Arrays may come from NumPy 1 or 2 and from any protocol.
"""

import io
import pickle
from typing import Any, ClassVar, NamedTuple

import numpy as np

PIXELS = 3 * 32 * 32  # bytes per image: the red plane, then green, then blue
LONGEST = 100  # letters in a name
MOST_NAMES = 1 << 16  # bytes of all of them; the official files have up to 1,600
MOST = 1 << 20  # operations in a pickle; the largest official one has about 200,000


class Labels(NamedTuple):
    """Where the labels of a data set are, in its binary and its pickle version."""

    n_classes: int
    byte: int  # binary: which byte of a record is the label …
    n_bytes: int  # … and how many bytes precede the image
    names_file: str
    key: str  # pickle: the key of the labels
    names_key: str  # and the key of the class names


def binary_records(raw: bytes, where: str, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 3072) uint8 and labels (N,) int64 of a binary file's contents.

    `where` names the file in errors. Raises ValueError if these are not whole, valid records.
    """
    size = labels.n_bytes + PIXELS
    if not raw or len(raw) % size:
        raise ValueError(f"{where}: expected a multiple of {size} bytes, got {len(raw)}")
    records = np.frombuffer(raw, np.uint8).reshape(-1, size)
    return records[:, labels.n_bytes :], _valid(records[:, labels.byte].tolist(), where, labels)


def pickle_records(raw: bytes, where: str, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return and raise the same as `binary_records`, for a pickle's contents."""
    content = unpickle(raw, where)
    x, y = _entry(content, "data", where), _entry(content, labels.key, where)
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or not x.size or x.shape[1:] != (PIXELS,):
        raise ValueError(f"{where}: expected data of dtype uint8 and shape (N, {PIXELS}), got {_kind(x)}")
    y = y.tolist() if isinstance(y, np.ndarray) and y.shape == x.shape[:1] else y
    if not isinstance(y, list) or len(y) != len(x):
        raise ValueError(f"{where}: expected {len(x)} {labels.key}, got {_kind(y)}")
    return x, _valid(y, where, labels)


def class_names(raw: bytes, where: str, labels: Labels, is_pickle: bool) -> tuple[str, ...]:
    """Return the class names from the contents of a text or pickle file.

    Raises ValueError unless there is exactly one per class.
    """
    if len(raw) > MOST_NAMES:
        raise ValueError(f"{where}: expected class names of at most {MOST_NAMES:,} bytes, got {len(raw):,}")
    names = _entry(unpickle(raw, where), labels.names_key, where) if is_pickle else raw.decode(errors="replace").split()
    if not isinstance(names, list) or len(names) != labels.n_classes:
        raise ValueError(f"{where}: expected {labels.n_classes} class names, got {_kind(names)}")
    try:
        texts = tuple(_text(name) for name in names)
    except TypeError as error:
        raise ValueError(f"{where}: class names: {error}") from error
    if not all(text.isprintable() and len(text) <= LONGEST for text in texts):
        raise ValueError(f"{where}: expected class names of at most {LONGEST} printable letters")
    return texts


def _valid(y: list[int], where: str, labels: Labels) -> np.ndarray:
    for n, label in enumerate(y):
        if type(label) is not int or not 0 <= label < labels.n_classes:
            wanted = f"a label from 0 to {labels.n_classes - 1}"
            raise ValueError(f"{where}: expected {wanted} in record {n}, got {_kind(label)}")
    return np.array(y, np.int64)


def _entry(content: dict[str, Any], key: str, where: str) -> Any:
    if key not in content:
        raise ValueError(f"{where}: expected a key {key!r}, got {str(sorted(content))[:200]}")
    return content[key]


def _kind(value: Any) -> str:
    # Not the value itself, unless small: a few bytes of pickle can have a repr of gigabytes.
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "dict"
    return str(value) if type(value) is int and abs(value) < 1e9 else type(value).__name__


def _text(string: Any) -> str:
    if not isinstance(string, str | bytes):
        raise TypeError(f"expected a string, got {_kind(string)}")
    # Python 2 wrote its strings as bytes.
    return string if isinstance(string, str) else string.decode(errors="replace")


class _Inert:
    """Stands in for an array, a dtype and their types in a pickle: it remembers its arguments and does nothing."""

    state: Any = None

    def __init__(self, *args: Any) -> None:
        if len(args) > 9:  # a copy of many, made again and again, would fill the memory
            raise pickle.UnpicklingError(f"an array has a few properties, not {len(args)}")
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """Rebuild a pickled array: up to protocol 4 a state holds what it was, in protocol 5 mostly the arguments."""
        order: Any
        if self.state:
            _, shape, dtype, is_fortran, raw = self.state
            order = "F" if is_fortran else "C"
        else:
            raw, dtype, shape, order = self.args
        kind, byte_order = _text(dtype.args[0]), _text(dtype.state[1])
        if kind not in KINDS or byte_order not in ORDERS:
            raise ValueError(f"an array of dtype {kind[:20]!r}, expected one of {', '.join(KINDS)}")
        return np.frombuffer(raw, byte_order + kind).reshape(shape, order=order)


KINDS, ORDERS = ("u1", "i4", "i8"), ("|", "<", ">")  # bytes, and what labels become on Windows and elsewhere
INERT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
         "numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer",
         "numpy.ndarray", "numpy.dtype")  # fmt: skip


class _Named(dict):
    """A dictionary whose keys are names: others might take very long to hash, or all have the same hash."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, str | bytes) and len(key) > LONGEST:  # the same one may be a key again and again
            raise pickle.UnpicklingError(f"a key of {len(key):,} letters, more than {LONGEST:,}")
        _text(key)  # which refuses anything else
        super().__setitem__(key, value)


class _Few(dict):
    """The operations of a pickle, by their codes, of which it may do MOST: each can make another list."""

    left = MOST

    def __getitem__(self, code: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"it would do more than {MOST:,} operations")
        return super().__getitem__(code)


# The unpickler written in Python: its C twin allocates whatever size a damaged file claims.
class _PlainUnpickler(pickle._Unpickler):
    def __init__(self, raw: bytes) -> None:
        super().__init__(io.BytesIO(raw), encoding="bytes")
        self.dispatch = _Few(self.dispatch)  # type: ignore[misc]
        self.left = len(raw)  # bytes that texts may still be encoded to: the same one could be, again and again

    def load_dictionary(self) -> None:
        items, found = self.pop_mark(), _Named()  # type: ignore[attr-defined]
        for key, value in zip(items[::2], items[1::2], strict=True):
            found[key] = value
        self.append(found)  # type: ignore[attr-defined]

    def load_put(self: Any) -> None:
        """Any number would become a key of a dictionary, and some share their hash."""
        place = int(self.readline())
        if not 0 <= place < MOST:
            raise pickle.UnpicklingError(f"it would remember {place} things")
        self.memo[place] = self.stack[-1]

    # It, too, would allocate a bytearray before reading one. Read as bytes, none is longer than the file.
    dispatch: ClassVar = pickle._Unpickler.dispatch | {
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
        pickle.EMPTY_DICT[0]: lambda self: self.append(_Named()),
        pickle.DICT[0]: load_dictionary,
        pickle.PUT[0]: load_put,
    }
    # No array needs these; __new__ takes any number of arguments.
    for _unused in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.NEWOBJ, pickle.NEWOBJ_EX):
        del dispatch[_unused[0]]

    def find_class(self, module: str, name: str) -> Any:
        def latin1(text: str, encoding: str) -> bytes:
            self.left -= len(text)
            if encoding != "latin1" or self.left < 0:
                raise pickle.UnpicklingError(f"it would encode as {encoding!r}, or more than it holds")
            return text.encode("latin1")

        if f"{module}.{name}" in INERT:
            return _Inert
        if f"{module}.{name}" == "_codecs.encode":  # how Python 3 spells bytes in protocol 2
            return latin1
        raise pickle.UnpicklingError(f"it would load {f'{module}.{name}'!r}")


def unpickle(raw: bytes, where: str) -> dict[str, Any]:
    """Return a pickled dictionary of arrays of integers, lists, strings and numbers, and nothing else.

    Pickles of Python 2 and 3 can be read; keys become str. Raises ValueError naming the file (`where`)
    and the function that it tried to load, which is never loaded.

    >>> unpickle(pickle.dumps({"labels": [3, 1]}), "data_batch_1")
    {'labels': [3, 1]}
    >>> unpickle(pickle.dumps({"labels": eval}), "data_batch_1")
    Traceback (most recent call last):
    ValueError: data_batch_1: refused this pickle: it would load 'builtins.eval'
    """
    try:
        content = _PlainUnpickler(raw).load()
        return {_text(key): value.array() if isinstance(value, _Inert) else value for key, value in content.items()}
    except Exception as error:  # a damaged pickle can fail in any way
        reason = "" if isinstance(error, LookupError) else str(error)[:200]
        raise ValueError(f"{where}: refused this pickle: {reason or 'it is damaged'}") from error
