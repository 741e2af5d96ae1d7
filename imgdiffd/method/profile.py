"""Profiles: everything of the method that a user may want to change, read from files and known to databases."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from imgdiffd.errors import ProfileError, is_visible, visible, wrong_value
from imgdiffd.method.contradictions import contradiction
from imgdiffd.method.profile_files import read_profile
from imgdiffd.method.profile_sections import (
    Contrast,
    Describe,
    Frozen,
    Generate,
    Locate,
    Natural,
    Pair,
    Removal,
    Render,
    Rewrite,
)
from imgdiffd.pipeline import OPTIONAL_STAGES, Stage

# Keys that a stored profile may lack, since its database is older. Where they all have their defaults it is stored
# without them still, so that such a database knows the profile, and its captions, again.
_YOUNGER: Mapping[str, frozenset[str]] = {
    "rewrite": frozenset({"system_prompt", "top_k", "repetition_penalty"}),
    "generate": frozenset({"abort"}),
    "natural": frozenset({"shown"}),
    "locate": frozenset({"corners", "area_test", "overlap_keeps", "overlap_limit"}),
    "describe": frozenset({"system_prompt"}),
    "contrast": frozenset({"system_prompt"}),
    "removal": frozenset({"corners", "noun_rule"}),
}


IMPORTED = "imported"  # the profile under which imported samples are listed: nothing is known of how they were made


class Profile(Frozen):
    """Everything that decides what one run makes. `seed` changes every random draw at once.

    `scores` says what is scored: `all` that a model can score without a longer way through the pipeline, or only what
    is `needed`, which leaves out what an earlier filter has already rejected. It changes no verdict and no sample.
    """

    name: Annotated[str, Field(description="what jobs and samples are listed under: a changed profile needs its own")]
    seed: Annotated[int, Field(description="another seed changes every random draw at once")] = 0
    scores: Annotated[
        Literal["all", "needed"], Field(description="all: rejects too are scored by every filter that costs little")
    ] = "all"
    rewrite: Rewrite
    generate: Generate
    pair: Pair
    natural: Natural = Natural()
    locate: Locate
    describe: Describe
    contrast: Contrast
    render: Render
    removal: Removal

    def stored(self) -> str:
        """The JSON by which databases know this profile."""
        left_out: dict[str, Any] = {}
        for section, keys in _YOUNGER.items():
            fields = getattr(self, section)
            defaults = {key: type(fields).model_fields[key].default for key in keys}
            left_out[section] = {key for key, default in defaults.items() if getattr(fields, key) == default}
        if not self.natural.enabled:
            left_out["natural"] = True
        if self.scores == "all":
            left_out["scores"] = True
        return self.model_dump_json(exclude=left_out)

    @property
    def sampling(self) -> dict[str, dict[str, float]]:
        """How the models that write choose their tokens, by what they write: all that is in force, and nothing else.

        A temperature of 0 takes the likeliest token.
        """
        rewrite = self.rewrite
        asked: dict[str, float] = {"temperature": rewrite.temperature}
        if rewrite.temperature:
            asked |= {"top_p": rewrite.top_p, **({"top_k": rewrite.top_k} if rewrite.top_k else {})}
        if rewrite.repetition_penalty != 1:
            asked["repetition_penalty"] = rewrite.repetition_penalty
        tokens = {"describe": self.describe.max_new_tokens, "contrast": self.contrast.max_new_tokens}
        if self.natural.enabled:
            tokens["natural"] = self.natural.max_new_tokens
        return {
            "rewrite": {**asked, "max_new_tokens": rewrite.max_new_tokens},
            **{key: {"temperature": 0.0, "max_new_tokens": most} for key, most in tokens.items()},
        }

    @property
    def open_bytes(self) -> int:
        """The most that an open item's two images take, uncompressed, on disk and in memory."""
        return 2 * 3 * self.generate.picture_px**2

    @property
    def skipped_stages(self) -> frozenset[Stage]:
        """The optional stages that no item of this profile enters."""
        if not self.natural.enabled:
            return OPTIONAL_STAGES
        return frozenset({Stage.SCREEN if self.natural.shown == "pairs" else Stage.VET})


def load_profile(name: str) -> Profile:
    """The profile called `name`, or the one in the TOML file of that path.

    A file starts with `extends = "default"` (or another profile) and gives only what it changes. Raises ProfileError
    naming the key that is wrong, or at odds with another.
    """
    data = read_profile(name)
    called = str(data.get("name"))
    if not is_visible(called):  # it is shown in lists, and typed to choose among them
        raise ProfileError(
            f"profile {name}: name: '{visible(called)}' cannot be seen or typed", hint="give a printable name"
        )
    try:
        # As JSON, in which lists pass for tuples while every other value must be of the kind that is wanted.
        profile = Profile.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "profile"
        hint = "`imgdiffd profile default` prints every key"
        if first["type"] == "missing":
            hint = f'begin the file with extends = "default", and give only what differs; {hint}'
        raise ProfileError(f"profile {name}: {key}: {wrong_value(first)}", hint=hint) from error
    if called == IMPORTED:
        hint = "give another name"
        raise ProfileError(f"profile {name}: name: imported samples are listed under {IMPORTED!r}", hint=hint)
    if wrong := contradiction(profile):
        raise ProfileError(
            f"profile {name}: {wrong}", hint="`imgdiffd profile default` prints every key with its meaning"
        )
    return profile


def imported_profile() -> Profile:
    """What stands for the profile of imported samples: its numbers say nothing."""
    return load_profile("default").model_copy(update={"name": IMPORTED})
