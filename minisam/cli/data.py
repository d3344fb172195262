"""`minisam data`: list the data sets on this machine, or download one into the user's cache."""

import argparse

from minisam.cli.options import Commands, add_command, place
from minisam.data import available
from minisam.data.download import ARCHIVES, fetch


def add(commands: Commands) -> None:
    """Declare the command and its options."""
    parser = add_command(commands, "data", "List the data sets that are found; fetch one.", run, uses_images=False)
    parser.add_argument("--data-dir", type=place, metavar="DIR", help="folder to search (default: MINISAM_DATA, cache)")
    parser.add_argument("--fetch", type=str.lower, choices=tuple(ARCHIVES), help="download it into the cache")


def run(args: argparse.Namespace) -> None:
    """Print one line per data set, or the path of the downloaded archive."""
    if args.fetch:
        print(f"{args.fetch}: {fetch(args.fetch)}")
        return
    there = set()
    for path, found in available(args.data_dir):
        print(f"{found.name:<16}{len(found.y_train):>7,} training {len(found.y_test):>7,} test  {path}")
        there.add(found.name)
    print(f"{'synthetic':<16}  4,000 training  10,000 test  embedded: drawn on demand")
    for name in ARCHIVES:
        if name not in there:
            print(f"{name:<16}not found: `minisam data --fetch {name}` downloads it")
