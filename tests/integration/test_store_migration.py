"""Databases of older versions: backed up, brought up to date, and never left between two versions."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from imgdiffd import durable
from imgdiffd.errors import StoreError
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal import RemovalSample
from imgdiffd.pipeline import Stage
from imgdiffd.store import Reader, Store
from imgdiffd.store.backup import APPLICATION_ID
from imgdiffd.store.migration import OLDEST_READABLE, SCHEMA_VERSION, STEPS, backup_path, version_of
from tests.fakes.answers import PROFILE, captions
from tests.fakes.store_driver import advance_to, finish, ready, record, submit

pytestmark = pytest.mark.anyio

EVERY = int(os.environ.get("FAULT_STRIDE", "7"))  # FAULT_STRIDE=1 takes every single one
DATA = Path(__file__).parents[1] / "data"
SHAPE = """
SELECT 'column', m.name, c.name, c.type, c."notnull", c.dflt_value, c.pk
    FROM sqlite_schema m JOIN pragma_table_xinfo(m.name) c WHERE m.type = 'table'
UNION ALL SELECT type, name, tbl_name, sql, 0, 0, 0 FROM sqlite_schema WHERE type <> 'table'
ORDER BY 1, 2, 3
"""


def old_database(path: Path, version: int, captions: int = 3) -> Path:
    """A database as that version made it, with one active job."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript((DATA / f"schema_{version}.sql").read_text())
        connection.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};")
        connection.execute("PRAGMA journal_mode = WAL")
        profile = (DATA / "profile_1.json").read_text()
        connection.execute("INSERT INTO profiles VALUES (1, 'sha', 'default', ?)", (profile,))
        connection.execute(
            "INSERT INTO jobs (id, name, source, sha256, profile_id, priority, state, created_at, total)"
            " VALUES (1, 'old.txt', '/inbox/old.txt', 'sha', 1, 0, 'active', 1.0, ?)",
            (captions,),
        )
        for number in range(captions):
            connection.execute(
                "INSERT INTO items (job_id, profile_id, line, caption, caption_sha, stage, state, created_at,"
                " updated_at) VALUES (1, 1, ?, ?, ?, 'rewrite', 'ready', 1.0, 1.0)",
                (number, f"a cat number {number}", number.to_bytes(16, "big")),
            )
    return path


def both_products(path: Path) -> Path:
    """What `half_done` left in a database of version 3, in which object removal had tables of its own."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript((DATA / "both_products_3.sql").read_text())
        connection.execute("PRAGMA journal_mode = WAL")
    return path


async def half_done(store: Store, profile: Profile) -> None:
    """Eight captions and six removals, each somewhere else, and two captions more."""
    await submit(store, 8, name="first", profile=profile)
    second = await submit(store, captions(2, start=40), name="second", profile=profile)
    await store.pause(second.id)
    tasks = await advance_to(store, Stage.COMPARE)
    await record(store, tasks[:1], passes=False)
    await record(store, tasks[1:7])
    removals = [task for task in await ready(store) if task.stage is Stage.ERASE]
    erased = await record(store, removals[:3])
    await record(store, erased.tasks[:1])
    await record(store, erased.tasks[1:2], passes=False)
    await record(store, removals[3:4], passes=False)
    await store.record_crashes([removals[4].item])
    await store.quarantine(removals[5].item, "broke_erase", "signal 11")
    await record(store, [task for task in await ready(store) if task.stage is Stage.LOCATE][:2])
    await record(store, [task for task in await ready(store) if task.stage is Stage.DESCRIBE][:1])
    await store.resume(second.id)


async def story_without_times(store: Store, item: int) -> object:
    """Everything known of a caption but when it happened and under which id its removal went."""
    story = await store.item_story(item)
    removal = story.removal and replace(story.removal, item=0, created_at=0.0, updated_at=0.0)
    job = replace(story.job, created_at=0.0, finished_at=None)
    samples = tuple(replace(sample, created_at=0.0) for sample in story.samples)
    return replace(story, created_at=0.0, updated_at=0.0, job=job, samples=samples, removal=removal)


def place(sample: RemovalSample) -> tuple[int, int, int]:
    return sample.erasure.item, sample.erasure.image, sample.erasure.index


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def shape(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(SHAPE).fetchall()


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return version_of(connection)


@pytest.mark.parametrize("old", range(OLDEST_READABLE, SCHEMA_VERSION))
async def test_a_migrated_database_equals_a_new_one_and_works_on(tmp_path: Path, old: int) -> None:
    path = old_database(tmp_path / "state.db", old)
    async with Store.open(tmp_path / "new.db"):
        pass
    async with Store.open(path) as store:
        assert len(await ready(store)) == 3
        await finish(store)
        assert [job.state for job in await store.jobs()] == ["done"]
    assert shape(path) == shape(tmp_path / "new.db")
    assert version(path) == SCHEMA_VERSION


async def test_both_products_half_finished_end_as_if_undisturbed(tmp_path: Path) -> None:
    found = []
    profile = PROFILE
    both_products(tmp_path / "old.db")
    for name in ("old.db", "new.db"):
        async with Store.open(tmp_path / name, removal=True) as store:
            if name == "new.db":
                await half_done(store, profile)
            profile = await store.profile_of("1")  # the one of its day, which the new database has from the old one
            before = await store.progress()
            assert [task.stage for task in await ready(store) if task.item > 10] == [Stage.INSPECT, Stage.ERASE]
            assert await store.retry() == 1
            await finish(store)
            stories = [await story_without_times(store, item) for item in range(1, 11)]
            funnel, jobs = await store.funnel(), [job.state for job in await store.jobs()]
            numbered = [row.sample for row in await store.removal_samples()]
        with Reader.open(tmp_path / name) as reader:
            samples = [row.sample for row in reader.removal_samples()]
        assert sorted(numbered, key=place) == sorted(samples, key=place)
        found.append((before, stories, funnel, jobs, samples))
    assert len(found[0][-1]) > 8
    assert found[0] == found[1]
    assert shape(tmp_path / "old.db") == shape(tmp_path / "new.db")
    with Reader.open(backup_path(tmp_path / "old.db", 3)) as reader:
        assert len(list(reader.removal_samples())) == 2


@pytest.mark.parametrize("old", range(OLDEST_READABLE, SCHEMA_VERSION))
async def test_the_backup_beside_a_migrated_database_is_readable(tmp_path: Path, old: int) -> None:
    path = old_database(tmp_path / "state.db", old)
    before = shape(path)
    async with Store.open(path) as store:
        await finish(store)
    kept = backup_path(path, old)
    assert (version(kept), shape(kept)) == (old, before)
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT DISTINCT state FROM items").fetchall() == [("ready",)]
    with Reader.open(kept) as reader:
        assert [job.name for job in reader.jobs()] == ["old.txt"]
    assert names(tmp_path) == ["state.db", "state.db.lock", kept.name]


async def test_a_database_of_this_version_is_not_backed_up(tmp_path: Path) -> None:
    for _ in range(2):
        async with Store.open(tmp_path / "state.db"):
            pass
    assert names(tmp_path) == ["state.db", "state.db.lock"]


# Dies at the nth call that `migration` and `durable` make: between any two statements, copies, syncs and renames.
DIE_AT = """
import os, signal, sqlite3, sys
from pathlib import Path
from imgdiffd import durable
from imgdiffd.store import migration

