"""Where runs are computed: in processes of this machine, or on the workers of a Dask cluster."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor, wait
from contextlib import contextmanager

from tqdm import tqdm

from minisam.interrupts import uninterrupted
from minisam.kernels import get_threads, set_threads
from minisam.training.files import reason


@contextmanager
def local_pool(jobs: int) -> Iterator[Executor]:
    """An executor on this many new processes, which share out the threads of this one and die with it."""
    with _safe_path():
        pool = ProcessPoolExecutor(
            jobs,
            # A fresh interpreter on every system: a fork would copy locks that threads hold.
            multiprocessing.get_context("spawn"),
            _start_worker,
            (max(1, get_threads() // jobs),),
        )
        try:
            with uninterrupted(), _deaf_children():
                wait([pool.submit(int) for _ in range(jobs)])  # each starts a process
            yield pool
        except BaseException:
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)  # and wait, so that its semaphores are returned


@contextmanager
def _deaf_children() -> Iterator[None]:
    """New processes do not hear Ctrl-C, which is the parent's business. Windows has no such mask."""
    mask = getattr(signal, "pthread_sigmask", lambda *_: None)
    mask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        mask(signal.SIG_UNBLOCK, [signal.SIGINT])


@contextmanager
def _safe_path() -> Iterator[None]:
    """New processes are `python -c …`, which would look for modules in the current folder, whoever put them there."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]


def _start_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    tqdm.set_lock(threading.RLock())  # tqdm's default lock is shared between processes, and outlives a terminated one
    set_threads(threads)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """Exit when the parent is killed; otherwise a worker would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def dask_executor(address: str) -> Iterator[tuple[Executor, int]]:
    """An executor on the workers of a Dask scheduler, and how many threads they have now.

    Raises:
        OSError: there is no scheduler at this address, or it was lost while the runs were computed.
        ValueError: Dask is not installed, or the scheduler has no workers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError(f"--dask needs the package distributed ({reason(error)}): pip install distributed") from error
    with _silent(logging.getLogger("distributed.client")), Client(address) as client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise ValueError(f"the Dask scheduler at {address} has no workers: start some with dask worker {address}")
        with client.get_executor(pure=False) as executor:
            try:
                yield executor, threads
            except Exception as error:
                # A client that has lost its scheduler cancels all runs, and may have found it again by now.
                if client.status == "running" and not isinstance(error.__cause__, CancelledError):
                    raise
                kept = "finished runs are kept, and the same command goes on once there is a scheduler again"
                raise OSError(f"the Dask scheduler at {address} was lost: {kept}") from error


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """Without the logger's messages: what it has to say is raised as an error, too."""
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
