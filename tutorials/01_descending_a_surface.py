# %% [markdown]
# # 1. Descending a surface
#
# **The question.** Training a network means finding weights with a low loss. The only thing we know at any point is the
# slope there. How do we get down, and why does the obvious way take so long?
#
# You need NumPy and the idea of a derivative. Reading takes fifteen minutes, running ten seconds.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter

from minisam import GD, Adam, Momentum
from minisam.analysis import Bowl
from minisam.analysis.toy import Rosenbrock, run
from minisam.kernels import reference
from lesson import BLUE, GREEN, ORANGE, YELLOW, show

# %% [markdown]
# ## A loss, and its gradient
#
# Take the simplest surface that can go wrong, a bowl with two weights that is much steeper one way than the other:
#
# $$L(\theta) = \tfrac12 \left(h_1 \theta_1^2 + h_2 \theta_2^2\right), \qquad
# \nabla L(\theta) = (h_1 \theta_1,\; h_2 \theta_2).$$
#
# The numbers $h_1$ and $h_2$ are its *curvatures*: how fast the slope changes as you walk along an axis. In minisam a
# surface is a function from weights to loss and gradient. Here is the library's bowl:

# %%
show(Bowl)

# %% [markdown]
# (An `Evaluation` is the loss and the gradient together; `hessian` is the matrix of curvatures, which lesson 7 needs.)

# %%
bowl = Bowl([1.0, 30.0])
theta = np.array([-3.0, 1.0])
at_theta = bowl(theta)
print(f"at θ = {theta}: loss {at_theta.loss:.1f}, gradient {at_theta.grad}")

# %% [markdown]
# Never believe a gradient that you have not checked. The slope along an axis is how much the loss rises over a small
# step, divided by the step, and we can simply measure that:

# %%
step = 1e-5
measured = [(bowl(theta + step * e).loss - bowl(theta - step * e).loss) / (2 * step) for e in np.eye(2)]
print("measured:", np.round(measured, 6))
assert np.allclose(measured, at_theta.grad)

# %% [markdown]
# ## Gradient descent
#
# The gradient points uphill, so step the other way, by a *learning rate* $\eta$ (in code: `lr`) times its length:
#
# $$\theta \leftarrow \theta - \eta\, \nabla L(\theta).$$

# %%
show(GD.update, reference.gd_update)

# %% [markdown]
# (`theta` holds all weights of a network in one vector; here there are two. `weight_decay` is a pull towards zero,
# which we do not use here.)
#
# > **Predict, and write it down.** On our bowl, $h_1 = 1$ and $h_2 = 30$. From $(-3, 1)$ with `lr` 0.06: does the path
# > go straight to the minimum? What happens with `lr` 0.07?

# %%
start = (-3.0, 1.0)
paths = {f"lr {lr:g}": run(GD(lr=lr), bowl, start, steps=40) for lr in (0.01, 0.06, 0.07)}
for name, path in paths.items():
    last = bowl.value(path.thetas[-1])
    print(f"{name}: loss {path.losses[0]:.1f} → {last:.3g} in 40 steps; first θ₂: {path.thetas[:5, 1].round(2)}")


# %%
def draw_surface(ax, surface, x, y):
    """Lines of equal loss."""
    a, b = np.linspace(*x, 201), np.linspace(*y, 201)
    losses = np.array([[surface.value(np.array([p, q])) for p in a] for q in b])
    ax.contour(a, b, losses, levels=np.geomspace(0.05, losses.max(), 14), colors="0.75", linewidths=0.8)
    ax.plot(0, 0, "+", color="black", ms=10) if isinstance(surface, Bowl) else ax.plot(1, 1, "+", color="black", ms=10)
    ax.set(xlim=x, ylim=y, xlabel="$\\theta_1$", ylabel="$\\theta_2$")


figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), sharey=True)
for ax, (name, path) in zip(axes, paths.items()):
    draw_surface(ax, bowl, (-3.4, 1.0), (-1.6, 1.6))
    stays = np.abs(path.thetas[:, 1]).max() < 1.6
    ax.plot(*(path.thetas if stays else path.thetas[:5]).T, "o-", color=ORANGE, ms=3, lw=1.2)
    ax.set_title(f"GD, {name}" if stays else f"GD, {name}: its first four steps")
plt.show()

