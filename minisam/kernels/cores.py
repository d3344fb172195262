"""How many threads compute, and how many of NumPy's own do so: one.

Where NumPy's matrix products stand between kernels, as in a layer that you write, BLAS must not start threads of its
own: two pools on the same cores wait for each other.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

from minisam.checks import Count, require

MOST_THREADS = 256  # a slip of the keyboard should not start a million


def available_cores() -> int:
    """The number of cores that this process may use.

    >>> available_cores() >= 1
    True
    """
    # on Linux, taskset or a batch system may have restricted us
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_n_threads: int | None = None


def get_threads() -> int:
    """Threads that the kernels use: from `set_threads`, otherwise OMP_NUM_THREADS, otherwise all available cores."""
    return _n_threads or _threads_by_default(os.environ.get("OMP_NUM_THREADS", ""))


@cache
def _threads_by_default(limits: str) -> int:
    limit = limits.split(",")[0][:9]  # the outermost level's
    return min(int(limit), MOST_THREADS) if limit.isdecimal() and int(limit) > 0 else available_cores()


def set_threads(n: int) -> None:
    """Let the kernels use n threads. Results do not depend on it, to the last bit.

    Raises:
        ValueError: n < 1, or n above MOST_THREADS.

    >>> set_threads(2); get_threads()
    2
    """
    global _n_threads
    require("threads", n, Count)
    if n > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS}, got {n}")
    _n_threads = n


@cache
def _blas_libraries() -> list:
    return ThreadpoolController().select(user_api="blas").lib_controllers


blas_lock = threading.Lock()
_blas_callers = 0
_blas_threads: list[int] = []  # before the first caller


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """A context in which BLAS starts no threads of its own; when the last caller leaves, the old limit returns."""
    global _blas_callers, _blas_threads
    with blas_lock:
        if _blas_callers == 0:
            _blas_threads = [library.num_threads for library in _blas_libraries()]
            _limit_blas([1] * len(_blas_threads))
        _blas_callers += 1
    try:
        yield
    finally:
        with blas_lock:
            _blas_callers -= 1
            if _blas_callers == 0:
                _limit_blas(_blas_threads)


def _limit_blas(n_threads: list[int]) -> None:
    for library, n in zip(_blas_libraries(), n_threads, strict=True):
        # Newer threadpoolctl obeys only the first thread that set a limit; here callers on any thread
        # agree under a lock.
        release = getattr(library, "clear_controlling_thread", lambda force: None)
        release(force=True)
        library.set_num_threads(n)
        release(force=True)
