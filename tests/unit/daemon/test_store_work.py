"""One batch out, one transaction back, when the disk is full on either side."""

from pathlib import Path
from typing import Any, cast

import pytest

from imgdiffd.daemon import disk as disk_module
from imgdiffd.daemon.disk import REASON, DiskGuard
from imgdiffd.daemon.store_work import StoreWork
from imgdiffd.errors import NoRoomError, StoreFullError
from imgdiffd.fleet.wire import Done
from imgdiffd.pipeline import Stage, Task
from imgdiffd.schedulers.work import Batch
from imgdiffd.store import Recorded, Store

pytestmark = pytest.mark.anyio

TASK = Task(7, Stage.REWRITE, 1, "g", 0)
BATCH = Batch(1, Stage.REWRITE, "g", (TASK,), 120.0)


class FullStore:
    """Refuses every change `times` times, as on a full disk."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.changes: list[str] = []

    async def stage_inputs(self, *_: object) -> list[object]:
        return [object()]

    async def profile_of(self, _group: str) -> None:
        return None

    def _change(self, name: str) -> None:
        if self.left:
            self.left -= 1
            raise StoreFullError("the disk is full")
        self.changes.append(name)

    async def record(self, *_: object) -> Recorded:
        self._change("record")
        return Recorded(tasks=(), finished=(), stale=0, done_jobs=(), settled=())

    async def record_crashes(self, _items: object) -> None:
        self._change("crashes")

    async def quarantine(self, *_: object) -> bool:
        self._change("set aside")
        return True


class Process:
    """A worker that answers, or has no room for its images."""

    alive = True

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.runs = 0

    async def run(self, *_: object) -> Done:
        self.runs += 1
        if self.error:
            raise self.error
        return Done(1, (), 1.0, 0)


class Held:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def pause(self, reason: str) -> None:
        self.reasons.append(reason)

    def resume(self, reason: str) -> None:
        self.reasons.append(f"not {reason}")


def work_of(store: FullStore, process: Process, folder: Path) -> tuple[StoreWork, Held]:
    held = Held()
    guard = DiskGuard(folder, 0.0, ballast_bytes=0)
    guard.guard(held)
    return StoreWork(cast(Store, store), cast(Any, {"cpu": process}), guard), held


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_module, "CHECK_S", 0.0)


async def test_a_result_without_room_is_kept_until_it_is_recorded(
    tmp_path: Path,
) -> None:
    store, process = FullStore(3), Process()
    work, held = work_of(store, process, tmp_path)
    assert await work.execute("cpu", BATCH) == ()
    assert (process.runs, store.changes) == (1, ["record"])
    assert held.reasons == [REASON, f"not {REASON}"] * 3


async def test_crashes_and_what_is_set_aside_wait_for_room_too(tmp_path: Path) -> None:
    store = FullStore(1)
    work, _ = work_of(store, Process(), tmp_path)
    await work.record_crashes([TASK])
    store.left = 1
    await work.quarantine(TASK, "cause")
    assert store.changes == ["crashes", "set aside"]


async def test_a_worker_without_room_holds_dispatch_before_the_retry(tmp_path: Path) -> None:
    work, held = work_of(FullStore(0), Process(NoRoomError("no room")), tmp_path)
    with pytest.raises(NoRoomError):
        await work.execute("cpu", BATCH)
    assert held.reasons == [REASON]


@pytest.mark.parametrize(("settled", "derived"), [((), True), ((7, 8), False)])
async def test_others_hear_of_settled_captions_and_derived_items(
    tmp_path: Path, settled: tuple[int, ...], derived: bool
) -> None:
    class Ending(FullStore):
        async def record(self, *_: object) -> Recorded:
            return Recorded(tasks=(), finished=(), stale=0, done_jobs=(), settled=settled, derived=derived)

    heard: list[tuple[int, ...] | str] = []
    devices = cast(Any, {"cpu": Process()})
    guard = DiskGuard(tmp_path, 0.0, ballast_bytes=0)
    work = StoreWork(
        cast(Store, Ending(0)),
        devices,
        guard,
        lambda items: heard.append(tuple(items)),
        lambda: heard.append("derived"),
    )
    await work.execute("cpu", BATCH)
    assert heard == (["derived"] if derived else [settled])
