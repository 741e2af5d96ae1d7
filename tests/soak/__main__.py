"""`make test-soak`: does a daemon that works for weeks stay as small as it is? Exits 1 where something grows.

Small jobs with object removal are dropped, two files at a time. Whenever nothing is left to do, everything is read:
what a batch under way takes for itself would hide a leak among tens of MB of noise. After the first third of the time,
a straight line is laid through each of: the memory of the daemon and of each worker, their descriptors, the write-ahead
log, and the disk that no sample accounts for. A limit is missed where all of the slope's 95 % interval lies above it.
Where the interval reaches further above the limit than the growth that must be told apart, the soak was too short to
judge: it says so and exits 2.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from imgdiffd.api.client import Client
from imgdiffd.job import JobState
from imgdiffd.status import Status
from tests.soak.daemon import age, fill_caches, soaking
from tests.soak.events import listen
from tests.soak.mill import Mill
from tests.soak.readings import descriptors, resident_mb, unaccounted_mb, wal_mb
from tests.soak.slope import Slope, slope

WARM_UP = 1 / 3
FILES = 2  # at a time
LOOK_EACH_S = 0.5
GIVE_BACK_S = 8.0  # in which an idle worker has given unused memory back, and finished jobs were cleaned up after


@dataclass(frozen=True, slots=True)
class Limit:
    """What one series may grow by in an hour, and the growth that the soak must at least be able to see."""

    unit: str
    per_hour: float
    seen_per_hour: float


LIMITS = {
    "daemon memory": Limit("MB", 1.0, 1.0),
    "worker memory": Limit("MB", 5.0, 5.0),
    "descriptors": Limit("", 0.0, 1.0),
    "write-ahead log": Limit("MB", 0.1, 1.0),  # 0 but for what is learnt of the machine, some bytes a job
    "other disk": Limit("MB", 0.1, 1.0),
}
Readings = dict[str, list[float]]  # by what is read; "time" has the seconds


@dataclass(frozen=True, slots=True)
class Judged:
    """The slope of one series and what it means: "holds", "grows" or "cannot tell"."""

    what: str
    first: float
    last: float
    slope: Slope
    verdict: str


def judge(readings: Readings) -> list[Judged]:
    """Each series after the warm-up. Raises ValueError where there are too few readings."""
    times = readings["time"]
    begin = next(number for number, time_s in enumerate(times) if time_s >= times[-1] * WARM_UP)
    found = []
    for what, values in readings.items():
        if what == "time":
            continue
        limit, after = limit_of(what), values[begin:]
        line = slope(times[begin:], after)
        if line.least > limit.per_hour:
            verdict = "grows"
        elif line.most > limit.per_hour + limit.seen_per_hour:
            verdict = "cannot tell"
        else:
            verdict = "holds"
        found.append(Judged(what, after[0], after[-1], line, verdict))
    return found


def limit_of(what: str) -> Limit:
    """The limit of a series, whose name begins with one of LIMITS."""
    return next(limit for name, limit in LIMITS.items() if what.startswith(name))


def soak(state: Path, minutes: float, console: Console) -> Readings:
    """Run the daemon for so long. Raises AssertionError where it or a worker ends."""
    readings: Readings = {}
    stop = Event()
    with soaking(state) as (pid, client):
        fill_caches(client, state / "imgdiffd.sock", state.with_suffix(".txt"))
        age(client, state / "inbox")
        listener = Thread(target=listen, args=(state / "imgdiffd.sock", stop))
        listener.start()
        mill = Mill(state / "inbox")
        began = time.monotonic()
        try:
            while time.monotonic() < began + minutes * 60:
                for _ in range(FILES):
                    mill.drop()
                _wait_idle(client, mill)
                time.sleep(GIVE_BACK_S)
                _read(readings, time.monotonic() - began, pid, client.status(), state)
            _refuse_idle(client, console)
        finally:
            stop.set()
            listener.join()
    return readings


def _wait_idle(client: Client, mill: Mill) -> None:
    """Until every file was taken and every job that is not paused has ended, object removal too."""
    while True:
        taken, status = mill.taken, client.status()
        busy = sum(status.job_counts.get(state, 0) for state in (JobState.READING, JobState.ACTIVE))
        if taken and not busy and not status.removal.waiting:
            return
        assert status.ready, f"the daemon is not well: {status.problems}"
        time.sleep(LOOK_EACH_S)


def _read(readings: Readings, time_s: float, pid: int, status: Status, state: Path) -> None:
    row = {
        "time": time_s,
        "daemon memory": resident_mb(pid),
        "descriptors of the daemon": descriptors(pid),
        "write-ahead log": wal_mb(state),
        "other disk": unaccounted_mb(state),
    }
    for device in status.devices:
        assert device.pid is not None, f"{device.name}: {device.state} {device.detail}"
        assert not device.restarts, f"{device.name} was restarted; see the log"
        row[f"worker memory, {device.name}"] = resident_mb(device.pid)
        row[f"descriptors of {device.name}"] = descriptors(device.pid)
    for what, value in row.items():
        readings.setdefault(what, []).append(value)


def _refuse_idle(client: Client, console: Console) -> None:
    """A daemon that did nothing cannot leak."""
    counts = {step.name: step.count for step in client.funnel().steps}
    console.print(f"{counts['samples']} samples and {counts['removal samples']} of object removal were made")
    assert all(counts[name] for name in ("samples", "removal samples")), f"too little came of it: {counts}"


def show(judged: Sequence[Judged], console: Console) -> None:
    """Print the slopes."""
    table = Table("", "first", "last", "an hour", "limit", "", box=SIMPLE_HEAD, pad_edge=False)
    for each in judged:
        limit = limit_of(each.what)
        grown = f"{each.slope.per_hour:+.2f} ± {each.slope.error:.2f} {limit.unit}"
        table.add_row(
            each.what, f"{each.first:.1f}", f"{each.last:.1f}", grown, f"{limit.per_hour:g} {limit.unit}", each.verdict
        )
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    """Soaks and prints; the exit status: 1 where something grows, 2 where the soak cannot tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, default=Path("build/soak"), help="for the state, log and readings; new")
    parser.add_argument("--readings", type=Path, help="judge the readings of an earlier soak instead")
    chosen = parser.parse_args(arguments)
    console = Console(width=120)
    if chosen.readings is None:
        state = chosen.folder.absolute() / time.strftime("%Y%m%d-%H%M%S")
        readings = soak(state, chosen.minutes, console)
        state.with_suffix(".json").write_text(json.dumps(readings))
        console.print(f"every reading is in {state.with_suffix('.json')}", highlight=False)
    else:
        readings = json.loads(chosen.readings.read_text())
    judged = judge(readings)
    show(judged, console)
    verdicts = {each.verdict for each in judged}
    return 1 if "grows" in verdicts else 2 if "cannot tell" in verdicts else 0


if __name__ == "__main__":
    raise SystemExit(main())
