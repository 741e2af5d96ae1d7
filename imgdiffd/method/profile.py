"""Profiles: every prompt, size and threshold of the method that a user may want to change, as frozen data."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from imgdiffd.errors import ProfileError
from imgdiffd.method.profile_files import read_profile
from imgdiffd.pipeline import OPTIONAL_STAGES, Stage

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
    """SDXL with Prompt-to-Prompt: sizes in pixels, injection as fractions of the steps.

    `edit` says whose attention a token of caption 2 gets (the paper's mapper): `refine`, that of the equal token of
    caption 1 where there is one; `replace`, word for word, for captions with the same number of words; `none`, its
    own: the two images share only their noise. `cross_injection` and `self_injection` are the paper's
    cross_replace_steps and self_replace_steps. `reweight`, its equalizer, multiplies the attention to words of caption
    2; with `none`, that of caption 1 to the token at the same place. `word_steps` gives words of caption 2 their own
    (first, end) instead of `cross_injection`. Words that a caption lacks are ignored: one profile serves every caption
    of a batch. The paper's LocalBlend is left out.
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
                raise ValueError(f"word_steps.{word} begins at {first}, after its end {end}")
        if self.word_steps and self.edit == "none" and not self.reweight:
            raise ValueError("word_steps needs an edit or reweight: with neither, nothing is injected")
        return self


class Pair(_Frozen):
    """The filter on a pair: the CLIP cosine of its two images (IS), rounded to `decimals` first where these are set."""

    above: Bound
    below: Bound
    decimals: Annotated[int, Field(ge=0, le=9)] | None = None


NATURAL_PROMPT = "Please determine if the content of these two images is reasonable. Answer only with 'yes' or 'no'."


class Natural(_Frozen):
    """The natural-image filter: a model is shown the joined pair and asked whether it is reasonable. Not in the paper.

    With the rule `answer` a pair passes if the answer is yes; with `probability`, if P(yes) / (P(yes) + P(no)) is above
    `yes_above`. Under both, a pair whose answer is neither yes nor no is rejected.
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
    noun_rule: Literal["any", "both"]  # whether one side's crop must match its noun, or both
    overlap_iou: Bound  # of two boxes whose IoU is above, the more different one is kept
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
    sides: Literal["random", "original_left"]  # random: drawn from the seed, so that no side reveals the edit

    @model_validator(mode="after")
    def _prompt_has_sides(self) -> "Contrast":
        if "{left}" not in self.prompt or "{right}" not in self.prompt:
            raise ValueError("prompt must contain {left} and {right}")
        return self


class Render(_Frozen):
    """The red boxes: grown, clamped to the canvas, `line_px` wide.

    `view_px` is the width to which the trained model scales the joined image down; the line is widened so that at
    least one pixel of it remains. 0 keeps `line_px` as it is.
    """

    grow_px: Pixels
    line_px: Annotated[int, Field(ge=1, le=256)]
    view_px: Pixels


class Removal(_Frozen):
    """Object removal (paper, section 16). All pixels are those of images scaled to `picture_px` × `picture_px`.

    `prompt` describes what replaces the object. Inpainted pixels reach `dilate_px` beyond its mask and fade into the
    original over `feather_px` more.
    """

    picture_px: Annotated[int, Field(ge=16, le=4096, multiple_of=8)]
    segment_px: Annotated[int, Field(ge=32, le=4096)]
    segment_confidence: Fraction
    segment_iou: Fraction
    crop_cosine_below: Bound  # of the two crops of a box, which then holds an object of one image only
    overlap_iou: Bound  # as in Locate
    targets: Annotated[int, Field(ge=1, le=100)]  # at most this many an image
    prompt: str
    strength: Annotated[float, Field(gt=0, le=1)]  # the fraction of the steps that are run
    guidance_scale: Annotated[float, Field(ge=0, le=50)]  # none up to 1
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
            raise ValueError("steps times strength must be at least 1, so that a step is run")
        return self


class Profile(_Frozen):
    """Everything that decides what one run makes. `seed` changes every random draw at once."""

    name: str
    seed: int = 0
    rewrite: Rewrite
    generate: Generate
    pair: Pair
    natural: Natural = Natural()  # databases written before this filter have profiles without it
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
        return frozenset() if self.natural.enabled else OPTIONAL_STAGES  # vet is the only one


def load_profile(name: str) -> Profile:
    """The profile called `name`, or the one in the TOML file of that path.

    A file starts with `extends = "default"` (or another profile) and gives only what it changes. Raises ProfileError
    naming the key that is wrong.
    """
    data = read_profile(name)
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "profile"
        raise ProfileError(
            f"profile {name}: {key}: {first['msg']}", hint="`imgdiffd profile default` prints every key"
        ) from error
