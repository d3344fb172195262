# %% [markdown]
# # 10. Make it yours
#
# **The question.** You have an idea for a layer, or for an optimizer. How do you add it, and how do you know that it is right
# before you waste a night on training?
#
# You need lessons 2 and 5. Reading takes twenty minutes, running less than a minute.

# %%
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
import numpy as np

from minisam import GD, SAM, BatchLoss, Momentum
from minisam.analysis import Bowl, gradcheck, hvpcheck, numerical_gradient, relative_error
from minisam.analysis.toy import run
from minisam.data import Batches
from minisam.nn import Flatten, Layer, Linear, ReLU, Sequential
from minisam.checks import Array
from minisam.optim import Optimizer
from lesson import BLUE, GREEN, ORANGE, images, show

# %% [markdown]
# ## A layer of your own: Swish
#
# Swish (Ramachandran et al. 2017), also called SiLU, is a ReLU without the kink:
#
# $$y = x\, \sigma(x), \qquad \sigma(x) = \frac{1}{1 + e^{-x}}, \qquad \frac{\mathrm dy}{\mathrm dx} = \sigma + x\, \sigma (1 - \sigma).$$
#
# A layer is a frozen dataclass (its fields cannot be reassigned) without arrays. `forward` returns the output and whatever
# `backward` will need; `backward` turns $\partial L / \partial y$ into $\partial L / \partial x$. Compare the library's `Tanh`:

# %%
from minisam.nn import Tanh

show(Tanh)

# %% [markdown]
# (`wants_dx` is False where nobody needs $\partial L / \partial x$, as in the first layer: a layer may then save itself the
# work. The tangents come later.)


# %%
@dataclass(frozen=True)
class Swish(Layer):
    """y = x σ(x), elementwise."""

    def forward(self, params, x, env):
        s = 1 / (1 + np.exp(-x))
        return x * s, (x, s)

    def backward(self, params, cache, dy, grads, env, wants_dx=True):
        x, s = cache
        return dy * (s + x * s * (1 - s))


# %% [markdown]
# > **Predict.** Suppose you had forgotten the second term and written `dy * s`. Would training fail? Would you notice?

# %%
rng = np.random.default_rng(0)
x = rng.standard_normal((4, 5))


class Careless(Swish):
    def backward(self, params, cache, dy, grads, env, wants_dx=True):
        return dy * cache[1]


task = rng.standard_normal((200, 20))  # which of ten numbers, each with a twin, is the largest in size?
answers = np.argmax(task[:, :10] ** 2 + task[:, 10:] ** 2, axis=1)
for layer in (Swish(), Careless()):
    net = Sequential([Linear(20, 32), layer, Linear(32, 10)], input_shape=(20,))
    theta, optimizer = net.init(np.random.default_rng(1), np.float64), GD(lr=0.5)
    losses = [optimizer.step(theta, BatchLoss(net, task, answers)).loss for _ in range(300)]
    print(f"{type(layer).__name__:<9} loss {losses[0]:.2f} → {losses[-1]:.2f}; ", end="")
    print(f"relative error of the gradient {gradcheck(layer, x, [], rng):.1e}")
assert gradcheck(Swish(), x, [], rng) < 1e-7 < gradcheck(Careless(), x, [], rng)

# %% [markdown]
# ### Its tangent
#
# For curvature (lesson 7) a layer also says how its output and its gradient change while everything moves. With a dot for
# "rate of change along the direction", the chain rule once more gives
#
# $$\dot y = f'(x)\, \dot x, \qquad \dot{(\mathrm dx)} = f'(x)\, \dot{(\mathrm dy)} + f''(x)\, \dot x\, \mathrm dy,$$
#
# with $f' = \sigma + x\sigma(1 - \sigma)$ and $f'' = \sigma(1 - \sigma)\,(2 + x(1 - 2\sigma))$. `tangent` returns $\dot y$, and what
# `backward_tangent` will need of how the cache moves (here $\dot x$; the cache follows from $x$). `hvpcheck`, named after the
# product of the Hessian with a vector, compares both with differences.


