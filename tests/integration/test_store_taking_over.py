"""Captions that another profile has worked on: taken over with rows and images, the same as from scratch."""

import errno
from pathlib import Path

import pytest

from imgdiffd.errors import InputError
from imgdiffd.images.files import link_whole
from imgdiffd.images.retention import named, wanted
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.store import BundleRow, ModelRow, Reader, taking_over
from imgdiffd.store.bundles import NO_BUNDLE
from tests.fakes.bench import (
    ALL,
    CAPTIONS,
    LESS_REMOVED,
    MODELS,
    NEW_TEXTS,
    NO_PAIR,
    NO_REGION,
    NOTHING_NEW,
    ONE_REGION,
    OTHER_SIDES,
    REPAINTED,
    RESEEDED,
    STRICT_REMOVAL,
    bench,
    content,
    scratch,
)
from tests.fakes.store_driver import submit

pytestmark = pytest.mark.anyio


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


async def test_region_knows_the_profiles_under_which_it_is_a_sample(tmp_path: Path) -> None:
    async with bench(tmp_path) as there:
        await submit(there.store, CAPTIONS[:1])
        await there.finish()
        for profile in (ONE_REGION, NO_PAIR, NEW_TEXTS, REPAINTED):
            await there.store.refilter(profile, 1, paint=True)
        await there.finish()
        assert (await there.store.item_story(1)).profiles == {
            0: ("default", "one region", "new texts"),
            1: ("default", "new texts"),
        }
        repainted = (await there.store.items_of(5)).start
        assert (await there.store.item_story(repainted)).profiles == {0: ("repainted",), 1: ("repainted",)}


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
            InputError, match=r"8 pairs of 8 captions .* takes one device less than a minute .* paints differently"
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


async def test_refilter_that_breaks_off_is_done_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking_over, "CHUNK", 4)
    calls = 0

    def link(root: Path, links: dict[str, str]) -> frozenset[str]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.EIO, "Input/output error")
        return link_whole(root, links)

    async with bench(tmp_path / "one") as there:
        await submit(there.store, CAPTIONS)
        await there.finish()
        monkeypatch.setattr(taking_over, "link_whole", link)
        with pytest.raises(OSError, match="Input/output error"):
            await there.store.refilter(NOTHING_NEW)
        assert [job.state for job in await there.store.jobs()] == ["failed", "done"]
        _, ((_, new),) = await there.store.refilter(NOTHING_NEW)
        assert (new.total, await there.finish()) == (8, {})
        calls = 1
        with pytest.raises(OSError, match="Input/output error"):
            await there.store.add_job("x", "/x", "digest", ONE_REGION, whole=(CAPTIONS, ()))
        again = await there.store.add_job("x", "/x", "digest", ONE_REGION, whole=(CAPTIONS, ()))
        assert (again.state, again.duplicate_of) == ("done", None)
