"""The threads do every run of a job once, say what fails, and a forked child has its own."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core.compiler_lock import global_compiler_lock
from threadpoolctl import threadpool_info, threadpool_limits

import minisam
from minisam import kernels
from minisam.kernels import compiled, cores, team, threads
from minisam.kernels.compiled import compile_all, kernel
from minisam.kernels.cores import available_cores, get_threads, set_threads, single_threaded_blas
from minisam.kernels.team import MOST_RUNS
from minisam.kernels.threads import n_runs, parallel
from minisam.nn import BatchLoss, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential


def blas_threads():
    """The thread counts of NumPy's BLAS: SciPy, if another test loads it, brings its own."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return [library["num_threads"] for library in libraries if "scipy.libs" not in library["filepath"]]


NEEDS_BLAS = pytest.mark.skipif(not blas_threads(), reason="no BLAS whose threads can be counted")


jit = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="plain Python runs in one thread")


@kernel("void(T[::1], i8[:,::1])")
def note(run, start, stop, x, seen):
    """What run was called with, and how often."""
    seen[run, 0] += 1
    seen[run, 1], seen[run, 2] = start, stop


@kernel("void(T[::1], i8)")
def fail(run, start, stop, x, bad):
    if run == bad:
        raise MemoryError


@kernel("void(T[::1], i8[::1], i8[::1])")
def meet(run, start, stop, x, here, met):
    """Wait for the other of two runs, though not forever."""
    team._store(here, run, 1)
    for _ in range(1 << 34):
        if team._load(here, 1 - run):
            met[run] = 1
            break


def noted(n, count):
    seen = np.zeros((count, 3), np.int64)
    parallel(note, n, count, np.zeros(1), seen)
    return seen


@given(n=st.integers(0, 200), count=st.integers(1, 60), n_threads=st.integers(1, 4))
def test_every_run_runs_once_and_every_item_is_in_one(n, count, n_threads):
    set_threads(n_threads)
    times, starts, stops = noted(n, count).T
    assert np.all(times == 1)
    assert starts[0] == 0
    assert stops[-1] == n
    assert np.array_equal(starts[1:], stops[:-1])


