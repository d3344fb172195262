"""Second derivatives: how a network's gradient changes while theta moves along v.

H v = d/dt ∇L(θ + t v) at t = 0, exactly, at the price of about two gradients: every layer's forward
and backward are differentiated once more, along v only (Pearlmutter 1994). No Hessian is formed.
"""

import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np

from minisam.nn.env import Env
from minisam.nn.layer import Array
from minisam.nn.losses import Loss

if TYPE_CHECKING:
    from minisam.nn.network import Sequential


_spare: list[Env] = []  # memory that a linearisation left: fresh pages would have to be faulted in
_local = threading.local()  # each thread's memory for products, one after the other


def _give_back(env: Env) -> None:
    _spare[:] = [env]


class Linearized:
    """A batch's `loss` and products with its Hessian at one theta, for many v.

    It keeps a copy of theta, x itself, and every layer's output and dL/dy; a thread that computes
    products needs as much again, or more. Both stay for the next one when this one is gone. v and the
    products are (P,) in theta's dtype.

    >>> from minisam.nn import Linear, MeanSquaredError, Sequential
    >>> net = Sequential([Linear(1, 1)], (1,))  # L(w, b) = (w x + b - y)² at x = 3: H = 2 (x, 1)(x, 1)ᵀ
    >>> here = net.linearize(np.zeros(2), np.array([[3.0]]), np.array([[1.0]]), MeanSquaredError())
    >>> here.hvp(np.array([1.0, 0.0])).tolist()
    [18.0, 6.0]
    """

    def __init__(self, net: "Sequential", theta: Array, x: Array, y: Array, loss: Loss, key=None, stats=None) -> None:
        theta = theta.copy()  # optimizers move theta in place
        self._net, self._theta, self._y, self._loss, self._params = net, theta, y, loss, net.views(theta)
        env = _spare.pop() if _spare else Env(keeps=True)
        weakref.finalize(self, _give_back, env)
        env.begin(key, stats)
        self._outputs, self._trace = net.chain.forward(self._params, x, env)
        self.loss, self._dy = loss(self._outputs, y)
        net.chain.backward(self._params, self._trace, self._dy, [], env, wants_dx=False)  # every dL/dy, no gradient

    def hvp(self, v: Array) -> Array:
        """H v, H = ∇²L(θ); at a kink of ReLU or a tie of MaxPool2d, of the branch that forward took.

        Raises:
            ValueError: a v of another shape or dtype than theta, or not finite.
        """
        v_dot, outputs_dot, caches_dot, env = self._tangent(v)
        dy_dot, product = self._loss.tangent(self._outputs, self._y, outputs_dot), np.empty_like(v)
        self._net.chain.backward_tangent(
            self._params, v_dot, self._trace, caches_dot, self._dy, dy_dot, self._net.views(product), env, False
        )
        return product

    def gauss_newton(self, v: Array) -> Array:
        """G v with the generalised Gauss-Newton matrix G = Jᵀ ∇²ℓ J: H without the network's own curvature.

        J is d outputs/dθ, ∇²ℓ the Hessian of the loss by the outputs. vᵀ G v ≥ 0 where ℓ is convex in
        them, as both losses here are (Schraudolph 2002). Raises what hvp raises.
        """
        _, outputs_dot, _, env = self._tangent(v)
        dy_dot, product = self._loss.tangent(self._outputs, self._y, outputs_dot), np.empty_like(v)
        self._net.chain.backward(self._params, self._trace, dy_dot, self._net.views(product), env, wants_dx=False)
        return product

    def _tangent(self, v: Array) -> tuple:
        if v.shape != self._theta.shape or v.dtype != self._theta.dtype:
            like = f"{self._theta.shape} {self._theta.dtype}"
            raise ValueError(f"expected v like theta, {like}, got {v.shape} {v.dtype}")
        if not np.isfinite(v).all():
            raise ValueError("v must be finite, got NaN or infinity")
        env = _local.__dict__.setdefault("env", Env())
        env.begin()
        v_dot = self._net.views(v)
        outputs_dot, caches_dot = self._net.chain.tangent(self._params, v_dot, self._trace, None, env)
        return v_dot, np.zeros_like(self._outputs) if outputs_dot is None else outputs_dot, caches_dot, env
