"""The shipped miniature bundle through every real stage: samples come out, and the same ones each time."""

from pathlib import Path

import anyio
import pytest

from imgdiffd.job import ItemState
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.profile_sections import Abort
from imgdiffd.mini.evaluate import demo_captions
from imgdiffd.mini.harness import Harness
from imgdiffd.pipeline import Stage
from imgdiffd.store import ItemStory

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
