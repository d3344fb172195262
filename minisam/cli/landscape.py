"""`minisam landscape`: pictures of the loss around saved weights.

There are three kinds: a plane through the weights of one model; with `--line`, the loss along one direction from each
of several models; and, for two models of the same network, the loss on the line from one to the other. The numbers
are kept beside each picture; a plane is kept row by row, and an interrupted one is completed.
"""

import argparse
from typing import TYPE_CHECKING

import numpy as np

from minisam.analysis.landscape import line
from minisam.checks import Array, Positive, require
from minisam.cli.options import Commands, add_command, add_examination, load_models, place, require_replaceable
from minisam.data import Dataset
from minisam.objective import Objective
from minisam.study import geometry
from minisam.training import Model
from minisam.training.files import write_arrays

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Models = dict[str, tuple[Model, Objective]]  # each with its loss on the training images


def add(commands: Commands) -> None:
    """Declare the command and its options."""
    text = "Draw the loss around trained weights, or between two solutions."
    parser = add_command(commands, "landscape", text, run)
    text = "one (a plane), two (the line between them), any number with --line"
    parser.add_argument("models", type=place, nargs="+", metavar="FILE.npz", help=text)
    parser.add_argument("--line", action="store_true", help="around each model, along the first direction only")
    parser.add_argument("--along", choices=geometry.KINDS, help="directions to draw along (random)")
    text = "saved by `minisam train --path`, for --along path"
    parser.add_argument("--path", type=place, metavar="FILE.npz", help=text)
    parser.add_argument("--points", type=int, default=51, metavar="INT", help="points in each direction (51)")
    text = "in lengths of the directions (1; for --along path it is set by the path)"
    parser.add_argument("--radius", type=float, metavar="FLOAT", help=text)
    add_examination(parser, "landscape")


def run(args: argparse.Namespace) -> None:
    """Draw the kind of picture that was asked for."""
    if args.points < 2:
        raise ValueError(f"points must be an integer ≥ 2, got {args.points}")
    require("radius", args.radius, Positive | None)
    _require_used(args)
    args.along, args.radius = args.along or "random", args.radius or 1.0
    loaded, dataset = load_models(args)
    shapes = {model.theta.shape for model in loaded.values()}
    if not args.line and (len(args.models) > 2 or len(shapes) > 1):
        raise ValueError("expected one model, or two of the same network, or --line")
    if len(loaded) > 1 and not args.line and any(model.net.n_stats for model in loaded.values()):
        raise ValueError("between networks with BatchNorm there are no running statistics: use --line")
    models: Models = {
        name: (model, geometry.training_loss(model, dataset.x_train, dataset.y_train)) for name, model in loaded.items()
    }
    if args.line:
        _line_around_each(args, models, dataset)
    elif len(models) == 1:
        _plane(args, models, dataset)
    else:
        _line_between(args, models, dataset)


def _require_used(args: argparse.Namespace) -> None:
    """Raise ValueError if an option that was given would change nothing."""
    between = len(args.models) > 1 and not args.line
    for name in ("along", "radius", "path") if between else ("radius" if args.along == "path" else "path",):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} would change nothing in this picture: leave it out")


def _line_around_each(args: argparse.Namespace, models: Models, dataset: Dataset) -> None:
    from minisam.study import geometry_plots

    _require_own(args, f"line-{args.along}")
    t, curves = np.linspace(-args.radius, args.radius, args.points), {}
    for name, (model, loss) in models.items():
        curves[name] = line(loss, model.theta, geometry.directions(model, loss, args.along)[0], t)
    _write_curves(args, f"line-{args.along}", t, curves)
    figure = geometry_plots.line(t, curves, {0.0: "θ"}, args.along)
    _save_picture(args, f"line-{args.along}", figure, dataset)


def _plane(args: argparse.Namespace, models: Models, dataset: Dataset) -> None:
    from minisam.study import geometry_plots

    ((model, loss),) = models.values()
    path = None if args.path is None else geometry.load_arrays(args.path, "thetas")["thetas"]
    if path is not None and path.shape[1:] == model.theta.shape and not (path == model.theta).all(axis=1).any():
        raise ValueError(f"{args.path} has the path of another training: {args.models[0]} is not on it")
    require_replaceable(args.out, f"landscape-{args.along}.png")
    file = args.out / f"landscape-{args.along}.npz"  # written row by row
    found = geometry.landscape(model, loss, args.along, args.points, args.radius, file, path)
    figure = geometry_plots.landscape(found, args.along, f"{model.config.label} on {dataset.name}")
    _save_picture(args, f"landscape-{args.along}", figure, dataset)


def _line_between(args: argparse.Namespace, models: Models, dataset: Dataset) -> None:
    """From the first model (t = 0) to the second (t = 1), and half as far beyond both."""
    from minisam.study import geometry_plots

    _require_own(args, "line")
    (first, train_loss), (second, _) = models.values()
    test_loss = geometry.training_loss(first, dataset.x_test[: args.images], dataset.y_test[: args.images])
    t, direction = np.linspace(-0.5, 1.5, args.points), second.theta - first.theta
    losses = {"training images": train_loss, "test images": test_loss}
    curves = {name: line(loss, first.theta, direction, t) for name, loss in losses.items()}
    _write_curves(args, "line", t, curves)
    _save_picture(args, "line", geometry_plots.line(t, curves, dict(enumerate(models))), dataset)


def _require_own(args: argparse.Namespace, name: str) -> None:
    """Raise an error if something else would be replaced, such as a model, than the numbers of earlier curves."""
    require_replaceable(args.out, f"{name}.png")
    if (file := args.out / f"{name}.npz").exists():
        geometry.load_arrays(file, "losses")


def _write_curves(args: argparse.Namespace, name: str, t: Array, curves: dict[str, Array]) -> None:
    arrays = {"t": t, "names": np.array(list(curves)), "losses": np.array(list(curves.values()))}
    write_arrays(args.out / f"{name}.npz", arrays)


def _save_picture(args: argparse.Namespace, name: str, figure: "Figure", dataset: Dataset) -> None:
    from minisam.study import plots

    plots.save(args.out / f"{name}.png", figure, dataset.synthetic)
    where = f"{args.out / name}.png, and its numbers beside it"
    print(f"On {len(dataset.y_train):,} training images of {dataset.name}: {where}")
