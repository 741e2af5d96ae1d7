"""The daemon that soaks: a process of its own on the miniature bundle, with one CPU worker of one thread."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from imgdiffd.api.client import Client
from imgdiffd.job import JobState
from imgdiffd.store.read_pool import READ_CONNECTIONS

START_S = 300.0
STOP_S = 120.0
CACHE_CAPTIONS = 200_000  # whose rows take more than the 32 MB of the database's cache
FIRST_JOBS = 1000
PAGES_READ = 20  # of 1000 items: more than the 2 MB of a reading connection's cache


@contextmanager
def soaking(state: Path) -> Iterator[tuple[int, Client]]:
    """Its process id and a client, once it answers; stopped in order on leaving. Raises AssertionError if it ends."""
    (state / "inbox").mkdir(parents=True, exist_ok=True)
    own = {key: value for key, value in os.environ.items() if not key.startswith("IMGDIFFD_")}
    settings = {
        "IMGDIFFD_CONFIG": os.devnull,
        "IMGDIFFD_STATE_FOLDER": str(state),
        "IMGDIFFD_DEVICES": "cpu",
        "IMGDIFFD_THREADS_PER_DEVICE": "1",
        "IMGDIFFD_MIN_FREE_GB": "0.2",
        "IMGDIFFD_SETTLE_S": "0.2",
        # Blocks of this size go back to the system when they are freed: what is read is what is held, not the holes.
        "MALLOC_MMAP_THRESHOLD_": "262144",
        # Python's own allocator gives memory back by the MB, and half an hour is short for steps of one.
        "PYTHONMALLOC": "malloc",
        # Each shape of a batch leaves up to 100 kB of code in oneDNN's cache of 1024, which takes hours to fill.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
    }
    log = state.with_suffix(".log")
    with log.open("wb") as file:
        command = [sys.executable, "-P", "-m", "imgdiffd", "serve"]
        process = subprocess.Popen(command, env=own | settings, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        with Client(state / "imgdiffd.sock", timeout_s=START_S) as client:
            until = time.monotonic() + START_S
            while not (client.alive() and client.status().ready):
                assert process.poll() is None, f"the daemon ended: {log.read_text()[-2000:]}"
                assert time.monotonic() < until, f"the daemon was not ready within {START_S:g} s; see {log}"
                time.sleep(0.5)
            yield process.pid, client
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def fill_caches(client: Client, socket: Path, captions: Path) -> None:
    """Have the daemon touch more of its database than its caches hold, so that they grow no further.

    Small jobs fill them in days, which would look like a leak of some MB an hour meanwhile. The captions stay paused.
    """
    captions.write_text(
        "".join(f"a caption that waits for ever, number {number}\n" for number in range(CACHE_CAPTIONS))
    )
    client.set_paused(True)
    client.change(client.submit(captions).id, "pause")
    client.set_paused(False)
    captions.unlink()
    with ThreadPoolExecutor(
        READ_CONNECTIONS
    ) as pool:  # at once, since one question alone goes to the same connection each time
        for read in [pool.submit(_read_through, socket) for _ in range(READ_CONNECTIONS)]:
            read.result()


def _read_through(socket: Path) -> None:
    """List items until more pages were read than the cache of a connection that only reads has."""
    with Client(socket, timeout_s=START_S) as client:
        after: str | None = None
        for _ in range(PAGES_READ):
            page = client.items(limit=1000, after=after)
            after = page.next


def age(client: Client, inbox: Path) -> None:
    """Have the daemon end a thousand jobs, each of a caption that is too long to be painted.

    The first thousand jobs of a process enlarge its heap by 5 MB for good, whatever they are: histories of a
    bounded length fill, and holes form between what stays. A daemon that works for weeks has that behind it.
    """
    before = sum(client.status().job_counts.values())
    for number in range(FIRST_JOBS):
        partial = inbox / f".age-{number}.part"
        partial.write_text(f"the {number}th of many captions, " + "and a very long one of its kind, " * 20 + "\n")
        partial.rename(inbox / f"age-{number}.txt")
    until = time.monotonic() + START_S
    while True:
        counts = client.status().job_counts
        busy = counts.get(JobState.READING, 0) + counts.get(JobState.ACTIVE, 0)
        if not busy and sum(counts.values()) >= before + FIRST_JOBS:
            return
        assert time.monotonic() < until, f"the first {FIRST_JOBS} jobs did not end within {START_S:g} s: {counts}"
        time.sleep(0.5)
