"""`minisam toy`: optimizers on surfaces of two parameters, where their paths can be drawn."""

import argparse
from pathlib import Path

from minisam.checks import NonNegative, Positive, require
from minisam.cli.options import Commands, add_command, place, require_replaceable
from minisam.training.files import replacing, require_writable


def add(commands: Commands) -> None:
    """Declare the command and its options."""
    parser = add_command(commands, "toy", "Draw optimizers on surfaces of two parameters.", run, uses_images=False)
    default = Path("minisam-results/toy")
    parser.add_argument("--out", type=place, default=default, metavar="DIR", help=f"folder of the pictures ({default})")
    text = "learning rate of GD and of SAM between a sharp and a flat minimum (0.004)"
    parser.add_argument("--lr", type=float, default=0.004, metavar="FLOAT", help=text)
    text = "SAM's radius there (0.8, of a distance of 2 between the minima)"
    parser.add_argument("--rho", type=float, default=0.8, metavar="FLOAT", help=text)
    text = "write a page to play with in a browser instead (playground.html)"
    parser.add_argument("--html", action="store_true", help=text)


def run(args: argparse.Namespace) -> None:
    """Draw the paths (toy.png), and SAM's race against GD as an animation (toy.gif); or write playground.html."""
    from minisam.study import playground, plots, toy_plots

    require("lr", args.lr, Positive)
    require("rho", args.rho, NonNegative)
    require_writable(args.out)
    require_replaceable(args.out, *(["playground.html"] if args.html else ["toy.png", "toy.gif"]))
    races = toy_plots.races(args.lr, args.rho)
    if args.html:
        with replacing(args.out / "playground.html") as file:
            file.write(playground.page(races).encode())
        print(f"Open {args.out / 'playground.html'} in a browser")
        return
    plots.save(args.out / "toy.png", toy_plots.toys(races))
    with replacing(args.out / "toy.gif") as file:
        file.write(toy_plots.animation(races[-1]))
    print(f"Paths in {args.out / 'toy.png'}, SAM's race against GD in {args.out / 'toy.gif'}")
