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
