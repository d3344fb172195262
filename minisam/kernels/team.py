"""How threads share out a loop, in machine code. (A first reading may skip this chapter.)

A network's step is a chain of a hundred short loops. To let Python hand the parts of each to a pool of threads
costs some 40 µs, more than many of these loops take: only one thread at a time may run Python, and waking
one that waits for its turn is slow. So the threads meet without Python, at a board: an array that all of them watch.

- The leader, the thread that calls a kernel, writes a job on the board (a loop and its arguments), then a
  ticket: the job's number, and in how many runs it is cut.
- Every thread, the leader too, goes through the runs and claims one after the other: it writes the job's number
  where an older one was. That succeeds for one thread only, and not for one that is late with a job that is over.
- Each begins in a part of its own, the same in every job: what it has just written for some images is in its
  core's cache when the next layer reads it.
- The leader goes on when all runs are done. It does not wait for a thread without a run: if another program
  keeps that thread from its core, nobody misses it.
"""

import ctypes
import platform
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from minisam.checks import Array

# Places on a board, an array of int64; 64 bytes apart, so that cores do not fight for one line of their caches.
_TICKET, _JOB, _FAILED, _LOCK, _THREADS, _DATA, _CLAIMS = 0, 8, 16, 24, 32, 40, 512
MOST_RUNS = 1 << 12
_COUNTS = 2 * MOST_RUNS  # a ticket is (the job's number) · _COUNTS + (its number of runs)
_PATIENCE = 1 << 16  # looks at a board, some ms, before a helper without work goes to sleep
_SHORT_WAIT = 1 << 12  # looks, before a leader that waits for the last run takes a nap
_NAP = 50  # µs

_INT = ir.IntType(64)
BOARD = numba.types.Array(numba.i8, 1, "C")
_RUN = ir.FunctionType(_INT, [_INT.as_pointer(), _INT])  # (the job's data, the run's number) → 1 if it failed


_X86: Any = ("llvm.x86.sse2.pause", [])
_ARM: Any = ("llvm.aarch64.hint", [ir.IntType(32)(1)])
_PAUSES = {"x86_64": _X86, "amd64": _X86, "arm64": _ARM, "aarch64": _ARM}


def _place(context: Any, builder: Any, board: Any, i: Any) -> Any:
    """The address of board[i]."""
    return builder.gep(context.make_array(BOARD)(context, builder, board).data, [i])


@intrinsic
def _load(typing_context, board, i):
    """board[i], read anew each time: the compiler would move an ordinary load out of a loop."""

    def generate(context, builder, signature, args):
        return builder.load_atomic(_place(context, builder, *args), "seq_cst", 8)

    return numba.i8(board, numba.i8), generate


@intrinsic
def _store(typing_context, board, i, value):
    """board[i] = value, seen by the other threads only after everything that was written before."""

    def generate(context, builder, signature, args):
        builder.store_atomic(args[2], _place(context, builder, *args[:2]), "seq_cst", 8)
        return context.get_dummy_value()

    return numba.void(board, numba.i8, numba.i8), generate


@intrinsic
def _replace(typing_context, board, i, old, new):
    """Whether board[i] was `old`; then it is `new`."""

    def generate(context, builder, signature, args):
        place = _place(context, builder, *args[:2])
        return builder.extract_value(builder.cmpxchg(place, args[2], args[3], "seq_cst", "seq_cst"), 1)

    return numba.b1(board, numba.i8, numba.i8, numba.i8), generate


@intrinsic
def _pause(typing_context):
    """Hardly anything, but so that another thread on the same core has it to itself meanwhile."""

    def generate(context, builder, signature, args):
        name, hint = _PAUSES.get(platform.machine().lower(), ("", []))
        if name:
            kind = ir.FunctionType(ir.VoidType(), [value.type for value in hint])
            builder.call(builder.module.declare_intrinsic(name, (), kind), hint)
        return context.get_dummy_value()

    return numba.void(), generate


@intrinsic
def _perform(typing_context, job, board, run):
    """Call the machine code at the address `job` for one run; 1 if it failed."""

    def generate(context, builder, signature, args):
        code = builder.inttoptr(args[0], _RUN.as_pointer())
        return builder.call(code, [_place(context, builder, args[1], _INT(_DATA)), args[2]])

    return numba.i8(numba.i8, board, numba.i8), generate


