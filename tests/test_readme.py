"""Everything the README says is true."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minisam.study.claims import claims_table
from minisam.study.comparison import compare, summarise
from minisam.study.experiments import FULL
from minisam.study.report import error_table, html_table, hyperparameters, markdown, sharpness_table
from minisam.study.settings import settings
from minisam.study.whole import flatness_parts, gains_over_both, main_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_and_learns(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    losses = re.findall(r"loss (\d+\.\d+), accuracy", capsys.readouterr().out)
    assert len(losses) == 5
    assert float(losses[-1]) < np.log(10)  # better than guessing


def stored_study(folder):
    files = {part: ROOT / folder / part / "results.json" for part in FULL}
    found = {part: json.loads(path.read_text(encoding="utf-8")) for part, path in files.items()}
    assert not any(results["dataset"]["synthetic"] for results in found.values())
    return found


@pytest.mark.parametrize(("protocol", "papers"), [("papers", True), ("equal", False)])
def test_the_tables_and_gains_are_those_of_every_part_of_the_stored_study(protocol, papers):
    folder, table = re.search(rf"<!-- {protocol} table: (\S+) -->\n\n(\|.*?\|)\n\n", README, re.DOTALL).groups()
    assert table == markdown(main_table(stored_study(folder), papers))
    folder, sentences = re.search(rf"<!-- {protocol} gains: (\S+) -->\n\n(.*?)\n\n", README, re.DOTALL).groups()
    assert " ".join(sentences.split()) == gains_over_both(stored_study(folder), papers)
    page = html.unescape((ROOT / folder / "report.html").read_text(encoding="utf-8"))
    assert " ".join(sentences.split()) in page
    assert html_table(main_table(stored_study(folder), papers)) in page


def test_the_tables_of_the_stored_page_are_those_of_the_stored_study():
    found = stored_study(Path("benchmarks", "results", "full"))
    page = (ROOT / "benchmarks" / "results" / "full" / "report.html").read_text(encoding="utf-8")
    assert html_table(claims_table(found)) in page
    _, rows = flatness_parts({"one of them": found["cifar100"]})["flatness"].removesuffix("</table>").split("</tr>", 1)
    assert rows in page
    for results in found.values():
        assert hyperparameters(results) in page
        for setting in settings(results):
            for make in (error_table, sharpness_table):
                assert html_table(make(results, setting)) in page


def test_the_speed_tables_are_what_the_stored_runs_print():
    tables = re.findall(r"<!-- speed: (\S+) -->\n```\n(.*?)\n```", README, re.DOTALL)
    stored = (ROOT / "benchmarks" / "results" / "speed").glob("*.json")
    assert sorted(ROOT / path for path, _ in tables) == sorted(stored)  # every processor's
    for path, table in tables:
        command = [sys.executable, ROOT / "benchmarks" / "run.py", "--brief", "--show", ROOT / path]
        shown = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
        assert table == shown.stdout.rstrip()


def test_what_is_said_of_the_speed_is_true_of_every_stored_row():
    assert "a training step of every network" in README
    assert "So does a prediction, except by the MLP." in README
    for path in (ROOT / "benchmarks" / "results" / "speed").glob("*.json"):
        command = [sys.executable, ROOT / "benchmarks" / "run.py", "--show", path]
        shown = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
        rows = re.findall(r"^((?:\S+ step|prediction), .*?) {2,}.* (\d+\.\d+) \(", shown, re.MULTILINE)
        ratios = {case: float(ratio) for case, ratio in rows}
        assert len(ratios) == len(rows) > 60
        behind = {case for case, ratio in ratios.items() if ratio <= 1}
        assert behind <= {"prediction, MLP, 2,000 images"}


@pytest.mark.parametrize("script", ["scaling", "random_search"])
def test_a_table_is_what_the_stored_measurement_prints(script):
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    (table,) = re.findall(rf"<!-- benchmarks/results/{script}.json -->\n```\n(.*?)\n```", page, re.DOTALL)
    command = [sys.executable, ROOT / "benchmarks" / f"{script}.py", "--show"]
    shown = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert table == shown.stdout.rstrip()


STORED = [path.parent.relative_to(ROOT) for path in sorted((ROOT / "benchmarks" / "results").rglob("predictions.npz"))]


@pytest.mark.parametrize("folder", STORED, ids=lambda folder: folder.name)
def test_the_stored_summary_follows_from_the_stored_predictions(folder):
    folder = ROOT / folder
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    with np.load(folder / "predictions.npz") as arrays:
        wrong = arrays["predictions"] != arrays["y_test"]
    for stored, computed in (
        (results["summary"], summarise(results["runs"], wrong)),
        (results["comparisons"], compare(results["runs"], wrong, results["config"]["pairs"])),
    ):
        assert len(stored) == len(computed)
        for one, two in zip(stored, computed, strict=True):
            ranges = [key for key in one if isinstance(one[key], list)]  # of sharpness, over the seeds
            for key in ranges:
                assert one.pop(key) == pytest.approx(two.pop(key))
            assert one == pytest.approx(two)


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []
