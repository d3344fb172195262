"""`minisam reproduce`: run an experiment and write its report.

An experiment is a preset of `minisam.study.experiments`, all of them (`--preset full`), or the runs of an earlier
results.json (`--from`), whose numbers should come out the same to the last bit. Each finished run is kept at once, so
an interrupted command goes on where it was.
"""

import argparse
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any

from minisam.checks import Count, require
from minisam.cli.options import Commands, add_command, load_images, place
from minisam.data import Dataset, load
from minisam.kernels.cores import available_cores
from minisam.study.comparison import Repeat, reproduce
from minisam.study.executors import dask_executor
from minisam.study.experiments import FULL, PRESETS, Experiment
from minisam.study.recipes import SAM_AND_MOMENTA
from minisam.training.environment import changes
from minisam.training.files import parse_json, read_bytes, require_no_link, require_writable

JOBS = 4  # at most, unless --jobs says otherwise


def add(commands: Commands) -> None:
    """Declare the command and its options."""
    parser = add_command(commands, "reproduce", "Compare SAM with Momentum, Adam and GD; write a report.", run)
    parser.add_argument("--preset", choices=(*PRESETS, "full"), help="which comparison (quick)")
    text = "repeat the runs of this file, and report any difference"
    parser.add_argument("--from", type=place, dest="before", metavar="results.json", help=text)
    text = "default: minisam-results/…; an interrupted comparison continues from its folder"
    parser.add_argument("--out", type=place, metavar="DIR", help=text)
    parser.add_argument("--seeds", type=int, metavar="N", help="runs of each kind (default: the preset's)")
    text = f"runs at a time (here: {_jobs()}, one per core but at most {JOBS}; with --dask one per worker thread)"
    parser.add_argument("--jobs", type=int, metavar="N", help=text)
    parser.add_argument("--dask", metavar="ADDRESS", help="train on the workers of this Dask scheduler: tcp://…")


def run(args: argparse.Namespace) -> None:
    """Run each part of the experiment and write its report; with --from, say what differs."""
    from minisam.study.report import markdown, text_table, write_report
    from minisam.study.whole import TITLES, gains_over_both, main_table, write_study

    name, parts, repeat = _experiment(args)
    datasets = {part: _images(args, part, experiment) for part, experiment in parts.items()}
    if repeat:
        repeat.require_same_images(datasets[name])
    folder = args.out or Path("minisam-results") / ("full" if name == "full" else f"{datasets[name].name}-{name}")
    require_writable(folder)
    places = {part: folder / part if name == "full" else folder for part in parts}
    for part, experiment in parts.items():
        if name == "full":
            require_no_link(places[part])
        _require_own_results(places[part], part, experiment, datasets[part])
    if name == "full":
        _require_own_study(folder, any((place / "results.json").exists() for place in places.values()))
    if repeat and (folder / "results.json").exists():
        raise ValueError(f"{folder} already has results, which would only be read again: remove it, or choose --out")
    had = any((folder / "runs").glob("*.npz"))
    found = {}
    with ExitStack() as stack:
        jobs, executor = _jobs(), None
        if args.dask is not None:
            executor, jobs = stack.enter_context(dask_executor(args.dask))
        jobs = jobs if args.jobs is None else args.jobs
        how = {"jobs": jobs, "executor": executor, "folder": folder / "runs"}
        for part, experiment in parts.items():
            found[part], predictions = reproduce(experiment, datasets[part], part, **how)
            report = write_report(places[part], found[part], predictions, datasets[part].y_test)
            print(text_table(found[part]))
            if experiment.kind == "methods" and {arm.label for arm in experiment.arms}.issuperset(SAM_AND_MOMENTA):
                for papers in dict.fromkeys(arm.papers for arm in experiment.arms):
                    print(f"\n{fill(gains_over_both({part: found[part]}, papers), 100)}")
            print(f"\nReport with pictures: {report}")
    if name == "full":
        for papers, title in TITLES.items():
            print(f"\n{title}\n\n{markdown(main_table(found, papers))}")
        print(f"\nThe whole study: {write_study(folder, found)}")
    if repeat:
        if had:
            print(f"\nWhat was in {folder / 'runs'} before, of an interrupted repetition, was read, not repeated.")
        _say_what_differs(repeat, found[name])


