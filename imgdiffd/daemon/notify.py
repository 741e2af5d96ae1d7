"""Tells a service manager that the daemon is ready, alive or stopping (sd_notify(3)), and formats the log for it."""

import logging
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

import anyio

from imgdiffd.daemon.log_lines import LineFormatter
from imgdiffd.errors import ImgdiffdError, visible
from imgdiffd.status import Status, headline

_log = logging.getLogger(__name__)

STATUS_EVERY_S = 2.0
DELAYED_EVERY_S = 5.0
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # of syslog(3)


class Notifier:
    """Talks to $NOTIFY_SOCKET. Every call returns at once; messages that the manager does not accept are dropped."""

    def __init__(self, environ: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.monotonic) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # "@": the abstract namespace
        self._clock = clock
        self._fed_s: float | None = None
        self.watchdog_s = _watchdog_s(environ)

    @property
    def enabled(self) -> bool:
        """Whether a service manager listens."""
        return bool(self._address)

    def ready(self) -> None:
        """Say that requests are answered from now on."""
        self._send("READY=1")

    def delayed(self, reason: str, within_s: float) -> None:
        """Say that the start is delayed by `reason`; call again within `within_s`, or the manager gives up."""
        self._send(f"STATUS={visible(' '.join(reason.split()))}\nEXTEND_TIMEOUT_USEC={round(within_s * 1e6)}")

    @contextmanager
    def delaying(self, reason: str) -> Iterator[None]:
        """Keep saying `delayed` from a thread, whatever else blocks, until the block is left."""
        over = threading.Event()

        def say() -> None:
            while not over.wait(DELAYED_EVERY_S):
                self.delayed(reason, 6 * DELAYED_EVERY_S)

        speaker = threading.Thread(target=say, name="delayed start", daemon=True)
        speaker.start()
        try:
            yield
        finally:
            over.set()
            speaker.join()

    def status(self, line: str) -> None:
        """Set the line that `systemctl status` shows for the daemon."""
        self._send("STATUS=" + visible(" ".join(line.split())))

    def stopping(self, within_s: float) -> None:
        """Say that the orderly stop has begun and may take `within_s`."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(within_s * 1e6)}")

    def feed(self) -> None:
        """Feed the watchdog. Call it at every turn of the loop; it sends four messages per watchdog period."""
        now_s = self._clock()
        if not self.watchdog_s or (self._fed_s is not None and now_s - self._fed_s < self.watchdog_s / 4):
            return
        if self._send("WATCHDOG=1"):
            self._fed_s = now_s

    def _send(self, message: str) -> bool:
        if not self._address:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)  # a manager that does not read must not block the daemon
            try:
                sender.sendto(message.encode(), self._address)
            except OSError as error:
                _log.debug("the service manager was not told %r: %s", message, error)
                return False
        return True


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """Seconds without a feed after which the manager acts; 0 if it does not watch this process."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0


async def tell_progress(notifier: Notifier, status: Callable[[], Awaitable[Status]]) -> None:
    """Keep the manager's line of progress up to date until cancelled."""
    said = ""
    while notifier.enabled:
        try:
            line = headline(await status())
        except ImgdiffdError as error:
            line = str(error)
        if line != said:
            notifier.status(line)
            said = line
        await anyio.sleep(STATUS_EVERY_S)


def syslog_priority(level: int) -> int:
    """The priority of syslog(3) for a level of `logging`."""
    return next((priority for least, priority in _PRIORITIES if level >= least), 7)


class JournalFormatter(LineFormatter):
    """Puts a priority before each line for journald (sd-daemon(3)), and no time, which journald adds itself."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines, including a traceback."""
        priority = syslog_priority(record.levelno)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


def in_journal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a service manager connected `stream` to the journal."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or without a file descriptor
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))
