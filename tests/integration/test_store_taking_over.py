"""Captions that another profile has worked on: taken over with rows and images, the same as from scratch."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from imgdiffd.errors import InputError
from imgdiffd.images.retention import named, wanted
from imgdiffd.job import CaptionRecord
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.settings import KeepImages
from imgdiffd.store import BundleRow, ModelRow, Reader, Store
from imgdiffd.store.bundles import NO_BUNDLE
from imgdiffd.testing.stages import FakeStages
from tests.fakes.answers import PROFILE
from tests.fakes.store_driver import ready, submit

pytestmark = pytest.mark.anyio

MODELS = BundleRow("fakes", {"painter": ModelRow("fake@1", "", "a"), "clip": ModelRow("fake@2", "MIT", "b")})
CAPTIONS = [CaptionRecord(f"a cat on mat number {n}", f"id-{n}", n) for n in range(1, 13)]


def changed(name: str, profile: Profile = PROFILE, **sections: Mapping[str, Any]) -> Profile:
    """`profile` under another name, with some settings changed."""
    data = profile.model_dump()
    for section, settings in sections.items():
        data[section] = {**data[section], **settings}
    return Profile.model_validate({**data, "name": name})


# What the fakes score: pairs 0.95, crops 0.1 and 0.2, nouns and matches 0.9, texts 0.3.
NOTHING_NEW = changed("nothing new", pair={"above": 0.93}, describe={"match_above": 0.5})
ONE_REGION = changed("one region", locate={"regions": 1})
NO_REGION = changed("no region", locate={"crop_cosine_below": 0.05})
OTHER_SIDES = changed("other sides", contrast={"sides": "original_left"})
NEW_TEXTS = changed("new texts", describe={"prompt": "What is in {box}?"})
NO_PAIR = changed("no pair", pair={"above": 0.97})
REPAINTED = changed("repainted", generate={"steps": 9})
RESEEDED = changed("reseeded").model_copy(update={"seed": 5})
LESS_REMOVED = changed("less removed", removal={"targets": 1})
STRICT_REMOVAL = changed("strict removal", removal={"original_above": 0.95})
ALL = [NOTHING_NEW, ONE_REGION, NO_REGION, OTHER_SIDES, NEW_TEXTS, NO_PAIR, REPAINTED, RESEEDED]
ALL += [LESS_REMOVED, STRICT_REMOVAL]


class Bench:
    """A store whose work the fake stages do; `ran` counts the items of each stage."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.images = folder / "pictures"
        self.ran: dict[Stage, int] = {}
        self._stages = FakeStages(self.images)

    async def finish(self) -> dict[Stage, int]:
        """Do all that waits; returns how much that was, by stage."""
        self.ran = {}
        while tasks := await ready(self.store):
            stage, group = tasks[0].stage, tasks[0].group
            batch = [task for task in tasks if (task.stage, task.group) == (stage, group)]
            profile = await self.store.profile_of(group)
            inputs = await self.store.stage_inputs(stage, [task.item for task in batch])
            outputs = self._stages.run(profile, inputs)
            self._stages.take_writes()()
            await self.store.record(stage, "cpu:0", profile, outputs, {t.item: t.attempt for t in batch}, 0.5)
            self.ran[stage] = self.ran.get(stage, 0) + len(batch)
        return self.ran


@asynccontextmanager
async def bench(folder: Path, models: BundleRow = MODELS, *, removal: bool = True) -> AsyncIterator[Bench]:
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    async with Store.open(
        folder / "state.db", models=models, images=folder / "pictures", removal=removal, bundle="fakes"
    ) as store:
        yield Bench(store, folder)


async def content(there: Bench, job: int, keep: KeepImages = "all") -> object:
    """All that a job has: the stories of its captions and the bytes of images to `keep`, without ids and times."""
    items = await there.store.items_of(job)
    rows = await there.store.images(items)
    told = []
    for item in items:
        story = asdict(await there.store.item_story(item))
        if story["job"]["id"] == job:
            files = [there.images / name for name in sorted(wanted(rows[item], keep))]
            told.append((plain(story), [(file.exists() and sha(file)) for file in files]))
    funnel = await there.store.funnel(job)
    return told, replace(funnel, duplicates=0)


def sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def plain(of: Any, key: str = "") -> Any:
    """`of` without what differs between any two runs."""
    left_out = {"id", "item", "job", "job_name", "group", "source", "created_at", "updated_at"}
    names = {"image1", "image2", "left_image", "right_image", "source", "erased", "with_image", "without_image"}
    if isinstance(of, dict):
        return {name: plain(each, name) for name, each in of.items() if name not in left_out}
    if isinstance(of, tuple | list):
        return [plain(each) for each in of]
    return bool(of) if key in names else of


async def scratch(
    folder: Path,
    profile: Profile,
    records: Sequence[CaptionRecord] = CAPTIONS,
    *,
    removal: bool = True,
    keep: KeepImages = "all",
) -> object:
    """What a run under the profile alone gives."""
    async with bench(folder, removal=removal) as there:
        job = await submit(there.store, records, profile=profile)
        await there.finish()
        return await content(there, job.id, keep)


async def test_every_change_of_profile_gives_what_scratch_gives(tmp_path: Path) -> None:
    async with bench(tmp_path / "one") as there, bench(tmp_path / "two", NO_BUNDLE) as from_scratch:
        await submit(there.store, CAPTIONS[:6])
        await there.finish()
        for profile in ALL:
            plan, ((_, new),) = await there.store.refilter(profile, paint=True)
            assert plan.captions == 6
            await there.finish()
            alone = await submit(from_scratch.store, CAPTIONS[:6], profile=profile)
            assert (await from_scratch.finish())[Stage.REWRITE] == 6
            assert await content(there, new.id) == await content(from_scratch, alone.id), profile.name


