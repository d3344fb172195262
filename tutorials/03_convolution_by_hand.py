# %% [markdown]
# # 3. Convolution by hand
#
# **The question.** A convolution is seven nested loops. Written like that in Python it takes minutes for a batch of
# images; minisam takes milliseconds, and the numbers are the same. Where does a factor of ten thousand come from?
#
# Lesson 2 is enough. Reading takes twenty minutes, running half a minute.

# %%
import time

import matplotlib.pyplot as plt
import numba
import numpy as np

from minisam import get_threads
from minisam.analysis import gradcheck
from minisam.kernels import conv2d, reference
from minisam.kernels.compiled import compile_all
from minisam.kernels.conv import convolve_images
from minisam.nn import Conv2d
from lesson import GREEN, GREY, ORANGE, images, show

# %% [markdown]
# ## What it is
#
# A small window slides over the image. At every place, and for every filter $f$, the numbers under the window are
# multiplied by the filter's weights and added up:
#
# $$y[n, r, c, f] = b[f] + \sum_{i,j,k} x[n,\, r + i - 1,\, c + j - 1,\, k]\; W[i, j, k, f].$$
#
# $n$ counts images, $r$ and $c$ rows and columns, $k$ the input channels; $i$ and $j$ run over the 3×3 window. Outside
# its borders the image is zero. The weights are the same everywhere: a cat in the corner is still a cat.
#
# Seven indices, seven loops:


# %%
def conv2d_loops(x, W, b):
    """The definition, word for word."""
    N, H, width, C = x.shape
    kH, kW, _, F = W.shape
    y = np.zeros((N, H, width, F), x.dtype)
    for n in range(N):
        for r in range(H):
            for c in range(width):
                for f in range(F):
                    total = b[f]
                    for i in range(kH):
                        for j in range(kW):
                            for k in range(C):
                                row, column = r + i - kH // 2, c + j - kW // 2
                                if 0 <= row < H and 0 <= column < width:
                                    total += x[n, row, column, k] * W[i, j, k, f]
                    y[n, r, c, f] = total
    return y


# %% [markdown]
# > **Predict.** A batch of 64 CIFAR images, 32×32 pixels with 16 channels, and 32 filters. How many multiplications is
# > that? If Python managed ten million a second (it does not), how long would it take?

# %%
rng = np.random.default_rng(0)
N, H, C, F = 64, 32, 16, 32
x = rng.standard_normal((N, H, H, C)).astype(np.float32)
W = rng.standard_normal((3, 3, C, F)).astype(np.float32)
b = rng.standard_normal(F).astype(np.float32)
work = N * H * H * F * 9 * C
print(f"{work:,} multiplications, at ten million a second {work / 1e7:.0f} s")

# %% [markdown]
# ## Step 1: let NumPy do the inner loops
#
# The sum over $i, j, k$ is a dot product of $9C$ numbers. Copy the window of every pixel into a row of a large matrix,
# and all dot products together are *one* matrix product, $Y = \mathrm{columns} \cdot W$. That copying is called im2col.


# %%
def im2col(x, size=3):
    """The window around every pixel, as a row: (N·H·W, size·size·C)."""
    around = size // 2
    padded = np.pad(x, ((0, 0), (around, around), (around, around), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))  # (N, H, W, C, i, j)
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * x.shape[3])


def conv2d_im2col(x, W, b):
    return (im2col(x) @ W.reshape(-1, W.shape[3]) + b).reshape(*x.shape[:3], -1)


# %% [markdown]
# minisam has a NumPy version too. It is slower, and meant to be read: `einsum` names the indices and sums over each
# index that the result lacks.

# %%
show(reference.conv2d, reference._windows)

# %% [markdown]
# ## Step 2: a compiled kernel, on all cores
#
# im2col makes a matrix nine times as large as the images: for this batch, more than fits into the processor's caches,
# so the processor waits for memory. But the matrix need not be written. In an image with a border of zeros the window
# of the next pixel begins $k$ numbers further on, and each of its three rows is already one piece of memory: a row of
# the matrix is a *place*. minisam's kernel, which Numba compiles from Python, walks from place to place; the threads
# share the images.

# %%
show(convolve_images.loop)

# %% [markdown]
# `strip` is a matrix product that reads its left factor in such steps:

# %%
show(reference.strip)

