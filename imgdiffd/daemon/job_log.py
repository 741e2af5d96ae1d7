"""Writes a line with the funnel to the log when a job ends."""

import logging
from functools import partial

import anyio

from imgdiffd.api.events import Bell
from imgdiffd.daemon.views import funnel_view
from imgdiffd.job import TERMINAL_JOB_STATES, JobState
from imgdiffd.status import Funnel, FunnelStep
from imgdiffd.store import JobRow, Store

_log = logging.getLogger(__name__)

PACE_S = 1.0  # between two looks, however much is recorded


class JobLog:
    """Looks at the jobs after each change; `bell` is rung by every one."""

    def __init__(self, store: Store, bell: Bell) -> None:
        self._store = store
        self._bell = bell

    async def run(self) -> None:
        """Log the end of each job that was open at the start or came later, until cancelled."""
        rings = self._bell.rings
        known, newest = await self._store.open_jobs()
        while True:
            await self._bell.after(rings)
            await anyio.sleep(PACE_S)
            rings = self._bell.rings
            now_open, now_newest = await self._store.open_jobs()
            for job in sorted(known.union(range(newest + 1, now_newest + 1)) - now_open):
                await self._tell(job)
            known, newest = now_open, now_newest

    async def _tell(self, job: int) -> None:
        row = await self._store.job(job)
        if row is None or row.state not in TERMINAL_JOB_STATES:  # deleted, or tried again meanwhile
            return
        if row.duplicate_of is not None:
            _log.info("job %d (%r) is a duplicate of job %d", job, row.name, row.duplicate_of, extra={"job": job})
            return
        funnel = funnel_view(await self._store.funnel(job))
        extra = {"job": job, "funnel": {step.name: step.count for step in funnel.steps}}
        say = partial(_log.warning if row.error else _log.info, extra=extra)
        ended = {JobState.DONE: "is done", JobState.CANCELLED: "was cancelled"}.get(row.state, "has failed")
        say("job %d (%r) %s %s: %s", job, row.name, ended, _lasted(row), row.error or in_one_line(funnel))


def in_one_line(funnel: Funnel) -> str:
    """The funnel as `captions 9, rewritten 8 (no_nouns 1), …`."""
    return ", ".join(map(_step, funnel.steps))


def _step(step: FunnelStep) -> str:
    lost = ", ".join(f"{reason} {count}" for reason, count in step.lost.items())
    return f"{step.name} {step.count}{f' ({lost})' if lost else ''}"


def _lasted(row: JobRow) -> str:
    seconds = max(0.0, (row.finished_at or row.created_at) - row.created_at)
    if seconds < 1:
        return "within a second"
    return f"after {seconds / 60:.0f} min" if seconds >= 600 else f"after {seconds:.0f} s"