calls = 0

def count(frame, event, _argument):
    global calls
    if event == "c_call" and frame.f_code.co_filename in (migration.__file__, durable.__file__):
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

path = Path(sys.argv[1])
connection = sqlite3.connect(path, isolation_level=None)
sys.setprofile(count)
migration.bring_up_to_date(connection, path)
"""


@pytest.mark.parametrize("old", [1, 3])
async def test_a_migration_killed_anywhere_finishes_at_the_next_start(tmp_path: Path, old: int) -> None:
    original = old_database(tmp_path / "original.db", 1) if old == 1 else both_products(tmp_path / "original.db")
    old_shape = shape(original)
    async with Store.open(shutil.copyfile(original, tmp_path / "undisturbed.db"), removal=True) as store:
        tasks = await ready(store)
    versions = []
    for point in range(1, 200, EVERY):
        path = tmp_path / f"{point}.db"
        shutil.copyfile(original, path)
        ended = subprocess.run(  # noqa: ASYNC221 - nothing else runs in this loop
            [sys.executable, "-c", DIE_AT, str(path), str(point)], check=False, timeout=60
        )
        versions.append(version(path))
        if versions[-1] == old:
            assert shape(path) == old_shape
        else:
            assert version(backup_path(path, old)) == old
        async with Store.open(path, removal=True) as store:
            assert await ready(store) == tasks
        assert version(path) == SCHEMA_VERSION
        assert shape(backup_path(path, old)) == old_shape
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
    assert ended.returncode == 0
    assert len(versions) > 40 // EVERY
    assert versions == sorted(versions)
    assert set(versions) == {old, SCHEMA_VERSION}


async def test_a_step_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old_database(tmp_path / "state.db", 1)
    before = shape(path)
    monkeypatch.setitem(STEPS, 1, (*STEPS[1], "ALTER TABLE missing ADD COLUMN x TEXT"))
    with pytest.raises(StoreError, match="no such table"):
        async with Store.open(path):
            pass
    assert (version(path), shape(path)) == (1, before)


async def test_without_a_backup_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old_database(tmp_path / "state.db", 1)
    before = shape(path)

    def refuse(_finished: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "move", refuse)
    with pytest.raises(StoreError, match=r"cannot be backed up before its upgrade.*No space left.*free"):
        async with Store.open(path):
            pass
    assert (version(path), shape(path)) == (1, before)
    assert not backup_path(path, 1).exists()


async def test_a_damaged_database_is_not_brought_up_to_date(tmp_path: Path) -> None:
    path = old_database(tmp_path / "state.db", 1, captions=2000)
    content = bytearray(path.read_bytes())
    content[40 * 4096 : 42 * 4096] = b"\xff" * 8192
    path.write_bytes(content)
    with pytest.raises(StoreError):
        async with Store.open(path):
            pass
    assert version(path) == 1
