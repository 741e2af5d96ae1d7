"""What counts as moved away, and what does not."""

import os
from pathlib import Path

import pytest

from imgdiffd.daemon.moved import StateWatch
from imgdiffd.errors import EXIT_CONFIGURATION, StoreDamagedError


def test_a_folder_that_is_gone_or_another_is_moved(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.mkdir()
    watch = StateWatch(place)
    watch.check()
    place.rename(tmp_path / "aside")
    with pytest.raises(StoreDamagedError, match="was moved away or removed") as moved:
        watch.check()
    assert moved.value.exit_status == EXIT_CONFIGURATION
    place.mkdir()
    with pytest.raises(StoreDamagedError, match="was replaced"):
        watch.check()
    place.rmdir()
    (tmp_path / "aside").rename(place)
    watch.check()


def test_a_file_system_that_does_not_answer_is_not_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = StateWatch(tmp_path)

    def stale(*_: object, **__: object) -> os.stat_result:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "stat", stale)
    watch.check()
