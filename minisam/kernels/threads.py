"""One thread pool for everything. (A first reading may skip this chapter: `parallel` is a loop.)

A network's step is a chain of short loops over runs: some rows of a matrix, some images of a
batch. The runs follow from the shapes alone, each is computed by one thread, and partial sums are
added in their order. So the result has the same bits on one thread and on sixteen.
"""

import os
import threading
from collections import deque
from contextlib import suppress
from typing import Any

import numba

from minisam.checks import Array
from minisam.kernels.compiled import Kernel, MachineCode, compiling
from minisam.kernels.cores import blas_lock, get_threads
from minisam.kernels.team import BOARD, MOST_RUNS, help_out, new_board

_local = threading.local()


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
            if self.free.locked() or self.dismissed:  # somebody may not have seen it fall asleep
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
_LOCKS = (compiling, _changing_pool, blas_lock)
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
