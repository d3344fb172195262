"""`minisam train`: train one network, and keep it.

Every field of `Config` is an option, with its type, default, choices and help taken from there. The trained model goes
to `--save`, for `minisam evaluate`, `sharpness` and `landscape`; on the way checkpoints are kept beside it, from which
`--resume` goes on, to the very weights of an uninterrupted run.
"""

import argparse
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from minisam.checks import Count, require
from minisam.cli.options import Commands, add_command, load_images, place
from minisam.training import Checkpoints, Config, Diverged, Model, Prepared, network, save_model, train
from minisam.training.files import LARGEST, replacing, require_writable, say, write_arrays

GROUPS = {  # the fields of Config in `--help`
    "what is trained, on what": ("model", "width", "augment", "noise", "seed"),
    "for how long": ("epochs", "batch_size", "micro_batch"),
    "the step": ("optimizer", "lr", "schedule", "warmup", "momentum", "nesterov", "weight_decay", "decay", "clip"),
    "SAM and its family": ("base", "rho", "p", "ascent_steps", "m", "every", "late", "eta", "alpha", "sigma", "lmbda"),
    "the loss": ("label_smoothing", "l1", "l2"),
}
ENDINGS = {"--save": (".npz",), "--path": (".npz",), "--diagnostics": (".png", ".pdf", ".svg")}
CHECKPOINTS = 20  # in a training, unless --save-every says otherwise


def add(commands: Commands) -> None:
    """Declare the command and its options."""
    parser = add_command(commands, "train", "Train one network; every choice is an option.", run)
    parser.add_argument("--n-train", type=int, metavar="N", help="use the first N training images")
    kept = parser.add_argument_group("what is kept")
    text = "the trained model (default: minisam-results/models/…)"
    kept.add_argument("--save", type=place, metavar="FILE.npz", help=text)
    kept.add_argument("--overwrite", action="store_true", help="replace files that exist")
    text = f"epochs between checkpoints, in a folder beside the model (default: {CHECKPOINTS} in all)"
    kept.add_argument("--save-every", type=int, metavar="EPOCHS", help=text)
    kept.add_argument("--resume", action="store_true", help="continue from the last checkpoint, if there is one")
    kept.add_argument("--path", type=place, metavar="FILE.npz", help="save the weights of every epoch, for landscape")
    text, picture = "look inside SAM's steps; save the picture (diagnostics.png)", Path("diagnostics.png")
    kept.add_argument("--diagnostics", type=place, nargs="?", const=picture, metavar="FILE.png", help=text)
    options, types = {option.name: option for option in fields(Config)}, get_type_hints(Config)
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            _add_option(group, options[name], types[name])


def _add_option(group: argparse._ArgumentGroup, option: Field, type_: Any) -> None:
    """--name for a field of Config."""
    flag = "--" + option.name.replace("_", "-")
    text, default = option.metadata["help"], option.default
    if type_ is bool:
        group.add_argument(flag, action="store_true", help=text)
    else:
        kind = next(iter(get_args(type_)), type_)
        choices = option.metadata["choices"] or None
        shown = "" if default is None else f" ({default})"
        metavar = None if choices else kind.__name__.upper()
        parse = str.lower if choices else kind
        group.add_argument(flag, type=parse, default=default, choices=choices, metavar=metavar, help=text + shown)


