"""`imgdiffd mini evaluate`: every promise of the miniature bundle, measured against its world's ground truth."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import anyio
import numpy as np
import torch
from rich.console import Console

from imgdiffd.captions import DEMO_CAPTIONS
from imgdiffd.job import ItemState
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, PREVIEW_COSINE
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.mini.early_abort import Painted, abort_figures, watching
from imgdiffd.mini.erasing import remove_objects
from imgdiffd.mini.figures import Figure, share_of, table_of
from imgdiffd.mini.ground_truth import (
    Edit,
    change,
    edit_of,
    edited,
    find,
    find_all,
    holds_replaced,
    names,
    names_both,
    objects_of,
    outside,
    seen,
)
from imgdiffd.mini.harness import Harness, held_out_captions
from imgdiffd.mini.scene_judge import Detection
from imgdiffd.mini.world import HELD_OUT_SEED, draw_scene
from imgdiffd.models.painter import PairPrompt
from imgdiffd.pipeline import Stage
from imgdiffd.store import ItemStory, PairRow

Only = Literal["early-abort"]

_UNCHANGED_PAIRS = 48  # painted once more without injection, to compare the change outside
_ERASED_PAIRS = 12  # both images of each


@dataclass(frozen=True, slots=True)
class Judged:
    """An item whose pair was painted: its story and what the judge sees in both images."""

    story: ItemStory
    pair: PairRow
    before: tuple[Detection, ...]
    after: tuple[Detection, ...]
    edit: Edit | None

    @property
    def replaced(self) -> tuple[Detection | None, Detection | None]:
        """The replaced object in image 1 and its replacement in image 2, where they can be seen."""
        if self.edit is None:
            return None, None
        return find(self.before, self.edit.old), find(self.after, self.edit.new)

    @property
    def instances(self) -> tuple[tuple[Detection, ...], tuple[Detection, ...]]:
        """Every instance of the old object in image 1 and of the new one in image 2."""
        if self.edit is None:
            return (), ()
        return find_all(self.before, self.edit.old), find_all(self.after, self.edit.new)


def judged(harness: Harness, stories: Sequence[ItemStory]) -> list[Judged]:
    """Every story with a painted pair, judged."""
    painted = [(story, story.pair) for story in stories if story.pair is not None and story.pair.image2]
    if not painted:
        return []
    images = [harness.pixels(name) for _, pair in painted for name in (pair.image1, pair.image2)]
    verdicts = harness.judge.see(np.stack(images))
    return [
        Judged(
            story,
            pair,
            verdicts[2 * index].objects,
            verdicts[2 * index + 1].objects,
            edit_of(story.caption, pair.caption2),
        )
        for index, (story, pair) in enumerate(painted)
    ]


def judge_ceiling(harness: Harness, scenes: int = 200) -> Iterator[Figure]:
    """What the judge itself gets right on drawn scenes that it was not trained on."""
    for count in (1, 2, 3):
        rng = np.random.default_rng([HELD_OUT_SEED, 99, count])
        drawn = [draw_scene(rng, count=count) for _ in range(scenes)]
        verdicts = harness.judge.see(np.stack([scene.image for scene in drawn]))
        hits = sum(
            seen(verdict.objects, [(each.noun, each.colour) for each in scene.objects])
            for scene, verdict in zip(drawn, verdicts, strict=True)
        )
        yield Figure(f"judge's own ceiling on drawn scenes of {count}", hits, scenes * count)


def image_figures(items: Sequence[Judged]) -> Iterator[Figure]:
    """Do first images show what their captions name?"""
    counts = {True: [0, 0], False: [0, 0]}
    for item in items:
        wanted = objects_of(item.story.caption)
        if wanted:
            tally = counts[len(wanted) <= 2]
            tally[0] += seen(item.before, wanted)
            tally[1] += len(wanted)
    for few, scenes, target in ((True, "one or two", 0.95), (False, "three", 0.85)):
        hits, total = counts[few]
        yield Figure(f"objects painted as captioned, scenes of {scenes}", hits, total, target)


def edit_figures(harness: Harness, items: Sequence[Judged], profile: Profile) -> Iterator[Figure]:
    """Do edits replace the object, and leave the rest alone?"""
    edits = [item for item in items if item.edit is not None]
    yield share_of(
        "edits: new object there, old one gone", (edited(i.before, i.after, i.edit) for i in edits if i.edit), 0.92
    )
    yield share_of(
        "edits: every other object still there",
        (seen(i.after, i.edit.others) == len(i.edit.others) for i in edits if i.edit),
    )
    yield from _change_figures(harness, [item for item in edits if all(item.replaced)][:_UNCHANGED_PAIRS], profile)


def _change_figures(harness: Harness, items: Sequence[Judged], profile: Profile) -> Iterator[Figure]:
    """How much changes outside the edited object, compared with the same noise and captions without injection.

    The promise compares the same pixels: those outside the grown boxes of old and new object in the injected pair. The
    second figure also leaves out the new object of the pair without injection, wherever that has it.
    """
    free = profile.generate.model_copy(update={"edit": "none"})
    prompts = [PairPrompt(item.story.caption, item.pair.caption2, item.pair.seed) for item in items]
    with torch.inference_mode():
        repainted = harness.models.need_painter.paint_pairs(prompts, free) if prompts else []
    injected = injected_own = without = without_own = 0.0
    for item, (_, second) in zip(items, repainted, strict=True):
        assert item.edit is not None
        before, after = harness.pixels(item.pair.image1), harness.pixels(item.pair.image2)
        free_after = np.ascontiguousarray(second.permute(1, 2, 0).numpy())
        boxes = [each.box for each in item.replaced if each is not None]
        where = outside(before.shape[:2], boxes)
        injected += change(before, after, where)
        without += change(before, free_after, where)
        elsewhere = find(harness.judge(free_after[None])[0], item.edit.new)
        if elsewhere is not None:
            injected_own += change(before, after, where)
            without_own += change(before, free_after, outside(before.shape[:2], [boxes[0], elsewhere.box]))
    yield Figure("change outside the object: with injection / without", injected, without, 0.5, at_most=True)
    name = "the same, each pair's new object left out where it stands"
    yield Figure(name, injected_own, without_own, None, at_most=True)


def sample_figures(items: Sequence[Judged]) -> Iterator[Figure]:
    """Are the samples that were kept right?"""
    kept = [(item, sample) for item in items for sample in item.story.samples]
    yield share_of(
        "samples: box holds the replaced object (IoU ≥ 0.5)",
        (holds_replaced(s.box, s.image, i.instances) for i, s in kept),
        0.95,
    )
    yield share_of(
        "samples: both region captions name the right noun",
        (i.edit is not None and names(s.text1, i.edit.old[0]) and names(s.text2, i.edit.new[0]) for i, s in kept),
        0.92,
    )
    yield share_of(
        "samples: both region captions name noun and colour",
        (
            i.edit is not None
            and f"{i.edit.old[1]} {i.edit.old[0]}" in s.text1.lower()
            and f"{i.edit.new[1]} {i.edit.new[0]}" in s.text2.lower()
            for i, s in kept
        ),
    )
    yield share_of(
        "samples: the difference caption names both nouns",
        (i.edit is not None and names_both(s.difference, (i.edit.old[0], i.edit.new[0])) for i, s in kept),
        0.90,
    )


def removal_figures(harness: Harness, items: Sequence[Judged], profile: Profile) -> Iterator[Figure]:
    """Are erased objects gone, and is everything else left alone?"""
    removals = remove_objects(harness, [item.story for item in items if item.edit][:_ERASED_PAIRS], profile)
    yield share_of("erased objects that the judge no longer sees", (not each.still_seen for each in removals.erased))
    passed = [each for each in removals.erased if each.passed]
    yield share_of("… of those that pass the filter", (not each.still_seen for each in passed))
    yield Figure("erased objects that pass the filter", len(passed), len(removals.erased))
    yield Figure("pixels changed outside the erased", removals.changed_outside, removals.outside, 0.0, at_most=True)


def _painted(stories: Sequence[ItemStory]) -> list[Painted]:
    scores = (story.pair.scores for story in stories if story.pair is not None)
    return [
        Painted(each[PREVIEW_COSINE], each[CLIP_IMAGE_COSINE])
        for each in scores
        if PREVIEW_COSINE in each and CLIP_IMAGE_COSINE in each
    ]


def demo_captions() -> list[str]:
    """The captions that `imgdiffd demo` runs."""
    text = (resources.files("imgdiffd.captions") / DEMO_CAPTIONS).read_text("utf-8")
    return [line for line in text.splitlines() if line]


async def measure(folder: Path, captions: int, seed: int, only: Only | None) -> list[Figure]:
    """Measure everything, or `only` that; returns the figures in the order of the pipeline."""
    harness = Harness(folder)
    profile = watching(load_profile("mini"))
    if only == "early-abort":
        async with harness.store() as store:
            stories = await harness.run(store, held_out_captions(captions, seed), profile, Stage.COMPARE)
        return list(abort_figures(_painted(stories), profile))
    async with harness.store() as store:
        demo = await harness.run(store, demo_captions(), profile)
        held_out = await harness.run(store, held_out_captions(captions, seed), profile)
    stories = [*held_out, *demo]
    items = judged(harness, stories)
    return [
        *judge_ceiling(harness),
        share_of("rewrites: exactly one object replaced", (item.edit is not None for item in items)),
        *image_figures(items),
        *edit_figures(harness, items, profile),
        *sample_figures(items),
        *removal_figures(harness, items, profile),
        *abort_figures(_painted(stories), profile),
        share_of("held-out captions that yield a sample", (story.state is ItemState.SAMPLED for story in held_out)),
        share_of("the demo's captions that yield a sample", (story.state is ItemState.SAMPLED for story in demo), 0.5),
    ]


def evaluate(captions: int, seed: int, only: Only | None = None) -> bool:
    """Print the table; returns whether every target was met."""
    with tempfile.TemporaryDirectory(prefix="imgdiffd-evaluate-") as folder:
        figures = anyio.run(measure, Path(folder), captions, seed, only)
    Console(width=110).print(table_of(figures))
    return all(figure.met for figure in figures)
