"""The machine itself: how fast it multiplies matrices and copies memory, with the same number of threads."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits
from workload import Case, vectors

THREADS = int(os.environ["OMP_NUM_THREADS"])
_pool = ThreadPoolExecutor(THREADS)


def versions() -> dict:
    return {}


def prepare(case: Case):
    if case.kind == "sgemm":
        a, b, out = np.random.default_rng(0).random((3, 1024, 1024)).astype(np.float32)
        threadpool_limits(THREADS)
        return lambda: np.matmul(a, b, out=out), list
    if case.kind == "copy":
        a, b = vectors(case.n)
        parts = [slice(i * case.n // THREADS, (i + 1) * case.n // THREADS) for i in range(THREADS)]
        if case.n < 1 << 20:  # waking a thread would take longer
            parts = [slice(None)]

        def copy() -> None:
            if len(parts) == 1:
                np.copyto(b, a)
            else:
                list(_pool.map(lambda part: np.copyto(b[part], a[part]), parts))

        return copy, list
    return None
