"""What a person is told once thousands of jobs have come and gone."""

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from imgdiffd.cli.main import main
from imgdiffd.inbox import Inbox
from imgdiffd.settings import Settings
from imgdiffd.status import headline
from imgdiffd.store import Store
from tests.fakes.answers import PROFILE, captions
from tests.fakes.event_stream import EventReader
from tests.fakes.jobs import drop, names, scan_once
from tests.fakes.store_driver import submit
from tests.integration.daemon_process import daemon
from tests.integration.faulty import HOLD_BATCH, faulty
from tests.integration.test_event_stream import streaming

ENDED = 1100  # more than a page of any list
FAILED = "the file is empty [/] [bold]\x1b[31m"


def ended(database: Path, count: int) -> None:
    """Add so many jobs that have ended; the newest failed."""
    with closing(sqlite3.connect(database)) as connection:
        (profile,) = connection.execute("SELECT max(id) FROM profiles").fetchone()
        insert = (
            "INSERT INTO jobs (name, source, sha256, profile_id, priority, state, created_at, finished_at, error)"
            " VALUES (?, '/inbox/x', ?, ?, 0, ?, 1, 2, ?)"
        )
        last = ("failed", FAILED)
        connection.executemany(
            insert,
            [
                (f"{each}.txt", f"{each}", profile, *(last if each == count - 1 else ("done", "")))
                for each in range(count)
            ],
        )
        connection.commit()


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> int:
    """The exit status of a command that asks the daemon in `folder`."""
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_SOCKET_PATH", str(folder / "s"))
    try:
        main(words)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.anyio
async def test_an_open_job_is_seen_behind_a_thousand_newer_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Store.open(tmp_path / "state.db") as store:
        old = await submit(store, 3, name="old.txt")
    ended(tmp_path / "state.db", ENDED)
    (tmp_path / HOLD_BATCH).touch()
    with faulty(tmp_path, IMGDIFFD_DEVICES="cpu") as running:
        status = running.wait(lambda status: status.ready, "readiness")
        assert (status.jobs[0].id, status.jobs[0].state, len(status.jobs)) == (old.id, "active", 21)
        assert {**status.job_counts} == {"active": 1, "done": ENDED - 1, "failed": 1}
        assert "open jobs: 1, captions: 0 of 3" in headline(status)
        page = running.client.jobs(limit=2)
        assert ([job.id for job in page.jobs], page.total, page.next) == ([old.id, ENDED + 1], ENDED + 1, -ENDED - 1)
        assert [job.id for job in running.client.every_job()] == [old.id, *range(ENDED + 1, old.id, -1)]
        with streaming(tmp_path) as stream:
            reader = EventReader()
            event = next(event for chunk in stream.iter_raw() for event in reader.feed(chunk))
            assert event.data["jobs"][0]["id"] == old.id
        (tmp_path / HOLD_BATCH).unlink()
        assert run(monkeypatch, tmp_path, "watch", str(old.id)) == 0
        assert running.client.job(old.id).state == "done"
        told = capsys.readouterr().out.splitlines()
        assert told[-1].startswith(f"job {old.id} done  rewrite 3/3 ")
        assert run(monkeypatch, tmp_path, "watch") == 0
        assert "no job is open" in capsys.readouterr().out


def test_an_unknown_job_is_one_sentence_in_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with daemon(tmp_path, IMGDIFFD_DEVICES="cpu") as running:
        running.wait(lambda status: status.ready, "readiness")
        for command in ("status", "watch", "funnel", "pause", "resume", "cancel", "retry"):
            assert run(monkeypatch, tmp_path, command, "99") == 1, command
            told = capsys.readouterr()
            assert (told.out, told.err) == ("", "imgdiffd: there is no job 99 (`imgdiffd jobs` lists them)\n"), command


@pytest.mark.anyio
async def test_three_thousand_open_jobs_fit_on_a_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Store.open(tmp_path / "state.db") as store:
        for number in range(4):
            await submit(store, captions(2, 1 + 2 * number), name=f"{number}.txt")
        await store.set_paused(True)
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.executemany(
            "INSERT INTO jobs (name, source, sha256, profile_id, priority, state, created_at)"
            " SELECT ?, source, ?, profile_id, 0, 'paused', 1 FROM jobs WHERE id = 1",
            [(f"more-{number}.txt", f"more {number}") for number in range(2996)],
        )
        connection.commit()
    ended(tmp_path / "state.db", 5)
    with daemon(tmp_path, IMGDIFFD_DEVICES="cpu") as running:
        running.wait(lambda status: status.ready, "readiness")
        assert run(monkeypatch, tmp_path, "status") == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 40
        assert lines[0].startswith("paused")
        assert "jobs: 4 active, 2,996 paused; ended: 4 done, 1 failed" in lines
        assert "… and 2,989 more that are open; `imgdiffd jobs` lists them" in lines
        assert run(monkeypatch, tmp_path, "jobs", "--state", "failed") == 0
        assert r"the file is empty [/] [bold]\x1b[31m" in capsys.readouterr().out
        assert run(monkeypatch, tmp_path, "jobs", "--state", "open", "--limit", "2") == 0
        assert "2 of 3,000; `imgdiffd jobs --state open --after=" in capsys.readouterr().out


@pytest.mark.anyio
async def test_a_file_left_in_the_inbox_finds_its_job_of_long_ago(tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    path = drop(folder / "a.txt")
    async with Store.open(tmp_path / "state.db") as store:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        job = await store.add_job("a.txt", str(path), digest, PROFILE)
        await store.finish_reading(job.id)
        ended(tmp_path / "state.db", ENDED)
        await scan_once(Inbox(Settings.model_validate({"state_folder": tmp_path}), store, PROFILE))
        assert (await store.jobs(limit=1))[0].id == ENDED + job.id
    assert names(folder / "done") == ["a.txt"]
