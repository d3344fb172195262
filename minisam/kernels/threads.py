"""One thread pool for everything. (A first reading may skip this chapter: `parallel` is a loop.)

A network's step is a chain of short loops over runs: some rows of a matrix, some images of a
batch. The runs follow from the shapes alone, each is computed by one thread, and partial sums are
added in their order. So the result has the same bits on one thread and on sixteen. Where NumPy's own
matrix products stand between kernels, as in a layer that you write, BLAS must not start threads of its
own: two pools on the same cores wait for each other.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import numba
from threadpoolctl import ThreadpoolController

from minisam.checks import Array, Count, require
from minisam.kernels.compiled import Kernel, MachineCode, compiling
from minisam.kernels.team import BOARD, MOST_RUNS, help_out, new_board

MOST_THREADS = 256  # a slip of the keyboard should not start a million


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


class _Pool:
    """Threads that help whoever has a job on the pool's board."""

    def __init__(self, n_helpers: int) -> None:
        self.n_helpers, self.board, self.free = n_helpers, new_board(n_helpers + 1), threading.Lock()
        self.asleep: deque[threading.Lock] = deque()  # what sleeping helpers wait for
        self.dismissed = False
        if n_helpers and not numba.config.DISABLE_JIT:
            _help_out.compile(BOARD, numba.i8)
            with suppress(RuntimeError):  # the system starts no more threads: go on with those that there are
                for i in range(n_helpers):
                    threading.Thread(target=self._help, args=[i + 1], name=f"minisam-{i}", daemon=True).start()

    def _help(self, thread: int) -> None:
        awake = threading.Lock()
        awake.acquire()
        while not self.dismissed:
            _help_out.run(self.board, thread)
            self.asleep.append(awake)
            if self.free.locked() or self.dismissed:  # by one that may not have seen this helper fall asleep
                self.wake()
            awake.acquire()

    def wake(self) -> None:
        """Let all helpers look at the board: whoever has the pool is about to write a job there."""
        with suppress(IndexError):  # several threads may wake them at once
            while self.asleep:
                self.asleep.pop().release()

    def dismiss(self) -> None:
        """Let the helpers end."""
        self.dismissed = True
        self.wake()


_help_out = MachineCode(help_out)
_pool = _Pool(0)
_changing_pool = threading.Lock()


def _current_pool() -> _Pool:
    """The pool, made anew if the number of threads has changed."""
    global _pool
    n_helpers = get_threads() - 1
    if _pool.n_helpers != n_helpers:
        with _changing_pool:  # several threads may ask at once
            if _pool.n_helpers != n_helpers:
                before, _pool = _pool, _Pool(n_helpers)
                before.dismiss()
    return _pool


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


def _before_fork() -> None:
    for lock in _LOCKS:
        lock.acquire()


def _after_fork() -> None:
    for lock in _LOCKS:
        lock.release()


def _after_fork_in_child() -> None:
    global _pool
    _pool = _Pool(0)  # threads do not survive a fork
    _after_fork()


# What another thread holds while a process forks is held in the child forever: wait for it.
_LOCKS = (compiling, _changing_pool, _blas_lock)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


def n_runs(n: int, most: int) -> int:
    """How many runs of at most `most` to cut 0 … n - 1 into: one, or an even number of them, up to MOST_RUNS.

    >>> n_runs(32, most=32), n_runs(32, most=11)
    (1, 4)
    """
    return 1 if n <= most else min(n, 2 * -(-n // (2 * most)), MOST_RUNS)


def parallel(kernel: Kernel, n: int, count: int, *args: Any) -> None:
    """loop(run, run · n // count, (run + 1) · n // count, *args) for run < count, shared out among the threads.

    The first of args is an array of the type for which the kernel is to be compiled.

    Raises:
        MemoryError: a run found no memory for its scratch arrays.
    """
    number = args[0].dtype.type
    args = tuple(number(value) if isinstance(value, float) else value for value in args)
    loop, share = kernel[args[0].dtype], kernel.share.run
    if numba.config.DISABLE_JIT:
        for run in range(count):
            kernel.loop(run, run * n // count, (run + 1) * n // count, *args)
        return
    pool = _current_pool()
    if count > 1 and pool.free.acquire(blocking=False):
        try:
            pool.wake()
            failed = share(pool.board, loop, n, count, args)
        finally:
            pool.free.release()
    else:  # little to do, or other threads have the pool
        failed = share(_own_board(), loop, n, count, args)
    if failed:
        raise MemoryError(f"{kernel.loop.__name__} found no memory for {n} items")


def _own_board() -> Array:
    if not hasattr(_local, "board"):
        _local.board = new_board(1)
    return _local.board
