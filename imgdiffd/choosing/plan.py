"""What a profile would yield from stored scores and what it still needs, as `imgdiffd refilter --dry-run` tells it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from imgdiffd.choosing.columns import Array, Columns
from imgdiffd.choosing.course import REJECTED, SAMPLED, WAITS
from imgdiffd.choosing.funnel import ChoiceStep, Funnels
from imgdiffd.choosing.gathering import STAGES, STATES
from imgdiffd.choosing.outlook import Outlook, outlook
from imgdiffd.choosing.reusing import Reusable
from imgdiffd.job import TERMINAL_ITEM_STATES, ItemState
from imgdiffd.method.profile import Profile
from imgdiffd.method.reuse import first_to_redo, work_settings
from imgdiffd.pipeline import CAPTION_STAGES, Stage

Missing = Callable[[Collection[str]], Collection[str]]  # returns which of these images are gone
Images = Callable[[Collection[int]], Collection[tuple[int, str, str]]]  # returns the images of these captions' pairs
_ENDED = [STATES[state] for state in TERMINAL_ITEM_STATES - {ItemState.FAILED}]
_IMAGED = tuple(STAGES[stage] for stage in CAPTION_STAGES if stage not in (Stage.REWRITE, Stage.GENERATE))


@dataclass(frozen=True, slots=True)
class MissingWork:
    """What waits for a stage: captions, and those of their regions that are known already.

    `seconds` is what the stage takes for them and for those that will follow from stages before it.
    """

    stage: Stage
    captions: int
    regions: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Redo:
    """Captions of another profile, of which nothing counts from `stage` on, since these `settings` differ."""

    profile: str
    captions: int
    stage: Stage
    settings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prospect:
    """What `profile` would yield from what is stored of `captions`.

    `painted_again` counts the captions whose pair would have to be painted again because its images are gone; they
    wait for `generate` in `work`. Nothing is taken over of `foreign` captions, which other models worked on. Those
    `not_ended` are left out. `seconds` is the sum over `work`: of one device, and only an estimate.
    """

    profile: str
    captions: int
    steps: tuple[ChoiceStep, ...]
    work: tuple[MissingWork, ...]
    painted_again: int
    redo: tuple[Redo, ...]
    foreign: int
    not_ended: int
    seconds: float

    @property
    def samples(self) -> ChoiceStep:
        """The last step."""
        return self.steps[-1]


def plan(
    columns: Columns,
    profile: Profile,
    profile_of: Callable[[int], Profile],
    *,
    job: int | None = None,
    jobs: Collection[int] | None = None,
    images: Images = lambda items: (),
    missing: Missing = lambda names: (),
    seconds_per_item: Mapping[Stage, float] | None = None,
) -> Prospect:
    """What `profile` would yield from the captions of `job`, or of all jobs.

    Of a caption that several jobs have, the one counts of which most is stored; only those that have ended do. `images`
    names the images of pairs, and `missing` says which are gone. `seconds_per_item` is what a stage costs a caption.
    Results are taken over from `jobs` alone, from all where these are not given.
    """
    items, found = columns.items, outlook(columns, profile, profile_of, jobs=jobs)
    among = chosen_captions(columns, found, job)
    gone = _gone(columns, found, among, images, missing)
    waits = np.where(gone, STAGES[Stage.GENERATE], found.stage)
    costs = seconds_per_item or {}
    work = _work(columns, found, among, waits, costs, profile)
    return Prospect(
        profile.name,
        int(among.sum()),
        Funnels(columns, found, among).steps(),
        work,
        int(gone.sum()),
        tuple(_redo(columns, among, profile, profile_of)),
        int((among & ~Reusable(columns, profile, profile_of, jobs).counted).sum()),
        int((~np.isin(items["state"], _ENDED) & (True if job is None else items["job"] == job)).sum()),
        sum(each.seconds for each in work),
    )


def chosen_captions(columns: Columns, found: Outlook, job: int | None = None) -> Array:
    """Which rows stand for their caption: of equal captions that have ended, the one of which most is stored."""
    items = columns.items
    among: Array = np.isin(items["state"], (SAMPLED, REJECTED))
    if job is not None:
        among &= items["job"] == job
    rows = np.flatnonzero(among)
    known = (found.state != WAITS)[rows]
    order = rows[np.lexsort((items["item"][rows], found.stage[rows], known, items["sha2"][rows], items["sha1"][rows]))]
    last = np.ones(len(order), dtype=bool)
    last[:-1] = (items["sha1"][order][1:] != items["sha1"][order][:-1]) | (
        items["sha2"][order][1:] != items["sha2"][order][:-1]
    )
    chosen = np.zeros(len(columns), dtype=bool)
    chosen[order[last]] = True
    return chosen


def _gone(columns: Columns, found: Outlook, among: Array, images: Images, missing: Missing) -> Array:
    """The captions that wait for a stage that needs the images of their pair, which are not there."""
    needs = among & (found.state == WAITS) & np.isin(found.stage, _IMAGED) & columns.items["painted"]
    named = images(columns.items["item"][needs].tolist())
    absent = frozenset(missing([name for _, *pair in named for name in pair]))
    items = [item for item, *pair in named if not absent.isdisjoint(pair)]
    gone: Array = needs & np.isin(columns.items["item"], np.array(items, dtype=np.int64))
    return gone


def _work(
    columns: Columns, found: Outlook, among: Array, waits: Array, costs: Mapping[Stage, float], profile: Profile
) -> tuple[MissingWork, ...]:
    """By stage, what waits there; what follows from it is guessed by the shares that pass today."""
    waiting = among & (found.state == WAITS)
    regions = waiting[found.regions["item"]] & (found.regions["state"] == WAITS)
    follows, work = 0.0, []
    for stage in CAPTION_STAGES:
        if stage in profile.skipped_stages:
            continue
        here = waiting & (waits == STAGES[stage])
        there = regions & (found.regions["stage"] == STAGES[stage]) & (waits == found.stage)[found.regions["item"]]
        arrives = follows + int(here.sum())
        if arrives:
            seconds = arrives * costs.get(stage, 0.0)
            work.append(MissingWork(stage, int(here.sum()), int(there.sum()), seconds))
        follows = arrives * _share_passing(columns, stage)
    return tuple(work)


def _share_passing(columns: Columns, stage: Stage) -> float:
    """The share of captions judged in `stage` that passed it; one half where there is none."""
    items, number = columns.items, STAGES[stage]
    passed = int(((items["stage"] > number) | (items["state"] == SAMPLED)).sum())
    rejected = int(((items["stage"] == number) & (items["state"] == REJECTED)).sum())
    return passed / (passed + rejected) if passed + rejected else 0.5


def _redo(columns: Columns, among: Array, profile: Profile, profile_of: Callable[[int], Profile]) -> "list[Redo]":
    groups, numbers = np.unique(columns.items["group"][among], return_counts=True)
    found = []
    for group, number in zip(groups.tolist(), numbers.tolist(), strict=True):
        own = profile_of(group)
        if stage := first_to_redo(own, profile):
            before, after = work_settings(own, stage), work_settings(profile, stage)
            settings = tuple(key for key in after if before[key] != after[key])
            found.append(Redo(own.name, number, stage, settings))
    return found
