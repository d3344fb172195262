"""What optimizers remember, and what would be lost."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from minisam.optim import GD, SAM, Adam, Clipped, Friendly, LookSAM, Optimizer, memory, recall


def test_everything_inside_is_remembered_by_its_place():
    optimizer = SAM(Clipped(Adam(lr=0.1), max_norm=1.0), ascent=Friendly())
    assert list(memory(optimizer)) == ["base.base.t", "base.base.m", "base.base.v", "ascent.m", "ascent.last", "t"]
    assert list(memory(LookSAM(GD(lr=0.1)))) == ["base.t", "t", "pull"]


def test_recalling_is_the_inverse():
    one, other = (SAM(Adam(lr=0.1)) for _ in range(2))
    one.update(np.ones(3), np.arange(3.0))
    recall(other, memory(one))
    assert repr(other) == repr(one)


def test_an_attribute_that_a_checkpoint_would_forget_is_refused():
    @dataclass
    class Forgetful(Optimizer):
        lr: float
        t: int = field(default=0, init=False)

        def update(self, theta, g):
            self.average = g

    optimizer = SAM(Forgetful(lr=0.1))
    assert list(memory(optimizer)) == ["base.t", "t"]
    optimizer.update(np.zeros(2), np.ones(2))
    with pytest.raises(TypeError, match=r"Forgetful\.average must be a field, declared with init=False"):
        memory(optimizer)
