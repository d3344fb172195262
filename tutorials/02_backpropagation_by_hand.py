# %% [markdown]
# # 2. Backpropagation by hand
#
# **The question.** A network has hundreds of thousands of weights. How does one pass backwards through it give the
# slope of the loss along every one of them, and how do you know that it is right?
#
# You need lesson 1 and the chain rule. Reading takes twenty minutes, running ten seconds.

# %%
import math
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np

from minisam import Momentum
from minisam.analysis import gradcheck, numerical_gradient, relative_error
from minisam.data import Batches
from minisam.nn import BatchLoss, Env, Flatten, Linear, ReLU, Sequential, SoftmaxCrossEntropy
from minisam.nn.layer import Layer
from lesson import BLUE, ORANGE, images, show

# %% [markdown]
# ## A chain of functions
#
# A multilayer perceptron (MLP) is a chain: a linear map, a nonlinearity, a linear map, and at the end a loss.
#
# $$x \;\to\; a = xW_1 + b_1 \;\to\; z = \max(a, 0) \;\to\; s = zW_2 + b_2 \;\to\; L(s, y).$$
#
# The chain rule goes through it from the right: if we know how the loss changes with a layer's *output*,
# $\mathrm{d}y = \partial L / \partial y$, the layer can work out how the loss changes with its *input* and with its own
# weights. It need not know anything else about the network. So every layer is two functions, `forward` and `backward`.
#
# ### Linear
#
# $$y = xW + b: \qquad \frac{\partial L}{\partial W} = x^\top \mathrm{d}y, \qquad
# \frac{\partial L}{\partial b} = \sum_n \mathrm{d}y_n, \qquad \frac{\partial L}{\partial x} = \mathrm{d}y\, W^\top.$$
#
# Shapes tell you which product it must be: $x$ is $(N, n_{in})$, $\mathrm{d}y$ is $(N, n_{out})$, and the gradient with
# respect to $W$ has to be $(n_{in}, n_{out})$.

# %%
show(Linear.affine, Linear.forward, Linear.weight_gradient, Linear.input_gradient)

# %% [markdown]
# `forward` also returns whatever `backward` will need (the *cache*), here only the input. `backward` calls the other
# two, one after the other; the first layer of a network needs only `weight_gradient`. (`env` lends scratch memory.)
#
# ### ReLU
#
# $$y = \max(x, 0): \qquad \frac{\partial L}{\partial x} = \mathrm{d}y \cdot [x > 0].$$
#
# (The brackets are 1 where the condition holds, and 0 elsewhere.)
#
# ### The loss
#
# The last layer's outputs $s$ (the *logits*) become probabilities $p_k = e^{s_k} / \sum_j e^{s_j}$, and the loss of an
# example is how surprising its label is, $-\log p_y$, in nats (like bits, but with the natural logarithm). Take the
# mean over the $N$ examples of a batch, differentiate, and nearly everything cancels:
#
# $$\frac{\partial L}{\partial s_k} = \frac{1}{N}\left(p_k - [k = y]\right).$$

# %%
show(SoftmaxCrossEntropy.__call__)

# %% [markdown]
# (`alpha` smooths the labels; with 0, the default, it does nothing.)

# %% [markdown]
# > **Predict.** A fresh network knows nothing, so it gives each of ten classes about the same probability. What is its
# > loss, in nats?

# %%
logits, labels = np.zeros((4, 10)), np.array([3, 1, 4, 1])
loss, dlogits = SoftmaxCrossEntropy()(logits, labels)
print(f"loss {loss:.4f}, log 10 = {math.log(10):.4f}")
assert np.isclose(loss, math.log(10))
assert np.allclose(dlogits.sum(axis=1), 0)  # raising all logits by the same amount changes nothing

# %% [markdown]
# ## How to check a gradient
#
# As in lesson 1, compare it with differences. A layer's output is an array and not a number, so turn it into a number
# first. The obvious way is to sum it, and the obvious way is a trap.
#
# Here is a softmax layer whose `backward` was never written. It returns zeros.


# %%
@dataclass(frozen=True)
class LazySoftmax(Layer):
    """y = softmax(x), with a backward that somebody meant to write later."""

    def forward(self, params, x, env):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        y = e / e.sum(axis=1, keepdims=True)
        return y, y

    def backward(self, params, y, dy, grads, env):
        return np.zeros_like(y)  # WRONG


# %% [markdown]
# > **Predict.** Does a check that sums the outputs find the mistake?


