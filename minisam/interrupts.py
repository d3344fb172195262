"""Ctrl-C and SIGTERM, where they would do harm."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A context in which Ctrl-C and SIGTERM wait for its end."""
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():  # the others hear no signals
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if None in before.values():  # a handler that is not Python's, and could not be put back
        before = {}
    try:
        for number in before:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
