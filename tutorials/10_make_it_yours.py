# %% [markdown]
# # 10. Make it yours
#
# **The question.** You have an idea for a layer, or for an optimizer. How do you add it, and how do you know that it is
# right before you waste a night on training?
#
# You need lessons 2 and 5. Reading takes twenty minutes, running less than a minute.

# %%
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
import numpy as np

from minisam import GD, SAM, BatchLoss, FirstOrder, Momentum, memory, value_at
from minisam.analysis import Bowl, gradcheck, hvpcheck, numerical_gradient, relative_error
from minisam.analysis.toy import run
from minisam.data import Batches
from minisam.nn import Flatten, Layer, Linear, ReLU, Sequential
from minisam.optim import Optimizer
from lesson import BLUE, GREEN, ORANGE, images, show

# %% [markdown]
# ## A layer of your own: Swish
#
# Swish (Ramachandran et al. 2017), also called SiLU, is a ReLU without the kink:
#
# $$y = x\, \sigma(x), \qquad \sigma(x) = \frac{1}{1 + e^{-x}}, \qquad
# \frac{\mathrm dy}{\mathrm dx} = \sigma + x\, \sigma (1 - \sigma).$$
#
# A layer is a frozen dataclass (its fields cannot be reassigned) and holds no arrays. `forward` returns the output and
# a cache: whatever `backward` will need. `backward` turns $\partial L / \partial y$ into $\partial L / \partial x$.
# Compare the library's `Tanh`:

# %%
from minisam.nn import Tanh

show(Tanh)

# %% [markdown]
# (`env.arena` lends memory that the next evaluation uses again; a plain NumPy array does as well. The tangents come
# later.)


# %%
@dataclass(frozen=True)
class Swish(Layer):
    """y = x σ(x), elementwise."""

    def forward(self, params, x, env):
        s = 1 / (1 + np.exp(-x))
        return x * s, (x, s)

    def backward(self, params, cache, dy, grads, env):
        x, s = cache
        return dy * (s + x * s * (1 - s))


# %% [markdown]
# > **Predict.** Suppose you had forgotten the second term and written `dy * s`. Would training fail? Would you notice?

# %%
rng = np.random.default_rng(0)
x = rng.standard_normal((4, 5))


class Careless(Swish):
    def backward(self, params, cache, dy, grads, env):
        return dy * cache[1]


task = rng.standard_normal((200, 20))  # which of ten points in the plane is the farthest from 0?
answers = np.argmax(task[:, :10] ** 2 + task[:, 10:] ** 2, axis=1)
for layer in (Swish(), Careless()):
    net = Sequential([Linear(20, 32), layer, Linear(32, 10)], input_shape=(20,))
    theta, optimizer = net.init(np.random.default_rng(1), np.float64), GD(lr=0.5)
    losses = [optimizer.step(theta, BatchLoss(net, task, answers)).loss for _ in range(300)]
    print(f"{type(layer).__name__:<9} loss {losses[0]:.2f} → {losses[-1]:.2f}; ", end="")
    print(f"relative error of the gradient {gradcheck(layer, x, [], rng):.1e}")
assert gradcheck(Swish(), x, [], rng) < 1e-7 < gradcheck(Careless(), x, [], rng)

# %% [markdown]
# ### Its tangents
#
# For curvature (lesson 7) a layer also says how its output and its gradient change while everything moves. With a dot
# for the rate of change along a direction, the chain rule once more gives
#
# $$\dot y = f'(x)\, \dot x, \qquad \dot{(\mathrm dx)} = f'(x)\, \dot{(\mathrm dy)} + f''(x)\, \dot x\, \mathrm dy,$$
#
# with $f' = \sigma + x\sigma(1 - \sigma)$ and $f'' = \sigma(1 - \sigma)\,(2 + x(1 - 2\sigma))$. Two records carry the
# numbers: a `Point` is where the layer is (`at.params`, `at.cache`, `at.dy`), a `Motion` is how that changes
# (`moving.params_dot`, `moving.cache_dot`, `moving.dy_dot`).
#
# `tangent` returns $\dot y$ and `cache_dot`, whatever `backward_tangent` will need of the cache's motion: here only
# $\dot x$, since the cache follows from $x$. `backward_tangent` returns $\dot{(\mathrm dx)}$. `hvpcheck`, named after
# the product of the Hessian with a vector, compares both with differences.


