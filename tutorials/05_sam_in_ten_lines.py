# %% [markdown]
# # 5. SAM in ten lines
#
# **The question.** Lesson 4 drew sharpness-aware minimization. Where does its formula come from, how much code does it
# take, and does it help on real images?
#
# You need lessons 1, 2 and 4. Reading takes twenty minutes, running less than a minute.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minisam import GD, SAM, BatchLoss, Momentum
from minisam.analysis import Bowl
from minisam.nn import build
from minisam.optim import Ball
from minisam.training import Config, train
from lesson import BLUE, GREEN, GREY, ORANGE, SKY, images, show

# %% [markdown]
# ## The derivation
#
# We want a low loss everywhere within $\rho$ of $\theta$:
#
# $$\min_\theta \; \max_{\|\epsilon\|_2 \le \rho} L(\theta + \epsilon).$$
#
# **Step 1: the inner maximum.** For small $\rho$ the loss is nearly linear,
# $L(\theta + \epsilon) \approx L(\theta) + \epsilon^\top g$ with $g = \nabla L(\theta)$. So we look for the $\epsilon$
# of length at most $\rho$ with the largest $\epsilon^\top g$. By the Cauchy–Schwarz inequality
# $\epsilon^\top g \le \|\epsilon\| \|g\| \le \rho \|g\|$, with equality when $\epsilon$ points along $g$ and is as long
# as allowed:
#
# $$\hat\epsilon(\theta) = \rho\, \frac{g}{\|g\|_2}.$$
#
# **Step 2: the outer minimum.** Step against the gradient of $L(\theta + \hat\epsilon(\theta))$. By the chain rule it
# has two parts,
#
# $$\nabla_\theta L(\theta + \hat\epsilon(\theta)) = \nabla L(\theta + \hat\epsilon) +
# \left(\frac{\mathrm{d} \hat\epsilon}{\mathrm{d} \theta}\right)^{\!\top} \nabla L(\theta + \hat\epsilon),$$
#
# and SAM simply drops the second, which has second derivatives in it. This leaves (Foret et al. 2021, equation 3)
#
# $$g_{\mathrm{SAM}} = \nabla L(\theta + \hat\epsilon(\theta)).$$
#
# That is all: two gradients a step instead of one.
#
# > **Predict.** In a space of 800,000 weights, how much does the loss rise after a step of length $\rho$ in a *random*
# > direction, compared with one along the gradient: half as much? A tenth? A thousandth?

# %%
data = images(n_train=2000)
net = build("mlp", (32, 32, 3), 10)
theta = net.init(np.random.default_rng(0))
batch = BatchLoss(net, data.x_train[:64], data.y_train[:64])
at_theta = batch(theta)
rho, rng = 0.05, np.random.default_rng(1)


def of_length(v, length):
    return (v * (length / np.linalg.norm(v))).astype(theta.dtype)


along_g = batch(theta + of_length(at_theta.grad, rho)).loss - at_theta.loss
random = [batch(theta + of_length(rng.standard_normal(len(theta)), rho)).loss - at_theta.loss for _ in range(50)]
print(f"loss {at_theta.loss:.3f}; along the gradient it rises by {along_g:.4f} "
      f"(predicted: rho ‖g‖ = {rho * np.linalg.norm(at_theta.grad):.4f})")  # fmt: skip
print(f"in 50 random directions by {np.mean(random):+.5f} on average, typically ±{np.std(random):.5f}, "
      f"{max(random):+.5f} at most; there are {len(theta):,} weights")  # fmt: skip
assert along_g > 20 * max(random)

# %% [markdown]
# About a thousandth, and down as often as up: a random direction is nearly at right angles to the gradient, so with $P$
# weights the slope along it is some $\sqrt P$ times smaller, and $\sqrt P$ is about 900 here. Lesson 7 shows that
# curvature, too, is large in a few directions only.
#
# ## The code

# %%
show(SAM.gradient)

# %% [markdown]
# It is longer than the formula because it can do more: several smaller steps up (`ascent_steps`), a `rho` that changes
# during training, and other ways to climb (`ascent`). An ascent returns a direction and its norm, and SAM moves by
# `rho / norm * direction`. The usual ascent is the ball of step 1: for $p = 2$ it returns the gradient and its length;
# the rest is for other norms (exercise 1):

# %%
show(Ball.__call__)


# %% [markdown]
# Without the extras it is short enough to write from memory. Close your eyes and try, before you read on.


