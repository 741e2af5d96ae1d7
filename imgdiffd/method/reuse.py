"""Which settings of a profile each stage's raw output depends on: what decides whether stored results can be reused."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType

from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import PIPELINES, Pipeline, Stage

_DRAWN = ("contrast.bar_px", "render.grow_px", "render.line_px", "render.view_px")  # the bar's width sets the line's
_ASKED = ("describe.prompt", "describe.max_new_tokens", "describe.system_prompt")
_JUDGED = ("natural.prompt", "natural.max_new_tokens")

# The settings that a stage itself reads on the way from its inputs to raw scores, texts and images.
_READ: Mapping[Stage, tuple[str, ...]] = MappingProxyType(
    {
        Stage.REWRITE: (
            "seed",
            "rewrite.prompt",
            "rewrite.temperature",
            "rewrite.top_p",
            "rewrite.max_new_tokens",
            "rewrite.system_prompt",
            "rewrite.top_k",
            "rewrite.repetition_penalty",
        ),
        Stage.GENERATE: (
            "seed",
            "generate.picture_px",
            "generate.steps",
            "generate.guidance_scale",
            "generate.edit",
            "generate.cross_injection",
            "generate.self_injection",
            "generate.self_injection_max_tokens",
            "generate.reweight",
            "generate.word_steps",
        ),
        Stage.COMPARE: (),
        Stage.VET: (*_JUDGED, "contrast.bar_px"),
        Stage.LOCATE: (
            "locate.segment_px",
            "locate.segment_confidence",
            "locate.segment_iou",
            "locate.corners",
            "locate.noun_kind",
        ),
        Stage.DESCRIBE: (*_ASKED, "describe.match_kind", "describe.match_grow_px"),
        Stage.CONTRAST: (
            "contrast.prompt",
            "contrast.max_new_tokens",
            "contrast.sides",
            "contrast.system_prompt",
            *_DRAWN,
        ),
        Stage.SCREEN: (*_JUDGED, "contrast.sides", *_DRAWN),
        Stage.RENDER: ("contrast.sides", *_DRAWN),
        Stage.ERASE: (
            "seed",
            "removal.picture_px",
            "removal.segment_px",
            "removal.segment_confidence",
            "removal.segment_iou",
            "removal.corners",
            "removal.prompt",
            "removal.strength",
            "removal.guidance_scale",
            "removal.steps",
            "removal.dilate_px",
            "removal.feather_px",
        ),
        Stage.INSPECT: (*_ASKED, "removal.match_kind", "removal.grow_px", *_DRAWN),
    }
)

# The stage whose output a stage works on.
_WORKS_ON: Mapping[Stage, Stage] = MappingProxyType(
    {
        Stage.GENERATE: Stage.REWRITE,
        Stage.COMPARE: Stage.GENERATE,
        Stage.VET: Stage.GENERATE,
        Stage.LOCATE: Stage.GENERATE,
        Stage.DESCRIBE: Stage.LOCATE,
        Stage.CONTRAST: Stage.DESCRIBE,
        Stage.SCREEN: Stage.LOCATE,
        Stage.RENDER: Stage.LOCATE,
        Stage.ERASE: Stage.GENERATE,
        Stage.INSPECT: Stage.ERASE,
    }
)

# The settings that only decide: about what a stage has given, or whether it is asked at all. `scores` and what sets
# early abort are among them: they change no sample of the pairs that are painted.
DECIDING = frozenset(
    {
        "name",
        "scores",
        "rewrite.attempts",
        "rewrite.max_caption_tokens",
        "generate.abort.mode",
        "generate.abort.at",
        "generate.abort.loss",
        "generate.abort.finished",
        "generate.abort.below",
        "generate.abort.above",
        "pair.above",
        "pair.below",
        "pair.decimals",
        "natural.enabled",
        "natural.rule",
        "natural.yes_above",
        "natural.shown",
        "locate.min_area",
        "locate.max_area",
        "locate.crop_cosine_below",
        "locate.noun_above",
        "locate.noun_rule",
        "locate.overlap_iou",
        "locate.regions",
        "locate.area_test",
        "locate.overlap_keeps",
        "locate.overlap_limit",
        "describe.text_cosine_below",
        "describe.match_above",
        "removal.crop_cosine_below",
        "removal.overlap_iou",
        "removal.targets",
        "removal.original_above",
        "removal.erased_below",
        "removal.noun_rule",
    }
)


def work_settings(profile: Profile, stage: Stage) -> Mapping[str, object]:
    """Every setting that the raw output of `stage` depends on, by its dotted key, thresholds left out.

    They include those of the stages whose output it works on.
    """
    upstream = _WORKS_ON.get(stage)
    settings = {} if upstream is None else dict(work_settings(profile, upstream))
    return settings | {key: attrgetter(key)(profile) for key in _READ[stage]}


@lru_cache(maxsize=1024)
def _fingerprint(stored: str, stage: Stage) -> str:
    settings = work_settings(Profile.model_validate_json(stored), stage)
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()


def fingerprint(profile: Profile, stage: Stage) -> str:
    """32 hex digits: under profiles with equal ones, `stage` gives the same for the same caption and models.

    Not to be stored: it changes with each setting that a later version adds.
    """
    return _fingerprint(profile.stored(), stage)


@lru_cache(maxsize=1024)
def _unchanged(old: str, new: str) -> frozenset[Stage]:
    return frozenset(stage for stage in Stage if _fingerprint(old, stage) == _fingerprint(new, stage))


def unchanged(old: Profile, new: Profile) -> frozenset[Stage]:
    """The stages that give the same under both profiles, if they run at all."""
    return _unchanged(old.stored(), new.stored())


def first_to_redo(old: Profile, new: Profile, pipeline: Pipeline = Pipeline.REPLACEMENT) -> Stage | None:
    """The first stage under `new` for which what was stored under `old` does not do; None if it all does.

    A stage that `old` left out counts. Even where this is None, single items may lack an output: a region that `old`
    did not choose was never described.
    """
    stages = PIPELINES[pipeline].stages
    first = PIPELINES[pipeline].starts_after
    same = unchanged(old, new)
    if first is not None and first not in same:
        return first
    for stage in stages:
        if stage in new.skipped_stages:
            continue
        if stage in old.skipped_stages or stage not in same:
            return stage
    return None
