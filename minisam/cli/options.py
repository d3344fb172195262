"""Options that several commands share, and the images and models they ask for.

Every command has `--threads`. Commands that use images have `--dataset` and `--data-dir` as well; without either,
they use CIFAR-10 if it is found, otherwise synthetic images, with a warning. `minisam sharpness` and
`minisam landscape` both examine trained models, on the first training images.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from minisam.data import DATASETS, Dataset, load
from minisam.data.shapes import WARNING
from minisam.kernels import get_threads
from minisam.training import Model, load_model
from minisam.training.files import read_bytes, require_writable


def place(text: str) -> Path:
    """The path that an option names: of --save=~/m.npz a shell leaves the ~."""
    return Path(os.path.expanduser(text))


Commands = argparse._SubParsersAction  # what `add_subparsers` returns


def add_command(
    commands: Commands, name: str, text: str, run: Callable[[argparse.Namespace], None], uses_images: bool = True
) -> argparse.ArgumentParser:
    """A parser for one command, with the shared options; `run` gets the parsed ones."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--threads", type=int, metavar="N", help=f"threads to compute with (here: {get_threads()})")
    if uses_images:
        text = "default: cifar10 if found, otherwise synthetic"
        parser.add_argument("--dataset", type=str.lower, choices=DATASETS, help=text)
        text = "folder with CIFAR (default: MINISAM_DATA, cache)"
        parser.add_argument("--data-dir", type=place, metavar="DIR", help=text)
    parser.set_defaults(run=run)
    return parser


def require_replaceable(folder: Path, *names: str) -> None:
    """Raise FileExistsError if something would be replaced that has an output's name, but is of another kind."""
    for file in (folder / name for name in names):
        if os.path.lexists(file):
            try:
                read_bytes(file, file.suffix)
            except ValueError as error:
                raise FileExistsError(f"{error}: choose another --out") from error


def load_images(args: argparse.Namespace) -> Dataset:
    """The data set of --dataset and --data-dir, with a warning if synthetic images take CIFAR's place."""
    dataset = load(args.dataset, args.data_dir)
    if dataset.synthetic and args.dataset is None:
        print(f"WARNING: {WARNING}\n", file=sys.stderr)
    return dataset


def add_examination(parser: argparse.ArgumentParser, folder: str) -> None:
    """--images and --out, for commands that examine trained models."""
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="training images to average over (1000)")
    text, default = f"default: minisam-results/{folder}", Path("minisam-results") / folder
    parser.add_argument("--out", type=place, default=default, metavar="DIR", help=text)


def load_models(args: argparse.Namespace) -> tuple[dict[str, Model], Dataset]:
    """The models by file name, and --images training images of the classes they know."""
    dataset = load_images(args)
    if not 1 <= args.images <= len(dataset.y_train):
        raise ValueError(f"--images must be 1 to {len(dataset.y_train)} (all there are), got {args.images}")
    dataset = dataset.first(n_train=args.images)
    names = [path.stem for path in args.models]
    if len(set(names)) < len(names):
        names = [str(path) for path in args.models]
    if len(set(names)) < len(names):
        raise ValueError(f"expected different models, got {', '.join(names)}")
    models = {name: load_model(path) for name, path in zip(names, args.models, strict=True)}
    for model in models.values():
        model.require_classes(dataset)
    require_writable(args.out)
    return models, dataset
