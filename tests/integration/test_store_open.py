"""Opening a database: its lock, its version, its settings, and what a killed process leaves."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from imgdiffd.errors import EXIT_CONFIGURATION, ConfigurationError, StoreError
from imgdiffd.job import ItemState, JobState
from imgdiffd.pipeline import Stage
from imgdiffd.store import Reader, Store
from imgdiffd.store.connection import connected, run_on
from tests.fakes.answers import PROFILE, captions
from tests.fakes.store_driver import advance_to, finish, progress_of, ready, record, submit

pytestmark = pytest.mark.anyio


async def test_two_daemons_cannot_share_a_database(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with Store.open(path):
        with pytest.raises(StoreError, match=rf"state\.db.*process {os.getpid()}"):
            async with Store.open(path):
                pass
    async with Store.open(path):
        pass


async def test_a_database_without_its_folder_is_made(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "not" / "yet" / "state.db") as store:
        assert await store.jobs() == []


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with Store.open(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="schema version 99") as caught:
        async with Store.open(path):
            pass
    assert caught.value.exit_status == EXIT_CONFIGURATION
    with pytest.raises(ConfigurationError, match="schema version 99"), Reader.open(path):
        pass


async def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE precious (n)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"other\.db: not an imgdiffd database"):
        async with Store.open(path):
            pass
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"state\.db"):
        async with Store.open(path):
            pass


async def test_every_connection_has_durable_settings(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    def settings(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    async with connected(path, writer=True) as writer, connected(path, writer=False) as reader:
        assert await run_on(writer, settings) == ["wal", 2, 1, 30_000]
        assert (await run_on(reader, settings))[2:] == [1, 30_000]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await run_on(reader, lambda raw: raw.execute("INSERT INTO meta VALUES ('a', 'b')"))


async def test_every_table_is_strict(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with Store.open(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name, strict FROM pragma_table_list WHERE type = 'table'").fetchall()
    assert {name for name, strict in tables if not strict and not name.startswith("sqlite_")} == set()


async def test_the_instance_and_the_pause_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with Store.open(path) as store:
        instance = store.instance
        assert not await store.paused()
        await store.set_paused(True)
    async with Store.open(path) as store:
        assert store.instance == instance
        assert await store.paused()
        await store.set_paused(False)
        assert not await store.paused()


async def test_a_restart_drops_half_read_jobs_and_rereads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with Store.open(path) as store:
        await submit(store, captions(3), name="whole")
        half = await store.add_job("half", "/inbox/half", "hash", PROFILE)
        copy = await store.add_job("copy", "/inbox/copy", "hash", PROFILE)
        await store.add_captions(half.id, captions(3, start=100))
        assert copy.duplicate_of == half.id
    async with Store.open(path) as store:
        assert [job.id for job in await store.drop_unread_jobs()] == [half.id]
        assert await store.job(half.id) is None
        assert (await progress_of(store)).total == 3
        again = await store.add_job("half", "/inbox/half", "hash", PROFILE)
        assert again.duplicate_of is None
        assert await store.add_captions(again.id, captions(3, start=100)) == (3, 0)
        found = await store.job(copy.id)
        assert found is not None
        assert found.duplicate_of == again.id


async def test_interrupted_work_resumes_with_its_earlier_results(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with Store.open(path) as store:
        await submit(store, 4)
        tasks = await advance_to(store, Stage.LOCATE)
        await record(store, tasks[:2])
    async with Store.open(path) as store:
        tasks = await ready(store)
        assert [task.stage for task in tasks] == [Stage.DESCRIBE] * 2 + [Stage.LOCATE] * 2
        await finish(store)
        assert (await progress_of(store)).in_state(ItemState.SAMPLED) == 4
        assert len({(row.item, row.region) for row in await store.samples()}) == len(await store.samples()) == 8


KILLED_IN_THE_MIDDLE = """
import asyncio, os, signal, sys
from pathlib import Path
from imgdiffd.store import Store
from imgdiffd.store import results
from tests.fakes.answers import captions
from tests.fakes.store_driver import ready, record, submit

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with Store.open(Path(sys.argv[1])) as store:
        await submit(store, 6)
        tasks = await ready(store)
        await record(store, tasks[:3])
        results.complete_jobs = die  # the last object that happens before the transaction ends
        await record(store, tasks[3:])

asyncio.run(main())
"""


async def test_a_kill_in_a_transaction_leaves_only_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    ended = subprocess.run(  # noqa: ASYNC221 - nothing else runs in this loop
        [sys.executable, "-c", KILLED_IN_THE_MIDDLE, str(path)], check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    async with Store.open(path) as store:
        assert [task.stage for task in await ready(store)] == [Stage.GENERATE] * 3 + [Stage.REWRITE] * 3
        await finish(store)
        assert [job.state for job in await store.jobs()] == [JobState.DONE]
        assert (await progress_of(store)).in_state(ItemState.SAMPLED) == 6
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
