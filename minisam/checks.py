"""What functions are given: arrays, and values in a range, refused by one-line errors that name them.

A value's type says which range it must lie in. A record (a dataclass) that inherits from `Checked`
refuses what its types do not allow:

>>> from dataclasses import dataclass
>>> @dataclass
... class Descent(Checked):
...     lr: Positive
>>> Descent(lr=0.0)
Traceback (most recent call last):
ValueError: lr must be a finite number above 0, got 0.0
"""

import math
from collections.abc import Callable
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np

Array = np.ndarray


class Range(NamedTuple):
    """The values that are allowed."""

    expected: str
    kind: type | tuple[type, ...]  # NumPy's numbers belong to Real and Integral, too
    holds: Callable[[Any], bool]


Positive = Annotated[float, Range("a finite number above 0", Real, lambda v: 0 < v < math.inf)]
NonNegative = Annotated[float, Range("a finite number ≥ 0", Real, lambda v: 0 <= v < math.inf)]
AtLeastOne = Annotated[float, Range("a number ≥ 1, or infinity", Real, lambda v: v >= 1)]
BelowOne = Annotated[float, Range("in [0, 1)", Real, lambda v: 0 <= v < 1)]
Fraction = Annotated[float, Range("in [0, 1]", Real, lambda v: 0 <= v <= 1)]
Count = Annotated[int, Range("an integer ≥ 1", Integral, lambda v: v >= 1)]
Natural = Annotated[int, Range("an integer ≥ 0", Integral, lambda v: v >= 0)]


def require(name: str, value: Any, type_: Any) -> Any:
    """Raise ValueError unless the value is one that this type allows; True and False are no numbers.

    Returns the value, a number as Python's own: a file has no other.

    >>> require("threads", 2.5, Count)
    Traceback (most recent call last):
    ValueError: threads must be an integer ≥ 1, got 2.5
    >>> require("rho", np.float32(0.5), NonNegative)
    0.5
    """
    if type_ is bool and not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    parts = get_args(type_) if get_origin(type_) in (Union, UnionType) else (type_,)
    ranges = [extra for part in parts for extra in getattr(part, "__metadata__", ())]
    if ranges and not any(_allows(part, value) for part in parts):
        per_cent = type_ is Fraction and isinstance(value, int | float) and 2 <= value <= 100
        hint = f": did you mean {value / 100:g}?" if per_cent else ""
        raise ValueError(f"{name} must be {ranges[0].expected}, got {value!r}{hint}")
    if ranges and isinstance(value, Real):
        plain: Any = float if ranges[0].kind is Real else int
        return plain(value)
    return value.item() if isinstance(value, np.generic) else value


def _allows(type_: Any, value: Any) -> bool:
    if type_ is NoneType:
        return value is None
    if metadata := getattr(type_, "__metadata__", ()):
        allowed = metadata[0]
        return isinstance(value, allowed.kind) and not isinstance(value, bool) and allowed.holds(value)
    return callable(value) and not isinstance(value, type)  # a schedule, which checks its own values


def require_array(name: str, value: Any) -> None:
    """Raise TypeError unless the value is a NumPy array.

    >>> require_array("theta", [0.5])
    Traceback (most recent call last):
    TypeError: theta must be a NumPy array, got list
    """
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(value).__name__}")


def require_finite(name: str, array: Array) -> None:
    """Raise ValueError if there is a NaN or an infinity in the array."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum()  # finite only if all terms are; it costs a third of looking at each
    if not (np.isfinite(total) or np.isfinite(array).all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")


_types = cache(get_type_hints)


class Checked:
    """A dataclass whose fields are checked when it is made; its numbers become Python's own."""

    def __post_init__(self) -> None:
        record: Any = type(self)
        for name, type_ in _types(record, include_extras=True).items():
            object.__setattr__(self, name, require(name, getattr(self, name), type_))