# %%
class TenLineSAM:
    """min over θ of the worst loss within ρ, by Foret et al. (2021)."""

    def __init__(self, base, rho):
        self.base, self.rho = base, rho

    def step(self, theta, objective):
        g = objective(theta).grad
        worst = theta + self.rho * g / np.linalg.norm(g)  # a new vector: theta itself stays where it is
        self.base.update(theta, objective(worst).grad)  # the gradient up there, the step from down here


# %%
mine, its = theta.copy(), theta.copy()
for optimizer, weights in ((TenLineSAM(Momentum(lr=0.01), rho), mine), (SAM(Momentum(lr=0.01), rho), its)):
    for _ in range(5):
        optimizer.step(weights, batch)
print(f"after five steps the two differ by {np.abs(mine - its).max():.1e}")
assert np.allclose(mine, its, atol=1e-6)

# %% [markdown]
# Easy to get wrong: there is one norm over *all* weights, not one for each layer; both gradients use the same
# minibatch; the step is taken from $\theta$, not from $\theta + \hat\epsilon$; if $g = 0$, do not divide by its norm.
# Lesson 9 is a zoo of such mistakes.
#
# ## Does the dropped term matter?
#
# We can compute it, since minisam has Hessian-vector products (lesson 7): `ExactSAM` follows the whole gradient. On a
# bowl:

# %%
from minisam.optim import ExactSAM

bowl, theta0 = Bowl([1.0, 4.0]), np.array([-2.2, 1.0])
_, short = SAM(GD(lr=0.1), rho=0.6).gradient(theta0, bowl)
_, whole = ExactSAM(GD(lr=0.1), rho=0.6).gradient(theta0, bowl)


def worst_loss(theta):
    g = bowl(theta).grad
    return bowl.value(theta + 0.6 * g / np.linalg.norm(g))


measured = [(worst_loss(theta0 + 1e-5 * e) - worst_loss(theta0 - 1e-5 * e)) / 2e-5 for e in np.eye(2)]
print(f"SAM {short.round(4)}, exact {whole.round(4)}, measured by differences {np.round(measured, 4)}")
assert np.allclose(whole, measured)

# %% [markdown]
# The two are not the same, but they point roughly the same way. Is the term worth its price? The paper says no: SAM
# even works better without it. Our own study (part *ingredients* of its
# [report](../benchmarks/results/full/report.html)) found no difference on clean labels; where labels were wrong, the
# whole gradient made a few per cent fewer errors.
#
# ## A first test on real images
#
# Now 2,000 images with partly wrong labels: 40 % are redrawn at random (one in ten of them gets its old label back, so
# about 36 % are wrong). A network that is large enough will learn even the wrong labels by heart, and pay for it on the
# test set. SAM's two gradients a step cost twice the time, so the fair opponent is momentum with *twice the epochs*.
# (`warmup` is the number of epochs in which the learning rate grows; after that it falls to 0 along a cosine.)
#
# > **Predict.** Which test error is lower, and by how much? Guessing gets 90 %.

# %%
SHARED = {"model": "mlp", "noise": 0.4, "lr": 0.01, "weight_decay": 5e-3, "seed": 0}
runs = {
    "Momentum": Config(**SHARED, epochs=15, warmup=2),
    "Momentum, 2× epochs": Config(**SHARED, epochs=30, warmup=4),
    "SAM": Config(**SHARED, optimizer="sam", rho=0.1, epochs=15, warmup=2),
}
found = {name: train(config, data, evaluate_every=1) for name, config in runs.items()}
for name, run in found.items():
    print(
        f"{name:<20} {run.gradient_evaluations:>5,} gradients   "
        f"train error {run.train_error:.1%}   test error {run.test_error:.1%}"
    )

# %%
styles = {"Momentum": (SKY, ":"), "Momentum, 2× epochs": (BLUE, "--"), "SAM": (ORANGE, "-")}
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8))
for name, run in found.items():
    colour, style = styles[name]
    gradients = [record["gradient_evaluations"] for record in run.history]
    left.plot(
        gradients, [100 * (1 - record["accuracy"]) for record in run.history], style, color=colour, lw=2, label=name
    )
    right.plot(gradients, [100 * record["test_error"] for record in run.history], style, color=colour, lw=2, label=name)
