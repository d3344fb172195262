"""`minisam evaluate`: the error of a saved model on the test images of a data set with the same classes."""

import argparse

from minisam.cli.options import Commands, add_command, load_images, place
from minisam.training import load_model


def add(commands: Commands) -> None:
    """Declare the command and its options."""
    parser = add_command(commands, "evaluate", "Test a model saved by `minisam train --save`.", run)
    parser.add_argument("model", type=place, metavar="FILE.npz")


def run(args: argparse.Namespace) -> None:
    """Print the model's test error."""
    model, dataset = load_model(args.model), load_images(args)
    print(f"test error on {dataset.name}: {model.test_error(dataset):.2%}")
