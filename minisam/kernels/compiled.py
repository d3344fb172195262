"""Compile the hot loops, once per machine, and say so. (A first reading may skip this chapter.)

A kernel is a plain Python loop over a part of some arrays: run number `run`, from `start` to `stop`. The
signature of its other arguments is written with T for the floating-point type. `threads.parallel` runs all
parts. The first use with a type compiles (or loads from Numba's disk cache) all kernels together. With
NUMBA_DISABLE_JIT=1 the plain functions run, and a debugger can step through them.
"""

import threading
from collections.abc import Callable, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core.sigutils import normalize_signature

from minisam.interrupts import uninterrupted
from minisam.kernels import team

_kernels: list["Kernel"] = []
compiling = threading.Lock()  # held by the thread that compiles
_SOURCES = sorted((file.name, file.stat().st_mtime, file.stat().st_size) for file in Path(__file__).parent.glob("*.py"))


class MachineCode:
    """A function that Numba compiles for given types and keeps on disk; it runs without Python's lock."""

    def __init__(self, function: Callable, **options: Any) -> None:
        options |= {"nogil": True, "error_model": "numpy"}
        try:
            self.run = numba.njit(function, cache=True, **options)
        except RuntimeError:  # no folder can be written: every process compiles for itself
            self.run = numba.njit(function, **options)
        with suppress(AttributeError):  # on disk it is out of date when a function that it calls has changed
            self.run._cache._cache_file._source_stamp = _SOURCES

    def compile(self, *types: numba.types.Type) -> bool:
        """Compile for these types; False if the machine code was on disk already, or compiled before."""
        if types in self.run.overloads:  # a forked child must not ask the compiler, whose lock nobody there may release
            return False
        before = sum(self.run.stats.cache_misses.values())
        self.run.disable_compile(False)
        # A power cut may have left an empty file on disk, and two processes at once the code for other types: forget
        # what is there. The disk may be full: keep nothing.
        cures = [self.run._cache.flush, self.run._cache.disable]
        while True:
            try:
                self.run.compile(types)
                self.address(*types)
                break
            except Exception:
                if not cures:
                    raise
                with suppress(Exception):
                    cures.pop(0)()
        self.run.disable_compile()  # other layouts or types are a mistake, not a reason to compile
        return sum(self.run.stats.cache_misses.values()) > before

    def address(self, *types: numba.types.Type) -> int:
        """Where the machine code for these types is."""
        found = self.run.overloads[types]
        return found.library.get_pointer_to_function(found.fndesc.llvm_func_name)


class Kernel:
    """A loop over a part of its arrays, loop(run, start, stop, *args), for float32 and float64; see `parallel`."""

    def __init__(self, loop: Callable, signature: str, fastmath: set[str]) -> None:
        self.loop, self.signature, self.code = loop, signature, MachineCode(loop, fastmath=fastmath)
        self.share = MachineCode(team.share)  # one of its own, which takes no other kernel's types
        self.addresses: dict[np.dtype, int] = {}
        _kernels.append(self)

    def __getitem__(self, dtype: np.dtype) -> int:
        """The address of the machine code for arrays of this dtype."""
        if dtype not in self.addresses:
            compile_all(dtype)
        return self.addresses[dtype]

    def compile(self, dtype: np.dtype) -> bool:
        """Compile for this dtype; False if nothing had to be compiled."""
        if numba.config.DISABLE_JIT:
            self.addresses[dtype] = 0
            return False
        args, _ = normalize_signature(self.signature.replace("T", dtype.name))
        types = (numba.i8, numba.i8, numba.i8, *args)
        of_share = (team.BOARD, numba.i8, numba.i8, numba.i8, numba.types.Tuple(args))
        compiled = [self.code.compile(*types), self.share.compile(*of_share)]
        self.addresses[dtype] = self.code.address(*types)
        return any(compiled)


def kernel(signature: str, fastmath: Set[str] = frozenset()) -> Callable[[Callable], Kernel]:
    """Decorate a loop as a `Kernel`; the signature is that of its args, such as "void(T[::1], T)"."""
    return lambda loop: Kernel(loop, signature, set(fastmath))


def compile_all(dtype: np.dtype) -> None:
    """Compile every kernel for one dtype; with a progress bar where that takes noticeable time.

    Raises:
        TypeError: a dtype other than float32 and float64.
    """
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"minisam computes in float32 or float64, got {dtype}")
    from tqdm import tqdm  # only now: `import minisam` should be quick

    with compiling:
        waiting = [kernel for kernel in _kernels if dtype not in kernel.addresses]
        label = f"compiling the {dtype.name} kernels (once; kept on disk)"
        with tqdm(total=len(waiting), desc=label, delay=0.5, leave=False, unit="kernel") as bar:
            for one in waiting:
                with uninterrupted():  # the compiler's callbacks would swallow a KeyboardInterrupt
                    new = one.compile(dtype)
                if new:
                    bar.update()
                else:
                    bar.total -= 1  # loading is no work to show


def dense(x: np.ndarray) -> np.ndarray:
    """x, copied unless it is C-contiguous and writeable, as the kernels are compiled for."""
    return x if x.flags.carray else np.require(x, requirements=("C", "W"))