def _require_own_study(folder: Path, begun: bool) -> None:
    """Raise OSError if something else would be replaced than the report of a study whose parts are there."""
    report, *pictures = (folder / name for name in ("report.html", "protocols.png", "overview.png"))
    if (folder / "results.json").exists() or report.is_dir():
        raise FileExistsError(f"{folder} has other results than those of a study: choose another --out")
    if not begun and (others := list(filter(os.path.lexists, (report, *pictures)))):
        raise FileExistsError(f"{others[0]} is not of a study: choose another --out")


def _require_own_results(folder: Path, part: str, experiment: Experiment, dataset: Dataset) -> None:
    """Raise OSError if something else would be replaced than earlier results of the same part, images and seeds."""
    from minisam.study.experiment_plots import PICTURES

    file, report = folder / "results.json", folder / "report.html"
    if file.exists():
        try:
            found = parse_json(read_bytes(file, ".json"))
            held = found["config"] | {"images": found["dataset"]["checksum"]}
        except (ValueError, LookupError, TypeError) as error:
            raise FileExistsError(f"{file} is not minisam's, or it is damaged: choose another --out") from error
        asked = {"preset": part, "seeds": len({run.config.seed for run in experiment.runs()})}
        if different := changes(held, asked | {"images": dataset.checksum}):
            raise FileExistsError(f"{folder} has other results ({'; '.join(different)}): choose another --out")
    if report.is_dir():
        raise FileExistsError(f"{report} is not of these results: choose another --out")
    ours = [report, folder / "predictions.npz", *(folder / f"{name}.png" for name in PICTURES[experiment.kind])]
    if not file.exists() and (others := list(filter(os.path.lexists, ours))):
        raise FileExistsError(f"{others[0]} is not of these results: choose another --out")


def _jobs() -> int:
    return min(available_cores(), JOBS)


def _experiment(args: argparse.Namespace) -> tuple[str, dict[str, Experiment], Repeat | None]:
    """What to run: a name, the experiments by name (one, except for "full"), and the results to repeat, if any."""
    if args.before is None:
        repeat, name = None, args.preset or "quick"
        parts = {part: PRESETS[part]() for part in (FULL if name == "full" else (name,))}
    else:
        if args.preset or args.seeds is not None:
            raise ValueError("--from takes the preset and the seeds from its file: leave --preset and --seeds out")
        repeat = Repeat.of(args.before)
        name = repeat.name
        parts = {name: repeat.experiment}
    if args.seeds is not None:
        require("seeds", args.seeds, Count)
        parts = {part: replace(experiment, seeds=args.seeds) for part, experiment in parts.items()}
    return name, parts, repeat


def _images(args: argparse.Namespace, part: str, experiment: Experiment) -> Dataset:
    """The images of the experiment's own data set, or else of the one asked for."""
    if args.dataset and experiment.dataset not in (None, args.dataset):
        raise ValueError(f"{part} needs {experiment.dataset}, got --dataset {args.dataset}: leave it out")
    dataset = load(experiment.dataset, args.data_dir) if experiment.dataset else load_images(args)
    return dataset.first(max(arm.n_train for arm in experiment.arms), experiment.n_test)


def _say_what_differs(repeat: Repeat, results: dict[str, Any]) -> None:
    lines, n = repeat.differences(results), len(results["runs"])
    if not lines:
        print(f"\nAll {n} runs gave the same numbers, to the last bit.")
        return
    print("\n" + "\n".join(lines))
    moved = "; ".join(changes(repeat.before["environment"], results["environment"]))
    raise ValueError(f"{len(lines)} of {n} runs differ" + (f", perhaps because {moved}" if moved else ""))
