"""The inputs of every system: the same images, weights and numbers, drawn by NumPy from fixed seeds.

The reference CNN is Conv(3→32) ReLU Conv(32→32) ReLU MaxPool Conv(32→64) ReLU MaxPool Linear, with
3×3 kernels and zero padding; the reference MLP is 3072-256-128-10. Weights come in minisam's layout,
(kH, kW, C_in, C_out) and (n_in, n_out), and in its order.
"""

from dataclasses import dataclass

import numpy as np

LR, MOMENTUM, RHO = 0.01, 0.9, 0.05


@dataclass(frozen=True)
class Case:
    """One thing to measure; the kind says which of the other fields count."""

    kind: str  # step, conv, update, epoch, predict, sgemm or copy
    what: str = ""  # model, pass of a convolution, or optimizer to update with
    optimizer: str = "sam"
    n: int = 0  # images, parameters or numbers
    shape: tuple[int, int, int] = (0, 0, 0)  # a convolution's C_in, C_out and side
    width: int = 32  # channels of the CNN's first layer

    @property
    def name(self) -> str:
        if self.kind == "step":
            width = "" if self.width == 32 else f", {self.width} channels"
            label = {"sam": "SAM(Momentum)", "momentum": "Momentum", "adam": "Adam"}[self.optimizer]
            return f"{label} step, {self.what.upper()}{width}, batch {self.n}"
        if self.kind == "conv":
            c_in, c_out, side = self.shape
            return f"convolution {c_in}→{c_out}@{side}², {self.what}"
        return {
            "update": f"{self.what} update, {self.n:,} parameters",
            "epoch": f"SAM(Momentum) epoch, CNN, {self.n:,} augmented images",
            "predict": f"prediction, {self.what.upper()}, {self.n:,} images",
            "sgemm": "matrix product 1024³",
            "copy": f"copy of {self.n:,} numbers",
        }[self.kind]

    @property
    def flop(self) -> int:
        """Floating-point operations of the definition, whatever the algorithm."""
        c_in, c_out, side = self.shape
        return 2 * 1024**3 if self.kind == "sgemm" else 2 * 9 * c_in * c_out * side**2 * self.n

    @property
    def bytes(self) -> int:
        """Bytes that one update (or copy) of n float32 numbers reads and writes."""
        vectors = {"GD": 3, "Momentum": 5, "Adam": 7}.get(self.what, 2)
        return 4 * self.n * vectors


def images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal images (n, 32, 32, 3) float32 and labels (n,): enough to measure speed."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, n)


def weights(model: str, width: int = 32) -> list[np.ndarray]:
    """Weights and biases in turn, He-initialised."""
    if model == "mlp":
        shapes = [(3072, 256), (256, 128), (128, 10)]
    else:
        convolutions = [(3, 3, 3, width), (3, 3, width, width), (3, 3, width, 2 * width)]
        shapes = [*convolutions, (8 * 8 * 2 * width, 10)]
    rng, arrays = np.random.default_rng(2), []
    for shape in shapes:
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        arrays.append((scale * rng.standard_normal(shape)).astype(np.float32))
        arrays.append((0.1 * rng.standard_normal(shape[-1])).astype(np.float32))
    return arrays


def convolution(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x (N, H, W, C), W (3, 3, C, F), b (F,) and dy (N, H, W, F)."""
    c_in, c_out, side = case.shape
    rng = np.random.default_rng(3)
    shapes = [(case.n, side, side, c_in), (3, 3, c_in, c_out), (c_out,), (case.n, side, side, c_out)]
    x, W, b, dy = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return x, W, b, dy


def vectors(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and a gradient (n,)."""
    rng = np.random.default_rng(4)
    return rng.standard_normal(n).astype(np.float32), rng.standard_normal(n).astype(np.float32)
