"""Takes stored results over: items of a new job get the rows and images that the same captions have elsewhere."""

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import lru_cache

from imgdiffd.images.files import erased_path, pair_paths, removal_paths, sample_paths
from imgdiffd.job import ItemState
from imgdiffd.method.messages import GenerateOutput, RenderOutput, StageOutput
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal_messages import EraseOutput, InspectOutput
from imgdiffd.method.removal_replay import replay_removal
from imgdiffd.method.replay import Replay, replay
from imgdiffd.method.reuse import unchanged
from imgdiffd.pipeline import CAPTION_STAGES, DEPTH, PIPELINES, Pipeline, Stage
from imgdiffd.store.bundles import bundles_of
from imgdiffd.store.results import apply
from imgdiffd.store.rows import BundleRow
from imgdiffd.store.stored import StoredCaption, load_stored

Sources = Mapping[int, Sequence[StoredCaption]]  # a caption -> what is stored of it under other profiles


@dataclass(frozen=True, slots=True)
class Adoption:
    """What an item takes over under a profile from what is stored of the same caption in another `job`.

    `removal` is None where object removal does not begin with its pair.
    """

    item: int
    job: int
    caption: Replay
    removal: Replay | None

    @property
    def pair(self) -> tuple[str, str]:
        """The names of its pair's images."""
        return pair_paths(self.item, self.caption.attempt)

    @property
    def links(self) -> dict[str, str]:
        """By new name, the image that it is to be, whether that is there or not."""
        outputs = (*self.caption.outputs, *(self.removal.outputs if self.removal else ()))
        named = ((_images(_as_of(output, 0, self.pair)), _images(output)) for _, output in outputs)
        return {new: old for news, olds in named for new, old in zip(news, olds, strict=True)}


@lru_cache(maxsize=256)
def _profile(stored: str) -> Profile:
    return Profile.model_validate_json(stored)


def other_profiles(connection: sqlite3.Connection, profile: Profile) -> dict[int, Profile]:
    """The profiles, by id, under which a caption's rewriting is the same as under `profile`, but not that itself."""
    own = profile.stored()
    rows = connection.execute("SELECT id, json FROM profiles").fetchall()
    others = {row["id"]: _profile(row["json"]) for row in rows if row["json"] != own}
    return {key: other for key, other in others.items() if Stage.REWRITE in unchanged(other, profile)}


def untouched(connection: sqlite3.Connection, job: int, after: int, limit: int) -> list[int]:
    """The job's next `limit` captions above item `after` that nothing was done about yet, in order."""
    rows = connection.execute(
        "SELECT id FROM items INDEXED BY items_ready WHERE stage = ? AND job_id = ? AND state = 'ready' AND id > ?"
        " ORDER BY id LIMIT ?",
        (CAPTION_STAGES[0], job, after, limit),
    )
    return [row[0] for row in rows]


def find_sources(
    connection: sqlite3.Connection, items: Sequence[int], profiles: Mapping[int, Profile], models: BundleRow
) -> Sources:
    """What is stored under these profiles of the captions that `items` have, if only `models` worked on it."""
    rows = connection.execute(
        "SELECT wanted.id AS wanted, old.id, old.job_id FROM json_each(?) AS asked"
        " CROSS JOIN items AS wanted ON wanted.id = asked.value CROSS JOIN json_each(?) AS other"
        " CROSS JOIN items AS old ON old.profile_id = other.value AND old.caption_sha = wanted.caption_sha"
        " AND old.state <> 'cancelled' AND old.origin IS NULL ORDER BY asked.key, old.id",
        (json.dumps(list(items)), json.dumps(list(profiles))),
    ).fetchall()
    worked = bundles_of(connection, {row["job_id"] for row in rows})
    agreeing = {job for job, bundles in worked.items() if all(models.agrees(bundle) for bundle in bundles)}
    usable = [row for row in rows if row["job_id"] in agreeing]
    stored = load_stored(connection, list({row["id"] for row in usable}), profiles)
    found: dict[int, list[StoredCaption]] = {}
    for row in usable:
        found.setdefault(row["wanted"], []).append(stored[row["id"]])
    return found


def choose(item: int, sources: Sequence[StoredCaption], profile: Profile, gone: AbstractSet[str]) -> Adoption | None:
    """What `item` takes over under `profile`: from the source that gets it furthest. None where nothing helps.

    `gone` are the images that are not there.
    """
    found = [(replay(each.caption, profile, gone), each) for each in sources]
    if not found:
        return None
    best, source = max(found, key=lambda each: _how_far(each[0]))
    if not best.outputs:
        return None
    return Adoption(item, source.job, best, _removal(source, profile, gone))


