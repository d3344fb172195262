"""The science: one training run, many of them compared, and the report."""

from minisam.experiments.checkpoint import Model, load_model, save_model
from minisam.experiments.config import Config
from minisam.experiments.train import Diverged, Prepared, Run, train

__all__ = ["Config", "Diverged", "Model", "Prepared", "Run", "load_model", "save_model", "train"]