# %%
@dataclass(frozen=True)
class Swish(Layer):
    """y = x σ(x), elementwise."""

    def forward(self, params, x, env):
        s = 1 / (1 + np.exp(-x))
        return x * s, (x, s)

    def backward(self, params, cache, dy, grads, env):
        x, s = cache
        return dy * (s + x * s * (1 - s))

    def tangent(self, at, params_dot, x_dot, env):
        x, s = at.cache
        return x_dot * (s + x * s * (1 - s)), x_dot

    def backward_tangent(self, at, moving, grads_dot, env):
        (x, s), x_dot = at.cache, moving.cache_dot
        first, second = s + x * s * (1 - s), s * (1 - s) * (2 + x * (1 - 2 * s))  # f' and f''
        return first * moving.dy_dot + second * x_dot * at.dy


print(f"gradient {gradcheck(Swish(), x, [], rng):.1e}, tangents {hvpcheck(Swish(), x, [], rng):.1e}")
assert hvpcheck(Swish(), x, [], rng) < 1e-6

# %% [markdown]
# `gradcheck` looks at every index, `hvpcheck` at every output along one random direction; both in float64, and with
# random weights on the outputs (the *cotangent*).
#
# Two base classes of minisam's layers save you work. A `FixedSlope` has no parameters and a slope that does not change
# with $x$, at least piecewise, like ReLU's; it needs `forward`, `backward` and `tangent`. A `Bilinear` is any
# $y = x \cdot W + b$ whose product is linear in $x$ and in $W$; it needs that map, `affine`, and the two halves of
# `backward`, and has both tangents.
#
# Now a network with the new layer inside:

# %%
net = Sequential([Linear(6, 8), Swish(), Linear(8, 3)], input_shape=(6,))
theta = net.init(rng, np.float64)
x, y = rng.standard_normal((5, 6)), np.array([0, 1, 2, 1, 0])
_, grad = net.loss_and_grad(theta, x, y)
measured = numerical_gradient(lambda moved: net.loss_and_grad(moved, x, y)[0], theta)
print(f"the network: {relative_error(grad, measured):.1e}")

# %% [markdown]
# ## A layer with weights: a gain and a shift for every feature
#
# $$y_{nk} = a_k x_{nk} + b_k: \qquad \frac{\partial L}{\partial a_k} = \sum_n \mathrm dy_{nk}\, x_{nk}, \quad
# \frac{\partial L}{\partial b_k} = \sum_n \mathrm dy_{nk}, \quad
# \frac{\partial L}{\partial x_{nk}} = \mathrm dy_{nk}\, a_k.$$
#
# Weights need names, shapes and initial values. Gradients are *assigned* into arrays that the network provides; a
# forgotten one shows as NaN in the check.


# %%
@dataclass(frozen=True)
class Scale(Layer):
    """y = a x + b, feature by feature."""

    n: int

    @property
    def param_shapes(self):
        return {"a": (self.n,), "b": (self.n,)}

    def init(self, params, rng):
        params[0][...], params[1][...] = 1, 0

    def forward(self, params, x, env):
        a, b = params
        return a * x + b, x

    def backward(self, params, x, dy, grads, env):
        np.sum(dy * x, axis=0, out=grads[0])
        np.sum(dy, axis=0, out=grads[1])
        return dy * params[0]


params = [rng.standard_normal(6), rng.standard_normal(6)]
print(f"Scale: {gradcheck(Scale(6), x, params, rng):.1e}")
assert gradcheck(Scale(6), x, params, rng) < 1e-7

# %% [markdown]
# ## An optimizer of your own: Lion
#
# Lion (Chen et al. 2023) was found by a search program. It steps by the *sign* of a blend of the gradient and its
# running mean:
#
# $$u = \mathrm{sign}(\beta_1 m + (1 - \beta_1) g), \qquad \theta \leftarrow \theta - \eta\, (u + \lambda \theta),
# \qquad m \leftarrow \beta_2 m + (1 - \beta_2) g.$$
#
# ($\lambda$ is the weight decay.) An optimizer asks the objective for a gradient and updates `theta` in place. The base
# class `Optimizer` does the asking; you write `update`. `FirstOrder` adds a learning rate, weight decay, a count `t` of
# the steps, and `moment`:

