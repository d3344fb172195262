import pytest
from hypothesis import settings

from minisam import kernels

settings.register_profile("minisam", deadline=None, max_examples=40, print_blob=True)
settings.load_profile("minisam")


@pytest.fixture(autouse=True)
def _keep_thread_count():
    before = kernels.get_threads()
    yield
    kernels.set_threads(before)


def pytest_terminal_summary(terminalreporter):
    """At the end of a run: which animal of the bug zoo was caught by which property."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    rows = [value for report in reports for name, value in report.user_properties if name == "bug zoo"]
    if rows:
        terminalreporter.section("bug zoo")
        for animal, property, caught in [("animal", "property", "caught"), *rows]:
            terminalreporter.line(f"{animal:<28}{property:<44}{caught}")
