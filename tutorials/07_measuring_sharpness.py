# %% [markdown]
# # 7. Measuring sharpness
#
# **The question.** "SAM finds flatter minima": how would you check that, in a space of 800,000 dimensions?
#
# You need lessons 4 and 5, and to know what an eigenvector is. Reading takes twenty-five minutes, running less than a
# minute.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minisam.analysis.curvature import density, eigenvalues, power_iteration, trace
from minisam.analysis.landscape import filter_normalized, plane
from minisam.analysis.sharpness import sharpness
from minisam.nn import Bilinear, Linearized
from minisam.training import Config, network, train
from minisam.study.geometry import mean_loss
from lesson import BLUE, ORANGE, SKY, images, show

# %% [markdown]
# Three networks to compare, trained on the same images, from the same initial weights, with the same batches: one with
# SAM, one with momentum for as many epochs, and one with momentum for as many gradients, which is twice the epochs.

# %%
data = images(n_train=2000)
SHARED = {"model": "mlp", "lr": 0.01, "weight_decay": 5e-3, "epochs": 12, "warmup": 1}
runs = {
    "Momentum": train(Config(**SHARED), data),
    "Momentum, 2× epochs": train(Config(**(SHARED | {"epochs": 24, "warmup": 2})), data),
    "SAM": train(Config(**SHARED, optimizer="sam", rho=0.1), data),
}
COLOURS = {"Momentum": SKY, "Momentum, 2× epochs": BLUE, "SAM": ORANGE}
net = network(Config(**SHARED), data)
objective = mean_loss(net, data.x_train[:500], data.y_train[:500], None)  # the same 500 images throughout
for name, run in runs.items():
    print(f"{name:<20} training loss {objective.value(run.theta):.4f}, test error {run.test_error:.1%}")

# %% [markdown]
# Look at the losses before anything else: the three have not fitted their images equally well, and a minimum may be
# flat for that reason alone. Where softmax is sure of every answer, the loss is nearly 0, and so is its curvature. Keep
# the three losses in mind.
#
# ## Walk in a random direction
#
# > **Predict.** From each of the three minima walk a distance of 0.5 in a hundred random directions. How much does the
# > loss rise, at worst? And if somebody who knows the network chooses the direction?

# %%
rho, rng = 0.5, np.random.default_rng(0)
rises = {
    name: sharpness(objective, run.theta, rho, rng, steps=15, starts=2, directions=100) for name, run in runs.items()
}
for name, found in rises.items():
    print(f"{name:<20} random: {found.random.mean():.5f} on average, {found.random.max():.5f} at most;   "
          f"SAM's step: {found.one_step:.3f};   ascent: {found.worst[-1]:.3f}")  # fmt: skip
    assert found.worst[-1] >= found.one_step > found.random.max()

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.4))
bins = np.histogram_bin_edges(1e3 * np.concatenate([found.random for found in rises.values()]), 24)
for name, found in rises.items():
    left.hist(1e3 * found.random, bins, color=COLOURS[name], histtype="step", lw=2, label=name)
    right.plot(range(1, 16), found.worst, "o-", color=COLOURS[name], label=name)
left.set(
    xlabel="rise of the loss, thousandths of a nat",
    ylabel="directions, of 100",
    title=f"random directions, distance {rho}",
)
right.set(xlabel="steps of gradient ascent", ylabel="rise of the loss, nats", title="the worst direction")
right.legend()
for ax in (left, right):
    ax.grid(alpha=0.3)
plt.show()

# %% [markdown]
# Random directions say next to nothing about any of the networks. *Worst-case* sharpness is found by climbing: step along
# the gradient, and whenever that leads out of the ball of radius $\rho$, go back to its surface. SAM's own
# $\hat\epsilon$ is the first of these steps.
#
# ## Curvature: the Hessian without the Hessian
#
# Around a minimum the loss is a bowl, $L(\theta + v) \approx L(\theta) + \frac12 v^\top H v$, where $H$ is the matrix
# of all second derivatives. For 800,000 weights it has $6 \cdot 10^{11}$ entries, which no laptop can hold. But we
# never need $H$, only $Hv$ for some vectors $v$; and $Hv$ is how the *gradient* changes along $v$:
#
# $$H v = \lim_{h \to 0} \frac{\nabla L(\theta + h v) - \nabla L(\theta)}{h}
# = \frac{\mathrm d}{\mathrm dh} \nabla L(\theta + hv)\Big|_{h=0}.$$
#
# Differentiating backpropagation itself along $v$ gives exactly that, for the price of about two more gradients
# (Pearlmutter 1994). Every layer of minisam has such *tangents*. For `Linear` they are the product rule. (`at` is where
# the layer is: its parameters, cache and dL/dy. A dot, as in `x_dot`, means the rate of change along $v$.)

