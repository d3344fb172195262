"""`minisam train`: train one network.

Every field of `Config` is an option, with its type, default, choices and help taken from there. `--save` writes the
trained model, for `minisam evaluate`, `sharpness` and `landscape`. With `--save-every` or `--resume` checkpoints are
written beside it, and a resumed run ends at the very weights of an uninterrupted one.
"""

import argparse
from contextlib import nullcontext
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from minisam.cli.options import Commands, add_command, load_images
from minisam.training import Checkpoints, Config, Model, Prepared, network, save_model, train
from minisam.training.files import locked, replacing, require_writable, write_arrays


def add(commands: Commands) -> None:
    """Declare the command and its options."""
    parser = add_command(commands, "train", "Train one network; every choice is an option.", run)
    parser.add_argument("--n-train", type=int, metavar="N", help="use the first N training images")
    parser.add_argument("--save", type=Path, metavar="FILE.npz", help="save the trained model")
    text = "every EPOCHS epochs, save a checkpoint beside --save; the last two are kept"
    parser.add_argument("--save-every", type=int, metavar="EPOCHS", help=text)
    text = "continue from the last checkpoint beside --save, if there is one; --save-every is then 1 by default"
    parser.add_argument("--resume", action="store_true", help=text)
    parser.add_argument("--path", type=Path, metavar="FILE.npz", help="save the weights of every epoch, for landscape")
    text, picture = "look inside SAM's steps; save the picture (diagnostics.png)", Path("diagnostics.png")
    parser.add_argument("--diagnostics", type=Path, nargs="?", const=picture, metavar="FILE.png", help=text)
    for option in fields(Config):
        _add_option(parser, option, get_type_hints(Config)[option.name])


def _add_option(parser: argparse.ArgumentParser, option: Field, type_: Any) -> None:
    """--name for a field of Config."""
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


def run(args: argparse.Namespace) -> None:
    """Train, print the errors, and save the files that were asked for."""
    config = Config(**{option.name: getattr(args, option.name) for option in fields(Config)})
    for file in filter(None, (args.save, args.diagnostics, args.path)):
        require_writable(file.parent)
    checkpoints = _checkpoints(args)
    dataset = load_images(args).first(n_train=args.n_train)
    data = Prepared.of(dataset)
    net = network(config, data)
    print(f"{net.summary()}\n")
    path: list[np.ndarray] | None = None if args.path is None else []
    with locked(args.save.with_name(f".{args.save.stem}.lock")) if checkpoints else nullcontext():
        if checkpoints and checkpoints.paths() and not args.resume:
            raise ValueError(f"{checkpoints.paths()[0]} exists: add --resume to continue from it, or remove it")
        done = train(config, data, 0, True, args.diagnostics is not None, path, checkpoints)
    print(f"{config.label} on {dataset.name}: test error {done.test_error:.2%}, train error", end=" ")
    print(f"{done.train_error:.2%}, {done.gradient_evaluations:,} gradients, {done.seconds:.1f} s")
    if args.diagnostics:
        _show_diagnostics(done.history, args.diagnostics)
    if args.path:
        write_arrays(args.path, {"thetas": np.array(path)})
        print(f"Weights of every epoch saved: {args.path}")
    if args.save:
        model = Model(config, net, done.theta, done.stats, dataset.classes, data.normalisation)
        save_model(args.save, model)
        print(f"Model saved: {args.save}")


def _checkpoints(args: argparse.Namespace) -> Checkpoints | None:
    if args.save_every is None and not args.resume:
        return None
    if args.save is None:
        raise ValueError("--save-every and --resume need --save FILE.npz: checkpoints are kept beside it")
    return Checkpoints(args.save, 1 if args.save_every is None else args.save_every)


def _show_diagnostics(history: list[dict[str, Any]], file: Path) -> None:
    """Print the diagnostics of the last epoch, and draw them for all epochs."""
    from minisam.study import geometry_plots

    for name, value in history[-1]["diagnostics"].items():
        numbers = value if isinstance(value, dict) else {"": value}
        print(f"  {name:<15}", ", ".join(f"{key} {number:.4g}".strip() for key, number in numbers.items()))
    with replacing(file) as temporary:
        geometry_plots.diagnostics(history).savefig(temporary, dpi=120)
    print(f"Diagnostics: of the last epoch above, of every epoch in {file}")
