"""The sections of a profile: every prompt, size and threshold that a user may want to change, as frozen data."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from imgdiffd.method.profile_files import is_number

ImageTextKind = Literal["blip_itc_cosine", "blip_itm_probability"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=0, le=16384)]


class Frozen(BaseModel):
    """A part of a profile: it does not change, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Bound(Frozen):
    """A threshold; `closed` says whether the value itself passes. A score that is missing or NaN never passes.

    A profile may give the value alone, as a plain number.
    """

    value: float
    closed: bool = False

    @model_validator(mode="before")
    @classmethod
    def _number_is_value(cls, data: object) -> object:
        if is_number(data):
            return {"value": data}
        if not isinstance(data, dict | Bound):
            raise ValueError("must be a number such as 0.9, or { value = 0.9, closed = true } to let 0.9 itself pass")
        return data

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


class Rewrite(Frozen):
    """How the LLM is asked to replace one object (paper, section 3.1). `{caption}` in `prompt` is the caption.

    These are all the sampling parameters in force: those of the checkpoint's own generation configuration are not
    used. `top_k = 0` and `repetition_penalty = 1` switch the two off. An empty system prompt leaves the chat template
    its own.
    """

    prompt: Annotated[str, Field(description="what the LLM is asked; {caption} stands for the caption")]
    temperature: Annotated[float, Field(ge=0, le=5, description="sampling temperature; 0 takes the likeliest token")]
    top_p: Annotated[float, Field(gt=0, le=1, description="nucleus sampling: the share of probability to draw from")]
    max_new_tokens: Annotated[int, Field(ge=1, le=4096, description="at most this many tokens in an answer")]
    attempts: Annotated[int, Field(ge=1, le=100, description="how often a caption is rewritten before it is dropped")]
    max_caption_tokens: Annotated[
        int,
        Field(
            ge=3,
            le=512,
            description="longer captions are dropped; in tokens of the painter's CLIP, both end marks included",
        ),
    ]
    system_prompt: Annotated[
        str, Field(description="what stands before the question; empty: the chat template's own, or none")
    ] = ""
    top_k: Annotated[
        int, Field(ge=0, le=1_000_000, description="tokens are drawn from this many likeliest ones; 0 for no limit")
    ] = 0
    repetition_penalty: Annotated[
        float, Field(gt=0, le=10, description="makes tokens that stand there already less likely; 1 for none")
    ] = 1.0

    @model_validator(mode="after")
    def _prompt_has_caption(self) -> "Rewrite":
        if "{caption}" not in self.prompt:
            raise ValueError("prompt must contain {caption}")
        return self


class Abort(Frozen):
    """Early abort: pairs that will fail the similarity filter are given up half-painted. Not in the paper.

    At one step of each pass the images as they would become are decoded cheaply, and their CLIP cosine is the pair's
    preview score. `shadow` stores it and gives nothing up. `on` gives a pair up where its score is under `below` or
    over `above`. Where neither is set, both are taken from what finished pairs have shown when a job is admitted, once
    they show enough, and are recorded with it. A pair without a score is never given up.
    """

    mode: Annotated[
        Literal["off", "shadow", "on"],
        Field(description="off: no previews; shadow: they are only scored; on: pairs beyond a threshold are given up"),
    ] = "shadow"
    at: Annotated[
        Fraction | None,
        Field(description="share of the steps after which the preview is made; not set: that of self_injection"),
    ] = None
    loss: Annotated[
        float,
        Field(
            ge=0.001,  # 2,995 kept pairs; a calibration looks at the newest 20,000 pairs or fewer
            lt=1,
            description="share of the kept pairs that each side may lose, with 95 % certainty",
        ),
    ] = 0.005
    finished: Annotated[
        Fraction, Field(description="share of the pairs, drawn by seed, that are finished whatever their preview says")
    ] = 0.03
    below: Annotated[
        float | None,
        Field(ge=-1, le=1, description="a pair whose preview cosine is under this is given up as too different"),
    ] = None
    above: Annotated[
        float | None,
        Field(ge=-1, le=1, description="a pair whose preview cosine is over this is given up as too similar"),
    ] = None

    @model_validator(mode="after")
    def _something_passes(self) -> "Abort":
        if self.below is not None and self.above is not None and self.below > self.above:
            raise ValueError(f"below is {self.below}, over above, {self.above}: every pair would be given up")
        return self