# %%
# Bilinear is the base class of Linear and of the convolution.
show(Bilinear.tangent, Bilinear.backward_tangent, Linearized.hvp)

# %%
theta = runs["Momentum"].theta
product = objective.hessian(theta)
v = objective(theta).grad
v /= np.linalg.norm(v)
exact = product(v)
for h in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):  # on both sides, which is more accurate than the formula's one
    differences = (objective(theta + h * v).grad - objective(theta - h * v).grad) / (2 * h)
    print(f"differences with step {h:g}: off by {np.linalg.norm(differences - exact) / np.linalg.norm(exact):.2%}")

# %% [markdown]
# A large step crosses ReLU's kinks, where the slope jumps; a small one drowns in float32's rounding. In between,
# differences are good, but the best step depends on the network, the weights and the direction, and nobody tells you.
# Tangents need no step.
#
# ## The largest eigenvalue
#
# An eigenvector is a direction $v$ in which $Hv = \lambda v$; its eigenvalue $\lambda$ is the curvature in that
# direction. Multiply any vector by $H$ again and again, and it turns towards the most curved direction: *power
# iteration*.

# %%
show(power_iteration)

# %%
top, direction = power_iteration(product, theta, np.random.default_rng(0), steps=40)
print(f"power iteration: λ1 = {top:.2f};  ‖Hv - λ1 v‖ = {np.linalg.norm(product(direction) - top * direction):.3f}")

# %% [markdown]
# Lanczos' method keeps all vectors on the way and so finds several eigenvalues at once, with fewer products.
# $\lambda_1 / \lambda_5$ says how far the largest stands out among the leading ones. The *trace* of $H$, the sum of its
# diagonal, is the sum of *all* its eigenvalues: exercise 3 shows how to estimate it.
#
# > **Predict.** How much smaller is SAM's $\lambda_1$? And how many of the 800,000 eigenvalues make up half of the
# > trace?

# %%
spectra = {}
for name, run in runs.items():
    product = objective.hessian(run.theta)
    leading = eigenvalues(product, run.theta, 15, np.random.default_rng(0), tolerance=1e-2).values
    total, error = trace(product, run.theta, np.random.default_rng(0), samples=10)
    spectra[name] = leading, density(product, run.theta, np.random.default_rng(0), steps=40, samples=1)
    print(f"{name:<20} λ1 = {leading[0]:6.2f}, λ1 / λ5 = {leading[0] / leading[4]:.2f}, trace {total:.0f} ± {error:.0f}, "
          f"of which the 15 largest make up {leading.sum() / total:.0%}")  # fmt: skip

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.4))
for name, (leading, spread) in spectra.items():
    left.plot(range(1, 16), leading, "o-", color=COLOURS[name], label=name)
    for node, weight in zip(spread.nodes, spread.weights):
        right.plot([node, node], [1e-9, weight], color=COLOURS[name], lw=2.5, alpha=0.7)
    right.plot([], [], color=COLOURS[name], lw=2.5, label=name)
left.axvline(9.5, color="0.5", ls=":")
left.annotate("classes - 1 = 9", (9.7, left.get_ylim()[1] * 0.85), color="0.4")
left.set(xlabel="rank", ylabel="eigenvalue", title="the leading eigenvalues")
right.legend()
right.set_yscale("log")
right.set(xlabel="eigenvalue", ylabel="share of all dimensions", ylim=(1e-9, 2), title="all of them (estimated)")
plt.show()

# %% [markdown]
# Nearly all directions are flat: in the right picture, which Lanczos' method estimates from one random vector, almost
# all of the 800,000 dimensions have an eigenvalue near 0. A few stand out, but the fifteen largest do not make up the
# trace: a long tail of smaller ones follows.
#
# SAM's $\lambda_1$ is half as large as momentum's. Foret et al. (2021, figure 3) report 24.2 for SGD and 1.0 for SAM,
# for a much larger network. But momentum with twice the epochs comes to the same $\lambda_1$, and to a smaller trace.
# Look at the losses again: it has fitted its images nearly perfectly, while SAM is as flat with a loss thirteen times as
# high. So one $\lambda_1$ does not tell why a minimum is flat. (This is one seed, and nothing is tuned; in our study's
# main comparison SAM ends flatter than momentum with twice the epochs in every setting.) Here only SAM has a smaller
# rise in the *worst* direction, half a unit away, where the loss is no bowl any more.
#
# ## A picture of the loss
#
# Draw the loss in a plane through the minimum, spanned by two random directions. There is a trap: in a ReLU network you
# can multiply one layer's weights and biases by ten, and divide the next layer's weights by ten, without changing the
# function. So "a distance of 1" means nothing in itself, and neither does $\lambda_1$ or a rise within a ball: they
# compare only networks of one kind, trained alike. (ASAM's ball, which is measured relative to the weights, is one
# answer.) Li et al. (2018) scale each filter of a direction to the norm of the network's own filter; in an MLP a filter
# is the weights of one unit.

