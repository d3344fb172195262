"""What a comparison found, as a table for the terminal and as one HTML page."""

import base64
import html
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from minisam.experiments.files import replacing
from minisam.experiments.plots import noise_title, settings

WARNING = (
    "These are SYNTHETIC images, not CIFAR: no CIFAR-10 was found. "
    "`minisam data --fetch cifar10` downloads it (162 MB)."
)
HEADER = ("optimizer", "gradients", "seconds", "train error", "test error", "SAM's reduction")


def _percent(value: float | None, low: float | None, high: float | None) -> str:
    """An estimate in per cent with its half width."""
    if value is None:
        return "–"
    if low is None or high is None:
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f} ± {50 * (high - low):.1f}"


def rows(results: dict[str, Any], model: str, noise: float) -> list[tuple[str, ...]]:
    """The table of one setting as texts: a row for each optimizer."""
    reduction = {
        row["baseline"]: row
        for row in results["comparisons"]
        if (row["model"], row["noise"], row["candidate"]) == (model, noise, "SAM(Momentum)")
    }
    table: list[tuple[str, ...]] = []
    for row in results["summary"]:
        if (row["model"], row["noise"]) != (model, noise):
            continue
        gain = reduction.get(row["optimizer"], {"error_reduction": None})
        table.append(
            (
                row["optimizer"],
                f"{row['gradient_evaluations']:,.0f}",
                f"{row['seconds']:.1f}",
                f"{100 * row['train_error']:.1f}",
                _percent(row["test_error"], row["ci_low"], row["ci_high"]),
                _percent(gain["error_reduction"], gain.get("ci_low"), gain.get("ci_high")),
            )
        )
    return table


def text_table(results: dict[str, Any]) -> str:
    """The comparison as plain text, for the terminal and the README."""
    blocks = []
    for model, noise in settings(results):
        table = [HEADER, *rows(results, model, noise)]
        lines = [noise_title(model, noise)]
        for name, *cells in table:
            lines.append(f"  {name:<20}" + "".join(f"{cell:>16}" for cell in cells))
        blocks.append("\n".join(lines))
    data, config = results["dataset"], results["config"]
    blocks.append(
        f"{data['name']}: {data['n_train']:,} training and {data['n_test']:,} test images, "
        f"{config['seeds']} seeds, {config['epochs']} epochs. Errors in per cent ± 95 % interval "
        "over\nseeds and test images; seconds of training in one run. Last column: how many errors "
        "fewer SAM(Momentum)\nmakes than this row, in per cent of them, paired by seed and image."
    )
    if data["synthetic"]:
        blocks.insert(0, WARNING)
        blocks.append(WARNING)
    return "\n\n".join(blocks)


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-size: 15px; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; } figure { margin: 1.5rem 0; } figcaption { color: #555; }
.warning { background: #fff1e6; border-left: 6px solid #d55e00; padding: .8rem 1rem; }
code { background: #f4f4f4; padding: .1rem .3rem; }
"""

CAPTIONS = {
    "errors": "Test error. Rings: one seed each; dots: their mean; bars: 95 % confidence interval "
    "over seeds and test images.",
    "reductions": "Relative error reduction of SAM against every other optimizer, with 95 % "
    "confidence intervals, paired by seed and test image. Right of the line SAM errs less.",
    "curves": "Training loss (mean over each epoch's minibatches, at w, on the labels as trained) "
    "and test error against gradient evaluations, of which SAM spends two a step. Lines: mean over "
    "seeds; bands: from the lowest to the highest seed.",
}


def _html_table(header: tuple[str, ...], body: Iterable[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(cells, 'td') for cells in body)}</table>"


def _facts(title: str, facts: dict[str, Any]) -> str:
    body = [(str(key), str(value)) for key, value in facts.items()]
    return f"<h2>{title}</h2>{_html_table(('', ''), body)}"


def _hyperparameters(results: dict[str, Any]) -> str:
    seen: dict[tuple[str, ...], None] = {}
    for run in results["runs"]:
        c = run["config"]
        rho = f"{c['rho']:g}" if c["optimizer"] == "sam" else "–"
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
    figures = "".join(
        f'<figure><img alt="{html.escape(CAPTIONS[name])}" '
        f'src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        f"<figcaption>{html.escape(CAPTIONS[name])}</figcaption></figure>"
        for name, picture in pictures.items()
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Does SAM help on {data["name"]}?</title>
<style>{STYLE}</style>
<h1>Does SAM help on {data["name"]}?</h1>
{warning if data["synthetic"] else ""}
<p>Sharpness-aware minimization (SAM; Foret et al. 2021) takes every step along the gradient at the
worst point within rho of the weights, so a step costs two gradients. Here it is compared with
optimizers given as many epochs, and with Momentum given as many gradients (twice the epochs), on
{data["n_train"]:,} training and {data["n_test"]:,} test images of {data["name"]}, with
{config["seeds"]} seeds. Runs of one seed share initial weights, minibatches and redrawn labels.
Hyper-parameters were chosen on a validation split of the training images, from a grid of the same
size for every optimizer; test images played no part in the choice.</p>
<h2>Errors</h2>
<p>In per cent, ± 95 % confidence interval over seeds and test images; the train error counts
redrawn labels as right. Last column: the relative error reduction of SAM(Momentum) against the
row's optimizer. Seconds of training are for one run.</p>
{tables}{figures}
<h2>Hyper-parameters</h2>
<p>Batch size {config["batch_size"]}, cosine learning rate; momentum's decay factor is 0.9.</p>
{_hyperparameters(results)}
{_facts("Data", data)}
{_facts("Repeat it", {"command": config["command"], "preset": config["preset"]})}
{_facts("Computed with", results["environment"])}
</html>
"""


def write_report(
    folder: Path, results: dict[str, Any], predictions: np.ndarray, y_test: np.ndarray
) -> Path:
    """Write results.json, predictions.npz, the pictures and report.html; returns the report's path.

    predictions is (runs, test images), a row for each of results["runs"]; y_test is (test images,).
    Every file is replaced whole or not at all, the report last.

    Raises:
        OSError: the folder can't be written.
    """
    from minisam.experiments import plots  # matplotlib takes a while to import

    pictures = {name: plots.png(draw, results) for name, draw in plots.PICTURES.items()}
    with replacing(folder / "results.json") as path:
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")
    with replacing(folder / "predictions.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, predictions=predictions, y_test=y_test)
    for name, picture in pictures.items():
        with replacing(folder / f"{name}.png") as path:
            path.write_bytes(picture)
    with replacing(folder / "report.html") as path:
        path.write_text(html_report(results, pictures), encoding="utf-8")
    return folder / "report.html"
