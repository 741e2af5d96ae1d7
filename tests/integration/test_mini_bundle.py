"""The shipped miniature bundle through every real stage: samples come out, and the same ones each time."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from imgdiffd.job import ItemState
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.profile_sections import Abort, Bound
from imgdiffd.mini.evaluate import demo_captions
from imgdiffd.mini.harness import Harness
from imgdiffd.pipeline import Stage
from imgdiffd.store import BundleRow, ItemStory, ModelRow, Store
from imgdiffd.store.bundles import keep_bundle, note_bundle

MINI = load_profile("mini")
CAPTIONS = demo_captions()[4:10]
REAL = (
    "A man riding a wave on top of a surfboard.",  # MS COCO captions, CC BY 4.0 (COCO Consortium)
    "A black dog running in a pen with a horse.",
)


async def _run(
    folder: Path, captions: list[str], profile: Profile = MINI, last: Stage = Stage.RENDER
) -> list[ItemStory]:
    harness = Harness(folder)
    async with harness.store() as store:
        return await harness.run(store, captions, profile, last)


def _said(story: ItemStory) -> tuple[object, ...]:
    pair = story.pair
    texts = [(sample.box, sample.text1, sample.text2, sample.left, sample.difference) for sample in story.samples]
    return (story.caption, pair and pair.caption2, pair and pair.seed, story.state, story.reason, texts)


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ItemStory]]:
    folder = tmp_path_factory.mktemp("first")
    return folder, anyio.run(_run, folder, [*CAPTIONS, *REAL])


def test_most_of_the_demos_captions_yield_samples(stories: tuple[Path, list[ItemStory]]) -> None:
    states = [story.state for story in stories[1][: len(CAPTIONS)]]
    assert states.count(ItemState.SAMPLED) * 2 >= len(CAPTIONS)
    assert ItemState.FAILED not in states


def test_captions_with_unknown_words_end_with_a_reason(
    stories: tuple[Path, list[ItemStory]],
) -> None:
    for story in stories[1][len(CAPTIONS) :]:
        assert story.state is ItemState.REJECTED
        assert story.reason
        assert len(story.rewrites) == load_profile("mini").rewrite.attempts


def test_another_order_gives_the_same_files_and_texts(stories: tuple[Path, list[ItemStory]], tmp_path: Path) -> None:
    folder, first = stories
    chosen = CAPTIONS[4:1:-1]  # fewer, and turned round: other batch mates, other item numbers
    again = anyio.run(_run, tmp_path, chosen)
    by_caption = {story.caption: story for story in first}
    for story in again:
        before = by_caption[story.caption]
        assert _said(story) == _said(before)
        images = [(story.pair, before.pair)]
        for new, old in images:
            assert new is not None
            assert old is not None
            for name, old_name in ((new.image1, old.image1), (new.image2, old.image2)):
                assert (tmp_path / "pictures" / name).read_bytes() == (folder / "pictures" / old_name).read_bytes()


def test_half_the_pairs_are_given_up_and_the_rest_unchanged(
    stories: tuple[Path, list[ItemStory]], tmp_path: Path
) -> None:
    folder, finished = stories
    pairs = {story.caption: story.pair for story in finished if story.pair is not None and story.pair.image1}
    scores = {caption: pair.scores["preview_cosine"] for caption, pair in pairs.items()}
    below = sorted(scores.values())[len(scores) // 2]
    generate = MINI.generate.model_copy(update={"abort": Abort(mode="on", below=below, finished=0.0)})
    profile = MINI.model_copy(update={"generate": generate})
    found = anyio.run(_run, tmp_path, list(pairs), profile, Stage.GENERATE)
    assert {story.caption for story in found} == pairs.keys()
    for story in found:
        assert story.pair is not None
        assert story.pair.scores == {"preview_cosine": scores[story.caption]}
        if scores[story.caption] < below:
            assert (story.state, story.reason) == (ItemState.REJECTED, "preview_too_different")
            assert (story.pair.image1, story.pair.image2) == ("", "")
            continue
        before = pairs[story.caption]
        for new, old in ((story.pair.image1, before.image1), (story.pair.image2, before.image2)):
            assert (tmp_path / "pictures" / new).read_bytes() == (folder / "pictures" / old).read_bytes()
    kept = sum(score >= below for score in scores.values())
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 2 * kept
    assert 0 < kept < len(pairs)


async def _refiltered(folder: Path, profile: Profile) -> list[ItemStory]:
    models = BundleRow("mini", {"painter": ModelRow("painter", "", "1")})
    with closing(sqlite3.connect(folder / "state.db", isolation_level=None)) as connection:
        note_bundle(connection, [1], keep_bundle(connection, models))
    async with Store.open(folder / "state.db", models=models, images=folder / "pictures") as store:
        plan, ((_, new),) = await store.refilter(profile)
        assert not plan.waiting
        return [await store.item_story(item) for item in await store.items_of(new.id)]


def test_changed_thresholds_need_no_device_and_give_what_scratch_gives(
    stories: tuple[Path, list[ItemStory]], tmp_path: Path
) -> None:
    folder, first = stories
    keys = [f"blip_itc_cosine.description{side}" for side in (1, 2)]
    least = min(each.scores[key] for story in first for each in story.samples for key in keys)
    describe = MINI.describe.model_copy(update={"match_above": Bound(value=least)})  # one sample fewer at least
    profile = MINI.model_copy(
        update={"name": "stricter", "describe": describe, "locate": MINI.locate.model_copy(update={"regions": 2})}
    )
    found = anyio.run(_refiltered, shutil.copytree(folder, tmp_path / "copy"), profile)
    assert {story.caption for story in found} == {story.caption for story in first}
    ends = [[story.state for story in each] for each in (found, first)]
    assert ends[0].count(ItemState.SAMPLED) > 0
    assert sum(len(story.samples) for story in found) < sum(len(story.samples) for story in first)
    by_caption = {story.caption: story for story in found}
    for story in anyio.run(_run, tmp_path / "scratch", CAPTIONS[1:4], profile):
        taken = by_caption[story.caption]
        assert _said(taken) == _said(story)
        assert [row.reason for row in taken.candidates] == [row.reason for row in story.candidates]
        for new, old in zip(taken.regions, story.regions, strict=True):
            assert new.scores == pytest.approx(old.scores, abs=1e-5)  # the last digits depend on what shares a pass
        for new_sample, old_sample in zip(taken.samples, story.samples, strict=True):
            for name in ("left_image", "right_image"):
                taken_over = tmp_path / "copy" / "pictures" / getattr(new_sample, name)
                rendered = tmp_path / "scratch" / "pictures" / getattr(old_sample, name)
                assert taken_over.read_bytes() == rendered.read_bytes()