left.set(xlabel="gradients", ylabel="error on the training labels, %", title="learning by heart")
left.axhline(36, color=GREY, lw=1, ls="-.")
left.annotate("36 % of the labels are wrong", (left.get_xlim()[1], 37), ha="right", color=GREY)
right.set(xlabel="gradients", ylabel="test error, %", title="on new images")
right.legend()
for ax in (left, right):
    ax.grid(alpha=0.3)
plt.show()

# %% [markdown]
# A network can get below the grey line only by memorising wrong labels. Momentum does that, and all the training that
# goes into it buys nothing: its test error hardly falls any more. SAM memorises less. (It also seems to memorise later,
# but that is mostly the axis: each of its steps takes two gradients.) A common explanation is that weights which know a
# wrong label by heart sit in a narrow place, since similar images say otherwise.
#
# One run on one data set proves little, and momentum was not even tuned here. Weight decay, too, keeps a network from
# memorising (lesson 6). In our study, where each method got the best of a grid of the same size, it depends: with 40 %
# of the labels redrawn this network makes fewer errors with SAM than with momentum if it has 2,000 images, and *more* if
# it has 4,000. Where only rho is tuned, as in SAM's papers, the gain is there with 4,000, too. Lesson 8 shows both.
#
# ## Remember
#
# - Within $\rho$ of $\theta$, a linear loss would be worst at $\theta + \rho\, g / \|g\|$; SAM follows the gradient
#   found there.
# - It costs two gradients a step. Compare it with an optimizer that had as many.
# - In many dimensions a random direction is nearly level; the gradient is one of the few that are not.
#
# ## Exercises
#
# 1. Which $\hat\epsilon$ maximises $\epsilon^\top g$ if no *single* weight may move by more than $\rho$ (the norm
#    $p = \infty$)? Derive it, and compare with `Ball(np.inf)`.
# 2. `TenLineSAM` fails if the gradient is exactly zero. Show it, and mend it in one place.
# 3. Train for ten epochs, the first of them a warm-up, with `rho` 0.02, 0.05, 0.1 and 0.2, and plot test error
#    against rho. Draw a line for momentum with as many gradients. Is there a best rho? Then try ten times the largest.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 1
# εᵀg = Σ εᵢ gᵢ ≤ Σ |εᵢ| |gᵢ| ≤ ρ Σ |gᵢ|, with equality if εᵢ = ρ sign(gᵢ): every weight goes as far as it may.
g = np.array([3.0, -0.5, 0.0])
direction, norm = Ball(np.inf)(np.zeros(3), g)
print("ρ · sign(g):", 0.1 * np.sign(g), " library:", 0.1 / norm * direction)
assert np.allclose(0.1 / norm * direction, 0.1 * np.sign(g))

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 2
with np.errstate(invalid="ignore"):
    minimum = np.zeros(2)
    TenLineSAM(GD(lr=0.1), 0.1).step(minimum, bowl)
    print("at the minimum:", minimum)


class MendedSAM(TenLineSAM):
    def step(self, theta, objective):
        g = objective(theta).grad
        worst = theta + self.rho * g / (np.linalg.norm(g) or 1.0)
        self.base.update(theta, objective(worst).grad)


minimum = np.zeros(2)
MendedSAM(GD(lr=0.1), 0.1).step(minimum, bowl)
print("mended:", minimum)
assert np.array_equal(minimum, np.zeros(2))

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 3
errors = {}
for radius in (0.02, 0.05, 0.1, 0.2, 2.0):
    config = Config(**SHARED, optimizer="sam", rho=radius, epochs=10, warmup=1)
    errors[radius] = 100 * train(config, data).test_error
    print(f"rho {radius:<5} test error {errors[radius]:.1f} %")
momentum = 100 * train(Config(**SHARED, epochs=20, warmup=2), data).test_error
print(f"momentum  test error {momentum:.1f} %")
figure, ax = plt.subplots(figsize=(6, 3))
ax.semilogx(list(errors), list(errors.values()), "o-", color=GREEN, label="SAM, 10 epochs")
ax.axhline(momentum, color=BLUE, ls="--", label="Momentum, 20 epochs")
ax.legend()
ax.set(xlabel="rho", ylabel="test error, %")
ax.grid(alpha=0.3)
plt.show()
# Among the four small radii, differences of two points mean little: one run on 2,000 test images is uncertain by one.
# With ten times the largest the network hardly learns. Momentum's line is as uncertain, and nobody has tuned it.