# %%
def careless_check(layer, x):
    """Sum the outputs, and compare with differences."""
    y, cache = layer.forward([], x, Env())
    dx = layer.backward([], cache, np.ones_like(y), [], Env())
    measured = numerical_gradient(lambda x: float(layer.forward([], x, Env())[0].sum()), x)
    return np.abs(dx - measured).max()


rng = np.random.default_rng(0)
x = rng.standard_normal((3, 5))
print(f"careless check, largest difference: {careless_check(LazySoftmax(), x):.1e}")
print(f"minisam's gradcheck, relative error: {gradcheck(LazySoftmax(), x, [], rng):.1e}")
assert careless_check(LazySoftmax(), x) < 1e-9 < gradcheck(LazySoftmax(), x, [], rng)

# %% [markdown]
# Probabilities sum to 1, whatever $x$ is. The sum of the outputs never changes, so its slope *is* zero, and the
# unwritten `backward` passes. The cure is to weight the outputs with random numbers $c$ before summing them: nobody
# gets the slope of $\sum_k c_k y_k$ right by accident. minisam's `gradcheck` does that, for the input and for every
# parameter, on every index, in float64. It fills the gradients with NaN beforehand, so that a forgotten one shows.

# %%
show(gradcheck)

# %%
params = [rng.standard_normal((6, 4)), rng.standard_normal(4)]
for layer, parameters, width in ((Linear(6, 4), params, 6), (ReLU(), [], 6)):
    print(f"{layer!r:<32} relative error {gradcheck(layer, rng.standard_normal((5, width)), parameters, rng):.1e}")

# %% [markdown]
# ## How large should the step be?
#
# A difference is not quite the slope, for two reasons: the step $h$ is not infinitely small (an error that grows like
# $h^2$), and computers round (an error that grows like $1/h$). The best step lies in between.

# %%
f, slope = np.tanh, 1 - np.tanh(0.7) ** 2
steps = np.geomspace(1e-12, 1e-1, 60)
wrong = {kind: [abs((f(kind(0.7 + h)) - f(kind(0.7 - h))) / (2 * kind(h)) - slope) for h in steps]
         for kind in (np.float64, np.float32)}  # fmt: skip

figure, ax = plt.subplots(figsize=(7, 3.6))
for (kind, values), colour, style in zip(wrong.items(), (BLUE, ORANGE), ("-", "--")):
    ax.loglog(steps, np.maximum(values, 1e-13), style, color=colour, lw=2, label=kind.__name__)
ax.axvline(1e-5, color="0.6", ls=":", label="minisam's step")
ax.set(xlabel="step h", ylabel="error of the slope (true: 0.635)", title="The slope of tanh at 0.7, from a difference")
assert round(slope, 3) == 0.635
ax.legend()
ax.grid(alpha=0.3)
plt.show()

# %% [markdown]
# In float64, $h = 10^{-5}$ gives ten digits or more. In float32 there are five or six at best (a dip below the
# neighbouring points is luck), and with that $h$ only two or three: that is why gradients are checked in float64, even
# if training runs in float32.
#
# ## A whole network
#
# All weights lie in one vector `theta`. `Sequential` hands each layer its part of it (a *view*), runs its chain of
# layers forward, and then backward in reverse order:

# %%
show(Sequential.evaluate)

# %% [markdown]
# (`backward_at_input` is `backward` without $\partial L / \partial x$: at the network's input nobody needs it.)

# %%
net = Sequential([Linear(6, 8), ReLU(), Linear(8, 3)], input_shape=(6,))
theta = net.init(rng, np.float64)
x, y = rng.standard_normal((5, 6)), np.array([0, 1, 2, 1, 0])
_, grad = net.loss_and_grad(theta, x, y)
measured = numerical_gradient(lambda theta: net.loss_and_grad(theta, x, y)[0], theta)
print(net.summary())
print(f"\nall {len(theta)} slopes, relative error {relative_error(grad, measured):.1e}")
assert relative_error(grad, measured) < 1e-6

# %% [markdown]
# The differences took two forward passes for each weight (and ours, wastefully, ran backward too). Backpropagation took
# one forward and one backward pass, *however many weights there are*. Together they cost about as much as three forward
# passes: a `Linear` layer needs one matrix product forward, and two backward. That is the whole reason why networks can
# be trained.
#
# ## And now on real images

