"""Which settings decide whether a stage's stored output can be reused under another profile."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.profile_sections import Bound
from imgdiffd.method.reuse import DECIDING, fingerprint, first_to_redo, work_settings
from imgdiffd.pipeline import STAGES, Pipeline, Stage

DEFAULT = load_profile("default")


def keys_of(model: BaseModel, before: str = "") -> Iterator[str]:
    """Every setting of a profile by its dotted key."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel) and not isinstance(value, Bound):
            yield from keys_of(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def changed(key: str, value: object, profile: Profile = DEFAULT) -> Profile:
    """`profile` with another value of one setting."""
    data: dict[str, Any] = profile.model_dump()
    section = data
    *path, name = key.split(".")
    for part in path:
        section = section[part]
    section[name] = value
    return Profile.model_validate(data)


def test_every_setting_of_a_profile_is_classified() -> None:
    work = {key for stage in STAGES for key in work_settings(DEFAULT, stage)}
    assert set(keys_of(DEFAULT)) == work | DECIDING, (
        "a new setting belongs to a stage or to DECIDING in method/reuse.py"
    )
    assert not work & DECIDING


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_what_its_images_depend_on(stage: Stage) -> None:
    repainted = changed("generate.steps", DEFAULT.generate.steps + 1)
    same = fingerprint(DEFAULT, stage) == fingerprint(repainted, stage)
    assert same == (stage is Stage.REWRITE)


@pytest.mark.parametrize(
    ("key", "value", "first"),
    [
        ("seed", 1, Stage.REWRITE),
        ("rewrite.temperature", 0.1, Stage.REWRITE),
        ("generate.picture_px", 512, Stage.GENERATE),
        ("locate.segment_px", 640, Stage.LOCATE),
        ("describe.prompt", "What is in {box}?", Stage.DESCRIBE),
        ("contrast.bar_px", 7, Stage.CONTRAST),
        ("render.line_px", 9, Stage.CONTRAST),
        ("natural.enabled", True, Stage.VET),
        ("pair.above", 0.8, None),
        ("describe.match_above", 0.1, None),
        ("locate.regions", 9, None),
        ("generate.abort.mode", "off", None),
        ("removal.steps", 20, None),
    ],
)
def test_first_stage_to_redo_is_the_first_that_reads_it(key: str, value: object, first: Stage | None) -> None:
    assert first_to_redo(DEFAULT, changed(key, value)) is first


def test_removal_is_redone_from_its_own_first_stage_that_reads_it() -> None:
    assert first_to_redo(DEFAULT, changed("removal.steps", 20), Pipeline.REMOVAL) is Stage.ERASE
    assert first_to_redo(DEFAULT, changed("removal.grow_px", 3), Pipeline.REMOVAL) is Stage.INSPECT
    assert first_to_redo(DEFAULT, changed("seed", 1), Pipeline.REMOVAL) is Stage.COMPARE
    assert first_to_redo(DEFAULT, changed("locate.segment_px", 640), Pipeline.REMOVAL) is None


def test_filter_that_the_new_profile_leaves_out_is_not_redone() -> None:
    judged = changed("natural.enabled", True)
    assert first_to_redo(judged, DEFAULT) is None
    assert first_to_redo(judged, changed("natural.shown", "samples", judged)) is Stage.SCREEN
