"""Keeps what comes over the socket as a hidden file in the watch folder until it is whole."""

import logging
import re
import uuid
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import anyio

from imgdiffd.errors import StoreError

_log = logging.getLogger(__name__)

_SPOOLED = re.compile(r"\.submitted-[0-9a-f]{32}\.part")


def new_path(folder: Path) -> Path:
    """A path in `folder` for a file that scans ignore."""
    return folder / f".submitted-{uuid.uuid4().hex}.part"


async def write(path: Path, name: str, body: AsyncIterator[bytes]) -> None:
    """Write `body`, which is to be called `name`, to `path`. Raises StoreError where that fails."""
    try:
        async with await anyio.open_file(path, "xb") as file:
            async for part in body:
                await file.write(part)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"cannot keep {name} in {path.parent}: {reason}", hint="check the folder and its free space"
        ) from error


def remove_leftovers(folder: Path, uploads: Collection[Path]) -> None:
    """Remove what a killed daemon had received in part, but not the `uploads` of this one: the API may answer first."""
    try:
        for path in list(folder.iterdir()):
            if _SPOOLED.fullmatch(path.name) and path not in uploads:
                path.unlink(missing_ok=True)
    except OSError as error:  # the first scan reports it
        _log.debug("inbox: %s", error)
