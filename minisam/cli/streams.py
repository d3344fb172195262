"""What a command prints to: streams that end no training, and send nothing to a terminal that it would obey."""

import os
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from typing import Any

from minisam.training.files import printable


class Lasting:
    """A stream whose reader may go away, as `head` does: what is written is lost then, but no training with it."""

    def __init__(self, stream: Any) -> None:
        self.stream = StringIO() if stream is None else stream  # None: it was closed before the start
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, do: Callable[..., Any], *arguments: str) -> None:
        try:
            do(*arguments)
        except OSError as error:
            self.lost = error

    def close_if_lost(self) -> None:
        """After a failure write to nowhere, or the interpreter would fail once more at its end."""
        self.flush()
        if self.lost:
            with suppress(OSError):  # no file
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Printable(Lasting):
    """Such a stream without terminal escapes, whatever names a foreign file has brought."""

    def write(self, text: str) -> int:
        return super().write(printable(text))
