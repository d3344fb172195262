"""One run: its choices (`config`), the loop (`loop`), and what it leaves on disk (`model`, `checkpoint`)."""

from minisam.training.checkpoint import Checkpoints
from minisam.training.config import Config
from minisam.training.loop import Diverged, Prepared, Run, network, train
from minisam.training.model import Model, load_model, save_model

__all__ = [
    "Checkpoints",
    "Config",
    "Diverged",
    "Model",
    "Prepared",
    "Run",
    "load_model",
    "network",
    "save_model",
    "train",
]
