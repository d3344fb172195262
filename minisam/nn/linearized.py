"""Second derivatives: how a network's gradient changes as theta moves along v.

H v = d/dt ∇L(θ + t v) at t = 0, exactly, at the price of about two gradients: every layer's forward
and backward are differentiated once more, along v only (Pearlmutter 1994). No Hessian is formed.
"""

import numpy as np

from minisam.checks import Array, require_array, require_finite
from minisam.nn.chain import Chain
from minisam.nn.env import Env
from minisam.nn.layer import Motion, Point
from minisam.nn.losses import Loss


class Linearized:
    """The `loss` of a batch at one theta, and products with its Hessian there, for many v.

    It owns a copy of theta and every layer's cache and dL/dy; x and y are read again for every
    product. Products use env's scratch memory, which several linearisations may share as long as one
    product is computed at a time. v and the products are (P,) in theta's dtype.

    >>> from minisam.nn import Linear, MeanSquaredError, Sequential
    >>> net = Sequential([Linear(1, 1)], (1,))  # L(w, b) = (w x + b - y)² at x = 3: H = 2 (x, 1)(x, 1)ᵀ
    >>> here = net.linearize(np.zeros(2), np.array([[3.0]]), np.array([[1.0]]), MeanSquaredError())
    >>> here.hvp(np.array([1.0, 0.0])).tolist()
    [18.0, 6.0]
    """

    def __init__(self, chain: Chain, theta: Array, x: Array, y: Array, loss: Loss, env: Env, key=None, stats=None):
        own = Env(key=key, running=stats)
        params = chain.views(theta.copy())  # optimizers move theta in place
        outputs, caches = chain.forward(params, x, own)
        self.loss, dy = loss(outputs, y)
        _, dys = chain.linearize(params, caches, dy, own)
        self._at = Point(params, caches, dys)
        self._x_dot = np.zeros_like(x)
        self._chain, self._outputs, self._y, self._criterion, self._env = chain, outputs, y, loss, env
        self._shape = theta.shape

    def hvp(self, v: Array) -> Array:
        """H v, H = ∇²L(θ); at a kink of ReLU or a tie of MaxPool2d, of the branch that forward took.

        Raises:
            ValueError: a v of another shape or dtype than theta's, or not finite.
        """
        v_dot, caches_dot, dy_dot = self._tangent(v)
        product = self._chain.unassigned_like(v)
        self._chain.backward_tangent(self._at, Motion(v_dot, caches_dot, dy_dot), self._chain.views(product), self._env)
        self._chain.require_assigned(product, "backward_tangent")
        return product

    def gauss_newton(self, v: Array) -> Array:
        """G v with the generalised Gauss-Newton matrix G = Jᵀ ∇²ℓ J: H without the network's own curvature.

        J is d outputs/dθ, ∇²ℓ the loss's Hessian with respect to the outputs. vᵀ G v ≥ 0 if ℓ is convex in
        them, as both losses here are (Schraudolph 2002). Raises what hvp raises.
        """
        _, _, dy_dot = self._tangent(v)
        product, (params, caches, _) = np.empty_like(v), self._at
        self._chain.backward_at_input(params, caches, dy_dot, self._chain.views(product), self._env)
        return product

    def _tangent(self, v: Array) -> tuple[list[Array], list, Array]:
        """Check v; return it by parameter, and the rates of the caches and of dL/d outputs."""
        require_array("v", v)
        if v.shape != self._shape or v.dtype != self._outputs.dtype:
            like = f"{self._shape} {self._outputs.dtype}"
            raise ValueError(f"expected v like theta, {like}, got {v.shape} {v.dtype}")
        require_finite("v", v)
        self._env.begin()
        v_dot = self._chain.views(v)
        outputs_dot, caches_dot = self._chain.tangent_at_input(self._at, v_dot, self._x_dot, self._env)
        return v_dot, caches_dot, self._criterion.tangent(self._outputs, self._y, outputs_dot)
