"""The command line: reproduce, train, evaluate, sharpness, landscape, toy, data."""

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import fields, replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from minisam import __version__
from minisam.analysis.landscape import line
from minisam.checks import Count, Positive, require
from minisam.data import Dataset, available
from minisam.data.download import fetch
from minisam.data.shapes import WARNING
from minisam.data.sources import DATASETS, load
from minisam.kernels import get_threads, set_threads
from minisam.kernels.threads import available_cores
from minisam.study import geometry
from minisam.study.experiments import FULL, PRESETS
from minisam.training.checkpoint import Checkpoints, Model, load_model, save_model
from minisam.training.config import Config
from minisam.training.environment import changes
from minisam.training.files import locked, replacing, require_writable, write_arrays
from minisam.training.loop import Prepared, network, train


def _parser() -> argparse.ArgumentParser:
    text = "Neural networks and Sharpness-Aware Minimization by hand, on a laptop's CPU."
    parser = argparse.ArgumentParser(prog="minisam", description=text, epilog="Start with: minisam reproduce")
    parser.add_argument("--version", action="version", version=f"minisam {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--threads", type=int, metavar="N", help=f"threads to compute with (here: {get_threads()})")

    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--dataset", choices=DATASETS, help="default: cifar10 if it is found, else synthetic")
    data.add_argument("--data-dir", metavar="DIR", help="where CIFAR is (default: MINISAM_DATA, cache)")

    def command(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[shared, *parents], help=text, description=text)

    sub = command("reproduce", "Compare SAM with Momentum, Adam and GD; write a report.", data)
    sub.add_argument("--preset", choices=(*PRESETS, "full"), help="what to compare (quick)")
    text = "do the runs of an earlier one again, and say what differs"
    sub.add_argument("--from", type=Path, dest="before", metavar="results.json", help=text)
    text = "default: minisam-results/…; a sweep that was interrupted goes on where it was"
    sub.add_argument("--out", type=Path, metavar="DIR", help=text)
    sub.add_argument("--seeds", type=int, metavar="N", help="runs of each kind (by preset)")
    jobs = min(available_cores(), 4)
    text = f"runs at the same time (here: {jobs}, one a core but at most 4; with --dask its workers' threads)"
    sub.add_argument("--jobs", type=int, metavar="N", help=text)
    sub.add_argument("--dask", metavar="ADDRESS", help="let the workers of this Dask scheduler train: tcp://…")
    sub.set_defaults(run=_reproduce)

    sub = command("train", "Train one network; every choice is an option.", data)
    sub.add_argument("--n-train", type=int, metavar="N", help="use the first N training images")
    sub.add_argument("--save", type=Path, metavar="FILE.npz", help="keep the trained model")
    text = "leave a checkpoint beside --save every so many epochs, and keep the last two"
    sub.add_argument("--save-every", type=int, metavar="EPOCHS", help=text)
    text = "go on from the last checkpoint beside --save, if there is one; leave one every epoch"
    sub.add_argument("--resume", action="store_true", help=text)
    text, picture = "look inside SAM's steps; keep the picture (diagnostics.png)", Path("diagnostics.png")
    sub.add_argument("--path", type=Path, metavar="FILE.npz", help="keep the weights of every epoch, for landscape")
    sub.add_argument("--diagnostics", type=Path, nargs="?", const=picture, metavar="FILE.png", help=text)
    for option in fields(Config):
        _config_option(sub, option, get_type_hints(Config)[option.name])
    sub.set_defaults(run=_train)

    sub = command("evaluate", "Test a model that `minisam train --save` kept.", data)
    sub.add_argument("model", type=Path, metavar="FILE.npz")
    sub.set_defaults(run=_evaluate)

    sub = command("sharpness", "Measure the loss's curvature and sharpness at trained weights.", data)
    sub.add_argument("models", type=Path, nargs="+", metavar="FILE.npz", help="of `minisam train --save`")
    sub.add_argument("--rho", type=float, default=0.05, metavar="FLOAT", help="radius of the ball (0.05)")
    sub.add_argument("--eta", type=float, metavar="FLOAT", help="take ASAM's ball, relative to the weights")
    sub.add_argument("--k", type=int, default=5, metavar="INT", help="leading eigenvalues (5)")
    _about_images(sub, "sharpness")
    sub.set_defaults(run=_sharpness)

    sub = command("landscape", "Draw the loss around trained weights, or between two solutions.", data)
    text = "one (a plane), two (the line between them), any number with --line"
    sub.add_argument("models", type=Path, nargs="+", metavar="FILE.npz", help=text)
    sub.add_argument("--line", action="store_true", help="around each model, along the first direction only")
    sub.add_argument("--along", choices=geometry.KINDS, default="random", help="what spans the plane (random)")
    sub.add_argument("--path", type=Path, metavar="FILE.npz", help="of `minisam train --path`, for --along path")
    sub.add_argument("--points", type=int, default=51, metavar="INT", help="in each direction (51)")
    sub.add_argument(
        "--radius",
        type=float,
        default=1.0,
        metavar="FLOAT",
        help="in lengths of the directions (1; a path has its own)",
    )
    _about_images(sub, "landscape")
    sub.set_defaults(run=_landscape)

    sub = command("toy", "Draw optimizers on surfaces of two parameters.")
    sub.add_argument("--out", type=Path, default=Path("minisam-results/toy"), metavar="DIR")
    sub.set_defaults(run=_toy)

    sub = command("data", "Say which data sets are where; fetch one.")
    sub.add_argument("--data-dir", metavar="DIR", help="look here (default: MINISAM_DATA, cache)")
    sub.add_argument("--fetch", choices=("cifar10", "cifar100"), help="download it into the cache")
    sub.set_defaults(run=_data)
    return parser


