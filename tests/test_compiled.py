"""Machine code on disk: what a power cut or a full disk leaves there stops nobody, and loading is not compiling."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numba
import numpy as np
import pytest

import minisam
from minisam.kernels import compiled
from minisam.kernels.threads import parallel

CODE = """
import sys
import numpy as np
from minisam.kernels import compiled, dot, vector
compiled._kernels[:] = [vector.gd_run, vector.dot_run]
compiled = [one.compile(np.dtype(sys.argv[1])) for one in compiled._kernels]
g = np.full(3, 2.0, sys.argv[1])
print(dot(g, g), *compiled)
"""
jit = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


def in_a_new_process(cache, room=None, dtype="float32"):
    """What a new process says that keeps its machine code in the folder `cache`."""

    def little_room():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    ended = subprocess.run(
        [sys.executable, "-c", CODE, dtype], env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}, capture_output=True,
        text=True, timeout=120, preexec_fn=little_room if room else None,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@jit
@pytest.mark.parametrize(("ending", "left"), [("nbi", 0), ("nbc", 20)])
def test_a_file_that_was_cut_short_is_compiled_anew(tmp_path, ending, left):
    assert in_a_new_process(tmp_path) == "12.0 True True"
    assert in_a_new_process(tmp_path) == "12.0 False False"  # loaded
    (file,) = tmp_path.rglob(f"*gd_run*.{ending}")
    file.write_bytes(file.read_bytes()[:left])
    assert in_a_new_process(tmp_path) == "12.0 True False"
    assert in_a_new_process(tmp_path) == "12.0 False False"


@jit
def test_machine_code_for_another_type_is_compiled_anew(tmp_path):
    """So two processes that compile at once may leave it: each gives its file the number that comes next."""
    in_a_new_process(tmp_path), in_a_new_process(tmp_path, dtype="float64")
    single, double = sorted(tmp_path.rglob("*gd_run*.nbc"))
    single.write_bytes(double.read_bytes())
    assert in_a_new_process(tmp_path) == "12.0 True False"


@jit
@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
def test_a_full_disk_keeps_no_machine_code_but_stops_nobody(tmp_path):
    assert in_a_new_process(tmp_path, room=100) == "12.0 True True"


@jit
def test_where_no_folder_can_be_written_a_kernel_is_compiled_all_the_same(monkeypatch):
    njit = numba.njit

    def without_a_folder(function, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(function, **options)

    monkeypatch.setattr(numba, "njit", without_a_folder)
    monkeypatch.setattr(compiled, "_kernels", [])
    kernel, x = compiled.kernel("void(T[::1])")(double), np.ones(3)
    parallel(kernel, 3, 2, x)
    assert x.tolist() == [2, 2, 2]


def double(run, start, stop, x):
    x[start:stop] *= 2


class Slow:
    """A kernel that takes its time."""

    def __init__(self, is_compiled):
        self.is_compiled, self.addresses = is_compiled, {}

    def compile(self, dtype):
        time.sleep(0.3)
        return self.is_compiled


@jit
@pytest.mark.parametrize("is_compiled", [True, False])
def test_only_compiling_is_announced(monkeypatch, capsys, is_compiled):
    monkeypatch.setattr(compiled, "_kernels", [Slow(is_compiled)] * 3)
    compiled.compile_all(np.dtype(np.float32))
    assert ("compiling the float32 kernels" in capsys.readouterr().err) == is_compiled


@jit
def test_each_type_is_compiled_once_in_a_process(monkeypatch):
    monkeypatch.setattr(compiled, "_kernels", [])
    kernel = compiled.kernel("void(T[::1])")(double)
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)) * 2:
        assert kernel[dtype] == kernel[dtype] != 0
    assert len(kernel.code.run.signatures) == 2
    monkeypatch.delattr(compiled.Kernel, "compile")
    compiled.compile_all(np.dtype(np.float32))


@jit
def test_a_kernel_on_disk_is_out_of_date_when_any_file_of_kernels_changes():
    """It may contain functions of other files, which Numba's own check does not see."""
    stamps = [one.code.run._cache._cache_file._source_stamp for one in compiled._kernels]
    here = Path(compiled.__file__)
    assert stamps == [compiled._SOURCES] * len(stamps)
    assert (here.name, here.stat().st_mtime, here.stat().st_size) in compiled._SOURCES
    assert {"tile.py", "conv.py", "winograd.py"} <= {name for name, *_ in compiled._SOURCES}


@jit
def test_a_file_in_the_current_folder_does_not_say_what_numba_reads_and_writes(tmp_path):
    """Numba would write events to one path, while it is imported, and load pickles from another."""
    (tmp_path / "events").write_text("precious")
    (tmp_path / ".numba_config.yaml").touch()
    planted = {"chrome_trace": "events", "cache_dir": "planted", "cpu_name": "planted", "boundscheck": "1"}
    (tmp_path / "yaml.py").write_text(f"def safe_load(file):\n    return {planted}\n")
    code = "from minisam import kernels; from numba import config as c; from numba.core.config import *\n"
    for reload in ("", "reload_config()"):  # as the compiler does
        code += f"{reload}\nprint(c.CHROME_TRACE, c.CACHE_DIR, c.CPU_NAME, c.BOUNDSCHECK)\n"
    code += "import yaml; print(yaml.safe_load(None)['cpu_name'])"  # of which others have a use
    environ = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    environ["NUMBA_BOUNDSCHECK"] = "0"
    environ["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(minisam.__file__).parents[1])])
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.stdout == "  None 0\n" * 2 + "planted\n", done.stderr
    assert (tmp_path / "events").read_text() == "precious"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_not_lost_in_the_compiler_whose_callbacks_swallow_exceptions(number, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    def compile(kernel, dtype):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        kernel.addresses[dtype] = 0

    monkeypatch.setattr(compiled, "_kernels", [])
    monkeypatch.setattr(compiled.Kernel, "compile", compile)
    kernels = [compiled.kernel("void(T[::1])")(double) for _ in range(2)]
    before = signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            compiled.compile_all(np.dtype(np.float64))
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert [len(kernel.addresses) for kernel in kernels] == [1, 0]  # it came between the two


def test_a_thread_that_hears_no_signals_may_compile():
    with ThreadPoolExecutor(1) as other, compiled.uninterrupted():
        assert other.submit(compiled.uninterrupted().__enter__).result() is None
