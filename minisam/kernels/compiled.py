"""Compile the hot loops, once per machine, and say so. (A first reading may skip this chapter.)

A kernel is a plain Python function over blocks of arrays. Its signature is written with T for the
floating-point type, and `name[dtype]` is its machine code for that type. The first such look-up
compiles (or loads from Numba's disk cache) all kernels together, in the calling thread: a compiler
started inside a worker could wait for an import lock that the caller holds. With
NUMBA_DISABLE_JIT=1 the plain functions run, and a debugger can step through them.
"""

import os
import threading
from collections.abc import Callable, Set
from contextlib import suppress
from pathlib import Path

import numba
import numpy as np

for _name in ("CACHE_DIR", "CACHE_LOCATOR_CLASSES"):  # machine code is not to come from where a file in the
    setattr(numba.config, _name, os.environ.get(f"NUMBA_{_name}", ""))  # current folder says, as Numba would let it

_kernels: list["Kernel"] = []
_compiled: set[np.dtype] = set()
_lock = threading.Lock()
_SOURCES = sorted((file.name, file.stat().st_mtime, file.stat().st_size) for file in Path(__file__).parent.glob("*.py"))


class Kernel:
    """A loop that Numba compiles for float32 and float64; it runs without Python's global lock."""

    def __init__(self, function: Callable, signature: str, fastmath: set[str]) -> None:
        options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
        try:
            self.run = numba.njit(function, cache=True, **options)
        except RuntimeError:  # no folder can be written: every process compiles for itself
            self.run = numba.njit(function, **options)
        with suppress(AttributeError):  # on disk a kernel is out of date when a function it calls has changed
            self.run._cache._cache_file._source_stamp = _SOURCES
        self.signature = signature
        _kernels.append(self)

    def __getitem__(self, dtype: np.dtype) -> Callable:
        """The compiled function for arrays of this dtype."""
        if dtype not in _compiled:
            compile_all(dtype)
        return self.run

    def compile(self, dtype: np.dtype) -> bool:
        """Compile for this dtype; False if its machine code was on disk already, or compiled before."""
        before = sum(self.run.stats.cache_misses.values())
        self.run.disable_compile(False)
        # A power cut may have left an empty file on disk: forget what is there. The disk may be full: keep nothing.
        cures = [self.run._cache.flush, self.run._cache.disable]
        while True:
            try:
                self.run.compile(self.signature.replace("T", dtype.name))
                break
            except Exception:
                if not cures:
                    raise
                with suppress(Exception):
                    cures.pop(0)()
        self.run.disable_compile()  # other layouts or types are a mistake, not a reason to compile
        return sum(self.run.stats.cache_misses.values()) > before


def kernel(signature: str, fastmath: Set[str] = frozenset()) -> Callable[[Callable], Kernel]:
    """Decorate a function as a `Kernel`, e.g. `@kernel("void(T[::1], T[::1])")`."""
    return lambda function: Kernel(function, signature, set(fastmath))


def compile_all(dtype: np.dtype) -> None:
    """Compile every kernel for one dtype; with a progress bar where that takes noticeable time.

    Raises:
        TypeError: a dtype other than float32 and float64.
    """
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"minisam computes in float32 or float64, got {dtype}")
    from tqdm import tqdm  # only now: `import minisam` should be quick

    with _lock:
        if dtype not in _compiled and not numba.config.DISABLE_JIT:
            label = f"compiling the {dtype.name} kernels (once; kept on disk)"
            with tqdm(total=len(_kernels), desc=label, delay=0.5, leave=False, unit="kernel") as bar:
                for one in _kernels:
                    if one.compile(dtype):
                        bar.update()
                    else:
                        bar.total -= 1  # loading is no work to show
        _compiled.add(dtype)


def dense(x: np.ndarray) -> np.ndarray:
    """x, copied unless it is C-contiguous and writeable, as the kernels are compiled for."""
    return x if x.flags.carray else np.require(x, requirements=("C", "W"))
