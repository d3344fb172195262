"""The playground: optimizers on surfaces of two parameters, in a browser, as one page that asks for nothing else."""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from minisam.optim import SAM, Momentum
from minisam.study.plots import STYLES
from minisam.study.report import TEMPLATES, fill
from minisam.study.toy_plots import Race

STEPS, FIRST = 200, 40  # the steps that are computed, and the one that is shown at first
MINIMA = {"bowl": [(0, 0)], "valley": [(1, 1)], "minima": [(-1, 0), (1, 0)]}  # of the races, in their order
ADAM_LR = 0.1  # no race has Adam; with this rate it gets down all three surfaces
DASHES = {"GD": (2, 4), "Momentum": (9, 5), "Adam": (10, 4, 2, 4), "SAM": ()}  # in pixels: a line, a gap, …


def settings(races: Sequence[Race]) -> dict[str, Any]:
    """What the page is about: surfaces with their starts and rates, and how each method is drawn."""
    surfaces = []
    for (key, minima), race in zip(MINIMA.items(), races, strict=True):
        rates = {"lr": vars(race.racers["GD"])["lr"], "momentum": Momentum.momentum, "rho": SAM.rho, "adam": ADAM_LR}
        for racer in race.racers.values():
            rates |= {name: value for name, value in vars(racer).items() if name in ("momentum", "rho")}
        about = {"key": key, "title": race.title.partition(" (")[0], "start": race.start, "extent": race.extent}
        shape = {name: np.asarray(value).tolist() for name, value in vars(race.surface).items()}
        surfaces.append(about | {"minima": minima, "rates": rates, "kind": type(race.surface).__name__} | shape)
    colours = {name: STYLES["SAM(Momentum)" if name == "SAM" else name][0] for name in DASHES}
    methods = [{"name": name, "colour": colours[name], "dash": dash} for name, dash in DASHES.items()]
    return {"surfaces": surfaces, "methods": methods, "step": FIRST}


def page(races: Sequence[Race]) -> str:
    """The page. It may run its own script and look as it does, and load nothing: its policy names their hashes."""
    style, *scripts = (
        (TEMPLATES / name).read_text(encoding="utf-8")
        for name in ("playground.css", "descent.js", "playground.js", "drawing.js")
    )
    parts = {"style": style, "script": "\n".join(scripts)}
    parts |= {f"{name}_hash": _hash(text) for name, text in parts.items()}
    data = json.dumps(settings(races), ensure_ascii=False).replace("<", "\\u003c")  # no </script> ends it early
    return fill("playground", parts | {"data": data, "steps": str(STEPS)})


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
