"""Deletes images that are no longer wanted: looks through all folders at the start, then those of ended items."""

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread

from imgdiffd.errors import counted
from imgdiffd.images.files import ITEMS_PER_FOLDER, folder_of, items_of
from imgdiffd.images.retention import named, why_gone
from imgdiffd.images.sweep import delete, folders, missing, now_ns, superfluous
from imgdiffd.settings import KeepImages, Settings
from imgdiffd.store import Store

_log = logging.getLogger(__name__)

GATHER_S = 5.0  # items that end within this time are handled in one pass
AT_ONCE = 64  # files deleted before a pause as long as their deletion


class Cleanup:
    """Deletes images that are no longer wanted. It only reads the database, so it also works when the disk is full.

    If the daemon dies before everything is deleted, the next start finds the rest in its pass through all folders.
    """

    def __init__(self, store: Store, images: Path, keep: KeepImages) -> None:
        """The first pass deletes the temporary files in `images` that are older than this call, which are leftovers.

        Later passes leave all of them alone, since after the clock was set back one being written looks older too.
        """
        self._store = store
        self._images = images
        self._keep = keep
        self._started_ns = now_ns(images)
        self._marked: set[str] = set()
        self._all = True
        self._woken = anyio.Event()

    def mark(self, items: Iterable[int]) -> None:
        """Look at these items, which have ended or whose object removal has; their rows say so already."""
        if self._keep != "all":
            self._marked.update(map(folder_of, items))
            self._wake()

    def mark_deleted(self, items: range) -> None:
        """Look at the images of these items, whatever is kept: they may have no rows any more."""
        self._marked.update(map(folder_of, (*items[::ITEMS_PER_FOLDER], *items[-1:])))
        self._wake()

    async def mark_job(self, job: int) -> None:
        """As `mark`, for all items of a cancelled job."""
        items = await self._store.items_of(job)
        if items:
            self.mark([*items[::ITEMS_PER_FOLDER], items[-1]])

    def use(self, settings: Settings) -> None:
        """Keep what these settings say from now on, also of the images already there."""
        if settings.keep_pictures != self._keep:
            self._keep = settings.keep_pictures
            self._all = True
            self._wake()

    def _wake(self) -> None:
        if self._marked or self._all:
            self._woken.set()

    async def run(self) -> None:
        """Clean up until cancelled. If the file system refuses, that is logged and tried again next time."""
        while True:
            marked, self._marked, self._woken = self._marked, set(), anyio.Event()
            if self._all:
                self._all = False
                marked = {path.name for path, _ in await to_thread.run_sync(folders, self._images)}
            await self._clean(marked)
            await self._woken.wait()
            await anyio.sleep(GATHER_S)

    async def clean_marked(self) -> None:
        """Look at what is marked, once, where `run` does not."""
        marked, self._marked = self._marked, set()
        await self._clean(marked)

    async def _clean(self, marked: Collection[str]) -> None:
        count = 0
        for folder in sorted(marked):
            try:
                count += await self._cleanup(self._images / folder)
            except OSError as error:
                _log.warning("images: cleanup of this folder failed and is tried again next time: %s", error)
                self._marked.add(folder)
        self._started_ns = 0
        if count:
            _log.info("images: deleted %s, no longer wanted", counted(count, "file"))

    async def _cleanup(self, folder: Path) -> int:
        asked_ns = await to_thread.run_sync(now_ns, self._images)
        items = await self._store.images(items_of(folder.name))
        find = partial(superfluous, folder, items, self._keep, asked_ns=asked_ns, started_ns=self._started_ns)
        doomed = await to_thread.run_sync(find)
        for first in range(0, len(doomed), AT_ONCE):
            began = time.monotonic()
            await to_thread.run_sync(delete, doomed[first : first + AT_ONCE])
            await anyio.sleep(time.monotonic() - began)
        return len(doomed)

    def missing(self, names: Collection[str]) -> list[str]:
        """The images among `names` whose files are missing."""
        return missing(self._images, names)

    async def gone(self, item: int) -> Mapping[str, str]:
        """The item's images that rows name but whose files are missing, each with the reason."""
        known = (await self._store.images(range(item, item + 1))).get(item)
        if known is None:
            return {}
        absent = await to_thread.run_sync(self.missing, named(known))
        return {name: why_gone(known, name, self._keep) for name in absent}