# %%
data = images(n_train=2000)
net = Sequential([Flatten(), Linear(32 * 32 * 3, 128), ReLU(), Linear(128, 10)], input_shape=(32, 32, 3))
theta = net.init(np.random.default_rng(0))
optimizer, batches = Momentum(lr=0.01), Batches(data.x_train, data.y_train, batch_size=50)

losses, errors = [], []
for epoch in range(8):
    for x_batch, y_batch in batches.epoch(epoch):
        losses.append(optimizer.step(theta, BatchLoss(net, x_batch, y_batch)).loss)
    errors.append(np.mean(net.predict(theta, data.x_test) != data.y_test))
print(f"{net.n_params:,} weights; loss {losses[0]:.2f} → {np.mean(losses[-40:]):.2f}, test error {errors[-1]:.1%}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
left.plot(losses, color="0.8", label="each batch")
left.plot(
    np.arange(20, 321, 40), np.reshape(losses, (8, 40)).mean(axis=1), "o-", color=BLUE, lw=2, label="mean of an epoch"
)
left.axhline(math.log(10), color="0.5", ls=":", label="log 10: guessing")
left.set(xlabel="step", ylabel="training loss, nats")
left.legend()
right.plot(range(1, 9), 100 * np.array(errors), "o-", color=ORANGE, lw=2)
right.axhline(90, color="0.5", ls=":", label="guessing")
right.set(xlabel="epoch", ylabel="test error, %", ylim=(0, 95))
right.legend()
right.grid(alpha=0.3)
plt.show()

# %% [markdown]
# (Why does it start *above* log 10? Random weights do not give equal probabilities: the network is sure of something,
# and mostly wrong. And is that test error bad? Guessing would be wrong nine times in ten. The network has seen 2,000
# images, a twenty-fifth of CIFAR-10's training set, and an MLP does not know that neighbouring pixels belong together:
# the convolutions of lesson 3 do.)
#
# ## Remember
#
# - A layer turns $\partial L / \partial y$ into $\partial L / \partial x$ and the gradients of its own weights. That is
#   all of backpropagation.
# - Check every gradient against differences: in float64, on every index, with random weights on the outputs.
# - A check that cannot fail is decoration. Break the code on purpose, and see the check complain.
#
# ## Exercises
#
# 1. Finish `LazySoftmax`: with $p$ the output,
#    $\partial L/\partial x = p \cdot (\mathrm{d}y - \sum_k p_k \mathrm{d}y_k)$. Does `gradcheck` agree?
# 2. Break `Linear.weight_gradient` on purpose: forget the sum over $n$ in $\partial L / \partial b$ (take only the
#    first example's $\mathrm{d}y$). What does `gradcheck` say?
# 3. Why must weights start at random values? Start them all at zero, train for three epochs, and explain what you see.


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 1
@dataclass(frozen=True)
class Softmax(LazySoftmax):
    def backward(self, params, y, dy, grads, env):
        return y * (dy - np.sum(y * dy, axis=1, keepdims=True))


print(f"relative error {gradcheck(Softmax(), rng.standard_normal((3, 5)), [], rng):.1e}")
assert gradcheck(Softmax(), rng.standard_normal((3, 5)), [], rng) < 1e-7


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 2
class Forgetful(Linear):
    def weight_gradient(self, x, dy, grads):
        super().weight_gradient(x, dy, grads)
        grads[1][...] = dy[0]


print(f"relative error {gradcheck(Forgetful(6, 4), rng.standard_normal((5, 6)), params, rng):.1e}")
print(
    f"with a batch of one: {gradcheck(Forgetful(6, 4), rng.standard_normal((1, 6)), params, rng):.1e}"
)  # a blind spot!

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 3
theta[:] = 0
optimizer = Momentum(lr=0.01)  # a new one, without velocity
for epoch in range(3):
    for x_batch, y_batch in batches.epoch(epoch):
        at_theta = optimizer.step(theta, BatchLoss(net, x_batch, y_batch))
(W1, _), (W2, b2) = net.params(theta)[1], net.params(theta)[-1]
print(
    f"loss {at_theta.loss:.3f}; largest |W1| {np.abs(W1).max():.1e}, "
    f"|W2| {np.abs(W2).max():.1e}, |b2| {np.abs(b2).max():.1e}"
)
# The hidden units put out 0, so W2 gets no gradient; W2 is 0, so nothing reaches W1. Only the last bias
# learns, and all it can learn is how frequent the classes are.
