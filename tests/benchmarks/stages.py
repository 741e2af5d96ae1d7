"""What an item of each stage costs on a device: its models' calls, under the load that the method puts on them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from imgdiffd.kernels.crop import Box
from imgdiffd.method.profile import Profile
from imgdiffd.models.loading import Models
from imgdiffd.models.painter import PairPrompt
from imgdiffd.pipeline import STAGES, Role, Stage
from imgdiffd.schedulers.cost_table import ITEMS_PER_CAPTION, CostTable
from imgdiffd.stages.drawing import joined, with_box
from imgdiffd.stages.images import Images
from tests.benchmarks.answering import QUESTIONS
from tests.benchmarks.cropping import drawn_boxes, drawn_image
from tests.benchmarks.measuring import median_seconds

T = TypeVar("T")
Using = Callable[[frozenset[Role], Callable[[Models], float]], float]  # gives a measurement the models of some roles
REGIONS = 3  # of a pair: 117,779 boxes in 38,533 pairs, by the paper's funnel


@dataclass(frozen=True)
class Load:
    """What is asked of the models. `boxes` are of one image, `differing` those of them that BLIP is asked about."""

    device: torch.device
    profile: Profile
    folder: Path  # images are written there
    captions: tuple[str, ...]  # rewritten at once
    pairs: tuple[PairPrompt, ...]  # painted at once
    boxes: int
    differing: int
    rounds: int = 3
    images_at_once: int = 2  # that the captioner reads

    def image(self, seed: int) -> Tensor:
        """One side of a pair."""
        return drawn_image(self.profile.generate.picture_px, seed).to(self.device)

    def drawn(self, count: int) -> list[Box]:
        """Boxes in it."""
        return drawn_boxes(count, self.profile.generate.picture_px)


def _rewrite(models: Models, load: Load) -> float:
    count = len(load.captions)
    work = partial(models.need_rewriter.rewrite, load.captions, range(count), load.profile.rewrite)
    return median_seconds(work, load.rounds) / count


def _generate(models: Models, load: Load) -> float:
    images = Images(load.folder, load.device)

    def work() -> None:
        painted = models.need_painter.paint_pairs(load.pairs, load.profile.generate)
        images.write({f"{n}-{side}.png": each for n, pair in enumerate(painted) for side, each in enumerate(pair)})

    return median_seconds(work, 1) / len(load.pairs)


def _compare(models: Models, load: Load) -> float:
    pair = [load.image(1), load.image(2)]
    return median_seconds(lambda: models.need_clip.embed_images(pair).cpu(), load.rounds)


def _locate(models: Models, load: Load) -> float:
    pair, boxes = (load.image(1), load.image(2)), load.drawn(load.boxes)
    locate, asked = load.profile.locate, boxes[: load.differing]

    def work() -> None:
        models.need_segmenter.boxes(pair, locate)
        for image, noun in zip(pair, ("dog", "cat"), strict=True):
            models.need_clip.embed_crops(image, boxes).cpu()
            models.need_blip.score(image, asked, [noun] * len(asked), locate.noun_kind)

    return median_seconds(work, load.rounds)


def _describe(models: Models, load: Load) -> float:
    boxes, describe, questions = load.drawn(REGIONS), load.profile.describe, QUESTIONS[:REGIONS]
    count = load.images_at_once
    images = [load.image(1 + number) for number in range(count)]

    def work() -> None:
        models.need_captioner.answer(images, [questions] * count, describe.max_new_tokens)
        for image in images:
            models.need_clip.embed_texts(questions).cpu()
            models.need_blip.score(image, boxes, questions, describe.match_kind)

    return median_seconds(work, load.rounds) * 2 / count


def _contrast(models: Models, load: Load) -> float:
    """As many samples at once as the captioner reads images: an item is one."""
    both = joined(load.image(1), load.image(2), load.profile.contrast.bar_px)
    count, new_tokens = load.images_at_once, load.profile.contrast.max_new_tokens
    asked = [(load.profile.contrast.prompt,)] * count
    return median_seconds(lambda: models.need_captioner.answer([both] * count, asked, new_tokens), load.rounds) / count


def _render(models: Models, load: Load) -> float:
    pair, box, bar_px = (load.image(1), load.image(2)), load.drawn(1)[0], load.profile.contrast.bar_px
    images = Images(load.folder, load.device)

    def work() -> None:
        drawn = {f"{side}.png": with_box(each, box, load.profile.render, bar_px) for side, each in enumerate(pair)}
        images.write(drawn, keep=False)

    return median_seconds(work, load.rounds)


_MEASURED: Mapping[Stage, Callable[[Models, Load], float]] = {
    Stage.REWRITE: _rewrite,
    Stage.GENERATE: _generate,
    Stage.COMPARE: _compare,
    Stage.LOCATE: _locate,
    Stage.DESCRIBE: _describe,
    Stage.CONTRAST: _contrast,
    Stage.RENDER: _render,
}


LANGUAGE = frozenset({Role.REWRITER, Role.CAPTIONER})


def cost_table(using: Using, load: Load, device: str, source: str, known: CostTable | None = None) -> CostTable:
    """Seconds per item of each stage, with one stage's models in hand at a time.

    From `known` are taken those of stages that no language model runs in: bundles differ in these models alone.
    """
    costs = {} if known is None else dict(known.seconds_per_item)
    for stage in map(Stage, ITEMS_PER_CAPTION):
        if known is None or STAGES[stage].roles & LANGUAGE:
            costs[stage.value] = using(STAGES[stage].roles, lambda models: _MEASURED[stage](models, load))  # noqa: B023
    return CostTable(device, costs, source)
