"""Many small caption files dropped into the real inbox at once, over a real store."""

import time
from dataclasses import dataclass
from pathlib import Path

import anyio

from imgdiffd.inbox import Inbox
from imgdiffd.settings import Settings
from imgdiffd.store import Store
from tests.fakes.answers import PROFILE

LONG_AGO_NS = 10**18  # so that every file counts as complete


@dataclass(frozen=True, slots=True)
class Taken:
    """What it took until every file was in `done`; `cpu_s` of all threads."""

    files: int
    wall_s: float
    cpu_s: float


def drop(inbox: Path, count: int) -> None:
    """So many files of two captions each, all different."""
    inbox.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        file = inbox / f"{number:06d}.txt"
        file.write_text(f"a cat on mat number {number}\na dog on mat number {number}\n", "utf-8")


async def take(store: Store, state: Path, count: int) -> Taken:
    """Run the inbox of the state folder `state` until the files dropped there are jobs, and moved out of the way."""
    every = anyio.Event()
    taken = 0

    def count_job() -> None:
        nonlocal taken
        taken += 1
        if taken == count:
            every.set()

    settings = Settings.model_validate({"state_folder": state, "settle_s": 0})
    inbox = Inbox(settings, store, PROFILE, on_job=count_job)
    began, cpu_s = time.perf_counter(), time.process_time()
    async with anyio.create_task_group() as group:
        group.start_soon(inbox.run)
        await every.wait()
        while any(path.suffix == ".txt" for path in await _listed(settings.inbox_folder)):
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    return Taken(count, time.perf_counter() - began, time.process_time() - cpu_s)


async def _listed(folder: Path) -> list[Path]:
    return [Path(path) async for path in anyio.Path(folder).iterdir()]
