"""Profiles: every number of the method that a user may want to change, as frozen data.

It owns thresholds, prompts and sizes and how they are read from TOML; it does not know how a score is computed.
"""

import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from imgdiffd.errors import ProfileError
from imgdiffd.pipeline import OPTIONAL_STAGES, Stage

BUILT_IN = ("default", "paper", "scripts", "data-juicer", "mini")

ImageTextKind = Literal["blip_itc_cosine", "blip_itm_probability"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=0, le=16384)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Bound(_Frozen):
    """A threshold; `closed` says whether the value itself passes. A score that is missing or NaN never passes."""

    value: float
    closed: bool = False

    def below(self, score: float | None) -> bool:
        """Whether `score` lies on the low side."""
        if score is None or math.isnan(score):
            return False
        return score < self.value or (self.closed and score == self.value)

    def above(self, score: float | None) -> bool:
        """Whether `score` lies on the high side."""
        if score is None or math.isnan(score):
            return False
        return score > self.value or (self.closed and score == self.value)


class Rewrite(_Frozen):
    """How the LLM is asked to replace one object (paper, section 3.1). `{caption}` in `prompt` is the caption."""

    prompt: str
    temperature: Annotated[float, Field(ge=0, le=5)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)]
    attempts: Annotated[int, Field(ge=1, le=100)]
    max_caption_tokens: Annotated[int, Field(ge=3, le=512)]  # of the painter's CLIP tokenizer, both end marks included

    @model_validator(mode="after")
    def _prompt_has_caption(self) -> "Rewrite":
        if "{caption}" not in self.prompt:
            raise ValueError("prompt must contain {caption}")
        return self


class Generate(_Frozen):
    """SDXL with Prompt-to-Prompt: sizes in pixels, fractions of the steps.

    `edit` says whose attention a token of caption 2 gets: `refine`, that of the equal token of caption 1 where there is
    one; `replace`, word for word, for captions of as many words; `none`, its own: the two share only their noise.
    `reweight` multiplies the attention to words of caption 2; with `none`, that of caption 1 to the token of the same
    place. `word_steps` gives words of caption 2 their own (first, end) in the place of `cross_injection`. A word that a
    caption has not is ignored, on purpose: one profile serves every caption of a batch.
    """

    picture_px: Annotated[int, Field(ge=16, le=4096, multiple_of=8)]
    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance_scale: Annotated[float, Field(ge=1, le=50)]
    edit: Literal["refine", "replace", "none"]
    cross_injection: Fraction  # of the steps, from the first
    self_injection: Fraction
    self_injection_max_tokens: Annotated[int, Field(ge=0)]  # only in layers with at most this many image tokens
    reweight: dict[str, Annotated[float, Field(ge=-100, le=100)]] = {}
    word_steps: dict[str, tuple[Fraction, Fraction]] = {}

    @model_validator(mode="after")
    def _words_have_an_edit(self) -> "Generate":
        for word, (first, end) in self.word_steps.items():
            if first > end:
                raise ValueError(f"word_steps.{word} begins at {first}, behind its end {end}")
        if self.word_steps and self.edit == "none" and not self.reweight:
            raise ValueError("word_steps need an edit or reweight: with none there is nothing to inject")
        return self


class Pair(_Frozen):
    """The gate on a pair: CLIP cosine of its two images (IS), rounded first where `decimals` is set."""

    above: Bound
    below: Bound
    decimals: Annotated[int, Field(ge=0, le=9)] | None = None


NATURAL_PROMPT = "Please determine if the content of these two images is reasonable. Answer only with 'yes' or 'no'."


class Natural(_Frozen):
    """The natural-image filter: a model is shown the joined pair and asked whether it is reasonable. Not in the paper.

    With the rule `answer` a pair passes whose answer is yes; with `probability` one whose P(yes) / (P(yes) + P(no)) is
    above `yes_above`. Under both, an answer that is neither yes nor no is rejected.
    """

    enabled: bool = False
    prompt: Annotated[str, Field(min_length=1)] = NATURAL_PROMPT
    max_new_tokens: Annotated[int, Field(ge=1, le=64)] = 5
    rule: Literal["answer", "probability"] = "answer"
    yes_above: Bound = Bound(value=0.5)


class Locate(_Frozen):
    """Boxes that differ and hold an object (paper, section 3.2). Areas are fractions of the image."""

    segment_px: Annotated[int, Field(ge=32, le=4096)]
    segment_confidence: Fraction
    segment_iou: Fraction
    min_area: Fraction
    max_area: Fraction
    crop_cosine_below: Bound
    noun_kind: ImageTextKind
    noun_above: Bound  # BITM
    noun_rule: Literal["any", "both"]  # one side's crop must match its noun, or both
    overlap_iou: Bound  # the more different box wins over those whose IoU is above
    regions: Annotated[int, Field(ge=1, le=100)]  # at most this many a pair


