"""Notices that files of the bundle's models were replaced or changed under the running daemon."""

import logging
from collections.abc import Mapping
from pathlib import Path

import anyio
from anyio import to_thread

from imgdiffd import hub
from imgdiffd.bundles.bundle import Bundle

_log = logging.getLogger(__name__)

CHECK_S = 30.0
_READ = frozenset({".safetensors", ".bin", ".pt", ".json", ".model", ".txt", ".jinja"})  # endings of what models are

Identity = tuple[int, int, int]


def _identities(bundle: Bundle) -> Mapping[Path, Identity]:
    """What tells a file from the one that takes its place: its number, its size and when it was written."""
    models = [bundle.model(role) for role in bundle.roles]
    folders = {hub.folder_of(bundle, model) for model in models}
    folders |= {hub.addition_of(bundle, each) for model in models for each in model.additions}
    found = {}
    for folder in sorted(folder for folder in folders if folder is not None):
        for path in folder.rglob("*") if folder.is_dir() else ():
            if path.suffix in _READ and path.is_file():
                status = path.stat()
                found[path] = status.st_ino, status.st_size, status.st_mtime_ns
    return found


class ModelFiles:
    """`problem` says which file is not what it was at the start, '' if none is.

    Running workers keep what they loaded. One that has to start again would load the files as they are now, and samples
    of different models would stand under one name.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._known = _identities(bundle)
        self.problem = ""

    async def run(self) -> None:
        """Check every CHECK_S seconds until cancelled."""
        while True:
            await anyio.sleep(CHECK_S)
            await self.check()

    async def check(self) -> None:
        """Check once."""
        try:
            now = await to_thread.run_sync(_identities, self._bundle)
        except OSError as error:  # a file that left while it was looked at, or a file system that fails for a while
            _log.debug("models: cannot be looked at: %s", error)
            return
        # Files that came along are not counted: another bundle's are fetched into the same folder of the cache.
        changed = [path for path, known in sorted(self._known.items()) if now.get(path) != known]
        problem = _told(self._bundle, changed) if changed else ""
        if problem and problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem


def _told(bundle: Bundle, changed: list[Path]) -> str:
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return (
        f"bundle {bundle.name}: {changed[0]}{more} changed since the daemon started: a worker that starts again would"
        " mix models; restart the daemon, or put the files back"
    )
