"""What the service manager hears, over real datagram sockets."""

import io
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from imgdiffd.daemon import notify
from imgdiffd.daemon.notify import JournalFormatter, Notifier, in_journal, tell_progress
from imgdiffd.errors import StoreError
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.schedulers.virtual_time import run_virtual
from imgdiffd.status import DeviceView, JobView, OpenJobs, Status, headline
from tests.fakes.work import FakeWork

STATUS = Status(
    version="1", pid=1, uptime_s=0.0, ready=True, paused=False, problems=(), bundle="mini", inbox="/inbox",
    open_tasks=0, steals=0, devices=(), jobs=(),
)  # fmt: skip
DEVICE = DeviceView(name="cpu", state="ready", detail="", pid=2, restarts=0, running=1, queued=0, busy_s=0.0)
JOB = JobView(
    id=1, name="a.txt", state="active", profile="default", created_at=1.0, finished_at=None, captions=64, duplicates=0,
    problems=0, sampled=20, rejected=10, failed=3, cancelled=1, samples=41, error=None, duplicate_of=None, eta_s=150.0,
)  # fmt: skip


class Manager:
    """The receiving end, as systemd has it."""

    def __init__(self, address: str | bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "n"))
    with manager.socket:
        yield manager


def notifier_of(manager: Manager, **environ: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": str(manager.socket.getsockname()), **environ}, clock=lambda: 0.0)


def test_each_message_is_one_datagram_of_assignments(manager: Manager) -> None:
    notifier = notifier_of(manager)
    notifier.delayed("no\nroom", 30)
    notifier.ready()
    notifier.status("two\nlines")
    notifier.stopping(90.5)
    assert manager.heard() == [
        "STATUS=no room\nEXTEND_TIMEOUT_USEC=30000000",
        "READY=1",
        "STATUS=two lines",
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=90500000",
    ]


def test_an_at_sign_means_the_abstract_namespace() -> None:
    name = f"imgdiffd-test-{os.getpid()}"
    manager = Manager(b"\0" + name.encode())
    with manager.socket:
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert manager.heard() == ["READY=1"]


def test_without_a_manager_nothing_is_said_and_nothing_fails(tmp_path: Path) -> None:
    silent = Notifier({"WATCHDOG_USEC": "1000000"})
    silent.ready()
    silent.feed()
    assert not silent.enabled
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_a_manager_that_does_not_read_holds_nobody_up(manager: Manager) -> None:
    notifier = notifier_of(manager)
    for number in range(10_000):
        notifier.status(str(number))
    assert 0 < len(manager.heard()) < 10_000


@pytest.mark.parametrize(
    ("environ", "expected_s"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_the_watchdog_is_that_of_this_process_only(environ: dict[str, str], expected_s: float) -> None:
    assert Notifier(environ).watchdog_s == expected_s


def test_a_quick_loop_feeds_the_watchdog_four_times_per_period(manager: Manager) -> None:
    now_s = 0.0
    environ = {"NOTIFY_SOCKET": str(manager.socket.getsockname()), "WATCHDOG_USEC": "8000000"}
    notifier = Notifier(environ, clock=lambda: now_s)
    for turn in range(80):
        now_s = turn / 10
        notifier.feed()
    assert manager.heard() == ["WATCHDOG=1"] * 4


def test_a_loop_that_is_not_watched_sends_no_sign_of_life(manager: Manager) -> None:
    notifier_of(manager).feed()
    assert manager.heard() == []


def test_an_idle_scheduler_gives_signs_of_life_until_it_hangs() -> None:
    turns_s: list[float] = []

    async def main() -> None:
        scheduler = Scheduler(FakeWork(), poll_s=5.0, on_turn=lambda: turns_s.append(anyio.current_time()))
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.run)
            await anyio.sleep(100)
            group.cancel_scope.cancel()  # the loop no longer turns; the rest of the process does
        await anyio.sleep(1000)

    run_virtual(main)
    assert max(after - before for before, after in pairwise(turns_s)) == pytest.approx(5.0)
    assert 90 <= turns_s[-1] <= 100


@pytest.mark.anyio
async def test_progress_and_database_errors_reach_the_manager(manager: Manager) -> None:
    answers: Iterator[Status | StoreError] = iter([STATUS, STATUS, StoreError("the disk is gone")])

    async def status() -> Status:
        answer = next(answers, None)
        if answer is None:
            scope.cancel()
            return STATUS
        if isinstance(answer, StoreError):
            raise answer
        return answer

    with anyio.CancelScope() as scope, pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgdiffd.daemon.notify.STATUS_EVERY_S", 0.0)
        await tell_progress(notifier_of(manager), status)
    assert manager.heard()[:2] == ["STATUS=no job is open", "STATUS=the disk is gone"]


@pytest.mark.anyio
async def test_without_a_manager_nobody_asks_for_progress() -> None:
    async def status() -> Status:
        raise AssertionError

    await tell_progress(Notifier({}), status)


def test_the_headline_says_what_is_wrong_first_then_progress() -> None:
    ended = JOB.model_copy(update={"state": "done", "captions": 1000})
    status = STATUS.model_copy(
        update={
            "problems": ("disk: full",), "jobs": (JOB, ended), "job_counts": {"active": 1, "done": 1},
            "open": OpenJobs(captions=64, done=34, samples=41, eta_s=150.0),
            "devices": (DEVICE, DEVICE.model_copy(update={"state": "parked"})),
        }
    )  # fmt: skip
    assert headline(status) == (
        "disk: full; 1 of 2 devices ready; open jobs: 1, captions: 34 of 64, samples: 41; about 2 min left"
    )
    paused = status.model_copy(update={"paused": True})
    assert headline(paused).startswith("paused; disk: full; 1 of 2 devices ready; ")
    assert "left" not in headline(paused)


def test_every_line_for_the_journal_has_a_priority_and_no_time() -> None:
    try:
        raise StoreError("gone")
    except StoreError:
        record = logging.LogRecord("imgdiffd.x", logging.ERROR, "", 0, "cannot %s", ("write",), sys.exc_info())
    lines = JournalFormatter().format(record).splitlines()
    assert lines[0] == "<3>imgdiffd.x: cannot write"
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize(("level", "priority"), [(10, 7), (20, 6), (30, 4), (40, 3), (50, 2)])
def test_levels_are_syslogs(level: int, priority: int) -> None:
    record = logging.LogRecord("a", level, "", 0, "b", None, None)
    assert JournalFormatter().format(record) == f"<{priority}>a: b"


def test_a_long_opening_extends_the_start_until_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "DELAYED_EVERY_S", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        manager.settimeout(20)
        with Notifier({"NOTIFY_SOCKET": str(tmp_path / "n")}).delaying("opening the database"):
            for _ in range(3):  # while this thread, like SQLite, lets nothing else of the loop run
                assert manager.recv(4096) == b"STATUS=opening the database\nEXTEND_TIMEOUT_USEC=60000"
        manager.setblocking(False)
        with suppress(BlockingIOError):
            while manager.recv(4096):
                pass
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


def test_only_the_journals_own_stream_counts_as_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        status = os.fstat(stream.fileno())
        here = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert in_journal(stream, here)
        assert not in_journal(stream, {"JOURNAL_STREAM": "1:2"})
        assert not in_journal(stream, {})
    assert not in_journal(stream, here)
    assert not in_journal(io.StringIO(), here)
