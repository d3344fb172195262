"""What an optimizer remembers from one step to the next, and how a checkpoint saves and restores it.

An optimizer is a dataclass. Its arguments are fields, and so is everything that it remembers: fields with
init=False and a default, either a number or None (a vector like theta that does not exist yet).
Optimizers inside it (SAM's base, or its ascent) have a memory of their own. Nothing else may survive a
step: then a resumed training has the same bits as one that was never interrupted.

>>> from dataclasses import dataclass, field
>>> from minisam.optim import SAM, Optimizer
>>> @dataclass
... class Heavy(Optimizer):
...     lr: float
...     velocity: np.ndarray | None = field(default=None, init=False)
...     def update(self, theta, g):
...         self.velocity = g if self.velocity is None else 0.9 * self.velocity + g
...         theta -= self.lr * self.velocity
>>> sam = SAM(Heavy(lr=0.1))
>>> sam.update(np.zeros(2), np.ones(2))
>>> memory(sam)
{'base.velocity': array([1., 1.]), 't': 1}
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def memory(optimizer: Any) -> dict[str, int | float | np.ndarray | None]:
    """All that an optimizer and those inside it remember, by names such as "base.velocity".

    Raises:
        TypeError: an attribute that is not a field, which a checkpoint would forget.
    """
    return {name: getattr(owner, attribute) for owner, attribute, name in _slots(optimizer)}


def recall(optimizer: Any, values: Mapping[str, Any]) -> None:
    """Restore the values that `memory` returned, by the same names."""
    for owner, attribute, name in _slots(optimizer):
        setattr(owner, attribute, values[name])


def _slots(part: Any, prefix: str = "") -> Iterator[tuple[Any, str, str]]:
    """(owner, attribute, name) of everything remembered."""
    if undeclared := vars(part).keys() - {one.name for one in fields(part)}:
        name = min(undeclared)
        raise TypeError(f"{type(part).__name__}.{name} must be a field, declared with init=False, to be remembered")
    for one in fields(part):
        if not one.init:
            yield part, one.name, prefix + one.name
        elif is_dataclass(inner := getattr(part, one.name)):
            yield from _slots(inner, f"{prefix}{one.name}.")