# %% [markdown]
# Along each axis a step multiplies the distance from the minimum by $1 - \eta h_i$. That one factor explains all three
# pictures:
#
# - with $\eta = 0.01$ it is 0.99 along $\theta_1$: safe, and hopelessly slow;
# - with $\eta = 0.06$ it is $-0.8$ along $\theta_2$: every step overshoots to the other side. That is the zigzag;
# - with $\eta = 0.07$ it is $-1.1$: every overshoot is larger than the one before. Training *diverges*.
#
# So the steepest direction limits the learning rate to $\eta < 2 / h_{\max}$, and the flattest has to make do with it.
# The ratio $h_{\max} / h_{\min}$, here 30, says how bad this is.

# %%
factors = 1 - 0.06 * bowl.h
path = paths["lr 0.06"].thetas
assert np.allclose(path[1:], path[:-1] * factors)  # every step, both axes
print("factors:", factors, " limit of lr:", 2 / bowl.h.max())

# %% [markdown]
# ## Momentum
#
# On a zigzag path, the gradients along $\theta_2$ point back and forth and cancel; along $\theta_1$ they all point the
# same way. So add them up. The *velocity* $v$ does that, and shrinks old gradients by a factor $\mu$ at each step:
#
# $$v \leftarrow \mu v + \nabla L(\theta), \qquad \theta \leftarrow \theta - \eta\, v.$$

# %%
show(reference.momentum_update)

# %% [markdown]
# (`weight_decay` is 0 again. With `nesterov` the step looks one step ahead, which no lesson needs.)
#
# ## Adam
#
# Adam (Kingma & Ba 2015) gives every weight its own step size: it divides the running mean of a weight's gradient by
# the root of the running mean of its square,
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
# \theta \leftarrow \theta - \eta\, \frac{\hat m}{\sqrt{\hat v} + \epsilon},$$
#
# where the hats correct for $m$ and $v$ starting at 0: after $t$ steps, $\hat m = m / (1 - \beta_1^t)$ and
# $\hat v = v / (1 - \beta_2^t)$. In the code these corrections are two numbers: `step_size` is
# $\eta / (1 - \beta_1^t)$, and `root_bias2` is $\sqrt{1 - \beta_2^t}$. (`decay` is for weight decay; 0 here.)

# %%
show(reference.adam_update)

# %%
g, adam = np.array([2.0, -0.001]), Adam(lr=0.1)
theta = np.zeros(2)
adam.update(theta, g)
print("first step of Adam:", theta.round(4))  # -lr · sign(g), whatever the size of g
assert np.allclose(theta, -0.1 * np.sign(g), rtol=1e-4)

# %% [markdown]
# ## A race
#
# Rosenbrock's valley is narrow *and* bent: $(1 - \theta_1)^2 + 10\,(\theta_2 - \theta_1^2)^2$, with its minimum at
# $(1, 1)$.
#
# A race is fair if everybody has tuned. So each racer tries 60 learning rates, from 0.001 to 1, and starts with the best:
# that whose loss is lowest at the end, at worst over the last ten of 60 steps, so that nobody wins by a lucky swing.
# Momentum races twice, with the usual $\mu = 0.9$ and with 0.7. (Adam keeps its usual $\beta$s.)
#
# > **Predict.** Who is fastest in the long bowl? And in the valley?

# %%
RACERS = {
    "GD": (BLUE, "--", GD),
    "Momentum, μ = 0.9": (ORANGE, "-", Momentum),
    "Momentum, μ = 0.7": (YELLOW, "-.", lambda lr: Momentum(lr, momentum=0.7)),
    "Adam": (GREEN, ":", Adam),
}
SURFACES = {
    "bowl": (bowl, (-3.0, 1.0), (-3.4, 1.4), (-1.6, 1.6)),
    "valley": (Rosenbrock(), (-1.2, 1.0), (-1.7, 1.7), (-0.7, 1.9)),
}
STEPS, RATES = 60, np.geomspace(1e-3, 1, 60)


def losses(surface, path):
    """The loss before the first step and after each."""
    return np.array([surface.value(theta) for theta in path.thetas])


def tuned(optimizer, surface, start):
    """The path with the learning rate of RATES that ends lowest, that rate, and the worst of its last ten losses."""
    with np.errstate(all="ignore"):  # too large a rate leads to infinity
        paths = {lr: run(optimizer(lr), surface, start, STEPS) for lr in RATES}
        ends = {lr: np.nan_to_num(losses(surface, path)[-10:].max(), nan=np.inf) for lr, path in paths.items()}
    lr = min(ends, key=ends.get)
    return paths[lr], lr, ends[lr]


races = {}
for place, (surface, begin, _, _) in SURFACES.items():
    races[place] = {}
    print(f"the {place}, loss in the last ten of {STEPS} steps, at worst:")
    for name, (_, _, optimizer) in RACERS.items():
        races[place][name], lr, end = tuned(optimizer, surface, begin)
        print(f"    {name:<18} {end:.1e}, with lr {lr:.2g}")

