"""Work is done once: captions of a new job take over what was made of them under other profiles, images included."""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from anyio import to_thread

from imgdiffd.errors import InputError, counted, first_line
from imgdiffd.images.files import link_whole
from imgdiffd.images.sweep import missing
from imgdiffd.job import CaptionRecord, ItemState
from imgdiffd.method.profile import Profile
from imgdiffd.method.replay import PAINTING
from imgdiffd.method.reuse import unchanged
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.status import about
from imgdiffd.store import adoption, jobs, refiltering
from imgdiffd.store.adoption import Adoption, Sources
from imgdiffd.store.bundles import NO_BUNDLE
from imgdiffd.store.rows import BundleRow, JobRow

CHUNK = 50  # captions per operation, each with up to hundreds of boxes that are judged again
RECORDS = 1000  # captions that a job gets per operation

T = TypeVar("T")


class Run(Protocol):
    """Runs an operation on a connection: the store's reading or its writing."""

    def __call__(self, operation: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]:
        """The operation's result."""


@dataclass(slots=True)
class RefilterCounts:
    """What a profile makes of captions that ended under others.

    `ended` counts those that end at once, `waiting` the others by the stage that they wait for, `paints` by reason
    those whose pair must be painted. That takes a device `paint_s` seconds, if the past tells.
    """

    captions: int = 0
    ended: Counter[ItemState] = field(default_factory=Counter)
    waiting: Counter[Stage] = field(default_factory=Counter)
    paints: Counter[str] = field(default_factory=Counter)
    paint_s: float | None = None

    def refuse_painting(self) -> None:
        """Raise InputError if any pair must be painted, saying how many, why, and what that takes."""
        if not (pairs := self.paints.total()):
            return
        why = "; ".join(f"{number}: {reason}" for reason, number in self.paints.most_common())
        cost = "" if self.paint_s is None else f", which takes one device {about(self.paint_s)}"
        raise InputError(
            f"{counted(pairs, 'pair')} of {counted(self.captions, 'caption')} would have to be painted{cost} ({why})",
            code="needs_painting",
            hint="confirm it with --paint; nothing was changed",
        )


