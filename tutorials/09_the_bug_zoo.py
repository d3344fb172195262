# %% [markdown]
# # 9. The bug zoo
#
# **The question.** Here are fourteen animals: thirteen implementations of SAM or its relatives, and a training step.
# They all train, and each breaks a promise, even one whose numbers are always right. Can you see which promise? Can a
# test?
#
# You need lesson 5; the relatives are explained below. Reading and guessing takes half an hour, running twenty seconds.
# The zoo lives in the repository's tests, so this lesson needs the whole repository, not only the installed package.

# %%
import re
import sys
import textwrap
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

from minisam import GD, SAM, BatchLoss, Linear, Momentum, Sequential
from minisam.nn import Tanh
from lesson import GREY, ORANGE, show, source

tests = Path.cwd().parent / "tests"
sys.path += [str(tests), str(tests / "bugzoo")]
from zoo import EXHIBITS

# %% [markdown]
# ## The right one
#
# For comparison, here is the library's. `self.ascent` returns a direction and its norm;
# `add_scaled(worst, a, direction)` is `worst + a · direction`.

# %%
show(SAM.gradient)

# %% [markdown]
# In the animals below `theta` holds the weights, `at_theta` is the evaluation at the start of the step, and `length(g)`
# is $\|g\|_2$ (or 1 if that is 0); the right perturbation is $\hat\epsilon = \rho\, g / \|g\|_2$. The base optimizer
# will step along whatever gradient `gradient` returns. Dropout draws its mask from `key`. `objective.net.params` cuts a
# vector into the tensors that it is made of, layer by layer; `objective.split(2)` cuts a batch into micro-batches of
# two. `fold` moves BatchNorm's running statistics towards a batch's, and `Penalised` adds an L2 penalty to a loss.
# Three are not plain SAM: animal 4 should be ASAM, which gives every weight a size $T_i = |\theta_i| + \eta$ and climbs
# by $\hat\epsilon = \rho\, T^2 g / \|T g\|_2$; animal 8 should be m-SAM, which lets every few images climb on their own
# and averages their gradients; animal 14 is a whole training step of a network with BatchNorm.
#
# > **Write down**, for each animal: what is wrong, when would it matter, and how could one find out?


# %%
def cage(number):
    """An animal's code, without the comments that give it away, and without its name."""
    code = source(EXHIBITS[number - 1].animal)
    body = [line for line in code.splitlines() if not line.startswith(("class ", "def "))]
    lines = [re.sub(r"\s+# .*", "", line) for line in body]
    return textwrap.dedent("\n".join(line for line in lines if line.strip()))


def reveal(number):
    """Its name, its mistake, and where it was seen."""
    animal = EXHIBITS[number - 1].animal
    (mistake,) = re.findall(r"# MISTAKE: (.*)", source(animal))
    return f"**{number}. {animal.__name__}**: {mistake}\n\n" + re.sub(r"(?m)^ +", "", animal.__doc__)


display(Markdown("\n".join(f"### Animal {i + 1}\n```python\n{cage(i + 1)}\n```" for i in range(len(EXHIBITS)))))

# %% [markdown]
# ## They all learn
#
# A small network, a simple task, and every animal as the optimizer.
#
# > **Predict.** Which of them can you tell from the right one by its loss?

# %%
rng = np.random.default_rng(0)
x = rng.standard_normal((64, 3))
y = (x[:, 0] * x[:, 1] > 0).astype(int) + (x[:, 2] > 0.5)
net = Sequential([Linear(3, 16), Tanh(), Linear(16, 3)], (3,))


def losses(make, steps=60):
    theta, batch = net.init(np.random.default_rng(1), np.float64), BatchLoss(net, x, y, key=(0,))
    optimizer = make(Momentum(lr=0.05), 0.1)
    return [optimizer.step(theta, batch).loss for _ in range(steps)]


classes = [exhibit for exhibit in EXHIBITS if isinstance(exhibit.animal, type)]
curves = {exhibit.animal.__name__: losses(exhibit.animal) for exhibit in classes}
right = losses(SAM)

