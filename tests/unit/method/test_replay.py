"""Replaying stored output under another profile: the same as a run from scratch, without the work that is there."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.job import ItemState
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.replay import PAINTING
from imgdiffd.method.reuse import first_to_redo
from imgdiffd.pipeline import DEPTH, Stage
from tests.fakes.world import Run, World, taken_over

DEFAULT = load_profile("default")
CAPTIONS = [f"a cat on mat number {number}" for number in range(400)]
LOOSE = {
    "pair": {"above": -1.0, "below": 1.1},
    "locate": {"noun_above": 0.0, "crop_cosine_below": 1.1, "min_area": 0.0},
    "describe": {"text_cosine_below": 1.1, "match_above": 0.0},
}


def profile(**sections: dict[str, Any]) -> Profile:
    """The default profile with some settings changed."""
    data: dict[str, Any] = DEFAULT.model_dump()
    for name, settings in sections.items():
        data[name] = {**data[name], **settings}
    return Profile.model_validate(data)


CHANGES: list[tuple[str, Any]] = [
    ("scores", "needed"),
    ("rewrite.attempts", 1),
    ("rewrite.max_caption_tokens", 9),
    ("rewrite.max_caption_tokens", 11),
    ("generate.abort.mode", "off"),
    ("generate.abort.mode", "on"),
    ("generate.abort.below", 0.8),
    ("generate.abort.at", 0.2),
    ("pair.above", 0.82),
    ("pair.below", 0.98),
    ("natural.enabled", True),
    ("natural.shown", "samples"),
    ("natural.rule", "probability"),
    ("locate.min_area", 0.05),
    ("locate.area_test", "last"),
    ("locate.crop_cosine_below", 0.85),
    ("locate.crop_cosine_below", 0.95),
    ("locate.noun_above", 0.1),
    ("locate.noun_above", 0.3),
    ("locate.noun_rule", "both"),
    ("locate.overlap_iou", 0.05),
    ("locate.overlap_keeps", "first_found"),
    ("locate.regions", 1),
    ("locate.regions", 3),
    ("describe.text_cosine_below", 0.8),
    ("describe.text_cosine_below", 0.95),
    ("describe.match_above", 0.3),
    ("describe.match_above", 0.4),
    ("describe.prompt", "What is in {box}?"),
    ("contrast.sides", "original_left"),
    ("render.line_px", 7),
]


def profiles() -> st.SearchStrategy[Profile]:
    """Profiles that let much through, and differ in a few settings: most decide, some say how a stage works."""

    return st.lists(st.sampled_from(CHANGES), max_size=4).map(loose_but_for)


def loose_but_for(settings: Iterable[tuple[str, Any]]) -> Profile:
    """A profile that lets much through, but for these settings."""
    data: dict[str, Any] = profile(**LOOSE).model_dump()
    for key, value in settings:
        section = data
        *path, last = key.split(".")
        for part in path:
            section = section[part]
        section[last] = value
    return Profile.model_validate(data)


def decided(run: Run) -> list[object]:
    """Every step of a run with its verdicts, and every text, but not what the images are called."""
    texts: dict[str, Callable[[Any], object]] = {
        "rewrite": lambda output: output.answer,
        "vet": lambda output: output,
        "describe": lambda output: [(each.index, each.text1, each.text2) for each in output.regions],
        "contrast": lambda output: output,
        "screen": lambda output: output,
    }
    return [(step, texts[output.kind](output) if output.kind in texts else None) for output, step in run.taken]


@given(st.integers(0, 10_000), st.lists(profiles(), min_size=2, max_size=5))
def test_replay_and_the_work_missing_give_what_scratch_gives(number: int, changes: list[Profile]) -> None:
    world = World(f"a cat on mat number {number}")
    run = Run(world, changes[0]).finish()
    for change in changes[1:]:
        new = without_unseen_previews(run, change)
        scratch = Run(world, new).finish()
        found, run = taken_over(run.stored, world, new)
        assert decided(run) == decided(scratch)
        assert run.asked == ([] if found.state is not ItemState.READY else scratch.asked[len(found.outputs) :])


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        ({"scores": "needed", "locate.crop_cosine_below": 0.85}, {}, Stage.LOCATE),
        ({"scores": "needed", "describe.text_cosine_below": 0.8}, {}, Stage.DESCRIBE),
        ({"locate.regions": 1}, {}, Stage.DESCRIBE),
        ({"locate.overlap_keeps": "first_found"}, {}, Stage.CONTRAST),
        ({"pair.below": 0.9}, {}, Stage.LOCATE),
        ({"generate.abort.mode": "on", "generate.abort.below": 0.85}, {}, Stage.GENERATE),
        ({"rewrite.max_caption_tokens": 7}, {}, Stage.REWRITE),
        ({}, {"natural.enabled": True}, Stage.VET),
        ({}, {"natural.enabled": True, "natural.shown": "samples"}, Stage.SCREEN),
    ],
)
def test_first_work_missing_is_asked_for_and_then_all_is_as_from_scratch(
    old: dict[str, Any], new: dict[str, Any], missing: Stage
) -> None:
    before, after = loose_but_for(old.items()), loose_but_for(new.items())
    waiting: set[Stage] = set()
    for caption in CAPTIONS[:40]:
        world = World(caption)
        found, run = taken_over(Run(world, before).finish().stored, world, after)
        assert decided(run) == decided(Run(world, after).finish())
        waiting |= {found.stage} if found.state is ItemState.READY else set()
    assert missing in waiting


def test_preview_made_at_another_step_gives_no_pair_up() -> None:
    before = loose_but_for([("generate.abort.at", 0.2)])
    after = loose_but_for([("generate.abort.mode", "on"), ("generate.abort.below", 0.99)])
    for caption in CAPTIONS[:30]:
        world = World(caption)
        _, run = taken_over(Run(world, before).finish().stored, world, after)
        assert run.ended is not None
        assert run.ended.verdict.reason != "preview_too_different"


def without_unseen_previews(run: Run, new: Profile) -> Profile:
    """`new` in shadow mode where the pair was painted without a preview: it is not given up afterwards."""
    pair = run.stored.pair
    if new.generate.abort.mode != "on" or pair is None or "preview_cosine" in pair.scores:
        return new
    abort = new.generate.abort.model_copy(update={"mode": "shadow"})
    return new.model_copy(update={"generate": new.generate.model_copy(update={"abort": abort})})


@pytest.mark.parametrize("caption", CAPTIONS[:10])
def test_same_profile_needs_nothing(caption: str) -> None:
    world = World(caption)
    first = Run(world, DEFAULT).finish()
    found, again = taken_over(first.stored, world, DEFAULT)
    assert again.asked == []
    assert decided(again) == decided(first)
    assert not found.paints


def test_stricter_thresholds_never_need_work() -> None:
    loose = profile(**LOOSE)
    strict = profile(pair={"above": 0.85, "below": 1.1}, describe={"match_above": 0.5, "text_cosine_below": 0.9})
    strict = strict.model_copy(update={"locate": loose.locate})
    sampled = 0
    for caption in CAPTIONS[:100]:
        world = World(caption)
        found, run = taken_over(Run(world, loose).finish().stored, world, strict)
        assert run.asked == [], (caption, found.stage)
        sampled += run.ended is not None and run.ended.state is ItemState.SAMPLED
    assert sampled > 10


def test_pair_whose_images_are_gone_is_painted_only_if_work_is_missing() -> None:
    counted = dict.fromkeys(("needs nothing", "painted"), 0)
    for caption in CAPTIONS[:200]:
        world = World(caption)
        first = Run(world, DEFAULT).finish()
        assert first.ended is not None
        if first.stored.pair is None or first.ended.state is ItemState.SAMPLED:
            continue
        looser = profile(describe={"text_cosine_below": 1.1, "match_above": 0.0})
        here, _ = taken_over(first.stored, world, looser)
        found, run = taken_over(first.stored, world, looser, frozenset(first.stored.pair.images))
        assert decided(run) == decided(Run(world, looser).finish())
        if here.state is ItemState.READY and DEPTH[here.stage] > DEPTH[Stage.GENERATE]:
            assert (found.stage, found.paints) == (Stage.GENERATE, True)
            counted["painted"] += 1
        elif here.state is not ItemState.READY:
            assert found == here
            counted["needs nothing"] += 1
    assert min(counted.values()) > 5


def test_sample_whose_image_is_gone_is_drawn_again() -> None:
    for caption in CAPTIONS[:200]:
        world = World(caption)
        first = Run(world, DEFAULT).finish()
        sampled = [region for region in first.stored.regions if region.images]
        if sampled:
            found, run = taken_over(first.stored, world, DEFAULT, frozenset(sampled[0].images[:1]))
            assert (found.stage, run.asked) == (Stage.RENDER, [Stage.RENDER])
            return
    raise AssertionError("no sample")


@pytest.mark.parametrize("caption", CAPTIONS[:10])
def test_replay_never_starts_before_what_the_profiles_differ_in(caption: str) -> None:
    new = profile(contrast={"bar_px": 9})
    world = World(caption)
    found, run = taken_over(Run(world, DEFAULT).finish().stored, world, new)
    assert first_to_redo(DEFAULT, new) is Stage.CONTRAST
    assert set(run.asked) <= {Stage.CONTRAST, Stage.RENDER}
    assert found.stage not in PAINTING or found.state is not ItemState.READY