# %%
@dataclass(frozen=True)
class Swish(Layer):
    """y = x σ(x), elementwise."""

    def forward(self, params, x, env):
        s = 1 / (1 + np.exp(-x))
        return x * s, (x, s)

    def backward(self, params, cache, dy, grads, env, wants_dx=True):
        x, s = cache
        return dy * (s + x * s * (1 - s))

    def tangent(self, params, params_dot, cache, x_dot, env):
        x, s = cache
        return x_dot * (s + x * s * (1 - s)), x_dot

    def backward_tangent(self, params, params_dot, cache, x_dot, dy, dy_dot, grads_dot, env, wants_dx=True):
        x, s = cache
        slope, bend = s + x * s * (1 - s), s * (1 - s) * (2 + x * (1 - 2 * s))
        return dy_dot * slope + dy * bend * x_dot


print(f"gradient {gradcheck(Swish(), x, [], rng):.1e}, tangents {hvpcheck(Swish(), x, [], rng):.1e}")
assert hvpcheck(Swish(), x, [], rng) < 1e-6

# %% [markdown]
# `gradcheck` looked at every index, `hvpcheck` at every output along one random direction; both in float64, and with random
# weights on the outputs (their name is *cotangent*). And a network with the layer inside:

# %%
net = Sequential([Linear(6, 8), Swish(), Linear(8, 3)], input_shape=(6,))
theta = net.init(rng, np.float64)
x, y = rng.standard_normal((5, 6)), np.array([0, 1, 2, 1, 0])
_, grad = net.loss_and_grad(theta, x, y)
measured = numerical_gradient(lambda w: net.loss_and_grad(w, x, y)[0], theta)
print(f"the network: {relative_error(grad, measured):.1e}")

# %% [markdown]
# ## A layer with weights: a gain and a shift for every feature
#
# $$y_{nk} = a_k x_{nk} + b_k: \qquad \frac{\partial L}{\partial a_k} = \sum_n \mathrm dy_{nk}\, x_{nk}, \quad \frac{\partial L}{\partial b_k} = \sum_n \mathrm dy_{nk}, \quad
# \frac{\partial L}{\partial x_{nk}} = \mathrm dy_{nk}\, a_k.$$
#
# Weights need names and shapes, and values to start from. Gradients are *assigned* into arrays that the network provides; a
# forgotten one shows as NaN in the check. (`grads` is empty when only $\partial L / \partial x$ is wanted.)


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

    def backward(self, params, x, dy, grads, env, wants_dx=True):
        if grads:
            np.sum(dy * x, axis=0, out=grads[0])
            np.sum(dy, axis=0, out=grads[1])
        return dy * params[0]


params = [rng.standard_normal(6), rng.standard_normal(6)]
print(f"Scale: {gradcheck(Scale(6), x, params, rng):.1e}")
assert gradcheck(Scale(6), x, params, rng) < 1e-7

# %% [markdown]
# ## An optimizer of your own: Lion
#
# Lion (Chen et al. 2023) was found by a search program. It steps by the *sign* of a blend of the gradient and its running mean:
#
# $$u = \mathrm{sign}(\beta_1 m + (1 - \beta_1) g), \qquad w \leftarrow w - \eta\, (u + \lambda w), \qquad m \leftarrow \beta_2 m + (1 - \beta_2) g.$$
#
# ($\lambda$ is the weight decay.) An optimizer asks the objective for a gradient and updates `theta` in place. The base class
# does the asking; you write `update`.

# %%
show(Optimizer)


# %%
@dataclass
class Lion(Optimizer):
    """Lion, with decoupled weight decay."""

    lr: float
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.99
    m: Array | None = field(default=None, init=False)

    def update(self, theta, g):
        m = np.zeros_like(theta) if self.m is None else self.m
        u = np.sign(self.beta1 * m + (1 - self.beta1) * g)
        theta -= self.lr * (u + self.weight_decay * theta)
        self.m = self.beta2 * m + (1 - self.beta2) * g


