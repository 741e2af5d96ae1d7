"""The pipelines as data: their stages in order, the models and batch limits of each stage, and every random seed."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType


class Role(StrEnum):
    """What a model does in the pipeline. A bundle names one model for each role, except for OPTIONAL_ROLES."""

    REWRITER = "rewriter"
    PAINTER = "painter"
    SEGMENTER = "segmenter"
    CLIP = "clip"
    BLIP = "blip"
    CAPTIONER = "captioner"
    ERASER = "eraser"
    JUDGE = "judge"


OPTIONAL_ROLES = frozenset({Role.ERASER, Role.JUDGE})  # a bundle or a machine may lack them


class Stage(StrEnum):
    """One step, with any number of models, that is applied to a batch of work items."""

    REWRITE = "rewrite"  # caption -> caption with one object replaced
    GENERATE = "generate"  # two captions -> two images from the same noise, or the end of a pair that will not pass
    COMPARE = "compare"  # two images -> their similarity: the pair's gate
    VET = "vet"  # two images -> whether they look natural; only if the profile says so
    LOCATE = "locate"  # two images -> scored boxes
    DESCRIBE = "describe"  # boxes -> region captions with scores
    CONTRAST = "contrast"  # region captions -> difference captions
    SCREEN = "screen"  # boxed images -> whether they look natural; only if the profile says so
    RENDER = "render"  # boxes -> the sample's images with the boxes drawn in
    ERASE = "erase"  # a pair that passed compare -> its images without one object each
    INSPECT = "inspect"  # erased objects -> descriptions with scores, and the removal samples' images


class Pipeline(StrEnum):
    """One kind of sample, and the stages that a work item passes on its way to it."""

    REPLACEMENT = "replacement"  # captions -> pairs of images that differ in an object (paper, sections 3-5)
    REMOVAL = "removal"  # pairs -> images with and without an object (paper, section 16)


@dataclass(frozen=True, slots=True)
class StageSpec:
    """What the scheduler needs to know about a stage.

    `batch_limit` is the largest batch, in items; the scheduler learns smaller limits where needed. The cost of an item
    is estimated in imgdiffd.schedulers.cost_table.
    """

    stage: Stage
    roles: frozenset[Role]
    batch_limit: int


_SPECS = (
    StageSpec(Stage.REWRITE, frozenset({Role.REWRITER}), 64),
    StageSpec(Stage.GENERATE, frozenset({Role.PAINTER, Role.CLIP}), 4),
    StageSpec(Stage.COMPARE, frozenset({Role.CLIP}), 32),
    StageSpec(Stage.VET, frozenset({Role.JUDGE}), 8),
    StageSpec(Stage.LOCATE, frozenset({Role.SEGMENTER, Role.CLIP, Role.BLIP}), 4),
    StageSpec(Stage.DESCRIBE, frozenset({Role.CAPTIONER, Role.CLIP, Role.BLIP}), 4),
    StageSpec(Stage.CONTRAST, frozenset({Role.CAPTIONER}), 4),
    StageSpec(Stage.SCREEN, frozenset({Role.JUDGE}), 4),
    StageSpec(Stage.RENDER, frozenset(), 8),
    StageSpec(Stage.ERASE, frozenset({Role.SEGMENTER, Role.CLIP, Role.ERASER}), 4),
    StageSpec(Stage.INSPECT, frozenset({Role.CAPTIONER, Role.BLIP}), 4),
)
STAGES: MappingProxyType[Stage, StageSpec] = MappingProxyType({spec.stage: spec for spec in _SPECS})
DEPTH: MappingProxyType[Stage, int] = MappingProxyType({spec.stage: depth for depth, spec in enumerate(_SPECS)})
OPTIONAL_STAGES = frozenset({Stage.VET, Stage.SCREEN})  # a profile may leave them out


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """What sets one pipeline apart from the others; everything else is the same for all.

    Its work items are captions or, if `starts_after` names a stage, derived items: one for each item that passes that
    stage, its origin. `priority` replaces the job's; below 0 is the background. With `holds_job`, a job is not DONE
    before the pipeline's items have ended.
    """

    stages: tuple[Stage, ...]
    starts_after: Stage | None = None
    priority: int | None = None
    holds_job: bool = True


PIPELINES: MappingProxyType[Pipeline, PipelineSpec] = MappingProxyType(
    {
        Pipeline.REPLACEMENT: PipelineSpec(
            (
                Stage.REWRITE,
                Stage.GENERATE,
                Stage.COMPARE,
                Stage.VET,
                Stage.LOCATE,
                Stage.DESCRIBE,
                Stage.CONTRAST,
                Stage.SCREEN,
                Stage.RENDER,
            )
        ),
        Pipeline.REMOVAL: PipelineSpec(
            (Stage.ERASE, Stage.INSPECT), starts_after=Stage.COMPARE, priority=-1_000_000, holds_job=False
        ),
    }
)
CAPTION_STAGES = PIPELINES[Pipeline.REPLACEMENT].stages
PIPELINE_OF: MappingProxyType[Stage, Pipeline] = MappingProxyType(
    {stage: pipeline for pipeline, spec in PIPELINES.items() for stage in spec.stages}
)


@cache
def stage_after(stage: Stage, skipped: frozenset[Stage] = frozenset()) -> Stage | None:
    """The stage that an item enters after passing `stage`; stages in `skipped` are left out.

    None after the pipeline's last stage.
    """
    stages = PIPELINES[PIPELINE_OF[stage]].stages
    later = stages[stages.index(stage) + 1 :]
    return next((following for following in later if following not in skipped), None)


def priority_in(stage: Stage, priority: int) -> int:
    """The priority of a task in `stage`: its pipeline's if that has one, else its job's `priority`."""
    own = PIPELINES[PIPELINE_OF[stage]].priority
    return priority if own is None else own


LaneKey = tuple[Stage, str]  # stage and group: tasks with the same key may share a batch and cost alike


@dataclass(frozen=True, slots=True)
class Task:
    """A work item in its current stage. Only tasks of equal `group` share a batch; a higher `priority` goes first.

    The tasks of a group have images of one size and one profile, so they cost alike. `open_bytes` is the most that the
    item takes on disk and in memory while it is open. Priorities below 0 are the background.

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
        """Whether it runs only if there is no other work."""
        return self.priority < 0

    @property
    def key(self) -> LaneKey:
        """The task's lane: stage and group."""
        return self.stage, self.group


def seed_of(profile_seed: int, caption: str, attempt: int, purpose: str) -> int:
    """A 63-bit seed that depends only on its arguments.

    Every random draw of the pipeline takes its seed from here, so batch mates, devices, order and restarts cannot
    change a result, and no two captions share noise. `purpose` is a stage's name, or a finer one if a stage draws
    twice.
    """
    text = f"{profile_seed}\x1f{attempt}\x1f{purpose}\x1f{caption}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def reason_of_failure(stage: Stage) -> str:
    """The reason of items that `stage` broke on, again and again."""
    return f"broke_{stage}"