figure, ax = plt.subplots(figsize=(8, 3.8))
off = {name: np.abs(np.subtract(curve, right)).max() for name, curve in curves.items()}
number = {exhibit.animal.__name__: EXHIBITS.index(exhibit) + 1 for exhibit in classes}
far = sorted(off, key=off.get)[-4:]
for name, curve in curves.items():
    ax.plot(curve, color=GREY, lw=1, alpha=0.8, label="the wrong ones" if name == classes[0].animal.__name__ else None)
    if name in far:
        ax.annotate(
            f"animal {number[name]}",
            (59, curve[-1]),
            (4, 5 * np.sign(curve[-1] - right[-1])),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
ax.plot(right, "--", color=ORANGE, lw=2.5, label="SAM")
ax.margins(x=0.12)
ax.set(xlabel="step", ylabel="training loss, nats", title=f"{len(curves)} wrong implementations and the right one")
ax.legend()
ax.grid(alpha=0.3)
plt.show()
for name, curve in sorted(curves.items(), key=lambda item: number[item[0]]):
    print(f"animal {number[name]:<2}  {curve[0]:.2f} → {curve[-1]:.2f}, at most {off[name]:.3f} away from SAM's")
print(f"SAM        {right[0]:.2f} → {right[-1]:.2f}")
assert all(curve[-1] < curve[0] for curve in curves.values())

# %% [markdown]
# Four stand out, one of them by learning *faster*. The other nine lie on SAM's curve: this task has no dropout, no
# weight decay and no gradient of zero, and its weights and gradients are of moderate size. A falling loss is no test:
# it only says that *something* descends.
#
# ## Properties
#
# What does a right implementation *always* do, whatever the network? A property is not "the loss is 0.123" but a
# statement: the perturbation has length $\rho$; theta comes back bit for bit; on a quadratic bowl the gradient is
# $H\theta + \rho H^2 \theta / \|H\theta\|$. Such a statement can be tried on many random cases, and it knows nothing of
# how the code is written. Two of minisam's:

# %%
import properties

show(
    properties.perturbation_has_length_rho.__wrapped__, properties.gradient_is_that_at_the_perturbed_weights.__wrapped__
)

# %% [markdown]
# (`example` draws weights and a batch from a seed; the batch remembers in `points` where it was evaluated. The gradient
# of `Plane(g)` is `g` at 0, and $\theta$ everywhere else.)
#
# Guess first: from here on the animals have their names. Now every animal meets every property.

# %%
judged = [exhibit for exhibit in classes if exhibit.right is SAM]  # the other two should be ASAM and m-SAM
asked = list(dict.fromkeys(exhibit.property for exhibit in judged))


def caught(animal, check):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(animal)
    except AssertionError:
        return True
    except Exception:
        return False  # the check does not fit this animal
    return False


table = np.array([[caught(one, check) for check in asked] for one in [*(e.animal for e in judged), SAM]])
figure, ax = plt.subplots(figsize=(9, 5))
ax.imshow(table, cmap="Oranges", vmin=0, vmax=1.6, aspect="auto")
ax.set_yticks(range(len(table)), [*(e.animal.__name__ for e in judged), "SAM (right)"])
ax.set_xticks(
    range(len(asked)), [check.__name__.replace("_", " ") for check in asked], rotation=40, ha="right", fontsize=8
)
for row, column in np.argwhere(table):
    ax.text(column, row, "caught", ha="center", va="center", fontsize=7)
ax.set_title("which property catches which animal")
plt.show()
assert table[:-1].any(axis=1).all(), "an animal escapes"
assert not table[-1].any(), "the right one is accused"

# %% [markdown]
# Every animal is caught by at least one property, the right one by none, and no property catches them all. A good set
# of tests looks like that. The two relatives (ASAM and m-SAM) and the training step with BatchNorm have their own
# properties:

# %%
for exhibit in EXHIBITS:
    if exhibit not in judged:
        wrong_one, right_one = (caught(one, exhibit.property) for one in (exhibit.animal, exhibit.right))
        print(f"{exhibit.animal.__name__:<28} {exhibit.property.__name__:<40} ", end="")
        print(f"caught: {wrong_one}, the right one: {right_one}")
        assert wrong_one

# %% [markdown]
# ## What were they?
#
# Open this when you have guessed.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title The animals' names
display(Markdown("\n\n".join(reveal(i + 1) for i in range(len(EXHIBITS)))))

# %% [markdown]
# ## Remember
#
# - Code that learns may still be wrong. Neural networks forgive nearly everything, and get a little worse.
# - Test what must always hold. Then break the code on purpose, and see the test fail.
# - Most mistakes live where two things must agree: the first pass and the second, the norm and all the weights, theta
#   before and after.
#
# ## Exercises
#
# 1. Breed an animal yourself: SAM that steps *down* before it looks ($\theta - \hat\epsilon$). Does its loss fall?
#    Which property catches it?
# 2. Write another property: with `rho` 0, SAM is its base, bit for bit. Which animals fail it?
# 3. `RestoresBySubtraction` adds $\hat\epsilon$ to theta and subtracts it again. How far is theta off after 1, 10 and
#    1,000 steps in float32, if the learning rate is nearly 0 and every step has a new batch? And why is it no further
#    off after 1,000 steps than after one, if all steps have the same batch?


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 1
class LooksDown(SAM):
    def gradient(self, theta, objective):
        at_theta = objective(theta)
        g = at_theta.grad
        return at_theta, objective(theta - self.rho * g / (np.linalg.norm(g) or 1.0)).grad


curve = losses(LooksDown)
print(f"loss {curve[0]:.2f} → {curve[-1]:.2f}; caught by:")
print(*(f"  {check.__name__}" for check in asked if caught(LooksDown, check)), sep="\n")


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 2
def is_its_base_at_rho_zero(sam):
    one, other = net.init(np.random.default_rng(1)), net.init(np.random.default_rng(1))
    batch = BatchLoss(net, x.astype(np.float32), y, key=(0,))
    first, second = sam(Momentum(lr=0.05, weight_decay=0.1), 0.0), Momentum(lr=0.05, weight_decay=0.1)
    for _ in range(5):
        first.step(one, batch)
        second.step(other, batch)
    assert np.array_equal(one, other)


print("SAM:", caught(SAM, is_its_base_at_rho_zero))
print("caught:", ", ".join(e.animal.__name__ for e in classes if caught(e.animal, is_its_base_at_rho_zero)))
# AnotherMask escapes, since this network has no dropout: a property tests only the cases that it is given.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 3
from zoo import RestoresBySubtraction

theta = net.init(np.random.default_rng(1))
before, optimizer = theta.copy(), RestoresBySubtraction(GD(lr=1e-30), 0.1)
for t in range(1, 1001):
    new = rng.standard_normal((64, 3)).astype(np.float32)
    optimizer.step(theta, BatchLoss(net, new, rng.integers(0, 3, 64), key=(t,)))
    if t in (1, 10, 1000):
        print(f"after {t:>5,} steps {np.mean(theta != before):.0%} of the weights have moved, ", end="")
        print(f"by up to {np.abs(theta - before).max():.1e}")
# Adding and subtracting the same number a second time rounds to the same place again. A new number rounds anew.
