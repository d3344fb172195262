"""The hot loops: plain NumPy twins to read (`reference`), threaded Numba twins to run."""

from minisam.kernels.channel import channel_affine, channel_sums
from minisam.kernels.conv import conv2d, conv2d_input_grad, conv2d_weight_grad
from minisam.kernels.gemm import matmul
from minisam.kernels.pool import max_pool2d, max_pool2d_grad, max_pool2d_picked
from minisam.kernels.reference import avg_pool2d, avg_pool2d_grad  # NumPy's loops do for these
from minisam.kernels.threads import get_threads, set_threads
from minisam.kernels.vector import adam_update, add_scaled, dot, gd_update, momentum_update, norm, relu, relu_grad
from minisam.kernels.winograd import set_winograd

__all__ = [
    "adam_update", "add_scaled", "avg_pool2d", "avg_pool2d_grad", "channel_affine", "channel_sums", "conv2d",
    "conv2d_input_grad", "conv2d_weight_grad", "dot", "gd_update", "get_threads", "matmul", "max_pool2d",
    "max_pool2d_grad", "max_pool2d_picked", "momentum_update", "norm", "relu", "relu_grad", "set_threads",
    "set_winograd",
]  # fmt: skip
