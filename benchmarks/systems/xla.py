"""JAX on the CPU: a SAM step as one jitted function, for all networks but VGG, whose Dropout draws other masks."""

import os

os.environ["XLA_FLAGS"] = (
    f"--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads={os.environ['OMP_NUM_THREADS']}"
)

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from workload import LR, MOMENTUM, RHO, Case, images, layers, weights


def versions() -> dict:
    return {"jax": jax.__version__}


def _normalised(x, gamma, beta):
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return gamma * (x - mean) / jnp.sqrt(var + 1e-5) + beta


def _outputs(described: list[tuple], parameters, x):
    """The network's outputs; it takes its parameters one after another."""
    for kind, *numbers in described:
        if kind == "convolution":
            _, _, size, stride = numbers
            W, b, padding = next(parameters), next(parameters), [(size // 2, size // 2)] * 2
            x = (
                lax.conv_general_dilated(x, W, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
                + b
            )
        elif kind == "linear":
            x = x @ next(parameters) + next(parameters)
        elif kind == "norm":
            x = _normalised(x, next(parameters), next(parameters))
        elif kind == "relu":
            x = jax.nn.relu(x)
        elif kind == "pool":
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "mean":
            x = x.mean(axis=(1, 2))
        elif kind == "sum":
            x = sum(_outputs(path, parameters, x) for path in numbers)
    return x


def prepare(case: Case):
    if case.kind != "step" or case.n != 64 or case.width > 1 or case.busy or case.alone or case.what == "vgg":
        return None
    described = layers(case.what)
    x, y = images(case.n)
    start = [jnp.asarray(w) for w in weights(described)]

    def loss(parameters):
        log_p = jax.nn.log_softmax(_outputs(described, iter(parameters), x))
        return -log_p[jnp.arange(len(y)), y].mean()

    def gradient(parameters):
        value, g = jax.value_and_grad(loss)(parameters)
        if case.optimizer == "sam":
            norm = jnp.sqrt(sum(jnp.sum(one**2) for one in g))
            g = jax.grad(loss)([p + RHO / norm * one for p, one in zip(parameters, g, strict=True)])
        return value, g

    @jax.jit
    def step(parameters, velocity):
        _, g = gradient(parameters)
        velocity = [MOMENTUM * v + one for v, one in zip(velocity, g, strict=True)]
        return [p - LR * v for p, v in zip(parameters, velocity, strict=True)], velocity

    state = [start, [jnp.zeros_like(w) for w in start]]

    def run() -> None:
        state[:] = step(*state)
        jax.block_until_ready(state)

    def result() -> list[np.ndarray]:
        value, g = jax.jit(gradient)(start)
        return [np.array([value]), np.concatenate([np.asarray(one).ravel() for one in g])]

    return run, result
