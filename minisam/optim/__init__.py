"""How a network learns: optimizers over one vector theta, and schedules for their numbers."""

from minisam.optim.gd import GD, Adam, Momentum, Optimizer
from minisam.optim.sam import SAM
from minisam.optim.schedules import Cosine, Schedule, StepDecay, value_at

__all__ = ["GD", "SAM", "Adam", "Cosine", "Momentum", "Optimizer", "Schedule", "StepDecay", "value_at"]