class Generate(Frozen):
    """SDXL with Prompt-to-Prompt: sizes in pixels, injection as fractions of the steps.

    `edit` says whose attention a token of caption 2 gets (the paper's mapper): `refine`, that of the equal token of
    caption 1 where there is one; `replace`, word for word, for captions with the same number of words; `none`, its
    own: the two images share only their noise. `cross_injection` and `self_injection` are the paper's
    cross_replace_steps and self_replace_steps. `reweight`, its equalizer, multiplies the attention to words of caption
    2; with `none`, that of caption 1 to the token at the same place. `word_steps` gives words of caption 2 their own
    (first, end) instead of `cross_injection`. Words that a caption lacks are ignored: one profile serves every caption
    of a batch. The paper's LocalBlend is left out.
    """

    picture_px: Annotated[
        int, Field(ge=16, le=4096, multiple_of=8, description="width and height of a generated image")
    ]
    steps: Annotated[int, Field(ge=1, le=1000, description="denoising steps of an image")]
    guidance_scale: Annotated[float, Field(ge=1, le=50, description="guidance scale")]
    edit: Annotated[
        Literal["refine", "replace", "none"],
        Field(
            description="whose cross-attention a token of caption 2 gets: refine, that of the same token in "
            "caption 1; replace, word for word; none, its own"
        ),
    ]
    cross_injection: Annotated[
        Fraction, Field(description="share of the steps, from the first, in which cross-attention is injected")
    ]
    self_injection: Annotated[
        Fraction, Field(description="share of the steps, from the first, in which self-attention is injected")
    ]
    self_injection_max_tokens: Annotated[
        int, Field(ge=0, description="self-attention is injected in layers with at most this many image tokens")
    ]
    reweight: Annotated[
        dict[str, Annotated[float, Field(ge=-100, le=100)]],
        Field(description="word of caption 2 = the factor by which the attention to it is multiplied"),
    ] = {}
    word_steps: Annotated[
        dict[str, tuple[Fraction, Fraction]],
        Field(description="word of caption 2 = [first, end], its own steps in place of cross_injection"),
    ] = {}
    abort: Abort = Abort()

    @model_validator(mode="after")
    def _words_have_an_edit(self) -> "Generate":
        for word, (first, end) in self.word_steps.items():
            if first > end:
                raise ValueError(f"word_steps.{word} begins at {first}, after its end {end}")
        if self.word_steps and self.edit == "none" and not self.reweight:
            raise ValueError("word_steps needs an edit or reweight: with neither, nothing is injected")
        return self


class Pair(Frozen):
    """The filter on a pair: the CLIP cosine of its two images (IS), rounded to `decimals` first where these are set."""

    above: Annotated[Bound, Field(description="a pair passes if the CLIP cosine of its images is above this")]
    below: Annotated[Bound, Field(description="and below this")]
    decimals: Annotated[
        Annotated[int, Field(ge=0, le=9)] | None,
        Field(description="decimals to which the cosine is rounded before it is compared; not rounded where not set"),
    ] = None


NATURAL_PROMPT = "Please determine if the content of these two images is reasonable. Answer only with 'yes' or 'no'."


class Natural(Frozen):
    """The natural-image filter: a model is shown the joined pair and asked whether it is reasonable. Not in the paper.

    It is shown painted pairs that are alike enough or, as in the authors' scripts, finished samples with their boxes.
    With the rule `answer` a pair passes if the answer is yes; with `probability`, if P(yes) / (P(yes) + P(no)) is above
    `yes_above`. Under both, a pair whose answer is neither yes nor no is rejected.
    """

    enabled: Annotated[bool, Field(description="whether pairs are judged; this needs a bundle with a judge")] = False
    prompt: Annotated[str, Field(min_length=1, description="what the judge is asked about the joined pair")] = (
        NATURAL_PROMPT
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=64, description="at most this many tokens in an answer")] = 5
    rule: Annotated[
        Literal["answer", "probability"],
        Field(description="what decides: the answer itself, or the probability of a yes"),
    ] = "answer"
    yes_above: Annotated[
        Bound, Field(description="under the rule probability, P(yes) / (P(yes) + P(no)) must be above this")
    ] = Bound(value=0.5)
    shown: Annotated[
        Literal["pairs", "samples"],
        Field(description="what is judged: pairs, before regions are sought, or finished samples with their boxes"),
    ] = "pairs"


