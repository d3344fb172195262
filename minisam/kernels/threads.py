"""One thread pool for everything.

A network's step is a chain of short loops over blocks: some rows of a matrix, some images of a
batch. The blocks are cut by shapes alone, each is computed by one thread, and partial sums are
added in block order; so the result has the same bits on one thread and on sixteen. Inside a block
BLAS must stay on its own thread: two pools on the same cores wait for each other.
"""

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from minisam.checks import require_count


def available_cores() -> int:
    """Cores this process may use.

    >>> available_cores() >= 1
    True
    """
    # Linux: what taskset or a batch system left us
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_n_threads: int | None = None
_local = threading.local()


def get_threads() -> int:
    """Threads the kernels use: `set_threads`, else OMP_NUM_THREADS, else every available core."""
    if _n_threads is not None:
        return _n_threads
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # the outermost level's
    return int(limit) if limit.isdigit() and int(limit) > 0 else available_cores()


def set_threads(n: int) -> None:
    """Let the kernels use n threads. Results do not depend on it, to the last bit.

    Raises:
        ValueError: n < 1.

    >>> set_threads(2); get_threads()
    2
    """
    global _n_threads
    require_count("threads", n)
    _n_threads = n


@cache
def _pool(n_helpers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_helpers, thread_name_prefix="minisam")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork; their pool must not either
    os.register_at_fork(after_in_child=_pool.cache_clear)


@cache
def _blas_libraries() -> list:
    return ThreadpoolController().select(user_api="blas").lib_controllers


class _SingleThreadedBlas:
    """Within it BLAS starts no threads of its own; after the last caller it may do as before.

    Every `parallel_for` is such a caller. A loop that is one too saves them asking the library.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.callers = 0
        self.before: list[int] = []

    def __enter__(self) -> None:
        with self.lock:
            if self.callers == 0:
                self.before = [library.num_threads for library in _blas_libraries()]
                self._limit([1] * len(self.before))
            self.callers += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.callers -= 1
            if self.callers == 0:
                self._limit(self.before)

    def _limit(self, n_threads: list[int]) -> None:
        for library, n in zip(_blas_libraries(), n_threads, strict=True):
            # Newer threadpoolctl obeys only the first thread that set a limit; here the
            # callers agree under a lock, whichever thread they are on.
            release = getattr(library, "clear_controlling_thread", lambda force: None)
            release(force=True)
            library.set_num_threads(n)
            release(force=True)


single_threaded_blas = _SingleThreadedBlas()


def parallel_for(task: Callable[[int], object], n_blocks: int) -> None:
    """Run task(0), …, task(n_blocks - 1) on the pool's threads and wait for all of them.

    >>> squares = [0] * 5
    >>> parallel_for(lambda i: squares.__setitem__(i, i * i), 5)
    >>> squares
    [0, 1, 4, 9, 16]
    """
    if getattr(_local, "at_work", False):  # a task that calls a kernel: its thread does it alone
        for block in range(n_blocks):
            task(block)
        return
    blocks = itertools.count()  # next() is atomic: whoever is free takes the next block

    def work() -> None:
        _local.at_work = True
        try:
            for block in itertools.takewhile(lambda block: block < n_blocks, blocks):
                task(block)
        finally:
            _local.at_work = False

    with single_threaded_blas:
        n_helpers = min(get_threads(), n_blocks) - 1
        if n_helpers < 1:
            work()
            return
        pool = _pool(get_threads() - 1)
        helpers = [pool.submit(work) for _ in range(n_helpers)]
        try:
            work()  # the caller is a worker too
        finally:
            wait(helpers)
        for helper in helpers:
            helper.result()  # raise here what failed there


def scratch(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uninitialised memory of the calling thread's own, written over by its next call."""
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    buffer = getattr(_local, "buffer", None)
    if buffer is None or buffer.nbytes < n_bytes:
        buffer = _local.buffer = np.empty(n_bytes, np.uint8)
    return buffer[:n_bytes].view(dtype).reshape(shape)