figure, axes = plt.subplots(2, 2, figsize=(11, 7), width_ratios=(1.4, 1))
for (place, (surface, _, x, y)), (left, right) in zip(SURFACES.items(), axes):
    draw_surface(left, surface, x, y)
    for name, (colour, style, _) in RACERS.items():
        path = races[place][name]
        left.plot(*path.thetas.T, style, marker="o", color=colour, ms=3, lw=1.2, label=name)
        right.semilogy(losses(surface, path), style, color=colour, lw=2, label=name)
    left.set_title(f"the {place}")
    right.set(xlabel="step", ylabel="loss")
    right.grid(alpha=0.3)
axes[0, 0].legend()
plt.show()

# %% [markdown]
# With $\mu = 0.7$ momentum wins both races by far, because steps in the same direction add up. With the usual 0.9 it
# is still swinging when the race is over, like a ball that is too heavy, and in the bowl it loses even to gradient
# descent. Adam sets off diagonally, since it does not care how steep an axis is. In the valley gradient descent comes
# last: Adam divides by the size of past gradients, so the flat floor slows it far less.
#
# So an order of optimizers is an order of optimizers *as they were tuned*: change one number, and it is another. (The
# best $\mu$ for a long bowl depends on its shape: it is $((\sqrt\kappa - 1) / (\sqrt\kappa + 1))^2$ for
# $\kappa = h_{\max} / h_{\min}$, here 0.48; Polyak 1964.)
#
# The same race, animated:

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), dpi=80)
heads = []
for ax, (place, (surface, _, x, y)) in zip(axes, SURFACES.items()):
    draw_surface(ax, surface, x, y)
    ax.set_title(f"the {place}")
    for name, (colour, style, _) in RACERS.items():
        (trail,) = ax.plot([], [], style, color=colour, lw=1.5, label=name)
        (head,) = ax.plot([], [], "o", color=colour, ms=7)
        heads.append((races[place][name].thetas, trail, head))
axes[0].legend(loc="upper right", fontsize=8)


def frame(i):
    for thetas, trail, head in heads:
        trail.set_data(*thetas[: i + 1].T)
        head.set_data(*thetas[i : i + 1].T)


file = Path("figures") / "descent.gif"
file.parent.mkdir(exist_ok=True)
FuncAnimation(figure, frame, frames=STEPS).save(file, PillowWriter(fps=12))
plt.close(figure)

# %% [markdown]
# ![Gradient descent, momentum and Adam on two surfaces](figures/descent.gif)
#
# Drag the start yourself, and turn the rates: open the [playground](playground.html) in a browser.
#
# ## Remember
#
# - Training is walking downhill on a surface when you know only the slope under your feet.
# - Curvature sets the speed limit: gradient descent needs $\eta < 2 / h_{\max}$, and zigzags near it.
# - Momentum adds up gradients, Adam rescales them. None of the three asks *which* minimum it falls into. Lesson 4 does.
#
# ## Exercises
#
# 1. What is the largest learning rate with which gradient descent still converges on `Bowl([1, 100])`? Try one just
#    below and one just above.
# 2. For the bowl with $h = (1, 30)$, which `lr` makes gradient descent fastest along the slower of the two axes?
#    (Both factors $|1 - \eta h_i|$ should be equal.)
# 3. Write momentum yourself, in five lines, and check it against the library's, step by step.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 1
for lr in (0.0199, 0.0201):  # the limit is 2 / 100
    path = run(GD(lr=lr), Bowl([1.0, 100.0]), (1.0, 1.0), steps=200)
    print(f"lr {lr}: θ₂ after 200 steps {path.thetas[-1, 1]:.3g}")

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 2
best = 2 / (1 + 30)  # from 1 - η = 30 η - 1
rates = {lr: np.abs(run(GD(lr=lr), bowl, start, 50).thetas[-1]).max() for lr in (0.5 * best, best, 1.02 * best)}
for lr, distance in rates.items():
    print(f"lr {lr:.4f}: largest |θᵢ| after 50 steps {distance:.4f}")
assert min(rates, key=rates.get) == best

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 3
theta, v = np.array(start), np.zeros(2)
for expected in run(Momentum(lr=0.03, momentum=0.8), bowl, start, steps=20).thetas[1:]:
    v = 0.8 * v + bowl(theta).grad
    theta = theta - 0.03 * v
    assert np.allclose(theta, expected)
print("the same for 20 steps")
