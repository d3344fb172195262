# %% [markdown]
# # 4. Sharp and flat
#
# **The question.** Two minima are equally deep. Why would you care which one training falls into?
#
# Lesson 1 is enough. Reading takes fifteen minutes, running fifteen seconds.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter

from minisam import GD, SAM
from minisam.analysis import Bowl
from minisam.analysis.toy import TwoMinima, run
from lesson import BLUE, GREEN, ORANGE, SKY, show

# %% [markdown]
# ## Two minima in one dimension
#
# Take two bowls, and at every point (smoothly) the lower one:
#
# $$L(\theta) = -\log\left(e^{-q_1(\theta)} + e^{-q_2(\theta)}\right), \qquad
# q_i(\theta) = \tfrac12 h_i (\theta - c_i)^2.$$
#
# The first is sharp, with curvature $h_1 = 400$; the second is flat, $h_2 = 10$. The loss at both minima is 0.

# %%
surface = TwoMinima()


def loss(theta):
    """The loss along the axis on which both minima lie."""
    return np.array([surface.value(np.array([x, 0.0])) for x in np.atleast_1d(theta)])


print("loss at the sharp and the flat minimum:", abs(loss([-1, 1]).round(3)))

# %% [markdown]
# ### First reason: the test set is not the training set
#
# The loss on new images is a surface *like* the training loss, but not the same one. Suppose that it is only moved a
# little to the right.
#
# > **Predict.** By how much does the loss rise at $\theta = -1$, and at $\theta = 1$, when the surface moves by 0.1?

# %%
shift = 0.1
for name, theta in {"sharp": -1.0, "flat": 1.0}.items():
    print(f"{name}: training loss {abs(loss(theta)[0]):.2f}, test loss {loss(theta - shift)[0]:.2f}")
assert np.allclose(loss([-1 - shift, 1 - shift]), [0.5 * 400 * shift**2, 0.5 * 10 * shift**2], atol=1e-6)

# %%
theta = np.linspace(-1.6, 2.2, 761)
figure, ax = plt.subplots(figsize=(9, 3.6))
ax.plot(theta, loss(theta), color=BLUE, lw=2, label="training loss")
ax.plot(theta, loss(theta - shift), "--", color=ORANGE, lw=2, label="test loss: moved by 0.1")
for x in (-1, 1):
    ax.annotate("", (x, loss(x - shift)[0]), (x, 0), arrowprops={"arrowstyle": "->", "color": "black", "lw": 1.6})
ax.annotate("sharp:\na large rise", (-1, 2.0), (-0.75, 2.6))
ax.annotate("flat: hardly any", (1, 0.1), (0.82, 0.9))
ax.set(xlabel="θ", ylabel="loss", ylim=(-0.2, 6))
ax.legend(loc="upper right", bbox_to_anchor=(0.8, 1))
plt.show()

# %% [markdown]
# ### Second reason: description length
#
# In the sharp minimum you have to say exactly where you are; in the flat one, roughly will do. Hochreiter & Schmidhuber
# (1997) argued that weights which can be written down with fewer digits carry less of the training set's accidents.
#
# Neither reason is a proof, and lessons 6 to 8 look at how well they hold on real networks. But they suggest what to
# ask for: not a low loss *at* $\theta$, but a low loss *all around* it.
#
# ## The worst loss nearby
#
# So, instead of $L(\theta)$, let us minimise the worst loss within a distance $\rho$:
#
# $$L_\rho(\theta) = \max_{\|\epsilon\| \le \rho} L(\theta + \epsilon).$$

# %%
rho = 0.3
worst = np.array([loss(np.linspace(x - rho, x + rho, 61)).max() for x in theta])
figure, ax = plt.subplots(figsize=(9, 3.6))
ax.plot(theta, loss(theta), color=BLUE, lw=2, label="L(θ)")
ax.plot(theta, worst, color=GREEN, lw=2, label=f"the worst within ρ = {rho}")
lowest = theta[worst.argmin()]
ax.plot(lowest, worst.min(), "*", color=GREEN, mec="black", ms=15)
ax.annotate(f"its minimum: θ = {lowest:.2f}", (lowest, worst.min() + 0.6), (lowest, 7), ha="center",
            arrowprops={"arrowstyle": "-", "color": GREEN})  # fmt: skip
ax.set(xlabel="θ", ylabel="loss", ylim=(-1, 25))
ax.legend(loc=(0.3, 0.78))
plt.show()
print(
    f"worst loss around the sharp minimum {worst[np.abs(theta + 1).argmin()]:.1f}, "
    f"around the flat one {worst[np.abs(theta - 1).argmin()]:.2f}"
)
assert abs(lowest - 1) < 0.05