# %%
show(Optimizer, FirstOrder)


# %%
@dataclass
class Lion(FirstOrder):
    """Lion, with decoupled weight decay."""

    beta1: float = 0.9
    beta2: float = 0.99
    m: np.ndarray | None = field(default=None, init=False)

    def update(self, theta, g):
        m, lr = self.moment("m", theta), value_at(self.lr, self.t)
        self.t += 1
        u = np.sign(self.beta1 * m + (1 - self.beta1) * g)
        theta -= lr * (u + self.weight_decay * theta)
        m[:] = self.beta2 * m + (1 - self.beta2) * g


theta, lion = np.array([1.0, -3.0]), Lion(lr=0.1)
lion.step(theta, Bowl([1.0, 5.0]))
print("one step from (1, -3):", theta)  # lr along every axis, whatever the gradient's size
print("remembered:", memory(lion))
assert np.allclose(theta, [0.9, -2.9])

# %% [markdown]
# The learning rate may be a number or a *schedule*, a function from the step to a number; `value_at` reads either.
#
# Lion must remember its running mean and the number of steps. A checkpoint saves and restores exactly the fields
# declared with `init=False`, in this optimizer and in those inside it, so that a resumed training has the same bits as
# one that was never interrupted. `m` starts as None; `moment` makes it a vector of zeros like theta at the first step.
# An attribute that is not a field would be forgotten, and is refused with a TypeError. `memory` returns all that is
# remembered.
#
# SAM only changes *which* gradient is handed over, so your optimizer has a SAM version already: `SAM(Lion(...))`.

# %%
figure, ax = plt.subplots(figsize=(7, 3))
racers = {
    "GD": (GD(lr=0.06), {"color": BLUE, "ls": ":", "lw": 2}),
    "SAM(Lion)": (SAM(Lion(lr=0.05), rho=0.1), {"color": ORANGE, "lw": 4, "alpha": 0.5}),
    "Lion": (Lion(lr=0.05), {"color": GREEN, "ls": "--", "lw": 2}),
}
for name, (optimizer, style) in racers.items():
    ax.semilogy(run(optimizer, Bowl([1.0, 30.0]), (-3.02, 1.01), 100).losses, label=name, **style)
ax.set(xlabel="step", ylabel="loss", title="in the long bowl of lesson 1")
ax.legend()
ax.grid(alpha=0.3)
plt.show()

# %% [markdown]
# (Lion runs past the minimum twice: after twenty steps along the steep axis, and after sixty along the flat one. Its
# running mean remembers a hundred steps, and points the old way long after the gradient has changed sign. The small
# zigzag in between comes from steps of constant length, which cannot settle. The learning rate has to fall: see
# exercise 2.)
#
# ## All of it together, on images

# %%
data = images(n_train=2000)
nets = {
    kind.__name__: Sequential([Flatten(), Linear(3072, 128), kind(), Scale(128), Linear(128, 10)], (32, 32, 3))
    for kind in (ReLU, Swish)
}
makers = {"Momentum": lambda: Momentum(lr=0.01), "SAM(Momentum)": lambda: SAM(Momentum(lr=0.01), rho=0.1),
          "SAM(Lion)": lambda: SAM(Lion(lr=1e-4, weight_decay=0.1), rho=0.1)}  # fmt: skip
for kind, net in nets.items():
    for name, make in makers.items():
        theta, optimizer = net.init(np.random.default_rng(0)), make()
        batches = Batches(data.x_train, data.y_train, batch_size=50)
        for epoch in range(6):
            for x_batch, y_batch in batches.epoch(epoch):
                at_theta = optimizer.step(theta, BatchLoss(net, x_batch, y_batch))
        error = np.mean(net.predict(theta, data.x_test) != data.y_test)
        print(f"{kind:<6} {name:<14} last batch's loss {at_theta.loss:.2f}, test error {error:.1%}")

