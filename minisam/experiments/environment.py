"""What a result was computed with: versions, machine, threads."""

import platform
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
from threadpoolctl import threadpool_info

import minisam
from minisam.kernels import get_threads
from minisam.kernels.threads import available_cores


def _cpu_model() -> str:
    """The processor's name as its maker prints it, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """Versions and hardware, to be stored beside every result.

    >>> sorted(environment())
    ['blas', 'cores', 'cpu', 'minisam', 'numba', 'numpy', 'python', 'system', 'threads']
    """
    blas = [f"{lib['internal_api']} {lib['version']}" for lib in threadpool_info()]
    return {
        "minisam": minisam.__version__,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "numba": numba.__version__,
        "blas": ", ".join(sorted(set(blas))) or "unknown",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "threads": get_threads(),
    }
