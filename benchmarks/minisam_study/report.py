"""What a comparison found, as a table for the terminal and as one HTML page."""

import base64
import html
import io
import json
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from minisam_study.config import FAMILY
from minisam_study.files import replacing
from minisam_study.plots import in_setting, noise_title, settings
from minisam_study.reproduce import IMAGES
from minisam_study.sweep import RHO
from minisam_study.synthetic import WARNING

SAMS = ("SAM(Momentum)", "SAM(Adam)")
SHARPNESS = ("optimizer", "λ1", "λ1 / λ5", "worst rise")
HEADER = ("optimizer", "gradients", "seconds", "train error", "test error", *(f"{s} gain" for s in SAMS))


def _percent(row: dict[str, Any] | None, key: str) -> str:
    """An estimate in per cent, ± half its interval's width."""
    if row is None:
        return "–"
    half = "" if row["ci_low"] is None else f" ± {50 * (row['ci_high'] - row['ci_low']):.1f}"
    return f"{100 * row[key]:.1f}{half}"


def rows(results: dict[str, Any], model: str, noise: float) -> list[tuple[str, ...]]:
    """The table of one setting as texts: a row for each optimizer, a column for each SAM."""
    comparisons = in_setting(results, "comparisons", model, noise)
    gains = {(row["baseline"], row["candidate"]): row for row in comparisons}
    table: list[tuple[str, ...]] = []
    for row in in_setting(results, "summary", model, noise):
        name = row["optimizer"]
        numbers = (f"{row['gradient_evaluations']:,.0f}", f"{row['seconds']:.1f}")
        errors = (f"{100 * row['train_error']:.1f}", _percent(row, "test_error"))
        reductions = (_percent(gains.get((name, sam)), "error_reduction") for sam in SAMS)
        table.append((name, *numbers, *errors, *reductions))
    return table


def sharpness_rows(results: dict[str, Any], model: str, noise: float) -> list[tuple[str, ...]]:
    """How sharp each optimizer's minimum is: the mean over seeds, and the range."""
    table: list[tuple[str, ...]] = []
    for row in in_setting(results, "summary", model, noise):
        cells = [(row[key], digits) for key, digits in (("lambda_max", 3), ("lambda_ratio", 3), ("worst_rise", 2))]
        table.append((row["optimizer"], *(f"{m:.{d}g} ({low:.{d}g}–{high:.{d}g})" for (m, low, high), d in cells)))
    return table


def text_table(results: dict[str, Any]) -> str:
    """The comparison as plain text, for the terminal and the README."""
    blocks = []
    widths = [max(len(head), 10) + 3 for head in HEADER[1:]]
    for model, noise in settings(results):
        table = [HEADER, *rows(results, model, noise)]
        lines = [noise_title(model, noise)]
        for name, *cells in table:
            lines.append(f"  {name:<19}" + "".join(map(str.rjust, cells, widths)))
        blocks.append("\n".join(lines))
    for model, noise in settings(results):
        lines = [f"{noise_title(model, noise)}: sharpness"]
        for name, *cells in [SHARPNESS, *sharpness_rows(results, model, noise)]:
            lines.append(f"  {name:<19}" + "".join(f"{cell:>24}" for cell in cells))
        blocks.append("\n".join(lines))
    data, config = results["dataset"], results["config"]
    blocks.append(
        f"{data['name']}: {data['n_train']:,} training and {data['n_test']:,} test images, "
        f"{config['seeds']} seeds, {config['epochs']} epochs. Errors in per cent ± 95 % interval\n"
        "over seeds and test images; seconds of training in one run. A gain is how many errors\n"
        "fewer that SAM makes than the row's optimizer, in per cent, paired by seed and image. λ are\n"
        f"eigenvalues of the Hessian of the training loss on {IMAGES} images, the rise is the largest found\n"
        f"within rho = {RHO:g}, in nats: mean over seeds (lowest–highest)."
    )
    if data["synthetic"]:
        blocks.insert(0, WARNING)
        blocks.append(WARNING)
    return "\n\n".join(blocks)


def _html_table(header: tuple[str, ...], body: Iterable[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(cells, 'td') for cells in body)}</table>"


def _facts(facts: dict[str, Any]) -> str:
    return _html_table(("", ""), ((key, str(value)) for key, value in facts.items()))


def _hyperparameters(results: dict[str, Any]) -> str:
    seen: dict[tuple[str, ...], None] = {}
    for run in results["runs"]:
        c = run["config"]
        rho = f"{c['rho']:g}" if c["optimizer"] in FAMILY else "–"
        setting = noise_title(run["model"], run["noise"])
        numbers = (f"{c['lr']:g}", f"{c['weight_decay']:g}", rho, str(c["epochs"]))
        seen[(run["optimizer"], setting, *numbers)] = None  # once, not once a seed
    return _html_table(("optimizer", "setting", "lr", "weight decay", "rho", "epochs"), seen)


def html_report(results: dict[str, Any], pictures: dict[str, bytes]) -> str:
    """One self-contained page: question, tables, pictures, and what it takes to repeat it."""
    data, config = results["dataset"], results["config"]
    warning = f'<p class="warning"><strong>{html.escape(WARNING)}</strong></p>'
    tables = "".join(
        f"<h3>{noise_title(model, noise)}</h3>{_html_table(HEADER, rows(results, model, noise))}"
        for model, noise in settings(results)
    )
    sharpness = "".join(
        f"<h3>{noise_title(model, noise)}</h3>{_html_table(SHARPNESS, sharpness_rows(results, model, noise))}"
        for model, noise in settings(results)
    )
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    facts = {"images": f"{IMAGES}", "radius": f"{RHO:g}"}
    facts |= {key: html.escape(str(value)) for key, value in (config | data).items()}
    parts = {name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in pictures.items()}
    parts |= {"warning": warning if data["synthetic"] else "", "tables": tables, "minima": sharpness}
    parts |= {"data": _facts(data), "environment": _facts(results["environment"])}
    return Template(template).substitute(facts, **parts, recipes=_hyperparameters(results))


def write_report(folder: Path, results: dict[str, Any], predictions: np.ndarray, y_test: np.ndarray) -> Path:
    """Write results.json, predictions.npz, the pictures and report.html; returns the report's path.

    predictions is (runs, test images), a row for each of results["runs"]; y_test is (test images,).
    Every file is replaced whole or not at all, the report last.

    Raises:
        OSError: the folder can't be written.
    """
    from minisam_study import plots  # matplotlib takes a while to import

    pictures = {name: plots.png(draw, results) for name, draw in plots.PICTURES.items()}
    arrays = io.BytesIO()
    np.savez_compressed(arrays, predictions=predictions, y_test=y_test)
    files = {
        "results.json": json.dumps(results, indent=1, ensure_ascii=False).encode(),
        "predictions.npz": arrays.getvalue(),
        **{f"{name}.png": picture for name, picture in pictures.items()},
        "report.html": html_report(results, pictures).encode(),
    }
    for name, content in files.items():
        with replacing(folder / name) as path:
            path.write_bytes(content)
    return folder / "report.html"