Corners = Annotated[
    Literal["rounded", "truncated"],
    Field(description="how the segmenter's fractions of a pixel become whole ones"),
]


class Locate(Frozen):
    """Boxes that differ and hold an object (paper, section 3.2). Areas are fractions of the image.

    Boxes that pass the tests of one box alone are compared: of two that overlap, the one that `overlap_keeps` names
    stays; of those left, at most `overlap_limit`, and in the end at most `regions` a pair. Both limits are off at 0.
    With `area_test = "last"` sizes are judged only between the two limits, so that a box of a wrong size may push out
    another one first.
    """

    segment_px: Annotated[int, Field(ge=32, le=4096, description="size at which the segmenter sees an image")]
    segment_confidence: Annotated[Fraction, Field(description="the segmenter's least confidence in a box")]
    segment_iou: Annotated[
        Fraction, Field(description="of boxes that overlap by more than this IoU, the segmenter gives one")
    ]
    min_area: Annotated[Fraction, Field(description="boxes smaller than this share of the image are dropped")]
    max_area: Annotated[Fraction, Field(description="boxes larger than this share of the image are dropped")]
    crop_cosine_below: Annotated[
        Bound, Field(description="a box differs if the CLIP cosine of its two crops is below this")
    ]
    noun_kind: Annotated[ImageTextKind, Field(description="the score of a crop against its caption's noun (BITM)")]
    noun_above: Annotated[Bound, Field(description="a crop holds the noun if that score is above this")]
    noun_rule: Annotated[
        Literal["any", "both"], Field(description="whether any one of a box's two crops must hold its noun, or both")
    ]
    overlap_iou: Annotated[Bound, Field(description="of two boxes whose IoU is above this, one is kept")]
    regions: Annotated[
        int, Field(ge=0, le=600, description="at most this many boxes a pair, the most different ones; 0 for no limit")
    ]
    corners: Corners = "rounded"
    area_test: Annotated[
        Literal["first", "last"], Field(description="whether sizes are judged at once, or only after overlap_limit")
    ] = "first"
    overlap_keeps: Annotated[
        Literal["most_different", "first_found"], Field(description="which of two boxes that overlap is kept")
    ] = "most_different"
    overlap_limit: Annotated[
        int, Field(ge=0, le=600, description="at most this many boxes are left by the overlap filter; 0 for no limit")
    ] = 0


class Describe(Frozen):
    """Region captions and their two filters: text similarity (CS) first, then caption against crop (CITM)."""

    prompt: Annotated[str, Field(description="what the captioner is asked of each image; {box} stands for the box")]
    max_new_tokens: Annotated[int, Field(ge=1, le=4096, description="at most this many tokens in a description")]
    text_cosine_below: Annotated[
        Bound, Field(description="a region stays if the cosine of its two descriptions is below this (CS)")
    ]
    match_kind: Annotated[ImageTextKind, Field(description="the score of a description against its crop (CITM)")]
    match_above: Annotated[Bound, Field(description="both descriptions must fit their crops with a score above this")]
    match_grow_px: Annotated[Pixels, Field(description="how far the crop is grown on each side for that score")]
    system_prompt: Annotated[
        str, Field(description="what stands before the question; empty: the chat template's own, or none")
    ] = ""

    @model_validator(mode="after")
    def _prompt_has_box(self) -> "Describe":
        if "{box}" not in self.prompt:
            raise ValueError("prompt must contain {box}")
        return self


