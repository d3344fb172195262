"""Many runs: how much SAM gains, and how sure that is.

Read `recipes` (problems and methods, with their hyper-parameters), `kinds` and `experiments` (comparisons to run),
`tasks` and `sweep` (one run, and many, kept by `store` and computed by `executors`), `comparison`, `statistics`,
`report` (a page for each experiment, with pictures from `plots`, `method_plots` and `experiment_plots`), and `whole`
with `claims` (one page for all).
Of single models: `geometry` with `geometry_plots`; of optimizers on surfaces: `toy_plots`.
"""

from minisam.study.sweep import run_all
from minisam.study.tasks import Outcome

__all__ = ["Outcome", "run_all"]
