"""Workers under a real limit of memory: the kernel kills the one that takes too much, and nothing else suffers."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration import faulty
from tests.integration.daemon_process import daemon, drop

CAPTIONS = [f"a {animal} beside a bus" for animal in ("cat", "dog", "cow", "hen")]
LIMIT_BYTES = 300 << 20
ROOTS = (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"))


@contextmanager
def limited(bytes_: int) -> Iterator[Path]:
    """The file to which a process writes its number so that the kernel limits its memory; skips where there is none."""
    for root, key in ROOTS:
        group = Path(root, f"imgdiffd-test-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / key).exists():
                (group / key).write_text(str(bytes_))
                yield group / "cgroup.procs"
                return
        finally:
            with suppress(OSError):  # a process that ends just now is still in it
                group.rmdir()
    pytest.skip("no group of processes with a limit of memory can be made here")


def test_a_worker_that_the_kernel_kills_for_memory_is_replaced(tmp_path: Path) -> None:
    with limited(LIMIT_BYTES) as members:
        start = f'echo $$ > {members}; exec "$0" "$@"'
        worker = ("sh", "-c", start, sys.executable, "-P", faulty.__file__)
        root = str(Path(__file__).parents[2])
        with daemon(tmp_path, worker=worker, PYTHONPATH=root, FAULTY_HEALS="1", IMGDIFFD_DEVICES="cpu") as running:
            running.wait(lambda status: status.ready, "readiness")
            drop(tmp_path, "captions.txt", [*CAPTIONS, "a take-memory@generate near a tree"])
            status = running.wait_done()
            assert status.devices[0].restarts == 1
            assert [(job.failed, job.sampled + job.rejected) for job in status.jobs] == [(0, len(CAPTIONS) + 1)]
            assert running.stop() == 0
    log = (tmp_path / "daemon.log").read_text()
    assert "was killed by SIGKILL, as the kernel does when memory runs out" in log
    assert "no limit acted" not in log
