"""The results of an experiment, as a table for the terminal and as one HTML page."""

import base64
import html
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from minisam.data.shapes import WARNING
from minisam.study.comparison import IMAGES
from minisam.study.experiment_plots import pictures
from minisam.study.settings import Setting, in_setting, settings, title_in
from minisam.study.tasks import RHO
from minisam.training.config import FAMILY
from minisam.training.environment import together
from minisam.training.files import reason, replacing

Table = list[tuple[str, ...]]  # the first row is its header
OWN_RHO = "Each variant got its own rho, or strength of a penalty, from a grid of the same size."
QUESTIONS = {  # of presets that share a template
    "ingredients": f"What makes SAM work? One change at a time. {OWN_RHO}",
    "m-sharpness": f"Each step's batch is cut into pieces of m images, and each piece climbs alone. {OWN_RHO}",
    "full-batch": "Does SAM help without the noise of minibatches? Every step sees all images.",
}
PROTOCOLS = {  # by whether it is the papers': what was chosen, and the schedule
    False: "<b>Equal tuning:</b> hyper-parameters were chosen for every method from a grid of the same size, on "
    "validation splits of training images (of CIFAR-10's, unless the preset is about another data set; of 4,000, even "
    "if fewer are trained on). The learning rate warms up for a seventh of the epochs, rounded down, and then falls as "
    "a cosine.",
    True: "<b>The papers' protocol:</b> all have weight decay 5e-4 and the learning rate that is best for Momentum "
    "(SAM(Adam) that for Adam) on clean labels, which falls as a cosine; rho alone is chosen, for each share of wrong "
    "labels. All was chosen on validation splits of training images, whose labels were as noisy as the rest.",
}
TEMPLATES = Path(__file__).with_name("templates")


def percent(row: dict[str, Any] | None, key: str) -> str:
    """An estimate in per cent, ± half its interval's width."""
    if row is None:
        return "–"
    half = "" if row["ci_low"] is None else f" ± {50 * (row['ci_high'] - row['ci_low']):.1f}"
    return f"{100 * row[key]:.1f}{half}"


def error_table(results: dict[str, Any], setting: Setting) -> Table:
    """Errors in one setting, and the gains of the experiment's pairs, a column per baseline or per candidate."""
    gains = {(row["baseline"], row["candidate"]): row for row in in_setting(results, "comparisons", setting)}
    baselines = list(dict.fromkeys(baseline for baseline, _ in gains))
    candidates = list(dict.fromkeys(candidate for _, candidate in gains))
    table: Table = []
    for row in in_setting(results, "summary", setting):
        name = row["optimizer"]
        if len(candidates) < len(baselines):
            pairs = [(name, candidate) for candidate in candidates]
        else:
            pairs = [(baseline, name) for baseline in baselines]
        errors = (f"{100 * row['train_error']:.1f}", percent(row, "test_error"))
        reductions = (percent(gains.get(pair), "error_reduction") for pair in pairs)
        table.append((name, f"{row['gradient_evaluations']:,.0f}", *errors, *reductions))
    few = [f"{name} gain" for name in candidates] if len(candidates) < len(baselines) else None
    return [("method", "gradients", "train error", "test error", *(few or (f"over {b}" for b in baselines))), *table]


def sharpness_table(results: dict[str, Any], setting: Setting) -> Table:
    """How sharp each method's minimum is: the mean over seeds, and the range."""
    columns = {"λ1": ("lambda_max", 3), "λ1 / λ5": ("lambda_ratio", 3), "trace": ("trace", 3)}
    columns["worst rise"] = ("worst_rise", 2)
    table: Table = [("method", *columns)]
    for row in in_setting(results, "summary", setting):
        cells = [(row[key], digits) for key, digits in columns.values()]
        table.append((row["optimizer"], *(f"{m:.{d}g} ({low:.{d}g}–{high:.{d}g})" for (m, low, high), d in cells)))
    return table


def text_table(results: dict[str, Any]) -> str:
    """The results as plain text, for the terminal."""
    blocks = []
    for suffix, make in (("", error_table), (": sharpness", sharpness_table)):
        for setting in settings(results):
            table = make(results, setting)
            widths = [max(map(len, column)) + 3 for column in zip(*table, strict=True)]
            lines = [f"  {name:<{widths[0]}}" + "".join(map(str.rjust, cells, widths[1:])) for name, *cells in table]
            blocks.append("\n".join([title_in(results, setting) + suffix, *lines]))
    data, n = results["dataset"], results["config"]["seeds"]
    seeds = "1 seed" if n == 1 else f"{n} seeds"
    blocks.append(
        f"{data['name']}: {data['n_train']:,} training and {data['n_test']:,} test images, {seeds}.\n"
        "Errors in per cent ± 95 % interval over seeds and test images. A gain is how many fewer errors\n"
        "one method makes than another, in per cent, paired by seed and image. λ are eigenvalues of the\n"
        f"Hessian of the training loss on {IMAGES} images, the rise is the largest found within rho = {RHO:g},\n"
        "in nats: mean over seeds (lowest–highest)."
    )
    if data["synthetic"]:
        blocks.insert(0, WARNING)
        blocks.append(WARNING)
    return "\n\n".join(blocks)


def html_table(table: Iterable[tuple[str, ...]]) -> str:
    """A table whose first row is its header."""

    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    header, *body = table
    return f"<table>{line(header, 'th')}{''.join(line(cells, 'td') for cells in body)}</table>"