@intrinsic
def _write_job(typing_context, board, loop, n, count, args):
    """Write all but the first on the board; return the address of code that calls, for one run of the job,

    loop(run, run · n // count, (run + 1) · n // count, *args).
    """
    types = (numba.i8, numba.i8, numba.i8, *args)

    def generate(context, builder, signature, values):
        data, convention = cgutils.pack_struct(builder, values[1:]), context.call_conv
        if context.get_abi_sizeof(data.type) > 8 * (_CLAIMS - _DATA):
            raise TypeError("the arguments of a kernel do not fit on the board")
        to = _place(context, builder, values[0], _INT(_DATA))
        builder.store(data, builder.bitcast(to, data.type.as_pointer()), align=8)

        job = ir.Function(builder.module, _RUN, "run_of_" + builder.function.name)
        job.linkage = "internal"
        inner, (address, run) = ir.IRBuilder(job.append_basic_block()), job.args
        data = inner.load(inner.bitcast(address, data.type.as_pointer()), align=8)
        loop, n, count, packed = (inner.extract_value(data, i) for i in range(4))
        start, stop = (inner.sdiv(inner.mul(i, n), count) for i in (run, inner.add(run, _INT(1))))
        unpacked = [inner.extract_value(packed, i) for i in range(len(args))]
        code = inner.inttoptr(loop, convention.get_function_type(numba.void, types).as_pointer())
        status, _ = convention.call_function(inner, code, numba.void, types, [run, start, stop, *unpacked])
        inner.ret(inner.zext(status.is_error, _INT))
        return builder.ptrtoint(job, _INT)

    return numba.i8(board, numba.i8, numba.i8, numba.i8, args), generate


# Python's own, on every system; it may be called by threads that do not run Python.
_wait_for_lock = numba.types.ExternalFunction("PyThread_acquire_lock_timed", numba.i4(numba.intp, numba.i8, numba.i4))


@numba.njit(nogil=True)
def _take_runs(board, ticket, thread):
    """Do the runs of the ticket's job that no other thread claims first."""
    number, count = ticket // _COUNTS, ticket % _COUNTS
    claimed, done, first = 2 * number, 2 * number + 1, count * thread // board[_THREADS]
    for i in range(count):
        run = (first + i) % count
        before = _load(board, _CLAIMS + run)
        if before < claimed and _replace(board, _CLAIMS + run, before, claimed):
            if _perform(_load(board, _JOB), board, run):
                _store(board, _FAILED, 1)
            _store(board, _CLAIMS + run, done)


@numba.njit(nogil=True)
def _lead(board, job, count):
    """Let all threads do the job's runs 0 … count - 1, and wait for them; whether one failed."""
    ticket = (_load(board, _TICKET) // _COUNTS + 1) * _COUNTS + count
    _store(board, _FAILED, 0)
    _store(board, _JOB, job)
    _store(board, _TICKET, ticket)
    _take_runs(board, ticket, 0)
    looks, done = 0, 2 * (ticket // _COUNTS) + 1
    for run in range(count):
        while _load(board, _CLAIMS + run) < done:
            looks += 1
            _pause()
            if looks > _SHORT_WAIT:  # a helper was interrupted: leave it this core, too
                _wait_for_lock(board[_LOCK], _NAP, 0)  # which nobody releases: a nap
    return _load(board, _FAILED) != 0


def share(board, loop, n, count, args):
    """What the leader runs: the loop at this address in `count` runs over 0 … n - 1; whether one failed."""
    return _lead(board, _write_job(board, loop, n, count, args), count)


def help_out(board, thread):
    """Do runs of every job on the board, until none came for a while."""
    looks = seen = 0
    while looks < _PATIENCE:
        ticket = _load(board, _TICKET)
        if ticket == seen:
            looks += 1
            _pause()
        else:
            _take_runs(board, ticket, thread)
            looks, seen = 0, ticket


def new_board(n_threads: int) -> Array:
    """A board without a job."""
    board = np.zeros(_CLAIMS + MOST_RUNS, np.int64)
    board[_LOCK], board[_THREADS] = _taken_lock(), n_threads
    return board


@cache
def _taken_lock() -> int:
    """The address of a lock that is never released."""
    allocate, acquire = ctypes.pythonapi.PyThread_allocate_lock, ctypes.pythonapi.PyThread_acquire_lock
    allocate.restype, acquire.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int)
    lock = allocate()
    acquire(lock, 1)
    return lock
