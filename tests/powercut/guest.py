"""The first and only process of the guest: works on the store until the power goes, and says what it was promised.

It owns the guest's mounts and the lines on the serial console, each sent after the call that it reports returned:
`J <job> <captions>` for a job that was read, `R <stage> <item> ...` for results that were recorded.
"""

import ctypes
import hashlib
import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import anyio

from imgdiffd.images.files import write_whole
from imgdiffd.method.messages import GenerateOutput, RenderOutput, StageOutput
from imgdiffd.pipeline import Stage, Task
from imgdiffd.store import Store
from tests.fakes.answers import PROFILE, answers, captions
from tests.powercut.images import content_of

DATA = Path("/data")
HANDS = 4  # at work at once, so that commits are shared
TAKEN = 6  # items at most in a batch
CAPTIONS = 60  # in a job; the next comes when they run out
DISK = Path("/dev/vda")
DRIVERS = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")
_INIT_MODULE = 175  # the number of the system call init_module(2)

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Returns when it failed, upon which the kernel panics and the machine ends."""
    _mount("devtmpfs", "/dev", "devtmpfs")
    _mount("proc", "/proc", "proc")
    _mount("tmpfs", "/tmp", "tmpfs")
    console = os.open("/dev/ttyS0", os.O_WRONLY | os.O_NOCTTY)
    os.dup2(console, 1)
    os.dup2(console, 2)
    try:
        _load_drivers()
        _mount(str(DISK), str(DATA), "ext4")
        anyio.run(Guest().run)
    except BaseException:
        _say("E " + traceback.format_exc())


def _mount(source: str, target: str, kind: str) -> None:
    _refuse(_libc.mount(source.encode(), target.encode(), kind.encode(), 0, None), target)


def _load_drivers() -> None:
    """Those that are no part of the kernel itself; returns when the disk is there."""
    for name in DRIVERS:
        file = Path("/modules", f"{name}.ko")
        if file.exists():
            module = file.read_bytes()
            _refuse(_libc.syscall(_INIT_MODULE, module, ctypes.c_ulong(len(module)), b""), name)
    while not DISK.exists():
        time.sleep(0.01)


def _refuse(code: int, what: str) -> None:
    if code:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


class Guest:
    """Several hands that take ready items off the store, as devices would."""

    def __init__(self) -> None:
        self._held: set[int] = set()
        self._taking = anyio.Lock()

    async def run(self) -> None:
        """Until the power goes."""
        images = DATA / "pictures"
        images.mkdir(exist_ok=True)
        async with Store.open(DATA / "state.db") as store:
            await store.drop_unread_jobs()
            _say("UP")
            async with anyio.create_task_group() as group:
                for _ in range(HANDS):
                    group.start_soon(self._work, store, images)

    async def _work(self, store: Store, images: Path) -> None:
        while True:
            tasks = await self._take(store)
            items = [task.item for task in tasks]
            stage = tasks[0].stage
            outputs = answers(await store.stage_inputs(stage, items), passes=True)
            if files := {name: content_of(name) for output in outputs for name in _images(output)}:
                write_whole(images, files)
            attempts = {task.item: task.attempt for task in tasks}
            recorded = await store.record(stage, "guest", PROFILE, outputs, attempts, 0.001)
            if recorded.stale:
                raise AssertionError(f"{recorded.stale} results of {stage} were stale")
            _say(f"R {stage} {' '.join(map(str, items))}")
            self._held.difference_update(items)

    async def _take(self, store: Store) -> Sequence[Task]:
        """A batch of one stage that nobody else holds; a new job where nothing is ready."""
        async with self._taking:
            while not (tasks := await store.ready_tasks(TAKEN, self._held)):
                await _submit(store)
            first: Stage = tasks[0].stage
            batch = [task for task in tasks if task.stage is first]
            self._held.update(task.item for task in batch)
            return batch


async def _submit(store: Store) -> None:
    start = 1 + sum(job.total for job in await store.jobs())
    digest = hashlib.sha256(str(start).encode()).hexdigest()
    job = await store.add_job(f"from-{start}", "/inbox/captions", digest, PROFILE)
    await store.add_captions(job.id, captions(CAPTIONS, start))
    done = await store.finish_reading(job.id)
    _say(f"J {done.id} {done.total}")


def _images(output: StageOutput) -> Sequence[str]:
    if isinstance(output, GenerateOutput):
        return [name for name in (output.image1, output.image2) if name is not None]
    if isinstance(output, RenderOutput):
        return [name for region in output.regions for name in (region.left_image, region.right_image)]
    return ()