def run(args: argparse.Namespace) -> None:
    """Train, save the model and the other files that were asked for, and print the errors."""
    config = Config(**{option.name: getattr(args, option.name) for option in fields(Config)})
    require("--save-every", args.save_every, Count | None)
    _require_places(args)
    dataset = load_images(args).first(n_train=args.n_train)
    data = Prepared.of(dataset)
    net = network(config, data)
    _require_room(net.n_params, config.epochs, args.path)
    print(f"{net.summary()}\n", flush=True)
    file = args.save or _default_place(config, data, args.overwrite)
    require_writable(file.parent)
    if file.is_dir():
        raise ValueError(f"expected the name of a file for the model, got the folder {file}: remove it")
    checkpoints = Checkpoints(file, args.save_every or max(1, config.epochs // CHECKPOINTS))
    path: list[np.ndarray] | None = None if args.path is None else []
    with checkpoints.held():
        if (kept := checkpoints.paths()) and not args.resume:
            raise ValueError(f"{kept[0]} exists: add --resume to continue from it, or remove {checkpoints.folder}")
        try:
            done = train(config, data, 0, True, args.diagnostics is not None, path, checkpoints)
            model = Model(config, net, done.theta, done.stats, dataset.classes, data.normalisation)
            writers: dict[str, tuple[Path | None, Callable[[Path], None]]] = {  # the model first
                "Model": (file, lambda file: save_model(file, model)),
                "Weights of every epoch": (args.path, lambda file: write_arrays(file, {"thetas": np.array(path)})),
                "Picture of the diagnostics": (args.diagnostics, lambda file: _draw_diagnostics(done.history, file)),
            }
            failures = list(_save(writers, args.overwrite))
        except Diverged as error:
            if not (kept := checkpoints.paths()):
                raise
            again = f"--resume would diverge again: choose another --save, or remove {checkpoints.folder}"
            raise Diverged(f"{error}; the network of before is kept in {kept[0]}; {again}") from error
        except (KeyboardInterrupt, MemoryError):
            if kept := checkpoints.paths():
                more = f" --save {file} --overwrite" if os.path.lexists(file) else ""
                say(f"kept: {kept[0]}; the same command with --resume{more} goes on from there")
            raise
        print(f"{config.label} on {dataset.name}: test error {done.test_error:.2%}, train error", end=" ")
        print(f"{done.train_error:.2%}, {done.gradient_evaluations:,} gradients, {done.seconds:.1f} s")
        if args.diagnostics:
            _print_diagnostics(done.history)
        if failures:
            cure = f"the same command with --resume --save {file} --overwrite goes on from {checkpoints.folder}"
            raise OSError("; ".join([*failures, cure] if checkpoints.paths() else failures))
        checkpoints.delete()


def _require_places(args: argparse.Namespace) -> None:
    """Raise ValueError or OSError if an output could not be written in the end, or would replace another file."""
    places: dict[str, str] = {}
    for option, endings in ENDINGS.items():
        file = getattr(args, option[2:])
        if file is None:
            continue
        if file.suffix.lower() not in endings:
            name = "model" if file.name.lower() in endings else file.name
            hint = "" if file.suffix or not file.name else f": did you mean {file.with_name(name + endings[0])}?"
            raise ValueError(f"{option} expected a name ending in {' or '.join(endings)}, got {file}{hint}")
        if any(folder.suffix == ".checkpoints" for folder in file.resolve().parents):
            raise ValueError(f"{option} expected another folder: files in {file.parent} come and go")
        require_writable(file.parent)
        if file.is_dir():
            raise ValueError(f"{option} expected the name of a file, got the folder {file}")
        if os.path.lexists(file) and not args.overwrite:
            raise ValueError(f"{option} {file} exists: choose another name, or add --overwrite to replace it")
        same = str(file.resolve()).casefold()  # some file systems take M.npz for m.npz
        if same in places:
            raise ValueError(f"{places[same]} and {option} expected different files, got {file} twice")
        places[same] = option


def _require_room(n_params: int, epochs: int, path: Path | None) -> None:
    """Raise ValueError if what would be kept would be too large to be read again."""
    if (size := 4 * n_params) > LARGEST:
        raise ValueError(
            f"the model would have {size:,} bytes, more than the {LARGEST:,} that are read: make it smaller"
        )
    if path and (size := 4 * n_params * (epochs + 1)) > LARGEST:
        raise ValueError(f"--path would have {size:,} bytes, more than the {LARGEST:,} that are read: leave it out")


def _default_place(config: Config, data: Prepared, overwrite: bool) -> Path:
    """A name for the model that only the same training would get, with a number if it is taken."""
    digest = hashlib.sha256(json.dumps([config.record(), data.checksum]).encode()).hexdigest()
    name = f"{config.model}-{config.optimizer}-seed{config.seed}-{digest[:8]}"
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    places = (Path("minisam-results") / "models" / f"{name}.npz" for name in names)
    return next(place for place in places if overwrite or not os.path.lexists(place))


def _save(writers: dict[str, tuple[Path | None, Callable[[Path], None]]], overwrite: bool) -> Iterator[str]:
    """Write every file, and say so, whatever becomes of the others; yields what went wrong."""
    for what, (file, write) in writers.items():
        if file is None:
            continue
        try:
            if os.path.lexists(file) and not overwrite:
                raise FileExistsError(f"{file} has appeared during the training")
            write(file)
        except Exception as error:
            yield f"{what} not saved: {error}"
        else:
            print(f"{what} saved: {file}", flush=True)


def _print_diagnostics(history: list[dict[str, Any]]) -> None:
    print("Diagnostics of the last epoch:")
    for name, value in history[-1]["diagnostics"].items():
        numbers = value if isinstance(value, dict) else {"": value}
        print(f"  {name:<15}", ", ".join(f"{key} {number:.4g}".strip() for key, number in numbers.items()))


def _draw_diagnostics(history: list[dict[str, Any]], file: Path) -> None:
    from minisam.study import geometry_plots

    with replacing(file) as whole:
        geometry_plots.diagnostics(history).savefig(whole, dpi=120, format=file.suffix[1:].lower())