def _about_images(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="training images to average over (1000)")
    text, default = f"default: minisam-results/{folder}", Path("minisam-results") / folder
    parser.add_argument("--out", type=Path, default=default, metavar="DIR", help=text)


def _config_option(parser: argparse.ArgumentParser, option: Any, type_: Any) -> None:
    """--name for a field of Config: its type, default, choices and help come from there."""
    flag = "--" + option.name.replace("_", "-")
    text, default = option.metadata["help"], option.default
    if type_ is bool:
        parser.add_argument(flag, action="store_true", help=text)
    else:
        kind = next(iter(get_args(type_)), type_)
        choices = option.metadata["choices"] or None
        shown = "" if default is None else f" ({default})"
        metavar = None if choices else kind.__name__.upper()
        parser.add_argument(flag, type=kind, default=default, choices=choices, metavar=metavar, help=text + shown)


def _load(args: argparse.Namespace) -> Dataset:
    dataset = load(args.dataset, args.data_dir)
    if dataset.synthetic and args.dataset is None:
        print(f"WARNING: {WARNING}\n", file=sys.stderr)
    return dataset


def _reproduce(args: argparse.Namespace) -> None:
    from minisam.study.comparison import Repeat, reproduce
    from minisam.study.report import markdown, text_table, write_report
    from minisam.study.sweep import dask_executor
    from minisam.study.whole import main_table, write_study

    repeat = None
    if args.before is None:
        name = args.preset or "quick"
        parts = {part: PRESETS[part]() for part in (FULL if name == "full" else (name,))}
    else:
        if args.preset or args.seeds is not None:
            raise ValueError("--from has the preset and the seeds of its own: leave --preset and --seeds out")
        repeat = Repeat.of(args.before)
        name = f"{repeat.before['config'].get('preset')}-again"
        parts = {name: repeat.experiment}
    if args.seeds is not None:
        require("seeds", args.seeds, Count)
        parts = {part: replace(experiment, seeds=args.seeds) for part, experiment in parts.items()}
    datasets = {part: _images(args, part, experiment) for part, experiment in parts.items()}
    if repeat:
        repeat.require_same_images(datasets[name])
    folder = args.out or Path("minisam-results") / ("full" if name == "full" else f"{datasets[name].name}-{name}")
    require_writable(folder)
    if repeat and (folder / "results.json").exists():
        raise ValueError(f"{folder} has results already, which would only be read again: remove it, or choose --out")
    found = {}
    with ExitStack() as stack:
        jobs, executor = min(available_cores(), 4), None
        if args.dask:
            executor, jobs = stack.enter_context(dask_executor(args.dask))
        jobs = jobs if args.jobs is None else args.jobs
        how = {"jobs": jobs, "executor": executor, "folder": folder / "runs"}
        for part, experiment in parts.items():
            found[part], predictions = reproduce(experiment, datasets[part], part, **how)
            where = folder / part if name == "full" else folder
            report = write_report(where, found[part], predictions, datasets[part].y_test)
            print(text_table(found[part]))
            print(f"\nReport with pictures: {report}")
    if name == "full":
        print(f"\n{markdown(main_table(found))}\n\nThe whole study: {write_study(folder, found)}")
    if repeat:
        _say_what_differs(repeat, found[name])


