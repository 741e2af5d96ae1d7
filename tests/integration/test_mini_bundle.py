"""The shipped miniature bundle through every real stage: samples come out, and the same ones each time."""

from pathlib import Path

import anyio
import pytest

from imgdiffd.job import ItemState
from imgdiffd.method.profile import load_profile
from imgdiffd.mini.evaluate import demo_captions
from imgdiffd.mini.harness import Harness
from imgdiffd.store import ItemStory

CAPTIONS = demo_captions()[4:10]
REAL = (
    "A man riding a wave on top of a surfboard.",  # MS COCO captions, CC BY 4.0 (COCO Consortium)
    "A black dog running in a pen with a horse.",
)


async def _run(folder: Path, captions: list[str]) -> list[ItemStory]:
    harness = Harness(folder)
    async with harness.store() as store:
        return await harness.run(store, captions, load_profile("mini"))


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
