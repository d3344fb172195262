"""The inputs of every system: the same networks, images, weights and numbers, drawn by NumPy from fixed seeds.

The networks are those of `minisam train` and one more, the reference CNN: Conv(3→32) ReLU Conv(32→32) ReLU
MaxPool Conv(32→64) ReLU MaxPool Linear, with 3×3 kernels and zero padding. They are described by tuples
that each system translates into its own layers. Weights come in minisam's layout, (kH, kW, C_in, C_out) and
(n_in, n_out), and in its order.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LR, MOMENTUM, RHO = 0.01, 0.9, 0.05
MODELS = ("mlp", "reference", "cnn", "cnn-bn", "vgg", "resnet8")
LABELS = {
    "reference": "reference CNN",
    "mlp": "MLP",
    "cnn": "CNN",
    "cnn-bn": "CNN-BN",
    "vgg": "VGG",
    "resnet8": "ResNet-8",
}


@dataclass(frozen=True)
class Case:
    """One thing to measure; the kind says which of the other fields count."""

    kind: str  # step, conv, update, epoch, predict, sgemm or copy
    what: str = ""  # model, pass of a convolution, or optimizer to update with
    optimizer: str = "sam"
    n: int = 0  # images, parameters or numbers
    shape: tuple[int, int, int] = (0, 0, 0)  # a convolution's C_in, C_out and side
    size: int = 3  # of its kernel
    stride: int = 1
    width: int = 1  # how many times the channels of the network
    busy: bool = False  # beside a process that keeps one core busy
    alone: bool = False  # on one thread; otherwise on all that the benchmark may use

    @property
    def name(self) -> str:
        if self.kind == "step":
            width = "" if self.width == 1 else f", {self.width:g} times as wide"
            label = {"sam": "SAM(Momentum)", "momentum": "Momentum"}[self.optimizer]
            how = ", one core busy" * self.busy + ", one thread" * self.alone
            return f"{label} step, {LABELS[self.what]}{width}, batch {self.n}{how}"
        if self.kind == "conv":
            c_in, c_out, side = self.shape
            stride = "" if self.stride == 1 else f", stride {self.stride}"
            few = "" if self.n == 128 else f", {self.n} images"
            return f"convolution {self.size}×{self.size}, {c_in}→{c_out}@{side}²{stride}{few}, {self.what}"
        return {
            "update": f"{self.what} update, {self.n:,} parameters",
            "epoch": f"SAM(Momentum) epoch, {LABELS['reference']}, {self.n:,} augmented images",
            "predict": f"prediction, {LABELS.get(self.what)}, {self.n:,} images",
            "sgemm": "matrix product 1024³",
            "copy": f"copy of {self.n:,} numbers",
        }[self.kind]

    @property
    def flop(self) -> int:
        """Floating-point operations of the definition, whatever the algorithm."""
        c_in, c_out, side = self.shape
        pixels = self.n * (side // self.stride) ** 2
        return 2 * 1024**3 if self.kind == "sgemm" else 2 * self.size**2 * c_in * c_out * pixels

    @property
    def bytes(self) -> int:
        """Bytes that one update (or copy) of n float32 numbers reads and writes."""
        vectors = {"GD": 3, "Momentum": 5, "Adam": 7}.get(self.what, 2)
        return 4 * self.n * vectors


def images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal images (n, 32, 32, 3) float32 and labels (n,): enough to measure speed."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, n)


def layers(model: str, width: int = 1) -> list[tuple]:
    """The network as tuples: a kind, and what that kind needs.

    ("convolution", c_in, c_out, size, stride), with size // 2 zeros on every side; ("norm", channels);
    ("pool",), 2×2; ("dropout", p); ("linear", n_in, n_out); ("sum", block, shortcut); ("relu",), ("mean",) and
    ("flatten",).
    """

    def conv(c_in: int, c_out: int, stride: int = 1, size: int = 3) -> list[tuple]:
        return [("convolution", c_in, c_out, size, stride)]

    def normalised(*shape: int) -> list[tuple]:
        return [*conv(*shape), ("norm", shape[1]), ("relu",)]

    small, middle, large = 16 * width, 32 * width, 64 * width
    steps = ((3, small), (small, middle), (middle, large))
    if model == "mlp":
        hidden = [("linear", 3072, 256), ("relu",), ("linear", 256, 128), ("relu",)]
        return [("flatten",), *hidden, ("linear", 128, 10)]
    if model == "reference":
        first = [*conv(3, middle), ("relu",), *conv(middle, middle), ("relu",), ("pool",)]
        return [*first, *conv(middle, large), ("relu",), ("pool",), ("flatten",), ("linear", 64 * large, 10)]
    if model == "resnet8":
        found = normalised(3, small)
        for c_in, c_out, stride in ((small, small, 1), (small, middle, 2), (middle, large, 2)):
            block = [*normalised(c_in, c_out, stride), *conv(c_out, c_out), ("norm", c_out)]
            shortcut = [*conv(c_in, c_out, stride, 1), ("norm", c_out)] if stride > 1 else []
            found += [("sum", block, shortcut), ("relu",)]
        return [*found, ("mean",), ("linear", large, 10)]
    blocks = {
        "cnn": lambda c_in, c_out: [*conv(c_in, c_out), ("relu",)],
        "cnn-bn": normalised,
        "vgg": lambda c_in, c_out: [*normalised(c_in, c_out), *normalised(c_out, c_out)],
    }
    found = [layer for step in steps for layer in (*blocks[model](*step), ("pool",))]
    return [*found, ("flatten",), *([("dropout", 0.3)] if model == "vgg" else []), ("linear", 16 * large, 10)]


def _parameters(described: list[tuple]) -> Iterator[tuple[tuple[int, ...], float, float]]:
    """The shape, mean and standard deviation of each parameter: He's for matrices."""
    for kind, *numbers in described:
        if kind == "convolution":
            c_in, c_out, size, _ = numbers
            yield from (((size, size, c_in, c_out), 0, (2 / (size**2 * c_in)) ** 0.5), ((c_out,), 0, 0.1))
        elif kind == "linear":
            yield from ((tuple(numbers), 0, (2 / numbers[0]) ** 0.5), ((numbers[1],), 0, 0.1))
        elif kind == "norm":
            yield from (((numbers[0],), 1, 0.1), ((numbers[0],), 0, 0.1))
        elif kind == "sum":
            for path in numbers:
                yield from _parameters(path)


def weights(described: list[tuple]) -> list[np.ndarray]:
    """All parameters in turn."""
    rng = np.random.default_rng(2)
    return [rng.normal(mean, std, shape).astype(np.float32) for shape, mean, std in _parameters(described)]


def convolution(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x (N, H, W, C), W (k, k, C, F), b (F,) and dy (N, H/stride, W/stride, F)."""
    c_in, c_out, side = case.shape
    rng, out = np.random.default_rng(3), side // case.stride
    shapes = [(case.n, side, side, c_in), (case.size, case.size, c_in, c_out), (c_out,), (case.n, out, out, c_out)]
    x, W, b, dy = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return x, W, b, dy


def vectors(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and a gradient (n,)."""
    rng = np.random.default_rng(4)
    return rng.standard_normal(n).astype(np.float32), rng.standard_normal(n).astype(np.float32)
