"""PyTorch with torch.compile: one step of each network, since compiling takes long."""

import torch
from workload import Case

from systems import pytorch

pytorch.COMPILE = torch.compile


def versions() -> dict:
    return {"torch.compile": torch.__version__}


def prepare(case: Case):
    if case.kind == "step" and case.n == 64 and case.width == 1 and not (case.busy or case.alone):
        return pytorch.prepare(case)
    return None
