"""A restarted daemon knows what the last one learnt of its devices."""

from pathlib import Path

import anyio
import pytest

from imgdiffd.daemon.learnt_file import SAVE_EVERY_S, LearntFile
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.schedulers.virtual_time import run_virtual
from tests.fakes.work import FakeWork

LEARNT = '{"seconds": [["cuda:0", "generate", "1", {"4": 31.0}]], "caps": [["cuda:0", "generate", "1", 2, 256]]}'


def scheduler() -> Scheduler:
    return Scheduler(FakeWork())


def test_later_scheduler_begins_with_what_was_saved(tmp_path: Path) -> None:
    LearntFile(tmp_path, "paper").save(LEARNT)
    later = scheduler()
    LearntFile(tmp_path, "paper").give(later)
    assert later.learnt() == LEARNT
    assert [path.name for path in tmp_path.iterdir()] == ["learnt.json"]


def test_other_models_begin_anew(tmp_path: Path) -> None:
    LearntFile(tmp_path, "paper").save(LEARNT)
    later = scheduler()
    LearntFile(tmp_path, "small").give(later)
    assert later.learnt() == scheduler().learnt()


@pytest.mark.parametrize(
    "damaged", ["", "{", "[]", '{"bundle": "paper", "learnt": "{}"}', '{"bundle": "paper"}', "[" * 9999]
)
def test_damaged_file_is_as_none_and_is_written_anew(
    tmp_path: Path, damaged: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "learnt.json").write_text(damaged)
    learnt_file = LearntFile(tmp_path, "paper")
    learnt_file.give(scheduler())
    assert "learnt again" in caplog.text
    learnt_file.save(LEARNT)
    later = scheduler()
    LearntFile(tmp_path, "paper").give(later)
    assert later.learnt() == LEARNT


def test_folder_that_cannot_be_written_is_told_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    LearntFile(tmp_path / "missing", "paper").save(LEARNT)
    assert "cannot be written" in caplog.text


def test_it_is_saved_every_minute_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []
    learnt_file = LearntFile(tmp_path, "paper")
    monkeypatch.setattr(learnt_file, "save", saved.append)

    async def directly(function: object, *arguments: str) -> None:
        saved.extend(arguments)

    monkeypatch.setattr(anyio.to_thread, "run_sync", directly)

    async def play() -> None:
        with anyio.move_on_after(2.5 * SAVE_EVERY_S):
            await learnt_file.keep(lambda: str(anyio.current_time()))

    run_virtual(play)
    assert [float(text) for text in saved] == [SAVE_EVERY_S, 2 * SAVE_EVERY_S, 2.5 * SAVE_EVERY_S]
