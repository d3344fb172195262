"""Arguments that must be numbers in a range: one-line errors that name them."""

import math
from numbers import Real
from typing import Any


def _require(name: str, value: Any, ok: Any, expected: str) -> None:
    if not (isinstance(value, Real) and math.isfinite(value) and ok(value)):
        raise ValueError(f"{name} must be {expected}, got {value!r}")


def require_positive(name: str, value: Any) -> None:
    """Raise ValueError unless value is a finite number above 0.

    >>> require_positive("lr", 0.0)
    Traceback (most recent call last):
    ValueError: lr must be a finite number above 0, got 0.0
    """
    _require(name, value, lambda v: v > 0, "a finite number above 0")


def require_nonnegative(name: str, value: Any) -> None:
    """Raise ValueError unless value is a finite number of at least 0."""
    _require(name, value, lambda v: v >= 0, "a finite number ≥ 0")


def require_below_one(name: str, value: Any) -> None:
    """Raise ValueError unless value is a number in [0, 1)."""
    _require(name, value, lambda v: 0 <= v < 1, "in [0, 1)")


def require_fraction(name: str, value: Any) -> None:
    """Raise ValueError unless value is a number in [0, 1]."""
    _require(name, value, lambda v: 0 <= v <= 1, "in [0, 1]")


def require_count(name: str, value: Any, least: int = 1) -> None:
    """Raise ValueError unless value is an integer (NumPy's included) of at least `least`.

    >>> require_count("Linear n_in", 2.5)
    Traceback (most recent call last):
    ValueError: Linear n_in must be an integer ≥ 1, got 2.5
    """
    try:
        ok = value.__index__() >= least
    except AttributeError:
        ok = False
    if not ok:
        raise ValueError(f"{name} must be an integer ≥ {least}, got {value!r}")