w = np.array([1.0, -3.0])
Lion(lr=0.1).step(w, Bowl([1.0, 5.0]))
print("one step from (1, -3):", w)  # lr along every axis, whatever the gradient's size
assert np.allclose(w, [0.9, -2.9])

# %% [markdown]
# Since SAM only changes *which* gradient is handed over, your optimizer has a SAM version already: `SAM(Lion(...))`.

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
# (Lion runs past the minimum: its running mean remembers a hundred steps, and points the old way long after $w_1$ has
# changed sign. Later it jitters, since steps of constant length cannot settle: the learning rate has to fall. See
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
# - A layer is `forward` and `backward`; with a tangent it has curvature, too. An optimizer is `update`.
# - Prove a layer with `gradcheck` and `hvpcheck` before you train with it: a wrong gradient often trains, only worse.
# - Because everything passes through one vector and one objective, what you add works with all the rest at once.
#
# ## Exercises
#
# 1. Add a `LeakyReLU(slope)`: $y = x$ where $x > 0$, else $\mathrm{slope} \cdot x$. Check its gradient away from the kink.
# 2. Give `Lion` a learning rate that falls, from 0.1 down to 0 in 200 steps, with `Cosine` and `value_at` from
#    `minisam.optim`. Does it settle in the bowl now? Why does `Cosine(0.05, 100)` stop short?
# 3. Give `Scale` its tangents: everything moves, so $\dot y = \dot a x + a \dot x + \dot b$, and the gradient of $a$ moves by
#    $\sum_n \dot{(\mathrm dy)} x + \mathrm dy\, \dot x$. (`x_dot` is None where the input does not move.) Prove them with `hvpcheck`.


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 1
@dataclass(frozen=True)
class LeakyReLU(Layer):
    slope: float = 0.1

    def forward(self, params, x, env):
        factor = np.where(x > 0, 1, self.slope).astype(x.dtype)
        return factor * x, factor

    def backward(self, params, factor, dy, grads, env, wants_dx=True):
        return factor * dy


away = rng.uniform(0.1, 1, (4, 5)) * rng.choice([-1.0, 1.0], (4, 5))
print(f"LeakyReLU: {gradcheck(LeakyReLU(), away, [], rng):.1e}")
assert gradcheck(LeakyReLU(), away, [], rng) < 1e-7

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 2
from minisam.optim import Cosine, value_at


@dataclass
class FallingLion(Lion):
    t: int = field(default=0, init=False)
    schedule: Cosine | None = None

    def update(self, theta, g):
        self.lr = value_at(self.schedule, self.t)
        self.t += 1
        super().update(theta, g)


for name, optimizer in {"constant": Lion(lr=0.1), "cosine": FallingLion(lr=0.1, schedule=Cosine(0.1, 200))}.items():
    last = run(optimizer, Bowl([1.0, 30.0]), (-3.02, 1.01), 200).losses[-20:]
    print(f"{name}: largest loss of the last 20 steps {last.max():.1e}")
reach = sum(value_at(Cosine(0.05, 100), t) for t in range(100))
print(f"steps of Cosine(0.05, 100) reach {reach:.2f} along an axis, and the minimum is 3.02 away")


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 3
@dataclass(frozen=True)
class MovingScale(Scale):
    def tangent(self, params, params_dot, x, x_dot, env):
        (a, _), (a_dot, b_dot) = params, params_dot
        y_dot = a_dot * x + b_dot
        return y_dot + a * x_dot if x_dot is not None else y_dot, x_dot

    def backward_tangent(self, params, params_dot, x, x_dot, dy, dy_dot, grads_dot, env, wants_dx=True):
        (a, _), (a_dot, _) = params, params_dot
        moved = dy_dot * x if x_dot is None else dy_dot * x + dy * x_dot
        np.sum(moved, axis=0, out=grads_dot[0])
        np.sum(dy_dot, axis=0, out=grads_dot[1])
        return dy_dot * a + dy * a_dot


print(
    f"gradient {gradcheck(MovingScale(6), x, params, rng):.1e}, tangents {hvpcheck(MovingScale(6), x, params, rng):.1e}"
)
assert hvpcheck(MovingScale(6), x, params, rng) < 1e-6
