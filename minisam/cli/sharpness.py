"""`minisam sharpness`: curvature and sharpness of the training loss at saved weights.

For each model it prints a column with the leading eigenvalues of the Hessian, its trace, and how far the loss rises
within the ball: after SAM's step, at worst, and in random directions. The same numbers and the density of the
eigenvalues go to sharpness.json and sharpness.png.
"""

import argparse

from minisam.checks import Positive, require
from minisam.cli.options import Commands, add_command, add_examination, load_models, place, require_replaceable
from minisam.study import geometry


def add(commands: Commands) -> None:
    """Declare the command and its options."""
    parser = add_command(commands, "sharpness", "Measure the loss's curvature and sharpness at trained weights.", run)
    parser.add_argument("models", type=place, nargs="+", metavar="FILE.npz", help="saved by `minisam train --save`")
    parser.add_argument("--rho", type=float, default=0.05, metavar="FLOAT", help="radius of the ball (0.05)")
    parser.add_argument("--eta", type=float, metavar="FLOAT", help="use ASAM's ball, relative to the weights")
    parser.add_argument("--k", type=int, default=5, metavar="INT", help="number of leading eigenvalues (5)")
    add_examination(parser, "sharpness")


def run(args: argparse.Namespace) -> None:
    """Measure every model, print the table, write the numbers and the picture."""
    from minisam.study import geometry_plots, plots

    for name, number in {"rho": args.rho, "eta": args.eta}.items():
        require(name, number, Positive | None)
    models, dataset = load_models(args)
    require_replaceable(args.out, "sharpness.json", "sharpness.png")
    found = {}
    for name, model in models.items():
        objective = geometry.training_loss(model, dataset.x_train, dataset.y_train)
        measured = geometry.measure(objective, model.theta, args.rho, args.eta, args.k)
        found[name] = measured | {"config": model.config.record(), "images": len(dataset.y_train)}
    print(geometry.text_table(found))
    geometry.write_json(args.out / "sharpness.json", found)
    plots.save(args.out / "sharpness.png", geometry_plots.spectra(found), dataset.synthetic)
    print(f"\nOn {len(dataset.y_train):,} training images of {dataset.name}, with their original labels.")
    print(f"Numbers and a picture: {args.out}")
