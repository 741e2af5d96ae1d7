"""The jobs' progress as events: all of it at first, then what changed since the last event."""

from collections.abc import Mapping
from typing import Any

from fastapi.sse import format_sse_event
from pydantic import BaseModel

from imgdiffd.job import JobState
from imgdiffd.status import JobView, OpenJobs, RemovalView, Status


class ProgressEvent(BaseModel):
    """The daemon, and the jobs that changed since the last such event.

    The first one of a stream is `whole`: it has every job that a Status lists. `jobs` replace what was said of them
    before; `gone` are no longer listed, since they were deleted or ended among many. Times alone (`eta_s`,
    `seconds_per_item`) are no change. Every sample that is counted was sent before.
    """

    whole: bool
    ready: bool
    paused: bool
    problems: tuple[str, ...]
    job_counts: dict[JobState, int]
    open: OpenJobs
    removal: RemovalView
    jobs: tuple[JobView, ...]
    gone: tuple[int, ...] = ()


_Facts = tuple[Any, ...] | dict[str, Any]  # what counts as a change where it differs


def _timeless(record: OpenJobs | JobView) -> dict[str, Any]:
    return {**vars(record), "eta_s": None}


def _facts_of(status: Status) -> _Facts:
    return status.ready, status.paused, status.problems, status.job_counts, status.removal, _timeless(status.open)


def _facts_of_job(view: JobView) -> _Facts:
    stages = tuple((each.stage, each.waiting, each.passed, each.stopped, each.upstream) for each in view.stages)
    return {**_timeless(view), "stages": stages}


def _written(status: Status, jobs: tuple[JobView, ...], gone: tuple[int, ...], whole: bool) -> bytes:
    event = ProgressEvent(
        whole=whole,
        ready=status.ready,
        paused=status.paused,
        problems=status.problems,
        job_counts=status.job_counts,
        open=status.open,
        removal=status.removal,
        jobs=jobs,
        gone=gone,
    )
    return format_sse_event(event="progress", data_str=event.model_dump_json())


class SeenProgress:
    """What one look at the daemon saw, numbered, with the number of the look that last saw each job change."""

    def __init__(self, status: Status, before: "SeenProgress | None") -> None:
        """`before` is the look before this one, from which this one is told apart."""
        self._status = status
        self._number: int = 1 if before is None else before._number + 1
        self._facts = _facts_of(status)
        same = before is not None and before._facts == self._facts
        self._changed: int = before._changed if before is not None and same else self._number
        known: Mapping[int, tuple[_Facts, int]] = {} if before is None else before._jobs
        self._jobs: dict[int, tuple[_Facts, int]] = {
            view.id: self._dated(_facts_of_job(view), known.get(view.id)) for view in status.jobs
        }
        self._since: dict[int, bytes] = {}

    def _dated(self, facts: _Facts, known: tuple[_Facts, int] | None) -> tuple[_Facts, int]:
        return known if known is not None and known[0] == facts else (facts, self._number)

    def of_job(self, job: int) -> Status | None:
        """The status with this one of its jobs; None if it lists no such job."""
        view = next((view for view in self._status.jobs if view.id == job), None)
        return None if view is None else self._status.model_copy(update={"jobs": (view,)})

    def event(self, last: "SeenProgress | None") -> bytes:
        """The event for whoever was told of `last`, or of nothing yet; empty where nothing changed since."""
        since = 0 if last is None else last._number
        if since not in self._since:  # once for all who were told of the same
            jobs = tuple(view for view in self._status.jobs if self._jobs[view.id][1] > since)
            gone = () if last is None else tuple(sorted(last._jobs.keys() - self._jobs.keys()))
            changed = jobs or gone or self._changed > since
            self._since[since] = _written(self._status, jobs, gone, last is None) if changed else b""
        return self._since[since]
