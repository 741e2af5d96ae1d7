"""What all tests share."""

import pytest
from hypothesis import settings

# A busy machine is no failure: what a property must not take in time, its test measures itself.
settings.register_profile("imgdiffd", deadline=None)
settings.load_profile("imgdiffd")


@pytest.fixture
def anyio_backend() -> str:
    """The daemon runs on asyncio, and so do its tests."""
    return "asyncio"