# %% [markdown]
# Seen that way the sharp minimum is not low at all: the worst loss around it is $\tfrac12 \cdot 400 \cdot 0.3^2 = 18$.
# Only the flat one is left. (The level piece is due to the ridge between the two: within 0.3 of it nothing is worse.)
#
# ## SAM, in one picture
#
# Finding the worst point exactly would take a whole search at every step. SAM (Foret et al. 2021) takes a shortcut: the
# loss rises fastest along the gradient, so go that way. A step has two halves:
#
# $$\text{up:}\quad \hat\epsilon = \rho\, \frac{\nabla L(\theta)}{\|\nabla L(\theta)\|}, \qquad\qquad
# \text{down, from } \theta \text{ again:}\quad \theta \leftarrow \theta - \eta\, \nabla L(\theta + \hat\epsilon).$$
#
# It is the *other* point's gradient, but it is applied where we were. Lesson 5 derives it. In the library's own words
# (with `ascent_steps` = 1 the loop runs once; `ascent` returns $\nabla L$ and its norm; afterwards the base optimizer,
# here `GD`, steps from `theta` against the gradient that is returned):

# %%
show(SAM.gradient)

# %% [markdown]
# In a bowl $L = \tfrac12 \sum h_i \theta_i^2$ both gradients can be written down. With $H$ the diagonal matrix of the
# $h_i$, SAM's is $H\theta + \rho\, H^2 \theta / \|H\theta\|$: the second term pulls harder where the curvature is
# larger.

# %%
bowl, theta0 = Bowl([1.0, 4.0]), np.array([-2.2, 1.0])
_, g = SAM(GD(lr=0.2), rho=0.6).gradient(theta0, bowl)
closed = bowl.h * theta0 + 0.6 * bowl.h**2 * theta0 / np.linalg.norm(bowl.h * theta0)
print("SAM's gradient:", g.round(4), " closed form:", closed.round(4), " plain gradient:", bowl(theta0).grad)
assert np.allclose(g, closed)

# %%
path = run(SAM(GD(lr=0.2), rho=0.6), bowl, theta0, steps=4)
a, b = np.linspace(-3.2, 0.6, 160), np.linspace(-1.5, 2.0, 160)
figure, ax = plt.subplots(figsize=(7, 5))
ax.contour(
    a, b, [[bowl.value(np.array([p, q])) for p in a] for q in b], levels=np.geomspace(0.05, 12, 12), colors="0.8"
)
for i in range(4):
    here, top, after = path.thetas[i], path.worst[i], path.thetas[i + 1]
    ax.annotate("", top, here, arrowprops={"arrowstyle": "->", "color": GREEN, "lw": 2})
    ax.annotate("", after, here, arrowprops={"arrowstyle": "->", "color": ORANGE, "lw": 2.4})
    ax.plot(*here, "o", color="black", ms=5)
ax.plot([], [], color=GREEN, lw=2, label="up: $\\theta \\to \\theta + \\hat\\epsilon$, always of length ρ")
ax.plot([], [], color=ORANGE, lw=2, label="down: from $\\theta$ against the gradient found up there")
ax.annotate("θ", theta0, (6, -14), textcoords="offset points")
ax.set(xlabel="$\\theta_1$", ylabel="$\\theta_2$", aspect="equal")
ax.legend(loc="lower left")
plt.show()

# %% [markdown]
# ## A race
#
# The same two minima, now with two weights. Gradient descent and SAM start at the same point, on the far side of the
# sharp one, with the same learning rate.
#
# > **Predict.** Where does gradient descent end? Where does SAM, with $\rho = 0.8$?
#
# (The printed curvature is the largest over all directions: the largest eigenvalue of the matrix of second derivatives.
# Lesson 7 is about that.)

# %%
start, steps = (-2.2, 0.3), 100
racers = {"GD": (GD(lr=0.004), SKY, "--"), "SAM": (SAM(GD(lr=0.004), rho=0.8), ORANGE, "-")}
paths = {name: run(optimizer, surface, start, steps) for name, (optimizer, _, _) in racers.items()}
for name, path in paths.items():
    end = path.thetas[-1]
    print(f"{name} ends at {end.round(2)}: loss {abs(surface.value(end)):.3f}, largest curvature "
          f"{np.linalg.eigvalsh([surface.hessian(end)(e) for e in np.eye(2)]).max():.0f}")  # fmt: skip

