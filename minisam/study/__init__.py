"""Many runs: what SAM gains, and how sure that is.

Read `recipes` (problems and methods, with their hyper-parameters), `experiments` (what is compared), `sweep` (many
runs, here or elsewhere), `comparison`, `statistics`, `report` (a page for each experiment) and `whole` (one for all).
"""

from minisam.study.sweep import Outcome, run_all

__all__ = ["Outcome", "run_all"]