def _images(args: argparse.Namespace, part: str, experiment: Any) -> Dataset:
    """What an experiment is about: images of its own, or those that were asked for."""
    if args.dataset and experiment.dataset not in (None, args.dataset):
        raise ValueError(f"{part} is about {experiment.dataset}, got --dataset {args.dataset}")
    dataset = load(experiment.dataset, args.data_dir) if experiment.dataset else _load(args)
    return dataset.first(max(arm.n_train for arm in experiment.arms), experiment.n_test)


def _say_what_differs(repeat: Any, results: dict[str, Any]) -> None:
    lines, n = repeat.differences(results), len(results["runs"])
    if not lines:
        print(f"\nAll {n} runs gave the same numbers, to the last bit.")
        return
    print("\n" + "\n".join(lines))
    moved = "; ".join(changes(repeat.before["environment"], results["environment"]))
    raise ValueError(f"{len(lines)} of {n} runs differ" + (f", perhaps because {moved}" if moved else ""))


def _train(args: argparse.Namespace) -> None:
    config = Config(**{option.name: getattr(args, option.name) for option in fields(Config)})
    for file in filter(None, (args.save, args.diagnostics, args.path)):
        require_writable(file.parent)
    checkpoints = None
    if args.save_every is not None or args.resume:
        if args.save is None:
            raise ValueError("--save-every and --resume need --save FILE.npz: checkpoints are kept beside it")
        checkpoints = Checkpoints(args.save, 1 if args.save_every is None else args.save_every)
    dataset = _load(args).first(n_train=args.n_train)
    data = Prepared.of(dataset)
    net = network(config, data)
    print(f"{net.summary()}\n")
    path: list[np.ndarray] | None = None if args.path is None else []
    with locked(args.save.with_name(f".{args.save.stem}.lock")) if checkpoints else nullcontext():
        if checkpoints and checkpoints.paths() and not args.resume:
            raise ValueError(f"{checkpoints.paths()[0]} is there: add --resume to go on from it, or remove it")
        run = train(config, data, 0, True, args.diagnostics is not None, path, checkpoints)
    print(f"{config.label} on {dataset.name}: test error {run.test_error:.2%}, train error", end=" ")
    print(f"{run.train_error:.2%}, {run.gradient_evaluations:,} gradients, {run.seconds:.1f} s")
    if args.diagnostics:
        from minisam.study import plots

        for name, value in run.history[-1]["diagnostics"].items():
            numbers = value if isinstance(value, dict) else {"": value}
            print(f"  {name:<15}", ", ".join(f"{key} {number:.4g}".strip() for key, number in numbers.items()))
        with replacing(args.diagnostics) as temporary:
            plots.diagnostics(run.history).savefig(temporary, dpi=120)
        print(f"Diagnostics of the last epoch above, of all in {args.diagnostics}")
    if args.path:
        write_arrays(args.path, {"thetas": np.array(path)})
        print(f"Weights of every epoch saved: {args.path}")
    if args.save:
        model = Model(config, net, run.theta, run.stats, dataset.classes, data.normalisation)
        save_model(args.save, model)
        print(f"Model saved: {args.save}")


def _evaluate(args: argparse.Namespace) -> None:
    model, dataset = load_model(args.model), _load(args)
    print(f"test error on {dataset.name}: {model.test_error(dataset):.2%}")


def _models(args: argparse.Namespace) -> tuple[dict[str, Model], Dataset]:
    """The models by name, and training images of the classes they know."""
    dataset = _load(args).first(n_train=args.images)
    names = [path.stem for path in args.models]
    if len(set(names)) < len(names):
        names = [str(path) for path in args.models]
    models = {name: load_model(path) for name, path in zip(names, args.models, strict=True)}
    for model in models.values():
        model.require_classes(dataset)
    require_writable(args.out)
    return models, dataset


def _sharpness(args: argparse.Namespace) -> None:
    from minisam.study import geometry_plots, plots

    for name, number in {"rho": args.rho, "eta": args.eta}.items():
        require(name, number, Positive | None)
    models, dataset = _models(args)
    found = {}
    for name, model in models.items():
        objective = geometry.training_loss(model, dataset.x_train, dataset.y_train)
        measured = geometry.measure(objective, model.theta, args.rho, args.eta, args.k)
        found[name] = measured | {"config": model.config.record(), "images": len(dataset.y_train)}
    print(geometry.text_table(found))
    geometry.write_json(args.out / "sharpness.json", found)
    plots.save(args.out / "sharpness.png", geometry_plots.spectra(found), dataset.synthetic)
    print(f"\nOn {len(dataset.y_train):,} training images of {dataset.name}, with the labels that it has.")
    print(f"Numbers and a picture: {args.out}")


