import signal
from contextlib import suppress

import pytest
from hypothesis import settings

from minisam import kernels
from minisam.study import tasks

settings.register_profile("minisam", deadline=None, max_examples=40, print_blob=True)
settings.load_profile("minisam")


with suppress(ValueError):  # not the main thread
    # A shell's background job ignores Ctrl-C, and so would the commands that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _a_look_at_curvature():
    """Tests of sweeps ask whether curvature is measured, not how large it is: so measure it roughly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.EFFORT, "tolerance", 0.5)
        yield


@pytest.fixture(autouse=True)
def _keep_thread_count():
    before = kernels.get_threads()
    yield
    kernels.set_threads(before)


def pytest_terminal_summary(terminalreporter):
    """At the end of a run: which property caught which animal of the bug zoo, and what became of damaged files."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    headings = {"bug zoo": ("animal", "property", "caught"), "fuzz": ("reader of", "damaged files read", "refused")}
    for title, heading in headings.items():
        rows = [value for report in reports for name, value in report.user_properties if name == title]
        if rows:
            terminalreporter.section(title)
            for first, second, third in [heading, *rows]:
                terminalreporter.line(f"{first:<36}{second:<44}{third}")
