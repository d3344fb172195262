"""The hot loops: plain NumPy twins to read (`reference`), threaded Numba twins to run.

Where Numba cannot be imported the plain twins run: more slowly, in one thread, and a warning says so.
"""

import sys
import warnings

import numpy as np

from minisam.kernels.cores import get_threads, set_threads


def _import_numba() -> None:
    """Import it as if there were no .numba_config.yaml in the current folder.

    Whoever put one there could say which files Numba writes, and where it finds machine code.
    """
    yaml, sys.modules["yaml"] = sys.modules.get("yaml"), None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():  # Numba would ask for PyYAML
            warnings.simplefilter("ignore")
            import numba

        numba.core.config._config_fname = ""  # the compiler would look for the file again
    finally:
        del sys.modules["yaml"]
        if yaml:
            sys.modules["yaml"] = yaml


try:
    _import_numba()
except ImportError as error:  # it is not installed, or not made for this NumPy
    from minisam.kernels.reference import *

    warnings.warn(f"without Numba ({error}) minisam computes in plain NumPy, slowly and in one thread", stacklevel=2)

    def compile_all(dtype: np.dtype) -> None:
        """Nothing is to be compiled."""

    def set_winograd(allowed: bool) -> None:
        """There is one way to compute a convolution."""
else:
    from minisam.kernels.channel import channel_affine, channel_sums
    from minisam.kernels.compiled import compile_all
    from minisam.kernels.conv import conv2d, conv2d_input_grad, conv2d_weight_grad
    from minisam.kernels.gemm import matmul
    from minisam.kernels.pool import max_pool2d, max_pool2d_grad, max_pool2d_picked
    from minisam.kernels.reference import avg_pool2d, avg_pool2d_grad  # NumPy's loops do for these
    from minisam.kernels.vector import adam_update, add_scaled, dot, gd_update, momentum_update, norm, relu, relu_grad
    from minisam.kernels.winograd import set_winograd

__all__ = [
    "adam_update", "add_scaled", "avg_pool2d", "avg_pool2d_grad", "channel_affine", "channel_sums", "compile_all",
    "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "dot", "gd_update", "get_threads", "matmul", "max_pool2d",
    "max_pool2d_grad", "max_pool2d_picked", "momentum_update", "norm", "relu", "relu_grad", "set_threads",
    "set_winograd",
]  # fmt: skip
