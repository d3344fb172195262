import signal
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import settings
from photographs import write_cifar10

from minisam import kernels
from minisam.data import synthetic
from minisam.study import tasks
from minisam.study.comparison import compare, reproduce, summarise
from minisam.study.experiments import smoke

collect_ignore = ["without_numba"]  # imported, it would hide Numba from every process that a test starts

settings.register_profile("minisam", deadline=None, max_examples=40, print_blob=True)
settings.load_profile("minisam")


with suppress(ValueError):  # not the main thread
    # A shell's background job ignores Ctrl-C, and so would the commands that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _a_look_at_curvature():
    """Tests of sweeps ask whether curvature is measured, not how large it is: so measure it roughly."""
    with pytest.MonkeyPatch.context() as patch:
        for name, little in {"tolerance": 0.5, "samples": 2, "steps": 2}.items():
            patch.setitem(tasks.EFFORT, name, little)
        yield


@pytest.fixture(scope="session", autouse=True)
def _images_drawn_once():
    """All 14,000 synthetic images, which every command without a data set asks for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minisam.data.sources.synthetic", cache(synthetic))
        yield


@pytest.fixture(scope="session")
def few_images(tmp_path_factory):
    """Options for a command in a process of its own, which need not draw all 14,000 images."""
    place = write_cifar10(tmp_path_factory.mktemp("few"), synthetic(1000, 2000))
    return ["--dataset", "cifar10", "--data-dir", str(place)]


@pytest.fixture(scope="session")
def two_seeds():
    """The main comparison on a few images: its results and predictions, which tests only read."""
    return reproduce(smoke(n_train=64, epochs=2, seeds=2, n_test=40), synthetic(100, 50), name="tiny")


@pytest.fixture(scope="session")
def one_seed(two_seeds):
    """The same with the first seed alone."""
    results, predictions = two_seeds
    first = [i for i, run in enumerate(results["runs"]) if run["seed"] == 0]
    runs, wrong = [results["runs"][i] for i in first], predictions[first] != synthetic(64, 40).y_test
    about = results["config"] | {"seeds": 1}
    found = {"summary": summarise(runs, wrong), "comparisons": compare(runs, wrong, about["pairs"])}
    return results | {"config": about, "runs": runs} | found, predictions[first]


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
