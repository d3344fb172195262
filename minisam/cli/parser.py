"""The parser of the command line: argparse's, but it says what was probably meant."""

import argparse
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NoReturn

from minisam.training.files import printable


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A question for the end of a message, or nothing if no known name is like the given one.

    >>> did_you_mean("trian", ("train", "toy"))
    ': did you mean train?'
    """
    near = get_close_matches(given.lower(), list(known), 1, cutoff=0.6)
    return f": did you mean {near[0]}?" if near else ""


class Parser(argparse.ArgumentParser):
    """A parser whose errors ask "did you mean …?", below the usage of the command that was given.

    >>> parser = Parser(prog="minisam", usage="minisam [--optimizer NAME]")
    >>> _ = parser.add_argument("--optimizer", choices=("sam", "adam"), type=str.lower)
    >>> parser.parse_args(["--optimizer", "SAM"]).optimizer
    'sam'
    """

    def parse_known_args(self, args=None, namespace=None):
        """The same as argparse's, but a command complains of unknown arguments itself, with its own usage."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = next((word for word in unknown if word.startswith("-")), "")
            hint = did_you_mean(option.partition("=")[0], self._option_string_actions)
            if not option and any(action.nargs == "+" for action in self._actions):
                hint = ": name all files together, not between options"
            self.error(f"unknown argument {' '.join(unknown)}{hint}")
        return namespace, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            expected = f"expected one of {', '.join(known)}"
            raise argparse.ArgumentError(action, f"unknown {value!r}, {expected}{did_you_mean(str(value), known)}")

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong, and exit with code 2."""
        super().error(printable(message))
