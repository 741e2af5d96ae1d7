"""Tidying up over a real store: when it looks, what it does when it may not delete, and that nobody waits for it."""

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from imgdiffd.daemon import cleanup as cleanup_module
from imgdiffd.daemon.cleanup import Cleanup
from imgdiffd.images import sweep
from imgdiffd.images.files import pair_paths
from imgdiffd.pipeline import Stage
from imgdiffd.settings import KeepImages, Settings
from imgdiffd.store import Store
from tests.fakes.answers import PROFILE, answers
from tests.fakes.store_driver import advance_to, ready, submit

pytestmark = pytest.mark.anyio
LIMIT_S = 20.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup_module, "GATHER_S", 0.0)


async def paint(store: Store, images: Path) -> None:
    """Every READY pair, at the places where a worker paints."""
    tasks = await advance_to(store, Stage.GENERATE)
    inputs = await store.stage_inputs(Stage.GENERATE, [task.item for task in tasks])
    outputs = []
    for output in answers(inputs):
        image1, image2 = pair_paths(output.item, 1)
        for name in (image1, image2):
            (images / name).parent.mkdir(parents=True, exist_ok=True)
            (images / name).write_bytes(b"x")
        outputs.append(type(output)(output.item, image1, image2, 100, 100, 7))  # type: ignore[call-arg,arg-type]
    await store.record(Stage.GENERATE, "cpu", PROFILE, outputs, {task.item: task.attempt for task in tasks}, 0.1)


async def compare(store: Store, count: int, *, passes: bool) -> list[int]:
    tasks = [task for task in await ready(store) if task.stage is Stage.COMPARE][:count]
    outputs = answers(await store.stage_inputs(Stage.COMPARE, [task.item for task in tasks]), passes)
    await store.record(Stage.COMPARE, "cpu", PROFILE, outputs, {task.item: task.attempt for task in tasks}, 0.1)
    return [task.item for task in tasks]


def items_in(images: Path) -> set[int]:
    return {int(path.name.partition("-")[0]) for path in images.rglob("[0-9]*.png")}


async def until_there(images: Path, items: set[int]) -> None:
    with anyio.fail_after(LIMIT_S):
        while items_in(images) != items:
            await anyio.sleep(0.01)


@asynccontextmanager
async def painted(folder: Path, captions: int, keep: KeepImages) -> AsyncIterator[tuple[Store, Cleanup, Path]]:
    """So many pairs that wait to be compared, and the tidy-up, running."""
    images = folder / "pictures"
    images.mkdir()
    async with Store.open(folder / "s.db") as store:
        await submit(store, captions)
        await paint(store, images)
        cleanup = Cleanup(store, images, keep)
        async with anyio.create_task_group() as group:
            group.start_soon(cleanup.run)
            yield store, cleanup, images
            group.cancel_scope.cancel()


async def test_what_ended_goes_when_it_is_marked_and_open_pairs_stay(tmp_path: Path) -> None:
    async with painted(tmp_path, 4, "samples") as (store, cleanup, images):
        cleanup.mark(await compare(store, 2, passes=False))
        await until_there(images, {3, 4})
        await store.cancel(1)
        await cleanup.mark_job(1)
        await until_there(images, set())


async def test_a_clock_set_back_takes_no_file_being_written(tmp_path: Path) -> None:
    async with painted(tmp_path, 4, "samples") as (store, cleanup, images):
        cleanup.mark(await compare(store, 2, passes=False))
        await until_there(images, {3, 4})
        writing = images / "000000" / ".tmp-77-3-1-r0-left.png"
        writing.write_bytes(b"x")
        os.utime(writing, (1, 1))
        cleanup.mark(await compare(store, 2, passes=False))
        await until_there(images, set())
        assert writing.exists()


async def test_with_all_nothing_goes_until_the_setting_changes(tmp_path: Path) -> None:
    async with painted(tmp_path, 4, "all") as (store, cleanup, images):
        cleanup.mark(await compare(store, 2, passes=False))
        await cleanup.mark_job(1)
        assert (await cleanup.gone(1), items_in(images)) == ({}, {1, 2, 3, 4})
        cleanup.use(Settings(keep_pictures="samples"))
        await until_there(images, {3, 4})
        cleanup.use(Settings(keep_pictures="all"))
        assert set((await cleanup.gone(1)).values()) == {'not kept: keep_pictures was "samples"'}
        for path in images.rglob("3-*.png"):
            path.unlink()
        assert len(await cleanup.gone(3)) == 2
        assert all("missing" in why for why in (await cleanup.gone(3)).values())
        assert await cleanup.gone(99) == {}


async def test_what_cannot_be_deleted_is_left_for_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = anyio.Event()

    def refuse(paths: list[Path]) -> None:
        anyio.from_thread.run_sync(refused.set)
        raise PermissionError(13, "Permission denied", str(paths[0]))

    delete = sweep.delete
    monkeypatch.setattr(cleanup_module, "delete", refuse)
    async with painted(tmp_path, 2, "samples") as (store, cleanup, images):
        cleanup.mark(await compare(store, 1, passes=False))
        with anyio.fail_after(LIMIT_S):
            await refused.wait()
        monkeypatch.setattr(cleanup_module, "delete", delete)
        cleanup.mark([5000])  # elsewhere
        await until_there(images, {2})
    assert "Permission denied" in caplog.text


async def test_slow_deletions_hold_up_neither_loop_nor_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, begun = threading.Event(), anyio.Event()
    sizes: list[int] = []
    delete = sweep.delete

    def slow(paths: list[Path]) -> None:
        sizes.append(len(paths))
        anyio.from_thread.run_sync(begun.set)
        go_on.wait()
        delete(paths)

    monkeypatch.setattr(cleanup_module, "delete", slow)
    monkeypatch.setattr(cleanup_module, "AT_ONCE", 3)
    async with painted(tmp_path, 6, "samples") as (store, cleanup, images):
        cleanup.mark(await compare(store, 4, passes=False))
        try:
            with anyio.fail_after(LIMIT_S):
                await begun.wait()
                assert await compare(store, 1, passes=True) == [5], "recorded while a deletion hangs"
        finally:
            go_on.set()
        await until_there(images, {5, 6})
    assert sizes == [3, 3, 2]


async def test_a_file_being_written_stays_until_the_next_start(tmp_path: Path) -> None:
    async with painted(tmp_path, 2, "samples") as (store, cleanup, images):
        temporary = images / "000000" / ".tmp-9-1-1-1.png"
        temporary.write_bytes(b"x")
        cleanup.mark(await compare(store, 1, passes=False))
        await until_there(images, {2})
        assert temporary.exists()
        before = os.stat(images).st_mtime_ns - 1
        os.utime(temporary, ns=(before, before))
        async with anyio.create_task_group() as group:
            group.start_soon(Cleanup(store, images, "samples").run)
            with anyio.fail_after(LIMIT_S):
                while temporary.exists():
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