# %% [markdown]
# Its fast twin, in [kernels/tile.py](../minisam/kernels/tile.py), keeps eight pixels of the result, 32 channels each,
# in the processor's registers until they are finished: a number, once loaded, is used many times. For windows of 3×3
# and 16 channels or more minisam goes one better, with Winograd's algorithm, which needs a quarter of the
# multiplications (Lavin & Gray 2016) and is made of strips too.

# %% [markdown]
# ## The same numbers?
#
# Never time a version before you have compared its results.

# %%
compile_all(np.dtype(np.float32))  # once; the machine code is kept on disk


def conv2d_reference(x, W, b):  # stride 1, one pixel of padding, and an array for the result
    return reference.conv2d(x, W, b, 1, (1, 1), np.empty((*x.shape[:3], len(b)), x.dtype))


def conv2d_compiled(x, W, b):
    return conv2d(x, W, b, 1, (1, 1), np.empty((*x.shape[:3], len(b)), x.dtype))


small = x[:1, :10, :10]  # as much as the loops can manage
expected = conv2d_loops(small, W, b)
for version in (conv2d_im2col, conv2d_reference, conv2d_compiled):
    off = np.abs(version(small, W, b) - expected).max() / np.abs(expected).max()
    print(f"{version.__name__:<18} differs by {off:.1e} of the largest output")
    assert off < 1e-5

# %% [markdown]
# One more version, to tell two things apart: the same seven loops, word for word, but compiled by Numba. What it gains
# is the interpreter's share; what is left is the loops' own.

# %%
conv2d_compiled_loops = numba.njit(conv2d_loops)
assert np.allclose(conv2d_compiled_loops(small, W, b), expected, atol=1e-3)

# %% [markdown]
# > **Predict.** How much faster does each step make it?
#
# (A GFLOP is 10⁹ multiplications or additions. For all versions we count those in the definition, though Winograd's
# algorithm needs only a quarter of the multiplications.)


# %%
def seconds(version, images, at_least=0.5):
    """The time of one call: the fastest of several."""
    version(images, W, b)
    times, started = [], time.perf_counter()
    while not times or time.perf_counter() - started < at_least:
        before = time.perf_counter()
        version(images, W, b)
        times.append(time.perf_counter() - before)
    return min(times)


share = small.size / x.size  # the loops get a small part; their time is scaled up
took = {
    "seven loops": seconds(conv2d_loops, small) / share,
    "the same, compiled": seconds(conv2d_compiled_loops, x),
    "im2col": seconds(conv2d_im2col, x),
    "NumPy einsum": seconds(conv2d_reference, x),
    f"minisam, {get_threads()} threads": seconds(conv2d_compiled, x),
}
for name, time_ in took.items():
    print(f"{name:<20}{1e3 * time_:>12,.1f} ms   {took['seven loops'] / time_:>10,.0f} times as fast   "
          f"{2 * work / time_ / 1e9:>8.3g} GFLOP/s")  # fmt: skip

# %%
figure, ax = plt.subplots(figsize=(8, 2.8))
names = list(took)[::-1]
bars = ax.barh(names, [1e3 * took[name] for name in names], color=[GREEN, ORANGE, ORANGE, GREY, GREY])
ax.bar_label(bars, [f" {took[name]:.0f} s" if took[name] > 1 else f" {1e3 * took[name]:.1f} ms" for name in names])
ax.set_xscale("log")
ax.set_xlim(left=1, right=1e3 * took["seven loops"] * 12)
ax.set(xlabel="milliseconds (logarithmic)", title=f"A 3×3 convolution, {C} to {F} channels, {N} images")
plt.show()

# %% [markdown]
# Most of the gain is that nobody interprets the loops any more: an interpreter looks up every number of every
# multiplication anew. But not all of it: the compiled loops do one multiplication after another, while a matrix
# product does many at once, in wide registers, and uses each number that it has loaded for several products. From
# im2col to minisam it is three things: fewer multiplications (Winograd), all the cores from the first line to the last,
# and numbers that are still in registers or in the cache when they are needed.
#
# ## And backwards
#
# The convolution is linear in $x$ and in $W$, so its `backward` is that of `Linear`, with windows in place of $x$:
#
# $$\mathrm{d}W[i,j,k,f] = \sum_{n,r,c} x[n,\, r+i-1,\, c+j-1,\, k]\; \mathrm{d}y[n,r,c,f], \qquad
# \mathrm{d}b[f] = \sum_{n,r,c} \mathrm{d}y[n,r,c,f],$$
# $$\mathrm{d}x[n,r,c,k] = \sum_{i,j,f} \mathrm{d}y[n,\, r-i+1,\, c-j+1,\, f]\; W[i,j,k,f].$$
#
# The last is a convolution too, of $\mathrm{d}y$ with flipped filters whose input and output channels are swapped.
# Flipped, because a pixel that lies one to the *left* of a window's centre sees that centre one to its *right*.
# (minisam's NumPy version adds up the same terms in another order: place by place in the window, for all pixels at
# once.)

