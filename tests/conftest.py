"""What all tests share."""

import os

import pytest
from hypothesis import settings

# Set before anything imports torch. Rounding as in a worker; more than two threads get in each other's way at these
# sizes, and one would hide what depends on them.
os.environ.setdefault("MKL_CBWR", "AUTO")
os.environ.setdefault("OMP_NUM_THREADS", "2")
# A busy machine is no failure: what a property must not take in time, its test measures itself.
settings.register_profile("imgdiffd", deadline=None)
# At home every run draws new examples; where a change is judged, the same commit must give the same answer twice.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "imgdiffd")


@pytest.fixture
def anyio_backend() -> str:
    """The daemon runs on asyncio, and so do its tests."""
    return "asyncio"
