"""Jobs deleted by hand and by age: their rows, their images, the room; nothing else, and wherever it is killed."""

import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, nullcontext
from pathlib import Path

import pytest

from imgdiffd.cli.main import main
from imgdiffd.errors import DaemonError, InputError
from imgdiffd.images.files import pair_paths
from imgdiffd.store import Store
from imgdiffd.store.connection import locked
from tests.fakes.answers import PROFILE, captions
from tests.fakes.store_driver import finish, progress_of, record, submit
from tests.integration.daemon_process import daemon, drop
from tests.integration.faulty import answer, rows, until

CAPTIONS = [f"a {animal} beside a {obj}" for animal in ("cat", "dog", "cow") for obj in ("bus", "tree", "chair")]


@asynccontextmanager
async def two_done(path: Path) -> AsyncIterator[Store]:
    """Job 1 of 300 captions and job 2 of 3, both done, with object removal."""
    async with Store.open(path, removal=True) as store:
        await submit(store, captions(300), name="first")
        await submit(store, captions(3, start=1000), name="second")
        await finish(store)
        yield store


async def delete(store: Store, job: int) -> None:
    await store.mark_deleted(job)
    while await store.delete_some(job):
        pass


@pytest.mark.anyio
async def test_a_deleted_job_leaves_no_row_and_the_file_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with two_done(path) as store:
        kept = [row for row in await store.samples() if row.job == 2]
        newest = await store.newest_sample()
        await store.checkpoint()
        before = path.stat().st_size
        await delete(store, 2)
        await delete(store, 1)
        while await store.shrink_some():
            pass
        await store.checkpoint()
        assert path.stat().st_size < before / 3
        assert await store.newest_sample() == newest, "no number is given twice"
        again = await submit(store, captions(3, start=1000), name="second")
        await finish(store)
        assert again.id == 3
        fresh = await store.samples()
        assert [(row.caption1, row.region) for row in fresh] == [(row.caption1, row.region) for row in kept]
        assert min(row.id for row in fresh) > newest
        assert min(row.item for row in fresh) > 606
        assert (await progress_of(store)).total == 3
    assert rows(tmp_path, "SELECT count(*) FROM items WHERE job_id < 3") == [(0,)]
    assert rows(tmp_path, "SELECT count(*) FROM samples WHERE job_id < 3") == [(0,)]
    assert rows(tmp_path, "PRAGMA foreign_key_check") == []
    assert rows(tmp_path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.anyio
async def test_an_older_database_is_rewritten_once_and_shrinks(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    async with two_done(path) as store:
        before = [row.id for row in await store.samples()]
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA auto_vacuum = NONE")
        old.execute("VACUUM")
    async with Store.open(path, removal=True) as store:
        assert [row.id for row in await store.samples()] == before
        await delete(store, 1)
        while await store.shrink_some():
            pass
    assert rows(tmp_path, "PRAGMA auto_vacuum") == [(2,)]
    assert rows(tmp_path, "PRAGMA freelist_count") == [(0,)]
    assert rows(tmp_path, "PRAGMA foreign_key_check") == []


@pytest.mark.anyio
async def test_deleting_waits_for_nobody_and_nobody_long_for_it(tmp_path: Path) -> None:
    async with two_done(tmp_path / "state.db") as store:
        await store.mark_deleted(1)
        longest = 0.0
        more = True
        while more:
            began = time.process_time()
            more = await store.delete_some(1)
            longest = max(longest, time.process_time() - began)
        assert longest < 0.25


@pytest.mark.anyio
async def test_an_open_job_is_not_deleted(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "state.db") as store:
        job = await submit(store, 2)
        with pytest.raises(InputError, match=r"cannot be deleted, it is active \(`imgdiffd cancel 1` ends it\)"):
            await store.mark_deleted(job.id)
        assert await store.ended_before(time.time() + 1) == []


@pytest.mark.anyio
async def test_a_job_whose_removals_wait_is_not_pruned_by_age(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "state.db", removal=True) as store:
        await submit(store, 2)
        while [job.state for job in await store.jobs()] != ["done"]:
            tasks = [task for task in await store.ready_tasks(100, ()) if task.stage not in ("erase", "inspect")]
            await record(store, [task for task in tasks if task.stage is tasks[0].stage])
        assert await store.ended_before(time.time() + 1) == []
        await finish(store)
        assert await store.ended_before(time.time() + 1) == [1]


@pytest.mark.anyio
async def test_captions_of_a_deleted_job_come_back_with_their_file(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "state.db") as store:
        await submit(store, captions(4), name="first")
        shared = captions(6)
        second = await submit(store, shared, name="second")
        assert (second.total, second.duplicates) == (2, 4)
        await finish(store)
        await delete(store, 1)
        again = await submit(store, shared, name="second")
        assert (again.duplicate_of, again.total, again.duplicates) == (None, 4, 2)


@pytest.mark.anyio
async def test_a_duplicate_of_a_deleted_job_stays_and_is_read_again(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "state.db") as store:
        await submit(store, captions(4), name="first")
        await finish(store)
        digest = (await store.jobs())[0].sha256
        copy = await store.add_job("copy", "/inbox/copy", digest, PROFILE)
        assert copy.duplicate_of == 1
        await delete(store, 1)
        again = await store.add_job("again", "/inbox/again", digest, PROFILE)
        assert (again.id, again.duplicate_of) == (3, None)


@pytest.mark.anyio
async def test_a_delete_cut_off_anywhere_is_finished_later(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with two_done(path) as store:
        await store.mark_deleted(1)
    steps = 0
    more = True
    while more:
        async with Store.open(path, removal=True) as store:  # what a restart finds after each step
            assert await store.marked_deleted() == [1]
            assert await store.retry() == 0
            assert await store.ready_tasks(100, ()) == []
            more = await store.delete_some(1)
            steps += 1
            counted = (await progress_of(store)).total
        assert rows(tmp_path, "SELECT count(*) FROM items WHERE origin IS NULL") == [(counted,)]
        assert rows(tmp_path, "PRAGMA foreign_key_check") == []
    assert steps > 3
    async with Store.open(path, removal=True) as store:
        assert await store.marked_deleted() == []
        assert [job.id for job in await store.jobs()] == [2]


def files_of(folder: Path, item: int) -> list[Path]:
    image1, _ = pair_paths(item, 1)
    return list((folder / image1).parent.glob(f"{item}-*"))


def test_delete_takes_rows_and_images_of_that_job_alone(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        drop(tmp_path, "first.txt", CAPTIONS[:4])
        running.wait_done()
        drop(tmp_path, "second.txt", CAPTIONS[4:])
        running.wait_done(jobs=2)
        told = running.client.delete(1, dry_run=True)
        assert (told.id, told.name, told.captions) == (1, "first.txt", 4)
        assert told.samples > 0
        assert running.client.job(1).state == "done"
        assert running.client.delete(1) == told
        with pytest.raises(DaemonError, match="job 1"):
            running.client.job(1)
        pictures = tmp_path / "pictures"
        until(lambda: not any(files_of(pictures, item) for item in range(1, 5)), "the end of the images")
        assert all(files_of(pictures, item) for item in range(5, 10))
        drop(tmp_path, "again.txt", CAPTIONS[:4])
        (again,) = [job for job in running.wait_done(jobs=2).jobs if job.id == 3]
        assert again.captions == 4
        assert again.samples > 0
        assert answer(tmp_path, "/jobs/99", "DELETE").status_code == 404
        with pytest.raises(DaemonError, match="99"):
            running.client.delete(99)


def test_delete_and_prune_work_without_a_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def typed(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) if words[-1] == "99" else nullcontext() as ended:
            main(["--config", str(settings), *words])
        told = capsys.readouterr()
        return getattr(getattr(ended, "value", None), "code", 0), told.out + told.err

    settings = tmp_path / "settings.toml"
    settings.write_text(f'state_folder = "{tmp_path}"\nsocket_path = "{tmp_path}/s"\nkeep_pictures = "all"\n')
    with daemon(tmp_path) as running:
        for name, some in (("first.txt", CAPTIONS[:4]), ("second.txt", CAPTIONS[4:6]), ("third.txt", CAPTIONS[6:])):
            drop(tmp_path, name, some)
            running.wait(lambda status: name in {job.name for job in status.jobs}, name)  # noqa: B023
        running.wait_done(jobs=3)
        running.kill()
    pictures = tmp_path / "pictures"
    assert "job 1 ('first.txt', 4 captions, " in typed("delete", "1", "--dry-run")[1]
    assert files_of(pictures, 1)
    status, said = typed("delete", "1", "99")
    assert (status, "job 1 ('first.txt'" in said, "there is no job 99" in said) == (1, True, True)
    assert not any(files_of(pictures, item) for item in range(1, 5))
    assert all(files_of(pictures, item) for item in range(5, 10))
    assert typed("prune", "--older-than", "1h")[1] == "no job ended that long ago\n"
    assert typed("prune", "--older-than", "0s")[1].count("is deleted") == 2
    assert not list(pictures.rglob("*.png"))
    assert rows(tmp_path, "SELECT count(*) FROM items") == rows(tmp_path, "SELECT count(*) FROM jobs") == [(0,)]
    with locked(tmp_path / "state.db"), pytest.raises(SystemExit):
        main(["--config", str(settings), "delete", "1"])
    assert "in use by another daemon" in capsys.readouterr().err


def test_old_jobs_go_by_age_and_a_killed_daemon_finishes(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        drop(tmp_path, "first.txt", CAPTIONS[:4])
        running.wait_done()
        assert running.client.prune(3600) == []
        assert [job.id for job in running.client.prune(0, dry_run=True)] == [1]
        running.client.set_paused(True)
        drop(tmp_path, "second.txt", CAPTIONS[4:])
        running.wait(lambda status: len(status.jobs) == 2, "the second job")
        assert [job.id for job in running.client.prune(0)] == [1]
        running.kill()
    for image in (tmp_path / "pictures").rglob("*.png"):
        os.utime(image, (1, 1))
    with daemon(tmp_path, IMGDIFFD_KEEP_JOBS_DAYS="0.000001") as running:
        running.wait(lambda status: status.ready, "readiness")
        running.client.set_paused(False)
        until(lambda: not any((tmp_path / "pictures").rglob("[1-4]-*.png")), "the end of the images")
        running.wait(lambda status: all(job.state == "done" for job in status.jobs), "the end of the second job")
        assert running.stop() == 0
    with daemon(tmp_path, IMGDIFFD_KEEP_JOBS_DAYS="0.000001") as running:
        running.wait(lambda status: status.ready and not status.jobs, "the second job's end by age")


def test_done_keeps_the_newest_files_and_those_of_open_jobs(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        for number in range(3):
            drop(tmp_path, f"{number}.txt", CAPTIONS[number * 2 : number * 2 + 2])
            running.wait_done(jobs=number + 1)
        running.client.set_paused(True)
        drop(tmp_path, "open.txt", CAPTIONS[6:8])
        running.wait(lambda status: len(status.jobs) == 4, "the open job")
        done = tmp_path / "inbox" / "done"
        until((done / "open.txt").exists, "the move")
        assert running.stop() == 0
    os.utime(done / "open.txt")
    for name in ("1.txt", "2.txt"):  # a rename makes them the newest
        (done / name).rename(done / "x")
        (done / "x").rename(done / name)
    with daemon(tmp_path, IMGDIFFD_KEEP_DONE_GB="0.000009") as running:
        until(lambda: sorted(os.listdir(done)) == ["2.txt", "open.txt"], "the limit")
        running.wait(lambda status: status.ready, "readiness")
