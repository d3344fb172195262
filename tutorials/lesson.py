"""Shared by the tutorials: images, the library's own source, and one look for every figure."""

import ast
import inspect
import re
import textwrap
from typing import Any

import matplotlib.pyplot as plt

from minisam.data import load
from minisam.data.shapes import WARNING
from minisam.study.plots import FRAME
from minisam.training import Prepared

# Okabe and Ito's colours, distinguishable with every common type of colour vision.
BLUE, SKY, ORANGE, YELLOW, GREEN, PINK, GREY = (
    "#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#777777"
)  # fmt: skip
plt.rcParams.update(FRAME | {"figure.constrained_layout.use": True, "figure.dpi": 100, "legend.frameon": False})


def source(thing: Any, docstring: bool = False) -> str:
    """The source code of a function, method or class; without its docstrings, unless asked for them.

    >>> from minisam.kernels.reference import relu
    >>> print(source(relu))
    def relu(x: Array, out: Array) -> Array:
        return np.maximum(x, 0, out=out)
    """
    code = textwrap.dedent(inspect.getsource(thing))
    lines: list[str | None] = [*code.splitlines()]
    for node in () if docstring else ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            text = node.body[0]
            lines[text.lineno - 1 : text.end_lineno] = [None] * len(lines[text.lineno - 1 : text.end_lineno])
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line for line in lines if line is not None))


def show(*things: Any) -> None:
    """Display the library's own source of functions and classes."""
    from IPython.display import Markdown, display

    for thing in things:
        where = f"`{thing.__module__}.{thing.__qualname__}`"
        display(Markdown(f"{where}\n```python\n{source(thing)}\n```"))


def images(n_train: int, n_test: int = 2000) -> Prepared:
    """CIFAR-10 if it is found, otherwise the synthetic stand-in; prints which."""
    data = load().first(n_train, n_test)
    print(f"{data.name}: {len(data.y_train):,} training and {len(data.y_test):,} test images")
    if data.synthetic:
        print(WARNING)
    return Prepared.of(data)