@given(n=st.integers(0, 10**6), most=st.integers(1, 10**6))
def test_runs_are_of_nearly_one_size_and_no_larger_than_asked(n, most):
    count = n_runs(n, most)
    assert 1 <= count <= max(1, min(n, MOST_RUNS))
    assert count == 1 or count % 2 == 0 or count == n  # shared out among two threads, nobody waits
    if count < MOST_RUNS:
        assert -(-n // count) <= most


@pytest.mark.parametrize("n_threads", [2, 5])
def test_no_run_is_lost_or_done_twice_while_jobs_come_quickly(n_threads):
    """A thread may be late with a job while the next one, of more runs or fewer, is on the board."""
    set_threads(n_threads)
    for i in range(3000):
        assert np.all(noted(1000, 1 + i * 7 % 90)[:, 0] == 1)


@jit
def test_two_threads_work_at_once():
    """Each run waits for the other: one thread alone would do the first, and give up."""
    set_threads(2)
    met = np.zeros(2, np.int64)
    parallel(meet, 2, 2, np.zeros(1), np.zeros(2, np.int64), met)
    assert met.tolist() == [1, 1]


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("bad", range(6))
def test_a_run_without_memory_is_an_error_and_the_next_job_is_none(n_threads, bad):
    set_threads(n_threads)
    with pytest.raises(MemoryError):
        parallel(fail, 6, 6, np.zeros(1), bad)
    parallel(fail, 6, 6, np.zeros(1), 6)


@jit
def test_a_job_whose_arguments_do_not_fit_on_the_board_is_refused(monkeypatch):
    """They would be written over the claims."""
    monkeypatch.setattr(compiled, "_kernels", [])
    monkeypatch.setattr(team, "_CLAIMS", team._DATA + 10)
    unlike_any_other = kernel("void(T[:,:,:,:,:,::1])")(lambda run, start, stop, x: None)
    with pytest.raises(TypeError, match="do not fit"):
        unlike_any_other.compile(np.dtype(np.float32))


AT_ONCE = """
import sys, threading, numpy as np
from concurrent.futures import ThreadPoolExecutor
from minisam import kernels
from minisam.kernels.compiled import compile_all

compile_all(np.dtype(np.float64))
kernels.set_threads(2)
together, x = threading.Barrier(16), np.ones(3)

def first(_):
    together.wait()
    return kernels.norm(x)

with ThreadPoolExecutor(16) as threads:
    assert len(set(threads.map(first, range(16)))) == 1
assert sum(thread.name.startswith("minisam") for thread in threading.enumerate()) == 1  # one pool
"""


@jit
def test_several_python_threads_may_be_the_first_to_compute():
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_several_python_threads_may_compute_at_once():
    set_threads(3)
    x = np.arange(300_000.0)

    def squares(scale):
        return [kernels.norm(scale * x) for _ in range(20)]

    with ThreadPoolExecutor(4) as callers:
        results = list(callers.map(squares, [1.0, 2.0, 3.0, 4.0]))
    assert results == [squares(scale) for scale in (1.0, 2.0, 3.0, 4.0)]


def helpers():
    return sum(thread.name.startswith("minisam") for thread in threading.enumerate())


def test_the_helpers_of_before_end():
    for n_threads in (7, 2, 9, 4):
        set_threads(n_threads)
        assert noted(30, 30)[:, 0].tolist() == [1] * 30
    patience = time.monotonic() + 60
    while helpers() > 3 and time.monotonic() < patience:
        time.sleep(0.01)
    assert helpers() == (0 if numba.config.DISABLE_JIT else 3)


@jit
def test_where_no_more_threads_can_be_started_the_work_is_done_by_those_there_are(monkeypatch):
    started = []

    def start(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real_start(thread)

    real_start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    set_threads(8)
    assert noted(30, 30)[:, 0].tolist() == [1] * 30
    assert len(started) == 2


@jit
@pytest.mark.parametrize("slow", ["to see who is asleep", "to write its job"])
def test_a_helper_does_not_sleep_through_a_job(slow, monkeypatch):
    """A leader takes the pool, wakes those asleep and writes a job; a helper may be falling asleep meanwhile."""

    class Looks:
        """Each look at a board is over at once, but for the first."""

        def compile(self, *types):
            return False

        def run(self, board, thread):
            looks[id(board)] += 1  # helpers of earlier tests have boards of their own
            if looks[id(board)] == 1:
                taken.wait(60)
            elif looks[id(board)] > 3:
                again.set()

    looks, taken, again = Counter(), threading.Event(), threading.Event()
    monkeypatch.setattr(threads, "_help_out", Looks())
    pool = threads._Pool(1)
    with pool.free:
        if slow == "to write its job":
            pool.wake()
        taken.set()
        assert again.wait(20)
    patience = time.monotonic() + 60
    while not pool.asleep and time.monotonic() < patience:
        time.sleep(0.01)
    assert pool.asleep  # and it rests when there is none
    pool.dismiss()


def in_a_child():
    """All that takes a lock."""
    compile_all(np.dtype(np.float64))
    set_threads(3)
    x = np.ones(300_000)
    with single_threaded_blas():
        ok = kernels.norm(x) == np.sqrt(300_000)
    os._exit(0 if ok else 1)


@contextmanager
def held(lock, seconds):
    """Another thread has the lock so long, or until we are done."""
    has_it, done = threading.Event(), threading.Event()

    def hold():
        with lock:
            has_it.set()
            done.wait(seconds)

    holder = threading.Thread(target=hold)
    holder.start()
    has_it.wait(60)
    yield
    done.set()
    holder.join()


MEANWHILE = {"nothing": nullcontext(), "Numba compiles": held(global_compiler_lock, 60)}
for name, lock in zip(["we compile", "the pool changes", "BLAS's threads change"], threads._LOCKS, strict=True):
    MEANWHILE[name] = held(lock, 0.3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("meanwhile", MEANWHILE.values(), ids=MEANWHILE)
def test_a_forked_child_computes(meanwhile):
    set_threads(2)
    noted(2, 2)  # the parent's pool exists: its threads die in the child
    child = multiprocessing.get_context("fork").Process(target=in_a_child)
    with meanwhile:
        child.start()
    child.join(20)
    code = child.exitcode
    child.kill()
    assert code == 0


@NEEDS_BLAS
def test_blas_has_one_thread_inside_and_its_own_number_afterwards():
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with single_threaded_blas():
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
        with pytest.raises(KeyError), single_threaded_blas():
            raise KeyError
        assert blas_threads() == before


@NEEDS_BLAS
def test_blas_keeps_to_one_thread_until_the_last_caller_is_done():
    first_started, second_started, first_done = (threading.Event() for _ in range(3))
    inside = []

    def first():
        with single_threaded_blas():
            first_started.set()
            second_started.wait(1)

    def second():
        first_started.wait(30)
        with single_threaded_blas():
            second_started.set()
            first_done.wait(30)
            inside.extend(blas_threads())

    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(2) as callers:
        one, other = callers.submit(first), callers.submit(second)
        one.result()
        first_done.set()
        other.result()
    assert set(inside) == {1}


@NEEDS_BLAS
def test_a_layer_that_multiplies_with_numpy_does_so_on_one_thread():
    class Watching(Flatten):
        def forward(self, params, x, env):
            inside.extend(blas_threads())
            return super().forward(params, x, env)

    inside = []
    batch = BatchLoss(Sequential([Watching()], (2,)), np.eye(2), np.array([0, 1]))
    with threadpool_limits(2, user_api="blas"):
        batch(np.empty(0))
        batch.value(np.empty(0))
    assert set(inside) == {1}


def test_threads_are_what_was_set():
    set_threads(3)
    assert get_threads() == kernels.get_threads() == 3


@pytest.mark.parametrize("n", [0, -2, 1.5])
def test_fewer_than_one_thread_is_refused(n):
    with pytest.raises(ValueError, match=f"^threads must be .* ≥ 1, got {n}"):
        set_threads(n)


@pytest.mark.parametrize(
    ("limit", "expected"), [("1", 1), ("3", 3), ("5,2", 5), ("", None), ("0", None), ("many", None)]
)
def test_omp_num_threads_is_the_default(limit, expected, monkeypatch):
    """Of several numbers the first is for the outermost level."""
    monkeypatch.setattr("minisam.kernels.cores._n_threads", None)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert get_threads() == (expected or available_cores())


def loss_and_grad():
    layers = [Conv2d(2, 3, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(12, 3)]
    net, rng = Sequential(layers, input_shape=(4, 5, 2)), np.random.default_rng(0)
    theta, x = net.init(rng, np.float64), rng.standard_normal((2, 4, 5, 2))
    loss, grad = net.loss_and_grad(theta, x, np.array([0, 2]))
    return [loss, *grad.tolist()]


def test_without_the_compiler_the_same_code_runs_as_plain_python():
    here = [str(Path(__file__).parent), str(Path(minisam.__file__).parents[1])]
    result = subprocess.run(
        [sys.executable, "-c", "import test_threads; print(test_threads.loss_and_grad())"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join(here)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    interpreted = [float(value) for value in result.stdout.strip("[]\n").split(",")]
    assert interpreted == pytest.approx(loss_and_grad(), rel=1e-12)


def test_a_slip_of_the_keyboard_starts_no_million_threads(monkeypatch):
    with pytest.raises(ValueError, match=r"^threads must be at most 256, got 1000000$"):
        set_threads(1_000_000)
    with pytest.raises(ValueError, match=r"^threads must be at most 256"):
        set_threads(10**31)
    monkeypatch.setattr(cores, "_n_threads", None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1" * 31)
    assert get_threads() == 256
