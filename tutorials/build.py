"""Turn the lessons into notebooks, and make sure that both say the same.

    python tutorials/build.py [NUMBER …]     execute lessons, keep them with their outputs beside their source
    python tutorials/build.py --check        execute all of them afresh, keep nothing, fail where one is out of step

A lesson's source is its .py file, in the percent format; its .ipynb is made from that, and never edited.
"""

import argparse
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
SECONDS = 600  # after which a cell counts as stuck


def lessons(numbers: list[str]) -> list[Path]:
    """The sources with these numbers, or all of them."""
    found = sorted(HERE.glob("[0-9][0-9]_*.py"))
    return [path for path in found if not numbers or str(int(path.name[:2])) in numbers]


def notebook(path: Path) -> nbformat.NotebookNode:
    """A lesson as a notebook without outputs; the same for the same source."""
    book = jupytext.read(path)
    for i, cell in enumerate(book.cells):
        cell["id"] = f"cell-{i}"
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return book


def said(book: nbformat.NotebookNode) -> list[tuple[str, str, str]]:
    """What a notebook says, without its outputs."""
    return [(cell.cell_type, cell.source, str(cell.metadata.get("tags"))) for cell in book.cells]


def execute(path: Path) -> tuple[nbformat.NotebookNode, float]:
    """The lesson with its outputs, and how many seconds that took."""
    book, started = notebook(path), time.perf_counter()
    NotebookClient(book, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if "outputs" in cell:  # but for progress bars
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return book, time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", metavar="NUMBER")
    parser.add_argument("--check", action="store_true", help="keep nothing; fail where source and notebook differ")
    args = parser.parse_args()
    failed, total = [], 0.0
    for path in lessons(args.numbers):
        kept = path.with_suffix(".ipynb")
        if args.check and (not kept.exists() or said(nbformat.read(kept, as_version=4)) != said(notebook(path))):
            failed.append(
                f"{kept.name} is out of step with {path.name}: python tutorials/build.py {int(path.name[:2])}"
            )
            continue
        try:
            book, seconds = execute(path)
        except CellExecutionError as error:
            failed.append(f"{path.name}: {error}")
            continue
        total += seconds
        print(f"{path.stem:<32}{seconds:6.1f} s", flush=True)
        if not args.check:
            nbformat.write(book, kept)
    print(f"{'together':<32}{total:6.1f} s")
    print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