# %%
show(filter_normalized)

# %%
ticks = np.linspace(-1, 1, 17)
figure, axes = plt.subplots(1, 3, figsize=(12, 3.9), sharex=True, sharey=True)
small = mean_loss(net, data.x_train[:200], data.y_train[:200], None)
for ax, (name, run) in zip(axes, runs.items()):
    draw = np.random.default_rng(1)  # the same random numbers for all
    u, v = (filter_normalized(net, run.theta, draw) for _ in range(2))
    losses = plane(small, run.theta, u, v, ticks, ticks)
    shades = ax.contourf(ticks, ticks, losses, levels=np.linspace(0, 6, 25), cmap="cividis", extend="max")
    lines = ax.contour(ticks, ticks, losses, levels=[0.5, 1, 2, 4], colors="white", linewidths=0.8)
    ax.clabel(lines, fontsize=8)
    ax.plot(0, 0, "+", color="white", ms=10)
    ax.set(xlabel="along u (1: the filters' own norm)", aspect="equal")
    ax.set_title(f"{name}: λ1 = {spectra[name][0][0]:.1f}")
axes[0].set_ylabel("along v")
figure.colorbar(shades, ax=axes, label="training loss, nats")
plt.show()

# %% [markdown]
# Pictures like this one are persuasive, but show two directions of 800,000. Believe the numbers first: they look at the
# worst direction, not at two random ones.
#
# ## Remember
#
# - $Hv$ costs about two gradients and is exact; $H$ itself is never needed.
# - Eigenvalues and ascent find sharpness; random directions do not.
# - State the images, the $\rho$ and the units. A rise of the loss is in nats; a distance is in weights.
#
# ## Exercises
#
# 1. `power_iteration` finds the eigenvalue of largest *size*. For which $H$ does it find a negative one? Try
#    `Bowl([1.0, -5.0, 2.0])` from `minisam.analysis`.
# 2. How large a rise does $\lambda_1$ predict for a step of length $\rho$ along the leading eigenvector at a minimum?
#    Compare it with the rise that `sharpness` found by ascent, for `rho` 0.05 and for `rho` 0.5.
# 3. Hutchinson's trick: for random signs $z$, the mean of $z^\top H z$ is the trace of $H$. Why? Write it yourself for
#    a 4×4 matrix.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 1
from minisam.analysis import Bowl

saddle = Bowl([1.0, -5.0, 2.0])  # the most negative eigenvalue is larger in size than the largest
print("λ =", power_iteration(saddle.hessian(np.ones(3)), np.ones(3), np.random.default_rng(0))[0])
# Where the gradient is 0 and an eigenvalue negative, the loss falls along its eigenvector: a saddle, not a minimum.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 2
for name, run in runs.items():
    for radius in (0.05, 0.5):
        found = sharpness(objective, run.theta, radius, np.random.default_rng(0), steps=15, starts=1, directions=1)
        slope = np.linalg.norm(objective(run.theta).grad)
        print(f"{name:<20} rho {radius}: ½ λ1 ρ² = {0.5 * spectra[name][0][0] * radius**2:.3f}, "
              f"with the remaining slope {0.5 * spectra[name][0][0] * radius**2 + slope * radius:.3f}, "
              f"found {found.worst[-1]:.3f}")  # fmt: skip
# Nearby, bowl and slope together are a good guess (training stopped before the gradient was zero); farther out the
# loss is no longer a bowl.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 3
A = rng.standard_normal((4, 4))
A = A + A.T
signs = rng.choice([-1.0, 1.0], (20_000, 4))
estimate = np.mean(np.einsum("ni,ij,nj->n", signs, A, signs))
print(f"estimated {estimate:.2f}, trace {np.trace(A):.2f}")
# zᵀHz is the sum of all Hᵢⱼ zᵢ zⱼ. On average zᵢ zⱼ is 1 for i = j, being a square of ±1, and 0 otherwise, since
# the signs are independent. So on average only the Hᵢᵢ are left.
assert abs(estimate - np.trace(A)) < 0.3
