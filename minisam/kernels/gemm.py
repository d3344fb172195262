"""Matrix products, shared out among threads.

Each thread multiplies a slice of `a` with `b`, or `a` with a slice of `b`, by a single-threaded
GEMM. The slices follow from the shapes alone, never from the number of threads.
"""

import numpy as np

from minisam.checks import Array
from minisam.kernels.threads import parallel

# Below this many multiply-adds waking a thread costs more than it brings.
_WORTH_A_THREAD = 1 << 21
_MOST_BLOCKS = 4


def matmul(a: Array, b: Array, out: Array) -> Array:
    """out = a b, with a (M, K), b (K, N) and out (M, N); see `reference.matmul`."""
    (M, K), N = a.shape, b.shape[1]
    longer = max(M, N)
    n_blocks = max(1, min(_MOST_BLOCKS, M * K * N // _WORTH_A_THREAD, longer // 32))

    def block(start: int, stop: int) -> None:
        if M >= N:
            np.matmul(a[start:stop], b, out=out[start:stop])
        else:
            np.matmul(a, b[:, start:stop], out=out[:, start:stop])

    parallel(block, longer, most=-(-longer // n_blocks))
    return out
