"""An objective that counts its evaluations, to see what SAM costs."""

from minisam.checks import Array
from minisam.objective import Evaluation, Objective


class Counted:
    """An objective that counts the examples whose gradients it was asked for."""

    def __init__(self, objective: Objective, tally: list[int] | None = None) -> None:
        self.objective = objective
        self.tally = [0] if tally is None else tally  # shared with the parts of a split

    @property
    def n(self) -> int:
        return self.objective.n

    @property
    def examples(self) -> int:
        """Gradients of single examples so far; n of them make one gradient evaluation."""
        return self.tally[0]

    def __call__(self, theta: Array) -> Evaluation:
        self.tally[0] += self.objective.n
        return self.objective(theta)

    def split(self, m: int) -> "list[Counted]":
        return [Counted(part, self.tally) for part in self.objective.split(m)]