class TakingOver:
    """Adoption for one open database, on which `models` work and whose images are in the folder `images`."""

    def __init__(
        self,
        read: Run,
        write: Run,
        images: Path | None,
        models: BundleRow,
        pipelines: frozenset[Pipeline],
        clock: Callable[[], float],
    ) -> None:
        self._read = read
        self._write = write
        self._images = images
        self._models = models
        self._pipelines = pipelines
        self._clock = clock

    @property
    def possible(self) -> bool:
        """Whether it is known whose results and which images these are."""
        return self._images is not None and self._models != NO_BUNDLE

    async def fill(self, job: int, profile: Profile) -> None:
        """Let the captions of a READING job take over what there is: images first, then rows."""
        if not self.possible:
            return
        others = await self._read(partial(adoption.other_profiles, profile=profile))
        after = 0
        while others and (items := await self._read(partial(adoption.untouched, job=job, after=after, limit=CHUNK))):
            find = partial(adoption.find_sources, items=items, profiles=others, models=self._models)
            found = await self._chosen(await self._read(find), profile)
            if found:
                taken = partial(adoption.take_over, job=job, adoptions=found, profile=profile)
                await self._write(partial(taken, now=self._clock(), pipelines=self._pipelines))
            after = items[-1]

    async def _chosen(self, sources: Sources, profile: Profile) -> list[Adoption]:
        """What each item takes over, if anything; the images that this names are there."""
        assert self._images is not None
        gone = await self._gone(sources)
        while True:
            chosen = (adoption.choose(item, stored, profile, gone) for item, stored in sources.items())
            found = [each for each in chosen if each is not None]
            links = {new: old for each in found for new, old in each.links.items() if old not in gone}
            lost = await to_thread.run_sync(link_whole, self._images, links) if links else None
            if not lost:
                return found
            gone |= lost  # deleted since it was looked for: decide again without it

    async def _gone(self, sources: Sources) -> frozenset[str]:
        assert self._images is not None
        names = frozenset(name for stored in sources.values() for each in stored for name in each.images)
        return frozenset(await to_thread.run_sync(missing, self._images, names)) if names else names

    async def plan(self, same: Sequence[int], profile: Profile, job: int | None) -> RefilterCounts:
        """What `refilter` would do with the same arguments; changes nothing."""
        others = await self._read(partial(adoption.other_profiles, profile=profile))
        plan, after, seen = RefilterCounts(), 0, set[bytes]()
        while rows := await self._read(partial(refiltering.finished, same=same, job=job, after=after, limit=CHUNK)):
            after = rows[-1].item
            new = {row.digest: row for row in rows if row.digest not in seen}
            seen |= new.keys()
            find = partial(adoption.find_sources, profiles=others, models=self._models)
            sources = await self._read(partial(find, items=[row.item for row in new.values()]))
            gone = await self._gone(sources)
            for row in new.values():
                stored = sources.get(row.item, ())
                found = adoption.choose(row.item, stored, profile, gone)
                whole = adoption.choose(row.item, stored, profile, frozenset()) if gone else found
                _count(plan, found, whole, _what_differs(others.get(row.group), profile))
        seconds = await self._read(refiltering.painting_seconds)
        plan.paint_s = None if seconds is None else seconds * plan.paints.total()
        return plan

    async def refilter(
        self,
        same: Sequence[int],
        profile: Profile,
        job: int | None,
        finish: Callable[[int], Awaitable[JobRow]],
        give_up: Callable[[int, str], Awaitable[object]],
    ) -> list[tuple[JobRow, JobRow]]:
        """Bring captions that ended under other profiles under this one; returns each job with its new one.

        `finish` ends the reading of a job, `give_up` fails it with a reason. Profiles in `same` are as good as this.
        """
        made = []
        for old in await self._read(partial(refiltering.jobs_with_finished, same=same, job=job)):
            now = self._clock()
            find = partial(refiltering.finished, same=same, job=old.id, limit=RECORDS)
            if not (rows := await self._read(partial(find, after=0))):
                continue  # another job had the same captions
            digest = hashlib.sha256(f"refilter {old.id} {old.sha256} {now}".encode()).hexdigest()
            add = partial(jobs.add_job, name=old.name, source=old.source, sha256=digest, profile=profile)
            new = await self._write(partial(add, priority=old.priority, now=now))
            try:
                while rows:
                    records = [CaptionRecord(row.caption, row.source_id, row.line) for row in rows]
                    await self._write(partial(jobs.add_captions, job=new.id, records=records, problems=(), now=now))
                    rows = await self._read(partial(find, after=rows[-1].item))
                made.append((old, await finish(new.id)))
            except Exception as error:
                await give_up(new.id, first_line(error))  # else its captions would belong to a job that never starts
                raise
        return made


def _count(plan: RefilterCounts, found: Adoption | None, whole: Adoption | None, differs: str | None) -> None:
    """Count a caption; `whole` is what it would take over if all its images were there."""
    plan.captions += 1
    if found is not None and found.caption.state is not ItemState.READY:
        plan.ended[found.caption.state] += 1
        return
    stage = Stage.REWRITE if found is None else found.caption.stage
    plan.waiting[stage] += 1
    if stage not in PAINTING:
        return
    if whole is not None and not whole.caption.paints:
        plan.paints["images that were not kept"] += 1
    elif differs is not None:
        plan.paints[differs] += 1
    elif found is None:
        plan.paints["made by other models, or before models were recorded"] += 1
    else:
        plan.paints["not painted under the thresholds of their day"] += 1


def _what_differs(other: Profile | None, profile: Profile) -> str | None:
    """Why nothing painted under the `other` profile can be used; None where it can."""
    if other is None:
        return "the profile rewrites captions differently"
    return None if Stage.GENERATE in unchanged(other, profile) else "the profile paints differently"