# %%
a, b = np.linspace(-2.6, 2.0, 161), np.linspace(-1.1, 1.1, 121)
levels = np.array([[surface.value(np.array([p, q])) for p in a] for q in b])
figure, ax = plt.subplots(figsize=(8, 4), dpi=80)
filled = ax.contourf(a, b, np.log10(np.maximum(levels, 1e-2)), levels=20, cmap="cividis")
figure.colorbar(filled, label="log₁₀ loss")
heads = []
for name, (_, colour, style) in racers.items():
    (trail,) = ax.plot(*paths[name].thetas.T, style, color=colour, lw=2, label=name, zorder=3 if name == "GD" else 2)
    (head,) = ax.plot(*paths[name].thetas[-1], "o", color=colour, mec="black", ms=9)
    heads.append((paths[name], trail, head))
ax.set(xlabel="$\\theta_1$", ylabel="$\\theta_2$", title="A sharp minimum on the left, a flat one on the right")
ax.legend(loc="lower right", labelcolor="white", facecolor="#00224e", framealpha=0.85)
plt.show()

# %%
(reach,) = ax.plot([], [], color="white", lw=1.6, label="ε̂")
ax.legend(loc="lower right", labelcolor="white", facecolor="#00224e", framealpha=0.85)


def frame(i):
    for path, trail, head in heads:
        trail.set_data(*path.thetas[: i + 1].T)
        head.set_data(*path.thetas[i : i + 1].T)
    reach.set_data(*np.array([paths["SAM"].thetas[i], paths["SAM"].worst[i]]).T)


file = Path("figures") / "sharp-and-flat.gif"
file.parent.mkdir(exist_ok=True)
FuncAnimation(figure, frame, frames=range(steps // 2)).save(file, PillowWriter(fps=12))  # by then both have arrived

# %% [markdown]
# ![SAM leaves the sharp minimum that gradient descent falls into](figures/sharp-and-flat.gif)
#
# Gradient descent rolls into the first minimum it meets. SAM gets there too, but the gradient it then follows comes
# from a point 0.8 away, outside the sharp bowl; so it does not settle, and walks on to a minimum that is wide enough.
# (At the knot on the way, the point 0.8 away lies in the sharp bowl once more, which holds SAM up for some steps.)
#
# A warning: this $\rho$ is 40 % of the distance between the two minima, chosen so that there is something to see. With
# a smaller one SAM may do worse than gradient descent: exercise 1.
#
# To drag the start yourself, turn $\rho$ and see the triangle of every step, open the [playground](playground.html) in a
# browser.
#
# ## Remember
#
# - Sharp means that the loss rises fast around a minimum; curvature measures it.
# - SAM minimises the worst loss within $\rho$, approximately: one step up, look at the gradient, step down from where
#   you were.
# - $\rho$ is a distance between weight vectors: it says roughly how wide a minimum has to be.
#
# ## Exercises
#
# 1. How small can `rho` be before SAM no longer reaches the flat minimum? Find it to one digit. Where does SAM end up
#    below that, and how high is the loss there?
# 2. Gradient descent with `lr` 0.006 does not stay in the sharp minimum either. Why? (Lesson 1 has the formula.) What
#    does that say about large learning rates?
# 3. SAM never comes to rest exactly *at* a minimum: $\hat\epsilon$ has length $\rho$ however small the gradient is. On
#    `Bowl([10, 10])`, how far from 0 does it end, with `lr` 0.05 and `rho` 0.1? Derive it: where do steps back and
#    forth cancel?

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 1
for radius in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
    path = run(SAM(GD(lr=0.004), rho=radius), surface, start, 400)
    last = path.thetas[-40:, 0]
    print(f"rho {radius}: θ₁ from {last.min():+.2f} to {last.max():+.2f}, mean loss {path.losses[-40:].mean():.1f}")
# From 0.6 on, SAM finds the flat minimum. Below, it rests in neither. With a small rho it swings back and forth across
# the sharp bowl (see exercise 3). With 0.3 to 0.5 it stands outside that bowl, where the step up leads straight back to
# the sharp minimum and finds no slope there. The true worst loss has no such trap; SAM's shortcut does.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 2
print(f"limit of lr in the sharp minimum: 2 / 400 = {2 / 400}, in the flat one: 2 / 10 = {2 / 10}")
end = run(GD(lr=0.006), surface, start, 400).thetas[-1]
print(f"lr 0.006 ends at {end.round(2)}, where the loss is {surface.value(end):.3f}")
# A large learning rate cannot settle where the curvature exceeds 2 / lr: it prefers flat minima on its own.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 3
h, lr, radius = 10.0, 0.05, 0.1
end = run(SAM(GD(lr=lr), rho=radius), Bowl([h, h]), (1.0, 0.0), 500).thetas[-2:, 0]
print("the last two points:", end.round(4))
# θ - lr h (θ + ρ sign θ) = -θ  gives  |θ| = lr h ρ / (2 - lr h)
print("derived:", lr * h * radius / (2 - lr * h))
assert np.allclose(np.abs(end), lr * h * radius / (2 - lr * h))
