"""What is done with the library: training runs, the command line, and the study of what SAM gains.

Read `train` (one run), `config` (its choices), `datasets` (its images), `cli` (the commands); then `recipes` (problems
and methods, with their hyper-parameters), `experiments` (what is compared), `sweep` (many runs, here or elsewhere),
`reproduce` (their comparison), `statistics` (how sure that is), `report` and `study` (its pages).
"""

from minisam_study.checkpoint import Checkpoints, Model, load_model, save_model
from minisam_study.config import Config
from minisam_study.datasets import load
from minisam_study.sweep import Outcome, run_all
from minisam_study.synthetic import synthetic
from minisam_study.train import Diverged, Prepared, Run, train

__all__ = ["Checkpoints", "Config", "Diverged", "Model", "Outcome", "Prepared", "Run"]
__all__ += ["load", "load_model", "run_all", "save_model", "synthetic", "train"]