class Contrast(Frozen):
    """The difference caption: both images joined by a black bar, `{left}` and `{right}` the region captions."""

    prompt: Annotated[
        str, Field(description="what the captioner is asked; {left} and {right} stand for the descriptions")
    ]
    max_new_tokens: Annotated[int, Field(ge=1, le=4096, description="at most this many tokens in an answer")]
    bar_px: Annotated[Pixels, Field(description="width of the black bar between the two images")]
    sides: Annotated[
        Literal["random", "original_left"],
        Field(description="random: drawn from the seed, so that no side reveals the edit; or the original on the left"),
    ]
    system_prompt: Annotated[
        str, Field(description="what stands before the question; empty: the chat template's own, or none")
    ] = ""

    @model_validator(mode="after")
    def _prompt_has_sides(self) -> "Contrast":
        if "{left}" not in self.prompt or "{right}" not in self.prompt:
            raise ValueError("prompt must contain {left} and {right}")
        return self


class Render(Frozen):
    """The red boxes: grown, clamped to the canvas, `line_px` wide.

    `view_px` is the width to which the trained model scales the joined image down; the line is widened so that at
    least one pixel of it remains. 0 keeps `line_px` as it is.
    """

    grow_px: Annotated[Pixels, Field(description="how far the red box is drawn outside its region")]
    line_px: Annotated[int, Field(ge=1, le=256, description="width of the red line")]
    view_px: Annotated[
        Pixels,
        Field(
            description="width to which a trained model scales the joined image; the line is widened so that at least "
            "one pixel of it remains there; 0 keeps line_px as it is"
        ),
    ]


class Removal(Frozen):
    """Object removal (paper, section 16). All pixels are those of images scaled to `picture_px` × `picture_px`.

    `prompt` describes what replaces the object. Inpainted pixels reach `dilate_px` beyond its mask and fade into the
    original over `feather_px` more.
    """

    picture_px: Annotated[
        int, Field(ge=16, le=4096, multiple_of=8, description="size to which the pair is scaled; all pixels are of it")
    ]
    segment_px: Annotated[int, Field(ge=32, le=4096, description="size at which the segmenter sees an image")]
    segment_confidence: Annotated[Fraction, Field(description="the segmenter's least confidence in a box")]
    segment_iou: Annotated[
        Fraction, Field(description="of boxes that overlap by more than this IoU, the segmenter gives one")
    ]
    crop_cosine_below: Annotated[
        Bound, Field(description="a box holds an object of one image only if its crops' CLIP cosine is below this")
    ]
    overlap_iou: Annotated[
        Bound, Field(description="of two boxes whose IoU is above this, the more different one is kept")
    ]
    targets: Annotated[int, Field(ge=1, le=100, description="at most this many objects an image")]
    prompt: Annotated[str, Field(description="describes what replaces the object")]
    strength: Annotated[float, Field(gt=0, le=1, description="the share of the steps that are run")]
    guidance_scale: Annotated[float, Field(ge=0, le=50, description="guidance scale; up to 1 there is no guidance")]
    steps: Annotated[int, Field(ge=1, le=1000, description="denoising steps, of which strength says how many are run")]
    dilate_px: Annotated[
        int, Field(ge=0, le=256, description="how far inpainted pixels reach beyond the object's mask")
    ]
    feather_px: Annotated[int, Field(ge=0, le=256, description="over how many more pixels they fade into the original")]
    match_kind: Annotated[ImageTextKind, Field(description="the score of a description against a crop")]
    original_above: Annotated[
        Bound, Field(description="the original's crop must fit its description with a score above this")
    ]
    erased_below: Annotated[Bound, Field(description="and the erased one's crop with a score below this")]
    grow_px: Annotated[Pixels, Field(description="how far the red box is drawn outside the object")]
    corners: Corners = "rounded"
    noun_rule: Annotated[
        Literal["any", "both"], Field(description="whether any caption of a pair must have a changed noun, or both")
    ] = "any"

    @model_validator(mode="after")
    def _some_step_is_run(self) -> "Removal":
        if int(self.steps * self.strength) < 1:
            raise ValueError("steps times strength must be at least 1, so that a step is run")
        return self
