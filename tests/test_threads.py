"""The thread pool runs every block once, passes on what fails, and survives a fork."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

import minisam
from minisam import kernels
from minisam.kernels import threads
from minisam.kernels.threads import available_cores, get_threads, parallel, scratch, set_threads, single_threaded_blas
from minisam.nn import BatchLoss, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential


def blas_threads():
    """The thread counts of NumPy's BLAS: SciPy, if another test loads it, brings its own."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return [library["num_threads"] for library in libraries if "scipy.libs" not in library["filepath"]]


NEEDS_BLAS = pytest.mark.skipif(not blas_threads(), reason="no BLAS whose threads can be counted")


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("n_blocks", [0, 1, 2, 3, 7, 100])
def test_every_block_runs_once(n_threads, n_blocks):
    set_threads(n_threads)
    ran = []
    parallel(lambda start, stop: ran.append((start, stop)), n_blocks)
    assert sorted(ran) == [(i, i + 1) for i in range(n_blocks)]


@given(n=st.integers(0, 50), run=st.integers(1, 60), n_threads=st.integers(1, 4))
def test_runs_cover_every_item_once(n, run, n_threads):
    set_threads(n_threads)
    ran = []
    parallel(lambda start, stop: ran.append(range(start, stop)), n, run)
    assert sorted(i for items in ran for i in items) == list(range(n))
    sizes = [len(items) for items in ran]
    assert all(0 < size <= run for size in sizes)
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("bad", range(6))
def test_what_a_block_raises_is_raised_to_the_caller(n_threads, bad):
    def task(block, _):
        if block == bad:
            raise KeyError(f"block {bad}")

    set_threads(n_threads)
    with pytest.raises(KeyError, match=f"block {bad}"):
        parallel(task, 6)
    test_every_block_runs_once(n_threads, 7)


@pytest.mark.parametrize("in_caller", [True, False])
def test_what_fails_in_one_of_two_threads_is_raised(in_caller):
    """Each block waits for the other: one thread alone would wait forever."""
    both, caller = threading.Barrier(2), threading.get_ident()

    def task(*_):
        both.wait(timeout=30)
        if (threading.get_ident() == caller) == in_caller:
            raise KeyError("one")

    set_threads(2)
    with pytest.raises(KeyError, match="one"):
        parallel(task, 2)


def test_no_thread_works_on_after_a_failure_was_raised():
    both, caller, done = threading.Barrier(2), threading.get_ident(), []

    def task(*_):
        both.wait(timeout=30)
        if threading.get_ident() == caller:
            raise KeyError
        time.sleep(0.1)
        done.append(True)

    set_threads(2)
    with pytest.raises(KeyError):
        parallel(task, 2)
    assert done


def test_scratch_memory_is_each_threads_own():
    both = threading.Barrier(2)

    def task(block, _):
        mine, also_mine = scratch(np.dtype(np.float64), (3, 5), (2,))
        mine[:] = also_mine[:] = block
        both.wait(timeout=30)
        assert np.all(mine == block)
        assert np.all(also_mine == block)
        also_mine[:] = 7
        assert np.all(mine == block)

    set_threads(2)
    parallel(task, 2)


def test_scratch_memory_serves_types_whose_size_does_not_divide_its_own():
    """Seven float32 are 28 bytes, in which three float64 fit: the last 4 bytes are left over."""

    def both():
        (singles,), (doubles,) = scratch(np.dtype(np.float32), (7,)), scratch(np.dtype(np.float64), (3,))
        return singles, doubles

    with ThreadPoolExecutor(1) as fresh:  # a thread that has no scratch memory yet
        singles, doubles = fresh.submit(both).result()
    assert np.shares_memory(singles, doubles)
    assert (singles.shape, doubles.shape, doubles.dtype) == ((7,), (3,), np.float64)


def test_several_python_threads_may_compute_at_once():
    set_threads(3)
    x = np.arange(300_000.0)

    def squares(scale):
        return [kernels.norm(scale * x) for _ in range(20)]

    with ThreadPoolExecutor(4) as callers:
        results = list(callers.map(squares, [1.0, 2.0, 3.0, 4.0]))
    assert results == [squares(scale) for scale in (1.0, 2.0, 3.0, 4.0)]


def in_a_child():
    x = np.ones(300_000)
    ok = kernels.norm(x) == np.sqrt(300_000)
    os._exit(0 if ok else 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes():
    set_threads(2)
    parallel(lambda *_: None, 2)  # the parent's pool exists: its threads die in the child
    child = multiprocessing.get_context("fork").Process(target=in_a_child)
    child.start()
    child.join(60)
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
    with pytest.raises(ValueError, match=f"threads must be .* ≥ 1, got {n}"):
        set_threads(n)


@pytest.mark.parametrize(
    ("limit", "expected"), [("1", 1), ("3", 3), ("5,2", 5), ("", None), ("0", None), ("many", None)]
)
def test_omp_num_threads_is_the_default(limit, expected, monkeypatch):
    """Of several numbers the first is for the outermost level."""
    monkeypatch.setattr("minisam.kernels.threads._n_threads", None)
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
    with pytest.raises(ValueError, match="threads must be at most 256"):
        set_threads(10**31)
    monkeypatch.setattr(threads, "_n_threads", None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1" * 31)
    assert get_threads() == 256


def test_a_task_that_calls_a_kernel_does_not_wait_for_its_own_pool():
    seen = []
    set_threads(2)
    parallel(lambda i, _: parallel(lambda j, _: seen.append((i, j)), 3), 4)
    assert sorted(seen) == [(i, j) for i in range(4) for j in range(3)]