@pytest.mark.parametrize(
    ("profile", "work"),
    [
        (NOTHING_NEW, {}),
        (ONE_REGION, {}),
        (NO_REGION, {}),
        (NO_PAIR, {}),
        (STRICT_REMOVAL, {}),
        (OTHER_SIDES, {Stage.CONTRAST, Stage.RENDER}),
        (NEW_TEXTS, {Stage.DESCRIBE, Stage.CONTRAST, Stage.RENDER, Stage.INSPECT}),
        (LESS_REMOVED, {Stage.ERASE, Stage.INSPECT}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_only_the_work_that_is_missing_is_done(tmp_path: Path, profile: Profile, work: set[Stage]) -> None:
    async with bench(tmp_path) as there:
        await submit(there.store, CAPTIONS)
        await there.finish()
        plan, ((old, new),) = await there.store.refilter(profile)
        assert (old.id, new.total, plan.paints.total()) == (1, len(CAPTIONS), 0)
        assert set(await there.finish()) == set(work)
        assert (await there.store.refilter(profile))[1] == []


async def test_submitting_under_another_profile_takes_over_too(tmp_path: Path) -> None:
    async with bench(tmp_path / "one") as there:
        await submit(there.store, CAPTIONS[:8])
        await there.finish()
        job = await submit(there.store, CAPTIONS, profile=NOTHING_NEW)
        assert (await there.finish())[Stage.REWRITE] == 4
        assert await content(there, job.id) == await scratch(tmp_path / "two", NOTHING_NEW)
        whole = await there.store.add_job("x", "/x", "digest", ONE_REGION, whole=(CAPTIONS, ()))
        assert whole.state == "done"
        assert await content(there, whole.id) == await scratch(tmp_path / "three", ONE_REGION)


async def test_best_source_is_taken_whatever_came_between(tmp_path: Path) -> None:
    async with bench(tmp_path / "one") as there:
        await submit(there.store, CAPTIONS)
        await there.finish()
        await there.store.refilter(NO_PAIR)
        _, made = await there.store.refilter(NOTHING_NEW)
        assert await there.finish() == {}
        assert [(old.id, new.total) for old, new in made] == [(1, 12)]
        assert await content(there, made[0][1].id) == await scratch(tmp_path / "two", NOTHING_NEW)


async def test_only_results_of_the_same_models_are_taken_over(tmp_path: Path) -> None:
    async with bench(tmp_path) as there:
        await submit(there.store, CAPTIONS[:5])
        await there.finish()
    other = BundleRow("fakes", {**MODELS.models, "clip": ModelRow("fake@3", "", "c")})
    async with bench(tmp_path, other) as there:
        with pytest.raises(InputError, match=r"5 pairs of 5 captions would have to be painted.*made by other models"):
            await there.store.refilter(NOTHING_NEW)
        job = await submit(there.store, CAPTIONS[:5], profile=ONE_REGION)
        assert (await there.finish())[Stage.GENERATE] == 5
    with Reader.open(tmp_path / "state.db") as reader:
        assert reader.bundles() == {1: [MODELS], job.id: [other]}
    more = BundleRow("fakes and a judge", {**MODELS.models, "judge": ModelRow("fake@4", "", "d")})
    async with bench(tmp_path, more) as there:
        await there.store.refilter(NOTHING_NEW, 1)
        assert await there.finish() == {}
        with Reader.open(tmp_path / "state.db") as reader:
            assert reader.bundles([3]) == {3: [MODELS]}


async def test_painting_is_refused_until_it_is_wanted(tmp_path: Path) -> None:
    async with bench(tmp_path) as there:
        await submit(there.store, CAPTIONS[:8])
        await there.finish()
        jobs = await there.store.jobs()
        with pytest.raises(
            InputError, match=r"8 pairs of 8 captions .* about 1 min of one device .* paints differently"
        ):
            await there.store.refilter(REPAINTED)
        with pytest.raises(InputError, match=r"8 pairs .* rewrites captions differently"):
            await there.store.refilter(RESEEDED)
        assert await there.store.jobs() == jobs
        plan, _ = await there.store.refilter(REPAINTED, paint=True)
        assert plan.waiting == {Stage.GENERATE: 8}
        assert set(await there.finish()) >= {Stage.GENERATE}
        assert there.ran.get(Stage.REWRITE) is None


async def test_pairs_without_their_images_are_painted_only_if_needed(tmp_path: Path) -> None:
    async with bench(tmp_path / "one", removal=False) as there:
        await submit(there.store, CAPTIONS, profile=NO_REGION)
        await there.finish()
        for row in (await there.store.images(range(1, 100))).values():
            for name in named(row) - wanted(row, "samples"):
                (there.images / name).unlink()
        await there.store.refilter(NO_PAIR)
        assert await there.finish() == {}
        with pytest.raises(InputError, match="images that were not kept"):
            await there.store.refilter(NOTHING_NEW, 1)
        _, ((_, new),) = await there.store.refilter(NOTHING_NEW, 1, paint=True)
        assert Stage.GENERATE in await there.finish()
        again = await scratch(tmp_path / "two", NOTHING_NEW, removal=False, keep="samples")
        assert await content(there, new.id, "samples") == again


@pytest.mark.parametrize("deleted", [1, 2])
async def test_deleting_either_job_leaves_the_images_of_the_other(tmp_path: Path, deleted: int) -> None:
    async with bench(tmp_path) as there:
        await submit(there.store, CAPTIONS[:10])
        await there.finish()
        await there.store.refilter(NOTHING_NEW)
        kept = 3 - deleted
        before = await content(there, kept)
        gone = await there.store.images(await there.store.items_of(deleted))
        await there.store.mark_deleted(deleted)
        while await there.store.delete_some(deleted):
            pass
        for row in gone.values():
            for name in named(row):
                (there.images / name).unlink()
        assert await content(there, kept) == before
        assert all(found for _, files in before[0] for found in files)  # type: ignore[index]


async def test_removal_that_was_off_begins_with_pairs_that_have_images(tmp_path: Path) -> None:
    async with bench(tmp_path / "one", removal=False) as there:
        await submit(there.store, CAPTIONS[:10])
        await there.finish()
    async with bench(tmp_path / "one") as there:
        await there.store.refilter(NOTHING_NEW)
        ran = await there.finish()
        assert set(ran) == {Stage.ERASE, Stage.INSPECT}
        assert await content(there, 2) == await scratch(tmp_path / "two", NOTHING_NEW, CAPTIONS[:10])
        progress = (await there.store.progress(2))[Pipeline.REMOVAL]
        assert progress.samples > 0
