"""Gathers the daemon's metrics: what a status holds, the costs of batches, the disk, the memory and the cards."""

import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import anyio
from anyio import to_thread
from prometheus_client.metrics_core import Metric

from imgdiffd.daemon.metric_families import gauge, of_cards, of_status, of_timings, of_totals, text_of
from imgdiffd.errors import ImgdiffdError
from imgdiffd.fleet.memory import CardReading, readings
from imgdiffd.status import Status
from imgdiffd.store import FunnelCounts, Store

_log = logging.getLogger(__name__)

TOTALS_S = (
    10.0  # for which the counts over all captions are kept: with thousands of jobs they take longer than a status
)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Metrics:
    """Everything that `GET /metrics` shows. Labels have few values: stages, states, reasons, devices; never jobs."""

    def __init__(
        self, store: Store, status: Callable[[], Awaitable[Status]], devices: Mapping[str, str], database: Path
    ) -> None:
        """`devices` are the workers' devices by name."""
        self._store = store
        self._status = status
        self._devices = devices
        self._database = database
        self._totals: tuple[float, FunnelCounts] | None = None
        self._looking = anyio.Lock()
        self._no_cards = ""

    async def text(self) -> bytes:
        """The metrics now, in Prometheus's text format."""
        status = await self._status()
        timings = await self._store.timings()
        totals = await self._counted()
        families = [*of_status(status), *of_timings(timings), *of_totals(totals)]
        families += await to_thread.run_sync(self._of_machine, status)
        return text_of(families)

    async def _counted(self) -> FunnelCounts:
        async with self._looking:
            if self._totals is None or time.monotonic() - self._totals[0] > TOTALS_S:
                self._totals = (time.monotonic(), await self._store.funnel())
            return self._totals[1]

    def _of_machine(self, status: Status) -> list[Metric]:
        disk = shutil.disk_usage(self._database.parent)
        processes = {"daemon": status.pid, **{each.name: each.pid for each in status.devices if each.pid is not None}}
        sizes = {
            (kind,): path.stat().st_size
            for kind, path in (("database", self._database), ("log", self._database.with_name("state.db-wal")))
            if path.exists()
        }
        return [
            gauge("disk_free_bytes", "Free bytes where the state folder is.", {(): disk.free}),
            gauge("disk_total_bytes", "Bytes of the file system of the state folder.", {(): disk.total}),
            gauge("database_bytes", "Bytes of the database and of its write-ahead log.", sizes, "file"),
            gauge(
                "resident_bytes",
                "Resident memory of the daemon and of each device's worker.",
                {(name,): size for name, pid in processes.items() if (size := _resident_bytes(pid))},
                "process",
            ),
            *of_cards(self._cards()),
        ]

    def _cards(self) -> Mapping[str, CardReading]:
        try:
            found = readings(self._devices)
        except ImgdiffdError as error:
            if str(error) != self._no_cards:
                _log.warning("metrics: no figures of the cards: %s", error)
            self._no_cards = str(error)
            return {}
        self._no_cards = ""
        return found


def _resident_bytes(pid: int) -> int:
    """0 if the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0
