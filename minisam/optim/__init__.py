"""How a network learns: optimizers over one vector theta, and schedules for their numbers."""

from minisam.optim.ascent import Adaptive, Ascent, Ball, Friendly, RandomDirection
from minisam.optim.first_order import GD, Adam, FirstOrder, Momentum, Optimizer
from minisam.optim.memory import memory, recall
from minisam.optim.sam import GSAM, SAM, Clipped, ExactSAM, LookSAM, MicroBatched
from minisam.optim.schedules import Cosine, Every, Late, Schedule, StepDecay, value_at

__all__ = [
    "GD", "GSAM", "SAM", "Adam", "Adaptive", "Ascent", "Ball", "Clipped", "Cosine", "Every", "ExactSAM", "FirstOrder",
    "Friendly", "Late", "LookSAM", "MicroBatched", "Momentum", "Optimizer", "RandomDirection", "Schedule", "StepDecay",
    "memory", "recall", "value_at",
]  # fmt: skip
