"""`minisam toy`: optimizers on surfaces of two parameters, where their paths can be drawn."""

import argparse
from pathlib import Path

from minisam.cli.options import Commands, add_command
from minisam.training.files import replacing, require_writable


def add(commands: Commands) -> None:
    """Declare the command and its options."""
    parser = add_command(commands, "toy", "Draw optimizers on surfaces of two parameters.", run, uses_images=False)
    parser.add_argument("--out", type=Path, default=Path("minisam-results/toy"), metavar="DIR")


def run(args: argparse.Namespace) -> None:
    """Draw the paths (toy.png), and SAM's race against GD as an animation (toy.gif)."""
    from minisam.study import plots, toy_plots

    require_writable(args.out)
    plots.save(args.out / "toy.png", toy_plots.toys())
    with replacing(args.out / "toy.gif") as temporary:
        toy_plots.animation(temporary)
    print(f"Paths in {args.out / 'toy.png'}, SAM's race against GD in {args.out / 'toy.gif'}")
