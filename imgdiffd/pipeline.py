"""The stage graph as data: names, order, models needed, batch limits, and every random seed.

It owns what a stage is called and what it needs; it does not know how a stage is computed or who runs it.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType


class Role(StrEnum):
    """What a model does in the pipeline; a bundle names one model for each, but for OPTIONAL_ROLES."""

    REWRITER = "rewriter"
    PAINTER = "painter"
    SEGMENTER = "segmenter"
    CLIP = "clip"
    BLIP = "blip"
    CAPTIONER = "captioner"
    ERASER = "eraser"
    JUDGE = "judge"


OPTIONAL_ROLES = frozenset({Role.ERASER, Role.JUDGE})  # a bundle may lack them, and a machine need not hold them


class Stage(StrEnum):
    """One verb of a caption's way through, in order, and after them the two of object removal (REMOVAL_STAGES)."""

    REWRITE = "rewrite"  # caption -> caption with one object replaced
    GENERATE = "generate"  # two captions -> two images from the same noise
    COMPARE = "compare"  # two images -> how alike they are: the pair's gate
    VET = "vet"  # two images -> whether they look natural; only where the profile says so
    LOCATE = "locate"  # two images -> scored boxes
    DESCRIBE = "describe"  # boxes -> region captions with scores
    CONTRAST = "contrast"  # region captions -> difference captions
    RENDER = "render"  # boxes burnt in: the sample's images
    ERASE = "erase"  # a pair that passed compare -> its images without one object each
    INSPECT = "inspect"  # what was erased -> descriptions with scores, and the removal samples' images


@dataclass(frozen=True, slots=True)
class StageSpec:
    """What the scheduler must know of a stage.

    `batch_limit` is in items: the most that one call may get; the scheduler learns smaller ones. What an item costs is
    estimated in imgdiffd.schedulers.cost_table.
    """

    stage: Stage
    roles: frozenset[Role]
    batch_limit: int


_SPECS = (
    StageSpec(Stage.REWRITE, frozenset({Role.REWRITER}), 64),
    StageSpec(Stage.GENERATE, frozenset({Role.PAINTER}), 4),
    StageSpec(Stage.COMPARE, frozenset({Role.CLIP}), 32),
    StageSpec(Stage.VET, frozenset({Role.JUDGE}), 8),
    StageSpec(Stage.LOCATE, frozenset({Role.SEGMENTER, Role.CLIP, Role.BLIP}), 4),
    StageSpec(Stage.DESCRIBE, frozenset({Role.CAPTIONER, Role.CLIP, Role.BLIP}), 4),
    StageSpec(Stage.CONTRAST, frozenset({Role.CAPTIONER}), 4),
    StageSpec(Stage.RENDER, frozenset(), 8),
    StageSpec(Stage.ERASE, frozenset({Role.SEGMENTER, Role.CLIP, Role.ERASER}), 4),
    StageSpec(Stage.INSPECT, frozenset({Role.CAPTIONER, Role.BLIP}), 4),
)
STAGES: MappingProxyType[Stage, StageSpec] = MappingProxyType({spec.stage: spec for spec in _SPECS})
DEPTH: MappingProxyType[Stage, int] = MappingProxyType({spec.stage: depth for depth, spec in enumerate(_SPECS)})
FIRST_STAGE = _SPECS[0].stage
OPTIONAL_STAGES = frozenset({Stage.VET})  # a profile may leave them out
REMOVAL_STAGES = frozenset({Stage.ERASE, Stage.INSPECT})  # a way of its own, in the background: no caption enters them
CAPTION_STAGES = tuple(spec.stage for spec in _SPECS if spec.stage not in REMOVAL_STAGES)


@cache
def stage_after(stage: Stage, skipped: frozenset[Stage] = frozenset()) -> Stage | None:
    """The stage that an item enters when `stage` lets it pass, those in `skipped` left out; None after the last.

    A caption's way ends with render, that of a removal begins with erase.
    """
    later = (spec.stage for spec in _SPECS[DEPTH[stage] + 1 :])
    same_way = (following for following in later if (following in REMOVAL_STAGES) is (stage in REMOVAL_STAGES))
    return next((following for following in same_way if following not in skipped), None)


LaneKey = tuple[Stage, str]  # stage and group: what may share a batch, and so what has a cost and a size of its own


@dataclass(frozen=True, slots=True)
class Task:
    """An item in its current stage. Only tasks of equal `group` share a batch; a higher `priority` goes first.

    A group is a shape: its tasks have images of one size and run with one profile, so they cost alike. `open_bytes`
    is the most that the item takes on disk and in memory while it is open. Priorities below 0 are the background.

    `crashes` counts how often the item, alone in its batch, killed or broke its worker.
    """

    item: int
    stage: Stage
    attempt: int
    group: str
    priority: int = 0
    crashes: int = 0
    open_bytes: int = 0

    @property
    def background(self) -> bool:
        """Whether it runs only where nothing else is to be done."""
        return self.priority < 0

    @property
    def key(self) -> LaneKey:
        """Stage and group."""
        return self.stage, self.group


def seed_of(profile_seed: int, caption: str, attempt: int, purpose: str) -> int:
    """A 63-bit seed that depends on nothing but its arguments.

    Every random draw of the pipeline takes its seed from here, so batch mates, devices, order and restarts cannot
    change a result, and no two captions share noise. `purpose` is a stage's name, or a finer one where a stage draws
    twice.
    """
    text = f"{profile_seed}\x1f{attempt}\x1f{purpose}\x1f{caption}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
