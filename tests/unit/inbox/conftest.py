"""What all tests of the inbox share."""

from pathlib import Path

import pytest

from imgdiffd.inbox import Inbox, opened
from tests.fakes.jobs import FakeJobs, make_inbox


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "inbox"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def inbox(folder: Path, jobs: FakeJobs) -> Inbox:
    return make_inbox(folder, jobs)


@pytest.fixture
def _long_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as one that is read in chunks."""
    monkeypatch.setattr(opened, "SMALL_BYTES", 0)
