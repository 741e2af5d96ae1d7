"""What all tests share."""

import faulthandler
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# Set before anything imports torch. Rounding as in a worker; two threads show what depends on them. Beside other test
# processes, which inherit what was set for their parent, they would wait for one another most of the time.
os.environ.setdefault("MKL_CBWR", "AUTO")
os.environ.setdefault("OMP_NUM_THREADS", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
# A busy machine is not a failure, so nothing has a deadline. At home every run draws new examples; where a change is
# judged, the same commit must give the same answer twice.
settings.register_profile(
    "imgdiffd",
    deadline=None,
    max_examples=int(os.environ.get("EXAMPLES", "30")),
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("imgdiffd")

TEST_LIMIT_S = int(os.environ.get("TEST_LIMIT_S", "600"))


def _fail(*_: object) -> None:
    faulthandler.dump_traceback()
    pytest.fail(f"the test did not end within {TEST_LIMIT_S} s; what every thread was at is on stderr")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """A test that hangs fails, and the next one runs."""
    signal.signal(signal.SIGALRM, _fail)
    signal.alarm(TEST_LIMIT_S)
    try:
        return (yield)
    finally:
        signal.alarm(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged or printed goes to another process as UTF-8, which has no halves of surrogate pairs."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture
def anyio_backend() -> str:
    """The daemon runs on asyncio, and so do its tests."""
    return "asyncio"


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a bundle of tiny models with random weights. Whoever changes what lies beside it copies it first."""
    from tests.tiny.models import save_all
    from tests.tiny.sdxl import tiny_sdxl

    folder = tmp_path_factory.mktemp("bundle")
    tiny_sdxl(folder / "painter")
    return save_all(folder)
