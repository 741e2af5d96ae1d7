"""What is read from a running daemon: memory, descriptors, and the disk that no sample accounts for."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

MB = 1e6
_WANTED = """
    SELECT left_image FROM samples UNION SELECT right_image FROM samples
    UNION SELECT image1 FROM pairs WHERE item_id IN (SELECT item_id FROM samples)
    UNION SELECT image2 FROM pairs WHERE item_id IN (SELECT item_id FROM samples)
    UNION SELECT source FROM erasures WHERE with_image <> '' UNION SELECT erased FROM erasures WHERE with_image <> ''
    UNION SELECT with_image FROM erasures UNION SELECT without_image FROM erasures
"""  # of samples: those of pairs and objects under way come and go


def resident_mb(pid: int) -> float:
    """The resident memory of a process in MB. Raises OSError where it has ended."""
    fields = Path("/proc", str(pid), "statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / MB


def descriptors(pid: int) -> int:
    """How many files, pipes and sockets a process has open. Raises OSError where it has ended."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def wal_mb(state: Path) -> float:
    """The size in MB of the database's write-ahead log."""
    return _size(state / "state.db-wal") / MB


def unaccounted_mb(state: Path) -> float:
    """The disk in MB that holds neither rows, nor images of samples, nor the caption files themselves.

    That is unused pages of the database, images that should have been deleted, and whatever else was left behind.
    """
    with closing(sqlite3.connect(f"file:{state / 'state.db'}?mode=ro", uri=True)) as connection:
        named = {name for (name,) in connection.execute(_WANTED)}
        pages, page_bytes = (
            int(connection.execute(f"PRAGMA {what}").fetchone()[0]) for what in ("freelist_count", "page_size")
        )
    others = 0
    for folder, _, files in os.walk(state):
        for file in files:
            path = Path(folder, file)
            kept = path.relative_to(state)
            whole = kept.parts[0] in ("inbox", "state.db", "state.db-wal")
            if not whole and str(Path(*kept.parts[1:])) not in named:
                others += _size(path)
    return (pages * page_bytes + others) / MB