class Describe(_Frozen):
    """Region captions and their two filters: text similarity (CS) first, then caption against crop (CITM)."""

    prompt: str
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)]
    text_cosine_below: Bound
    match_kind: ImageTextKind
    match_above: Bound
    match_grow_px: Pixels

    @model_validator(mode="after")
    def _prompt_has_box(self) -> "Describe":
        if "{box}" not in self.prompt:
            raise ValueError("prompt must contain {box}")
        return self


class Contrast(_Frozen):
    """The difference caption: both images joined by a black bar, `{left}` and `{right}` the region captions."""

    prompt: str
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)]
    bar_px: Pixels
    sides: Literal["random", "original_left"]  # random: drawn from the seed, so no side gives the edit away

    @model_validator(mode="after")
    def _prompt_has_sides(self) -> "Contrast":
        if "{left}" not in self.prompt or "{right}" not in self.prompt:
            raise ValueError("prompt must contain {left} and {right}")
        return self


class Render(_Frozen):
    """The red boxes: grown, clamped to the canvas, `line_px` wide.

    `view_px` is the width to which a training model squeezes the joined image; the line is widened so that at least
    one pixel of it survives that. 0 keeps `line_px` as it is.
    """

    grow_px: Pixels
    line_px: Annotated[int, Field(ge=1, le=256)]
    view_px: Pixels


class Removal(_Frozen):
    """Object removal (paper, section 16): pixels are those of images brought to `picture_px` squared.

    `prompt` describes what replaces the object. Inpainted pixels reach `dilate_px` beyond its mask and fade into the
    original over `feather_px` more.
    """

    picture_px: Annotated[int, Field(ge=16, le=4096, multiple_of=8)]
    segment_px: Annotated[int, Field(ge=32, le=4096)]
    segment_confidence: Fraction
    segment_iou: Fraction
    crop_cosine_below: Bound  # of the pair's two crops of a box: one that holds an object of one image only
    overlap_iou: Bound  # as in Locate
    targets: Annotated[int, Field(ge=1, le=100)]  # at most this many an image
    prompt: str
    strength: Annotated[float, Field(gt=0, le=1)]  # the share of the steps that are run
    guidance_scale: Annotated[float, Field(ge=0, le=50)]  # at most 1: none
    steps: Annotated[int, Field(ge=1, le=1000)]
    dilate_px: Annotated[int, Field(ge=0, le=256)]
    feather_px: Annotated[int, Field(ge=0, le=256)]
    match_kind: ImageTextKind
    original_above: Bound  # the original crop fits its description
    erased_below: Bound  # and the erased one does not
    grow_px: Pixels  # of the red box

    @model_validator(mode="after")
    def _some_step_is_run(self) -> "Removal":
        if int(self.steps * self.strength) < 1:
            raise ValueError("steps times strength must be at least 1")
        return self


class Profile(_Frozen):
    """All numbers of one run. `seed` changes every random draw at once."""

    name: str
    seed: int = 0
    rewrite: Rewrite
    generate: Generate
    pair: Pair
    natural: Natural = Natural()  # profiles of databases written before this filter have none
    locate: Locate
    describe: Describe
    contrast: Contrast
    render: Render
    removal: Removal

    @property
    def open_bytes(self) -> int:
        """The most that an open item's two images take, uncompressed, on disk and in memory."""
        return 2 * 3 * self.generate.picture_px**2

    @property
    def skipped_stages(self) -> frozenset[Stage]:
        """The optional stages that no item of this profile enters."""
        return frozenset() if self.natural.enabled else OPTIONAL_STAGES  # vetting is the only one


def _merge(base: dict[str, object], over: dict[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _read(name: str, seen: tuple[str, ...]) -> dict[str, object]:
    if name in seen:
        raise ProfileError(f"profile {name}: extends itself through {' -> '.join(seen)}", hint="break the circle")
    try:
        if name in BUILT_IN:
            text = resources.files("imgdiffd.method").joinpath("profiles", f"{name}.toml").read_text("utf-8")
        elif name.endswith(".toml"):
            text = Path(name).read_text("utf-8")
        else:
            raise ProfileError(f"profile {name}: unknown", hint=f"use one of {', '.join(BUILT_IN)} or a .toml file")
        data: dict[str, object] = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"profile {name}: {error}", hint="give a readable UTF-8 .toml file") from error
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"profile {name}: {error}", hint="correct the TOML") from error
    data.setdefault("name", Path(name).stem)  # its own: what a file changes must not pass for what it extends
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise ProfileError(f"profile {name}: extends must be a profile's name", hint='such as extends = "default"')
    if base.endswith(".toml") and name.endswith(".toml"):
        base = str(Path(name).parent / base)
    return _merge(_read(base, (*seen, name)), data)


def load_profile(name: str) -> Profile:
    """The profile called `name`, or the one in the TOML file of that path.

    A file starts with `extends = "default"` (or another profile) and names only what it changes. Raises ProfileError
    naming the key that is wrong.
    """
    data = _read(name, ())
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "profile"
        raise ProfileError(
            f"profile {name}: {key}: {first['msg']}", hint="`imgdiffd profile default` prints every key"
        ) from error
