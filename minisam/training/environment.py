"""What a result was computed with: versions, machine, threads."""

import platform
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import minisam
from minisam.kernels import get_threads
from minisam.kernels.cores import available_cores
from minisam.training.files import brief

THREADING = ("cores", "threads")  # no result depends on these


def _cpu_model() -> str:
    """The processor's name, if the system tells it."""
    with suppress(OSError):  # not Linux
        names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
        return names[0] if names else platform.machine()
    return platform.processor() or platform.machine()


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences between two records, in words.

    >>> changes({"numpy": "2.3", "cores": 2}, {"numpy": "2.4", "cores": 2})
    ['numpy was 2.3, is 2.4']
    """
    keys = [key for key in now if key not in THREADING]
    different = (key for key in keys if repr(before.get(key)) != repr(now[key]))  # as text: NaN != NaN
    return [f"{key} was {brief(before.get(key))}, is {brief(now[key])}" for key in different]


def together(records: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Several records merged into one.

    >>> together([{"numpy": "2.3", "cores": 2}, {"numpy": "2.3", "cores": 4}])
    {'numpy': '2.3', 'cores': '2, 4'}
    """
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for key, value in record.items():
            values.setdefault(key, {})[str(value)] = None  # each once, in order
    return {key: ", ".join(found) for key, found in values.items()}


def environment() -> dict[str, Any]:
    """Versions and hardware, to be stored beside every result.

    >>> sorted(environment())
    ['blas', 'cores', 'cpu', 'minisam', 'numba', 'numpy', 'python', 'system', 'threads']
    """
    blas: Any = np.show_config(mode="dicts")  # NumPy's own: other libraries may have loaded another
    blas = blas["Build Dependencies"]["blas"]
    facts = {"minisam": minisam.__version__, "python": sys.version.split()[0], "numpy": np.__version__}
    numba = getattr(sys.modules.get("numba"), "__version__", "none")  # without it the kernels are plain NumPy
    facts |= {"numba": numba, "blas": f"{blas['name']} {blas['version']}", "cpu": _cpu_model()}
    facts["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    return facts | {"cores": available_cores(), "threads": get_threads()}