def _removal(source: StoredCaption, profile: Profile, gone: AbstractSet[str]) -> Replay | None:
    if source.removal is not None:
        return replay_removal(source.removal, profile, gone)
    images = source.caption.pair.images if source.caption.pair else ()
    first = PIPELINES[Pipeline.REMOVAL].stages[0]
    there = images and gone.isdisjoint(images)
    return Replay((), first, ItemState.READY, source.caption.attempt) if there else None


def _how_far(found: Replay) -> tuple[bool, int, int]:
    return found.state is not ItemState.READY, DEPTH[found.stage], found.attempt


def take_over(
    connection: sqlite3.Connection,
    job: int,
    adoptions: Sequence[Adoption],
    profile: Profile,
    now: float,
    pipelines: Collection[Pipeline],
) -> None:
    """Record what these items of a READING job take over, as if their stages had given it; the images are there."""
    by_item = {each.item: each for each in adoptions}
    for stage, batch in _batches({each.item: (each.caption, each.item, each.pair) for each in adoptions}):
        starting = [pipeline for pipeline in pipelines if PIPELINES[pipeline].starts_after is stage]
        begins = {item for item, _, _ in batch if not starting or by_item[item].removal is not None}
        for chosen, derived in ((begins, pipelines), ({item for item, _, _ in batch} - begins, ())):
            _apply(connection, stage, profile, [each for each in batch if each[0] in chosen], now, derived)
    if Pipeline.REMOVAL in pipelines:
        rows = connection.execute(
            "SELECT id, origin FROM items WHERE origin IN (SELECT value FROM json_each(?)) AND pipeline = ?",
            (json.dumps(list(by_item)), Pipeline.REMOVAL),
        ).fetchall()
        removals = {row["id"]: by_item[row["origin"]] for row in rows}
        for stage, batch in _batches(
            {item: (each.removal, item, each.pair) for item, each in removals.items() if each.removal is not None}
        ):
            _apply(connection, stage, profile, batch, now, ())
    connection.execute(
        "INSERT OR IGNORE INTO job_bundles SELECT ?, bundle_id FROM job_bundles"
        " WHERE job_id IN (SELECT value FROM json_each(?))",
        (job, json.dumps(sorted({each.job for each in adoptions}))),
    )


_Batch = list[tuple[int, int, StageOutput]]  # item, attempt, output


def _batches(replays: Mapping[int, tuple[Replay, int, tuple[str, str]]]) -> Iterator[tuple[Stage, _Batch]]:
    """All outputs, each item's in its order, in as few batches as that allows."""
    waiting = {item: list(found.outputs)[::-1] for item, (found, _, _) in replays.items()}
    while left := [item for item, outputs in waiting.items() if outputs]:
        stage = min((Stage(waiting[item][-1][1].kind) for item in left), key=DEPTH.__getitem__)
        heads = [(item, *waiting[item].pop()) for item in left if waiting[item][-1][1].kind == stage.value]
        yield stage, [(item, attempt, _as_of(output, item, replays[item][2])) for item, attempt, output in heads]


def _apply(
    connection: sqlite3.Connection,
    stage: Stage,
    profile: Profile,
    batch: _Batch,
    now: float,
    pipelines: Collection[Pipeline],
) -> None:
    if batch:
        attempts = {item: attempt for item, attempt, _ in batch}
        apply(connection, stage, profile, [output for _, _, output in batch], attempts, now, pipelines)


def _as_of(output: StageOutput, item: int, pair: tuple[str, str]) -> StageOutput:
    """`output` as that of another item, whose pair's images have these names."""
    match output:
        case GenerateOutput():
            image1, image2 = pair if output.image1 else (None, None)
            return replace(output, item=item, image1=image1, image2=image2)
        case RenderOutput():
            named = [(each, sample_paths(pair[0], each.index)) for each in output.regions]
            regions = tuple(replace(each, left_image=left, right_image=right) for each, (left, right) in named)
            return replace(output, item=item, regions=regions)
        case EraseOutput():
            sources = [(each, pair[each.image - 1]) for each in output.erasures]
            erasures = tuple(
                replace(each, item=item, source=source, erased=erased_path(source, each.index))
                for each, source in sources
            )
            return replace(output, item=item, erasures=erasures)
        case InspectOutput():
            objects = []
            for each in output.objects:
                names = removal_paths(pair[each.image - 1], each.index) if each.with_image else ("", "")
                objects.append(replace(each, with_image=names[0], without_image=names[1]))
            return replace(output, item=item, objects=tuple(objects))
        case _:
            return replace(output, item=item)


def _images(output: StageOutput) -> list[str]:
    """The images that a stage wrote, by the names in its output, in order."""
    match output:
        case GenerateOutput():
            names = [output.image1, output.image2]
        case RenderOutput():
            names = [name for each in output.regions for name in (each.left_image, each.right_image)]
        case EraseOutput():
            names = [each.erased for each in output.erasures]
        case InspectOutput():
            names = [name for each in output.objects for name in (each.with_image, each.without_image)]
        case _:
            names = []
    return [name for name in names if name]