# %%
show(reference.conv2d_weight_grad, reference.conv2d_input_grad)

# %%
layer = Conv2d(2, 3, size=3)
params = [rng.standard_normal(shape) for shape in layer.param_shapes.values()]
error = gradcheck(layer, rng.standard_normal((2, 5, 5, 2)), params, rng)
print(f"{layer}: relative error of its gradients, on every index: {error:.1e}")
assert error < 1e-7

# %% [markdown]
# ## What filters see
#
# Three filters that you can write down by hand, on a real image:

# %%
data = images(n_train=50, n_test=10)
picture = data.x_train[7:8].mean(axis=3, keepdims=True)  # grey
filters = {
    "blur": np.full((3, 3), 1 / 9),
    "vertical edges": np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4,
    "horizontal edges": np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]) / 4,
}
kernel = np.stack(list(filters.values()), axis=-1)[:, :, None].astype(np.float32)  # (3, 3, 1, 3)
seen = conv2d_compiled(picture, kernel, np.zeros(3, np.float32))
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8))
for ax, (name, plane) in zip(
    axes, {"the image": picture[0, :, :, 0], **dict(zip(filters, np.moveaxis(seen[0], 2, 0)))}.items()
):
    m = np.abs(plane).max()
    ax.imshow(plane, cmap="gray", vmin=-m if "edges" in name else None, vmax=m if "edges" in name else None)
    ax.set_title(name, fontsize=11)
    ax.set_axis_off()
plt.show()

# %% [markdown]
# (In the two pictures of edges, mid-grey is 0: nothing changes there. White means that the image gets brighter to the
# right, or downward; black that it gets darker.)

# %% [markdown]
# ## Remember
#
# - A convolution is a matrix product in disguise; im2col takes the disguise off.
# - First check that the numbers agree, then look at the clock.
# - Speed is mostly about not waiting: for the interpreter, for memory, for the other threads.
#
# ## Exercises
#
# 1. How many multiplications would a `Linear` layer need to map this batch's images (32×32×16) to outputs of the same
#    shape as the convolution's (32×32×32)? How many weights would it have, and how many does the convolution have?
# 2. Add a stride to `conv2d_loops` (every second pixel; or slice its result) and compare with `Conv2d(…, stride=2,
#    padding=1)`. With the default, `padding="same"`, the windows lie one pixel further on: why?
# 3. Write the gradient with respect to $W$ with `im2col` and one matrix product, and compare it with the library's.

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 1
per_image = 32 * 32 * 16 * 32 * 32 * 32
print(f"Linear: {N * per_image:,} multiplications and {per_image:,} weights;")
print(f"convolution: {work:,} and {W.size:,}")


# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 2
def with_stride(x, W, b, stride):
    return conv2d_loops(x, W, b)[:, ::stride, ::stride]  # wasteful, but right for odd windows


layer = Conv2d(C, F, size=3, stride=2, padding=1)
from minisam.nn import Env

# ("same" adds just enough zeros for the last window to fit: with stride 2 on 10 pixels that is one row and one column,
# below and to the right.)
found, _ = layer.forward([W, b], small, Env())
print("shapes:", found.shape, with_stride(small, W, b, 2).shape)
assert np.allclose(found, with_stride(small, W, b, 2), atol=1e-3)

# %% jupyter={"outputs_hidden": true, "source_hidden": true} tags=["solution"]
# @title Solution 3
dy = rng.standard_normal((N, H, H, F)).astype(np.float32)
mine = (im2col(x).T @ dy.reshape(-1, F)).reshape(W.shape)
dW, db = np.empty_like(W), np.empty_like(b)
reference.conv2d_weight_grad(x, dy, 1, (1, 1), dW, db)
print("differs by", np.abs(mine - dW).max() / np.abs(dW).max())
assert np.allclose(mine, dW, atol=1e-3 * np.abs(dW).max())
