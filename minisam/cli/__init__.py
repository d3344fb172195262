"""The command line: `minisam COMMAND`, with one file per command.

Each file declares the command's options (`add`), then runs it (`run`). Traced to the bottom, `minisam reproduce` is:

    cli/reproduce.py      which experiment, on which images, written to which folder
    study/comparison.py   reproduce: train every network of the experiment, then compare the methods
    study/sweep.py        run_all: hand the runs to processes
    study/tasks.py        work: one run, and its sharpness
    training/loop.py      train: epochs and minibatches
    optim/first_order.py  Optimizer.step: get a gradient, then update theta
    optim/sam.py          SAM.gradient: two evaluations, at θ and at θ + ε̂
    nn/batch_loss.py      BatchLoss: the loss and its gradient at theta, on one minibatch
    nn/network.py         Sequential.evaluate: forward, loss, backward
    nn/chain.py           Chain: forward through the layers, backward in reverse
    nn/dense.py           Linear and ReLU, for the MLP; Conv2d, in nn/convolution.py, for a CNN
    kernels/gemm.py       Linear's matrix products, in blocks for all threads
    kernels/conv.py       Conv2d's sums over windows; kernels/winograd.py for 16 channels and more
    kernels/tile.py       strip: all of these sums in registers (compiled by kernels/compiled.py, before the first step)
"""

import argparse
import math
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minisam import __version__
from minisam.cli import data, evaluate, landscape, reproduce, sharpness, toy, train
from minisam.cli.parser import Parser
from minisam.cli.streams import Lasting, Printable
from minisam.kernels import set_threads
from minisam.training.files import brief, require_current_folder

COMMANDS = (reproduce, train, evaluate, sharpness, landscape, toy, data)
HASTE = 2  # s after a signal in which another one is ignored
DRAWING = (reproduce, sharpness, landscape, toy)  # `train` draws, too, if it is asked for diagnostics


def _parser() -> Parser:
    text = "Neural networks and Sharpness-Aware Minimization by hand, on a laptop's CPU."
    parser = Parser(prog="minisam", description=text, epilog="Start with: minisam reproduce")
    parser.add_argument("--version", action="version", version=f"minisam {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 for an error, 130 for Ctrl-C, 143 for SIGTERM."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # on a console without ±, print a question mark
            stream.reconfigure(errors="replace")
    try:
        args = _parser().parse_args(argv)
    except KeyboardInterrupt:
        print("minisam: interrupted", file=sys.stderr)
        return 130
    tqdm.set_lock(threading.RLock())  # tqdm's own would start a process, for which there is no need
    out, errors = Printable(sys.stdout), Lasting(sys.stderr)
    with redirect_stdout(out), redirect_stderr(errors):
        code = _run(args, ending=argv is None)
    out.close_if_lost()
    if out.lost:
        print(f"minisam: error: the output was lost: {out.lost}", file=errors)
    errors.close_if_lost()
    return code or int(bool(out.lost))


def _run(args: argparse.Namespace, ending: bool) -> int:
    try:
        # a number that is not finite is refused or shown as such; NumPy and Matplotlib need not warn of it, too
        with _obeying_signals(ending), np.errstate(all="ignore"), warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            require_current_folder()
            if args.threads is not None:
                set_threads(args.threads)
            if args.run in (command.run for command in DRAWING) or getattr(args, "diagnostics", None):
                _import_matplotlib()
            args.run(args)
    except MemoryError:
        print("minisam: error: there is not enough memory for this", file=sys.stderr)
        return 1
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        print(f"minisam: error: {brief(error, 1000)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print("minisam: interrupted", file=sys.stderr)
        if ending:  # a progress bar that was half made can't be unmade, and Python would say so
            sys.unraisablehook = lambda _: None
        return stop.args[0] if stop.args else 130
    except Exception as error:  # every kind that an input can lead to is above
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        print(f"minisam: error: a mistake in minisam, please report it: {error!r:.1000} in {where}", file=sys.stderr)
        return 1
    return 0


def _import_matplotlib() -> None:
    """Import it in a folder of ours: it would obey a matplotlibrc in the current one, whoever put it there."""
    for place in ("MATPLOTLIBRC", "MPLCONFIGDIR"):  # the user's own settings, by paths that stay right elsewhere
        if given := os.environ.get(place):
            os.environ[place] = os.path.abspath(given)
    may_return = os.access(".", os.X_OK, effective_ids=os.access in os.supports_effective_ids)
    elsewhere = "matplotlib" not in sys.modules and may_return
    with chdir(Path(__file__).parent) if elsewhere else nullcontext():
        import matplotlib  # noqa: F401


@contextmanager
def _obeying_signals(ending: bool) -> Iterator[None]:
    """A context in which SIGTERM does what Ctrl-C does, and a hasty second one nothing: the first is tidying up.

    If the process ends with it, later ones do nothing either: the interpreter is tidying up.
    """
    last, before = -math.inf, {}

    def stop(number: int, _: Any) -> None:
        nonlocal last
        if time.monotonic() - last > HASTE:
            last = time.monotonic()
            raise KeyboardInterrupt(128 + number)  # the exit code that shells give it

    if threading.current_thread() is threading.main_thread():  # the others may not set a handler
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGINT is in a shell's background job
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ending else handler)