# %% [markdown]
# One seed and no tuning: this shows that the parts fit together, not which is better. Lesson 8 says what a claim would
# take.
#
# ## Remember
#
# - A layer is `forward` and `backward`; with tangents it has curvature, too. An optimizer is `update`, and fields for
#   its memory.
# - Check a layer with `gradcheck` and `hvpcheck` before you train with it: a wrong gradient often trains, only worse.
# - Everything passes through one vector and one objective, so your additions work with all the rest at once.
#
# ## Exercises
#
# 1. Add a `LeakyReLU(leak)`: $y = x$ if $x > 0$, otherwise $\mathrm{leak} \cdot x$. It is a `FixedSlope`. Check its
#    gradient and its tangents away from the kink.
# 2. Give `Lion` a learning rate that falls, from 0.1 down to 0 in 200 steps, with `Cosine` from `minisam.optim`. Does
#    it settle in the bowl now? Why does `Cosine(0.05, 100)` stop short?
# 3. Give `Scale` its tangents: everything moves, so $\dot y = \dot a x + a \dot x + \dot b$, and the gradient of $a$
#    moves by $\sum_n \dot{(\mathrm dy)} x + \mathrm dy\, \dot x$. Check them with `hvpcheck`. Then write `Scale` as a
#    `Bilinear`, with `affine(params, x, env)`, `weight_gradient(x, dy, grads)` and `input_gradient(params, x, dy, env)`,
#    and compare.


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 1
from minisam.nn import FixedSlope


@dataclass(frozen=True)
class LeakyReLU(FixedSlope):
    leak: float = 0.1

    def forward(self, params, x, env):
        factor = np.where(x > 0, 1, self.leak).astype(x.dtype)
        return factor * x, factor

    def backward(self, params, factor, dy, grads, env):
        return factor * dy

    def tangent(self, at, params_dot, x_dot, env):
        return at.cache * x_dot, None


away = rng.uniform(0.1, 1, (4, 5)) * rng.choice([-1.0, 1.0], (4, 5))
found = gradcheck(LeakyReLU(), away, [], rng), hvpcheck(LeakyReLU(), away, [], rng)
print(f"LeakyReLU: gradient {found[0]:.1e}, tangents {found[1]:.1e}")
assert max(found) < 1e-7

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 2
from minisam.optim import Cosine

for name, optimizer in {"constant": Lion(lr=0.1), "cosine": Lion(lr=Cosine(0.1, 200))}.items():
    last = run(optimizer, Bowl([1.0, 30.0]), (-3.02, 1.01), 200).losses[-20:]
    print(f"{name}: largest loss of the last 20 steps {last.max():.1e}")
reach = sum(Cosine(0.05, 100)(t) for t in range(100))
print(f"steps of Cosine(0.05, 100) reach {reach:.2f} along an axis, and the minimum is 3.02 away")


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 3
from minisam.nn import Bilinear


@dataclass(frozen=True)
class MovingScale(Scale):
    def tangent(self, at, params_dot, x_dot, env):
        (a, _), (a_dot, b_dot) = at.params, params_dot
        return a_dot * at.cache + a * x_dot + b_dot, x_dot  # the cache is x

    def backward_tangent(self, at, moving, grads_dot, env):
        (a, _), x, dy = at
        (a_dot, _), x_dot, dy_dot = moving
        np.sum(dy_dot * x + dy * x_dot, axis=0, out=grads_dot[0])
        np.sum(dy_dot, axis=0, out=grads_dot[1])
        return dy_dot * a + dy * a_dot


@dataclass(frozen=True)
class BilinearScale(Bilinear):
    n: int
    param_shapes, init = Scale.param_shapes, Scale.init

    def affine(self, params, x, env):
        return params[0] * x + params[1]

    def weight_gradient(self, x, dy, grads):
        np.sum(dy * x, axis=0, out=grads[0])
        np.sum(dy, axis=0, out=grads[1])

    def input_gradient(self, params, x, dy, env):
        return dy * params[0]


for layer in (MovingScale(6), BilinearScale(6)):
    found = gradcheck(layer, x, params, rng), hvpcheck(layer, x, params, rng)
    print(f"{type(layer).__name__}: gradient {found[0]:.1e}, tangents {found[1]:.1e}")
    assert max(found) < 1e-6