def _landscape(args: argparse.Namespace) -> None:
    from minisam.study import geometry_plots

    require("points", args.points, Count)
    require("radius", args.radius, Positive)
    models, dataset = _models(args)
    shapes = {model.theta.shape for model in models.values()}
    if not args.line and (len(args.models) > 2 or len(shapes) > 1):
        raise ValueError("expected one model, or two of the same network, or --line")
    if len(models) > 1 and not args.line and any(model.net.n_stats for model in models.values()):
        raise ValueError("between networks with BatchNorm there are no running statistics: use --line")
    losses = [geometry.training_loss(m, dataset.x_train, dataset.y_train) for m in models.values()]
    first, *others = models.values()
    if args.line:
        t, curves = np.linspace(-args.radius, args.radius, args.points), {}
        for (name, model), loss in zip(models.items(), losses, strict=True):
            curves[name] = line(loss, model.theta, geometry.directions(model, loss, args.along)[0], t)
        figure = geometry_plots.line(t, curves, {0.0: "w"}, args.along)
        _keep(args, f"line-{args.along}", figure, dataset, t, curves)
    elif not others:
        path = None if args.path is None else geometry.load_arrays(args.path, "thetas")["thetas"]
        kept = args.out / f"landscape-{args.along}.npz"
        found = geometry.landscape(first, losses[0], args.along, args.points, args.radius, kept, path)
        figure = geometry_plots.landscape(found, args.along, f"{first.config.label} on {dataset.name}")
        _keep(args, f"landscape-{args.along}", figure, dataset)  # its numbers were, row by row
    else:
        test = geometry.training_loss(first, dataset.x_test[: args.images], dataset.y_test[: args.images])
        t, direction = np.linspace(-0.5, 1.5, args.points), others[0].theta - first.theta
        pairs = {"training images": losses[0], "test images": test}
        curves = {name: line(loss, first.theta, direction, t) for name, loss in pairs.items()}
        _keep(args, "line", geometry_plots.line(t, curves, dict(enumerate(models))), dataset, t, curves)


def _keep(
    args: argparse.Namespace, name: str, figure: Any, dataset: Dataset, t: Any = None, curves: Any = None
) -> None:
    from minisam.study import plots

    if curves:
        arrays = {"t": t, "names": np.array(list(curves)), "losses": np.array(list(curves.values()))}
        write_arrays(args.out / f"{name}.npz", arrays)
    plots.save(args.out / f"{name}.png", figure, dataset.synthetic)
    where = f"{args.out / name}.png, and its numbers beside it"
    print(f"On {len(dataset.y_train):,} training images of {dataset.name}: {where}")


def _toy(args: argparse.Namespace) -> None:
    from minisam.study import geometry_plots, plots

    require_writable(args.out)
    plots.save(args.out / "toy.png", geometry_plots.toys())
    with replacing(args.out / "toy.gif") as temporary:
        geometry_plots.animation(temporary)
    print(f"Paths in {args.out / 'toy.png'}, SAM's race against GD in {args.out / 'toy.gif'}")


def _data(args: argparse.Namespace) -> None:
    if args.fetch:
        print(f"{args.fetch}: {fetch(args.fetch)}")
        return
    for path, found in available(args.data_dir):
        print(f"{found.name:<16}{len(found.y_train):>7,} training {len(found.y_test):>7,} test  {path}")
    print(f"{'synthetic':<16}  4,000 training  10,000 test  embedded: drawn when asked for")


def _terminated(*_: Any) -> None:
    raise KeyboardInterrupt(143)  # the shell's number for it; all else is as for Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 for an error, 130 for Ctrl-C, 143 for SIGTERM."""
    with suppress(ValueError):  # signals come to the main thread
        signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a console that has no ± shows a question mark
            stream.reconfigure(errors="replace")
    args = _parser().parse_args(argv)
    try:
        if args.threads is not None:
            set_threads(args.threads)
        args.run(args)
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        print(f"minisam: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print("minisam: interrupted", file=sys.stderr)
        return stop.args[0] if stop.args else 130
    return 0
