"""The loss around trained weights: its curvature, its sharpness and its landscapes."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minisam.analysis.curvature import density, eigenvalues, trace
from minisam.analysis.landscape import filter_normalized, pca_plane, plane
from minisam.analysis.sharpness import sharpness
from minisam.checks import Array
from minisam.kernels import norm
from minisam.nn import BatchLoss, Chain, Residual, Sequential
from minisam.objective import Mean, Objective
from minisam.training.environment import environment
from minisam.training.files import brief, read_arrays, replacing, write_arrays
from minisam.training.model import Model

MEMORY = 2 << 30  # bytes that Hessian-vector products may keep for the next one
BATCH = 200  # images per forward pass
LARGEST = 1e100  # of a number of geometry: float32 losses lead to none like it, and ratios of larger ones overflow
KINDS = ("random", "eigenvectors", "path")
GEOMETRY: dict[str, Callable[[dict[str, Any]], float]] = {  # of what `measure` found, the numbers that studies compare
    "lambda_max": lambda found: found["eigenvalues"][0],
    "lambda_ratio": lambda found: found["eigenvalues"][0] / found["eigenvalues"][4],
    "trace": lambda found: found["trace"],
    "worst_rise": lambda found: found["worst"][-1],
}


def mean_loss(net: Sequential, x: Array, y: Array, stats: Array | None) -> Mean:
    """The mean cross-entropy on images x (n, …) float32, as in evaluation: BatchNorm uses its running `stats`."""
    kept = 2 * x.itemsize * len(x) * _outputs(net.chain, net.input_shape)  # every output and its dL/dy
    return Mean(BatchLoss(net, x, y, stats=stats).split(BATCH), recompute=kept > MEMORY)


def _outputs(chain: Chain, input_shape: tuple[int, ...]) -> int:
    """How many numbers the layers output for one example, including those inside residual blocks."""
    shapes = chain.shapes(input_shape)
    total = sum(math.prod(shape) for shape in shapes)
    for layer, shape in zip(chain.layers, shapes, strict=False):
        if isinstance(layer, Residual):
            total += sum(_outputs(path, shape) for path in layer.paths)
    return total


def training_loss(model: Model, images: Array, labels: Array) -> Mean:
    """`mean_loss` of a model on uint8 images (n, H, W, C).

    Raises:
        ValueError: weights that are not finite.
    """
    if not np.isfinite(model.theta).all():
        raise ValueError(f"expected finite weights, got NaN or infinity: {model.config.label} diverged")
    return mean_loss(model.net, model.normalise(images), labels, model.stats)


def measure(
    objective: Objective, theta: Array, rho: float, eta=None, k=5, samples=10, slices=2, tolerance=1e-3, **effort: int
) -> dict[str, Any]:
    """Everything `minisam sharpness` prints, as numbers and lists.

    `samples` is for the trace, `slices` for the density (0: none), `tolerance` for the eigenvalues; `effort` may give
    `steps`, `starts` and `directions` of `sharpness`.
    """
    product, rng = objective.hessian(theta), np.random.default_rng(0)
    values, _, residuals = eigenvalues(product, theta, k, rng, tolerance=tolerance)
    here = objective(theta)
    found: dict[str, Any] = {"loss": here.loss, "gradient norm": norm(here.grad), "rho": rho, "eta": eta}
    found |= {"eigenvalues": values.tolist(), "residuals": residuals.tolist()}
    found["trace"], found["trace error"] = trace(product, theta, rng, samples)
    if slices:
        spread = density(product, theta, rng, steps=40, samples=slices)
        found["density"] = {"nodes": spread.nodes.tolist(), "weights": spread.weights.tolist()}
    rises = sharpness(objective, theta, rho, rng, eta, **effort)
    return found | {"one step": rises.one_step, "worst": rises.worst.tolist(), "random": rises.random.tolist()}


def require_geometry(found: Any) -> None:
    """Raise ValueError unless all of GEOMETRY can be computed of these results, and compared."""
    try:
        fits = all(abs(number(found)) < LARGEST for number in GEOMETRY.values())
    except (LookupError, TypeError, ArithmeticError):
        fits = False
    if not fits:
        raise ValueError("each geometry must have five eigenvalues, a trace and the worst rises")


def text_table(found: dict[str, dict]) -> str:
    """The results of `measure`, one column per model."""
    first = next(iter(found.values()))
    k = len(first["eigenvalues"])
    ball = f"rho {first['rho']:g}" if first["eta"] is None else f"ASAM's rho {first['rho']:g}"
    rows: dict[str, list[str]] = {"": [brief(name) for name in found]}
    for one in found.values():
        values = one["eigenvalues"]
        cells = {"loss, nats": f"{one['loss']:.4g}", "gradient norm": f"{one['gradient norm']:.3g}"}
        cells |= {f"eigenvalue {i + 1}": f"{value:.4g}" for i, value in enumerate(values)}
        cells[f"eigenvalue 1 / {k}"] = f"{values[0] / values[-1]:.3g}" if values[-1] else "–"
        cells["trace ± standard error"] = f"{one['trace']:.4g} ± {one['trace error']:.2g}"
        cells[f"rise after SAM's step, {ball}"] = f"{one['one step']:.3g}"
        cells[f"largest rise found in {len(one['worst'])} steps"] = f"{one['worst'][-1]:.3g}"
        cells["random directions: mean rise"] = f"{np.mean(one['random']):.3g}"
        cells[f"largest of {len(one['random'])}"] = f"{np.max(one['random']):.3g}"
        for name, cell in cells.items():
            rows.setdefault(name, []).append(cell)
    widths = [max(len(row[i]) for row in rows.values()) + 3 for i in range(len(found))]
    first_width = max(36, *map(len, rows))
    return "\n".join(f"{name:<{first_width}}" + "".join(map(str.rjust, row, widths)) for name, row in rows.items())


def load_arrays(file: Path, needed: str) -> dict[str, Array]:
    """The arrays of an .npz file; ValueError if it is not one, or if the array `needed` is missing or not numbers."""
    found = read_arrays(file)
    if needed not in found:
        raise ValueError(f"{file} holds no {needed}, but {brief(', '.join(found)) or 'nothing'}")
    if found[needed].dtype.kind not in "fiu":
        raise ValueError(f"{file}: expected {needed} of numbers, got dtype {found[needed].dtype}")
    return found


def directions(model: Model, objective: Objective, kind: str) -> Array:
    """Two directions (2, P): "random" ones, filter-normalised, or the leading "eigenvectors", of length 1.

    Raises:
        ValueError: another kind.
    """
    rng = np.random.default_rng(0)
    if kind == "eigenvectors":
        return eigenvalues(objective.hessian(model.theta), model.theta, 2, rng).vectors
    if kind == "random":
        return np.stack([filter_normalized(model.net, model.theta, rng) for _ in range(2)])
    raise ValueError(f"expected directions random or eigenvectors, got {kind}")


def landscape(
    model: Model, objective: Objective, kind: str, points: int, radius: float, file: Path, path: Array | None = None
) -> dict[str, Array]:
    """The loss at points × points places of a plane through the model's weights, saved in `file` row by row.

    `kind` is one of `directions`, or "path": the plane closest to the thetas of `path` (n, P).
    A file left by an interrupted call is completed.

    Raises:
        ValueError: an unknown kind, no path for "path", a file from another plane.
    """
    theta = model.theta
    a = b = np.linspace(-radius, radius, points)
    found: dict[str, Array] = {}
    if kind != "path":
        u, v = directions(model, objective, kind)
    elif path is None:
        raise ValueError("along the path needs --path, the weights that `minisam train --path` kept")
    else:
        if path.ndim != 2 or path.shape[1:] != theta.shape or path.dtype != theta.dtype:
            raise ValueError(
                f"expected a path of weights (n, {len(theta)}) {theta.dtype}, got {path.shape} {path.dtype}"
            )
        if not np.isfinite(path).all():
            raise ValueError("expected a path of finite weights, got NaN or infinity: its training diverged")
        on = pca_plane(path, theta)
        (u, v), found = on.directions, {"path": on.path, "share": on.share}
        a, b = (np.linspace(c.min() - 0.15 * np.ptp(c), c.max() + 0.15 * np.ptp(c), points) for c in on.path.T)
    digest = hashlib.sha256(b"".join(array.tobytes() for array in (theta, u, v, a, b)))
    digest.update(f"{objective.n} {objective.value(theta)!r}".encode())
    same = {"plane": np.array(digest.hexdigest()), "a": a, "b": b} | found
    known = None
    if file.exists():
        old = load_arrays(file, "losses")
        if str(old.get("plane")) != digest.hexdigest():
            raise ValueError(f"{file} holds another landscape: remove it, or choose another --out")
        known = old["losses"]

    def keep(losses: Array) -> None:
        write_arrays(file, {"losses": losses} | same)

    return same | {"losses": plane(objective, theta, u, v, a, b, known, keep)}


def write_json(file: Path, found: dict[str, dict]) -> None:
    """Write the measurements of each model, and the environment they were made in."""
    record = json.dumps({"environment": environment(), "models": found})
    record = json.dumps(json.loads(record, parse_constant=str), indent=1)  # JSON has no infinity: it is "Infinity"
    with replacing(file) as whole:
        whole.write(record.encode())