def facts(about: dict[str, Any]) -> str:
    """A table of names and values."""
    return html_table([("", ""), *((key, str(value)) for key, value in about.items())])


def hyperparameters(results: dict[str, Any]) -> str:
    """A table of the hyper-parameters of every method in every setting."""
    seen: dict[tuple[str, ...], None] = {("method", "setting", "lr", "weight decay", "L1", "rho", "epochs"): None}
    for run in results["runs"]:
        c = run["config"]
        rho = f"{c['rho']:g}" if c["optimizer"] in FAMILY else "–"
        numbers = (f"{c['lr']:g}", f"{c['weight_decay']:g}", f"{c['l1']:g}", rho, str(c["epochs"]))
        seen[(run["optimizer"], title_in(results, Setting.of(run)), *numbers)] = None  # once, not once per seed
    return html_table(seen)


def section(results: dict[str, Any], drawn: dict[str, bytes]) -> str:
    """The report of an experiment: its prose, tables and pictures, without the page around them."""
    parts: dict[str, str] = {}
    for name, make in (("tables", error_table), ("minima", sharpness_table)):
        titles = {title_in(results, setting): html_table(make(results, setting)) for setting in settings(results)}
        parts[name] = "".join(f"<h4>{title}</h4>{table}" for title, table in titles.items())
    parts |= {name: inline(image) for name, image in drawn.items()}
    preset = results["config"]["preset"].removesuffix("-again")
    found = dict.fromkeys(setting.papers for setting in settings(results))
    parts |= {"question": QUESTIONS.get(preset, ""), "tuning": " ".join(PROTOCOLS[papers] for papers in found)}
    augmented = any(run["config"]["augment"] for run in results["runs"])
    parts["augmentation"] = "are flipped and cropped at random" if augmented else "are used as they are"
    parts |= {"images": f"{IMAGES}", "ball": f"{RHO:g}", "recipes": hyperparameters(results)}
    parts |= {key: html.escape(str(value)) for key, value in results["dataset"].items()}
    return fill(results["config"]["kind"], parts)


def inline(image: bytes) -> str:
    """A PNG image as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def markdown(table: Table) -> str:
    """A table whose first row is its header, in Markdown."""
    header, *rows = ("| " + " | ".join(cells) + " |" for cells in table)
    return "\n".join((header, "|---" + "|---:" * (len(table[0]) - 1) + "|", *rows))


def fill(template: str, parts: dict[str, str]) -> str:
    """A template with its parts filled in."""
    text = (TEMPLATES / f"{template}.html").read_text(encoding="utf-8")
    return Template(text).substitute(parts)


def html_report(results: dict[str, Any], drawn: dict[str, bytes]) -> str:
    """One self-contained page: question, tables, pictures, and how to repeat it."""
    data = results["dataset"]
    return page(f"Does SAM help on {data['name']}?", section(results, drawn), data, [results])


def page(title: str, body: str, data: dict[str, Any], found: Sequence[dict[str, Any]]) -> str:
    """The page around a body: a warning if images are synthetic, then the data, commands and machines."""
    synthetic = any(results["dataset"]["synthetic"] for results in found)
    warning = f'<p class="warning"><strong>{html.escape(WARNING)}</strong></p>' if synthetic else ""
    commands = dict.fromkeys(results["config"]["command"] for results in found)
    machine = together(results["environment"] for results in found)
    parts = {"title": html.escape(title), "warning": warning, "body": body, "data": facts(data)}
    parts |= {"command": "<br>".join(map(html.escape, commands)), "environment": facts(machine)}
    return fill("page", parts)


@contextmanager
def drawing(folder: Path) -> Iterator[None]:
    """Make a report of results that are in `folder` already: whatever goes wrong is one error that says so.

    Raises:
        RuntimeError: the report can't be made.
    """
    try:
        yield
    except Exception as error:  # Matplotlib has errors of its own
        raise RuntimeError(f"all results are in {folder}, but no report can be made ({reason(error)})") from error


def encoded(text: str) -> bytes:
    """A text for a file, which may name other files: their names need not be text, and JSON spells them so too.

    >>> encoded(json.dumps("π and a byte: \\udcff", ensure_ascii=False)).decode()
    '"π and a byte: \\\\udcff"'
    """
    return text.encode(errors="backslashreplace")


def write_report(folder: Path, results: dict[str, Any], predictions: np.ndarray, y_test: np.ndarray) -> Path:
    """Write results.json and predictions.npz, then the pictures and report.html; returns the report's path.

    predictions is (runs, test images), one row per run of results["runs"]; y_test is (test images,).
    Every file is replaced whole or not at all, the report last.

    Raises:
        OSError: the folder can't be written.
        RuntimeError: the report can't be made; the results are written.
    """
    arrays = io.BytesIO()
    np.savez_compressed(arrays, predictions=predictions, y_test=y_test)
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    _write(folder, {"results.json": encoded(text), "predictions.npz": arrays.getvalue()})
    with drawing(folder):
        drawn = pictures(results)
        report = html_report(results, drawn)
    _write(folder, {f"{name}.png": picture for name, picture in drawn.items()} | {"report.html": encoded(report)})
    return folder / "report.html"


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        with replacing(folder / name) as file:
            file.write(content)
