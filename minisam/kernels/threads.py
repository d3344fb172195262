"""One thread pool for everything. (A first reading may skip this chapter: `parallel` is a loop.)

A network's step is a chain of short loops over blocks: some rows of a matrix, some images of a
batch. The blocks follow from the shapes alone, each is computed by one thread, and partial sums are
added in block order. So the result has the same bits on one thread and on sixteen. Where NumPy's own
matrix products stand between kernels, as in a layer that you write, BLAS must not start threads of its
own: two pools on the same cores wait for each other.
"""

import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from queue import SimpleQueue
from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic
from threadpoolctl import ThreadpoolController

from minisam.checks import Count, require
from minisam.kernels.compiled import kernel

MOST_THREADS = 256  # a slip of the keyboard should not start a million
_SPINS = 1 << 20  # looks at a counter, some 300 µs, before a waiting thread goes to sleep


def available_cores() -> int:
    """The number of cores that this process may use.

    >>> available_cores() >= 1
    True
    """
    # on Linux, taskset or a batch system may have restricted us
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_n_threads: int | None = None
_local = threading.local()


def get_threads() -> int:
    """Threads that the kernels use: from `set_threads`, otherwise OMP_NUM_THREADS, otherwise all available cores."""
    if _n_threads is not None:
        return _n_threads
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # the outermost level's
    return min(int(limit[:9]), MOST_THREADS) if limit[:9].isdecimal() and int(limit[:9]) > 0 else available_cores()


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


@intrinsic
def _load(typing_context, counter):
    """counter[0], read anew each time: the compiler would move an ordinary load out of the loop below."""

    def generate(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.load_atomic(array.data, "acquire", 8)

    return numba.types.int64(counter), generate


@kernel("void(i8[::1], i8, i8)")
def _spin(counter, value, most):
    """Wait until counter[0] ≥ value, but not forever."""
    while most > 0 and _load(counter) < value:
        most -= 1


class _Pool:
    """Threads that take work from a queue.

    Waking a sleeping thread takes longer than many of the loops here, so a waiting thread first spins:
    it looks at a counter, again and again. The queues decide what is done; spinning only saves time.
    """

    def __init__(self, n_threads: int) -> None:
        # A loop in plain Python would hold the global lock: without the compiler, no thread spins.
        self.spin = (lambda *_: None) if numba.config.DISABLE_JIT else _spin[np.dtype(np.float32)]
        self.tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.posted = np.zeros(1, np.int64)
        for i in range(n_threads):
            threading.Thread(target=self._help, name=f"minisam-{i}", daemon=True).start()

    def _help(self) -> None:
        _local.at_work = True
        np.seterr(over="ignore", invalid="ignore")  # what is not finite shows in the result
        while True:
            posted = self.posted[0]
            if self.tasks.empty():
                self.spin(self.posted, posted + 1, _SPINS)
            self.tasks.get()()

    def run(self, work: Callable[[], None], n_helpers: int) -> None:
        """Run work in the calling thread and in n_helpers others; raise the first error of any of them."""
        outcomes: SimpleQueue[BaseException | None] = SimpleQueue()
        finished = np.zeros(1, np.int64)

        def attempt() -> None:
            outcome: BaseException | None = None
            try:
                work()
            except BaseException as error:
                outcome = error
            outcomes.put(outcome)  # exactly one: a second would stay unread, Ctrl-C among them
            finished[0] += 1

        for _ in range(n_helpers):
            self.tasks.put(attempt)
        self.posted[0] += n_helpers
        attempt()
        self.spin(finished, n_helpers + 1, _SPINS)
        errors = [outcomes.get() for _ in range(n_helpers + 1)]
        for error in filter(None, errors):
            raise error


_pool = cache(_Pool)


if hasattr(os, "register_at_fork"):  # threads do not survive a fork; their pool must not either
    os.register_at_fork(after_in_child=_pool.cache_clear)


@cache
def _blas_libraries() -> list:
    return ThreadpoolController().select(user_api="blas").lib_controllers


_blas_lock = threading.Lock()
_blas_callers = 0
_blas_threads: list[int] = []  # before the first caller


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """A context in which BLAS starts no threads of its own; when the last caller leaves, the old limit returns."""
    global _blas_callers, _blas_threads
    with _blas_lock:
        if _blas_callers == 0:
            _blas_threads = [library.num_threads for library in _blas_libraries()]
            _limit_blas([1] * len(_blas_threads))
        _blas_callers += 1
    try:
        yield
    finally:
        with _blas_lock:
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


def runs(n: int, most: int) -> list[tuple[int, int]]:
    """Cut 0 … n - 1 into nearly equal runs (start, stop) of at most `most`: one run, or an even number of them.

    >>> runs(32, most=11)
    [(0, 8), (8, 16), (16, 24), (24, 32)]
    """
    count = min(n, 1 if n <= most else 2 * -(-n // (2 * most)))
    return list(itertools.pairwise(i * n // max(count, 1) for i in range(count + 1)))


def parallel(task: Callable[[int, int], Any], n: int, most: int = 1) -> list[Any]:
    """[task(start, stop) for start, stop in runs(n, most)], shared out among the threads.

    >>> parallel(lambda start, stop: sum(range(start, stop)), 4, most=2)
    [1, 5]
    """
    cuts = runs(n, most)
    results: list[Any] = [None] * len(cuts)
    waiting = iter(range(len(cuts)))  # next() is atomic: a free thread takes the next run

    def work() -> None:
        for i in waiting:
            results[i] = task(*cuts[i])

    if getattr(_local, "at_work", False):  # a task that calls a kernel: its thread computes it alone
        work()
        return results
    _local.at_work = True
    try:
        n_threads = min(get_threads(), len(cuts))
        if n_threads <= 1:
            work()
        else:
            _pool(get_threads() - 1).run(work, n_threads - 1)
    finally:
        _local.at_work = False
    return results


def scratch(dtype: np.dtype, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Uninitialised arrays in the calling thread's own memory, which its next call overwrites."""
    arrays, sizes = [], [math.prod(shape) for shape in shapes]
    n_bytes = sum(sizes) * dtype.itemsize
    if getattr(_local, "buffer", np.empty(0)).nbytes < n_bytes:
        _local.buffer = np.empty(n_bytes, np.uint8)
    rest = _local.buffer[:n_bytes].view(dtype)
    for shape, size in zip(shapes, sizes, strict=True):
        arrays.append(rest[:size].reshape(shape))
        rest = rest[size:]
    return arrays
