"""What the pictures share: their colours and frame, panels for the settings of an experiment, contours, PNG files.

Colours are Okabe and Ito's, distinguishable with all common colour visions.
"""

import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator

from minisam.checks import Array
from minisam.study.settings import Setting, in_setting, settings, title_in
from minisam.training.files import replacing

BLUE, SKY, ORANGE, YELLOW, GREEN, PURPLE, GREY = (
    "#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#999999"
)  # fmt: skip
STYLES = {  # without colours, too: SAM is solid, its baselines are dashed or dotted
    "GD": (GREY, ":"),
    "Momentum": (BLUE, "--"),
    "Momentum, 2× epochs": (SKY, "--"),
    "Adam": (GREEN, "--"),
    "SAM(Momentum)": (ORANGE, "-"),
    "SAM(Adam)": (YELLOW, "-"),
    "ASAM(Momentum)": (PURPLE, "-"),
}
OTHER = (BLUE, "-")
SYNTHETIC = "synthetic images, not CIFAR"
matplotlib.rcParams["text.usetex"] = False  # no LaTeX, whatever a matplotlibrc says
FRAME: Any = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}


def of_runs(results: dict[str, Any], setting: Setting, optimizer: str, key: str) -> list[Any]:
    """The values of `key` in the runs of one optimizer, one per seed."""
    return [run[key] for run in in_setting(results, "runs", setting) if run["optimizer"] == optimizer]


def panels(results: dict[str, Any], height: float = 3.6) -> tuple[Figure, list[tuple[Any, Setting]]]:
    """A figure, and titled axes for each setting, two in a row."""
    found = settings(results)
    n_columns = min(2, len(found))
    n_rows = math.ceil(len(found) / n_columns)
    figure = Figure(figsize=(5.2 * n_columns, height * n_rows), layout="constrained")
    places = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for unused in places[len(found) :]:
        unused.remove()
    axes = list(zip(places, found, strict=False))
    for i, (ax, setting) in enumerate(axes):
        ax.set_title(title_in(results, setting), fontsize=11)
        ax.tick_params(labelleft=i % n_columns == 0)
    return figure, axes


def plain_ticks(ax: Any) -> None:
    """Write 20 on a logarithmic axis, not 2 × 10¹."""
    ax.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.tick_params(axis="x", which="both", labelsize=9)


def contours(ax: Axes, a: Array, b: Array, losses: Array) -> Any:
    """Filled contours, on logarithmic levels, of losses (len(b), len(a)); returns them for a colour bar.

    Where the loss is NaN or infinite there is a hole.

    Raises:
        ValueError: it is nowhere finite.
    """
    finite = losses[np.isfinite(losses)]
    if not finite.size:
        raise ValueError("the loss is NaN or infinite everywhere: draw a smaller piece around the weights")
    low, high = max(float(finite.min()), 1e-4), float(finite.max())
    levels = np.geomspace(low, max(high, 1.01 * low), 24)
    filled = ax.contourf(
        a, b, np.maximum(losses, low), levels, cmap="cividis", norm=LogNorm(low, levels[-1]), extend="both"
    )
    ax.contour(a, b, np.maximum(losses, low), levels[::2], colors="white", linewidths=0.5, alpha=0.6)
    return filled


def _finish(figure: Figure, synthetic: bool) -> None:
    """What every picture gets before it is drawn: a warning if its images are synthetic, and names as they are."""
    if synthetic:
        figure.suptitle(SYNTHETIC, color=ORANGE, fontsize=11)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a $ in a name is no formula, and a wrong one would be an error


def save(file: Path, figure: Figure, synthetic: bool = False) -> None:
    """Write a picture, whole or not at all, with a warning if its images are synthetic."""
    _finish(figure, synthetic)
    with replacing(file) as whole:
        figure.savefig(whole, dpi=120, format=file.suffix[1:])


def png(draw: Callable[[Any], Figure], found: Any, synthetic: bool) -> bytes:
    """The picture that `draw` makes of `found`, as the bytes of a PNG file."""
    buffer = BytesIO()
    with matplotlib.rc_context(FRAME):
        figure = draw(found)
        _finish(figure, synthetic)
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
