"""What the stages are asked and what they answer: one small frozen input and output record a stage.

It does not know pipes, models or SQL. Pixels never travel: paths are relative to the image folder that the worker was
started with.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from imgdiffd.method import removal_messages as removal_message
from imgdiffd.method.removal_messages import EraseInput, EraseOutput, InspectInput, InspectOutput

Box = removal_message.Box
Scores = removal_message.Scores

# The keys of Scores, spelled once. `{kind}` is an ImageTextKind of the profile.
CLIP_IMAGE_COSINE = "clip_image_cosine"  # pair: its two images; candidate: the two crops of its box
PREVIEW_COSINE = "preview_cosine"  # pair: its two images as they would become, seen halfway through painting
CLIP_TEXT_COSINE = "clip_text_cosine"  # region: its two descriptions
YES_PROBABILITY = "yes_probability"  # pair: that of "yes" where the judge may only say yes or no


def noun_key(kind: str, side: int) -> str:
    """The score of image `side`'s crop against caption `side`'s noun; the best noun where several changed."""
    return f"{kind}.noun{side}"


def match_key(kind: str, side: int) -> str:
    """The score of image `side`'s grown crop against its own description."""
    return f"{kind}.description{side}"


@dataclass(frozen=True, slots=True)
class RewriteInput:
    item: int
    caption: str
    attempt: int
    kind: Literal["rewrite"] = "rewrite"


@dataclass(frozen=True, slots=True)
class RewriteOutput:
    """`answer` is None where the caption itself was too long to ask for. Token counts are the painter's CLIP tokens."""

    item: int
    answer: str | None
    truncated: bool  # the answer did not end within max_new_tokens
    caption_tokens: int
    answer_tokens: int
    seed: int
    kind: Literal["rewrite"] = "rewrite"


@dataclass(frozen=True, slots=True)
class GenerateInput:
    item: int
    caption1: str
    caption2: str
    attempt: int
    kind: Literal["generate"] = "generate"


@dataclass(frozen=True, slots=True)
class GenerateOutput:
    """The images are None where the pair was given up halfway (`filters.judge_preview`): nothing was written then."""

    item: int
    image1: str | None
    image2: str | None
    width: int
    height: int
    seed: int
    scores: Scores = field(default_factory=dict)
    kind: Literal["generate"] = "generate"


@dataclass(frozen=True, slots=True)
class CompareInput:
    item: int
    image1: str
    image2: str
    kind: Literal["compare"] = "compare"


@dataclass(frozen=True, slots=True)
class CompareOutput:
    item: int
    scores: Scores
    kind: Literal["compare"] = "compare"


@dataclass(frozen=True, slots=True)
class VetInput:
    item: int
    image1: str
    image2: str
    kind: Literal["vet"] = "vet"


@dataclass(frozen=True, slots=True)
class VetOutput:
    """`answer` is what the judge said, word for word."""

    item: int
    answer: str
    scores: Scores
    kind: Literal["vet"] = "vet"


@dataclass(frozen=True, slots=True)
class LocateInput:
    """`nouns1` are the lemmas that only caption 1 has, `nouns2` those of caption 2; not both are empty."""

    item: int
    image1: str
    image2: str
    nouns1: tuple[str, ...]
    nouns2: tuple[str, ...]
    kind: Literal["locate"] = "locate"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A box that the segmenter found in image `image` (1 or 2), whatever became of it."""

    image: int
    box: Box
    scores: Scores


@dataclass(frozen=True, slots=True)
class LocateOutput:
    item: int
    candidates: tuple[Candidate, ...]
    kind: Literal["locate"] = "locate"


@dataclass(frozen=True, slots=True)
class RegionInput:
    """`index` numbers the regions of a pair from 0, the most different first."""

    index: int
    box: Box


@dataclass(frozen=True, slots=True)
class DescribeInput:
    item: int
    image1: str
    image2: str
    regions: tuple[RegionInput, ...]
    kind: Literal["describe"] = "describe"


@dataclass(frozen=True, slots=True)
class Description:
    index: int
    text1: str
    text2: str
    scores: Scores


@dataclass(frozen=True, slots=True)
class DescribeOutput:
    item: int
    regions: tuple[Description, ...]
    kind: Literal["describe"] = "describe"


@dataclass(frozen=True, slots=True)
class ContrastRegion:
    """`left` is 1 or 2: which image stands on the left; the descriptions are of images 1 and 2."""

    index: int
    box: Box
    text1: str
    text2: str
    left: int


@dataclass(frozen=True, slots=True)
class ContrastInput:
    item: int
    image1: str
    image2: str
    regions: tuple[ContrastRegion, ...]
    kind: Literal["contrast"] = "contrast"


@dataclass(frozen=True, slots=True)
class Difference:
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ContrastOutput:
    item: int
    regions: tuple[Difference, ...]
    kind: Literal["contrast"] = "contrast"


@dataclass(frozen=True, slots=True)
class RenderRegion:
    index: int
    box: Box
    left: int


@dataclass(frozen=True, slots=True)
class ScreenInput:
    item: int
    image1: str
    image2: str
    regions: tuple[RenderRegion, ...]
    kind: Literal["screen"] = "screen"


@dataclass(frozen=True, slots=True)
class Screened:
    """`answer` is what the judge said of a region's sample, word for word."""

    index: int
    answer: str
    scores: Scores


@dataclass(frozen=True, slots=True)
class ScreenOutput:
    item: int
    regions: tuple[Screened, ...]
    kind: Literal["screen"] = "screen"


@dataclass(frozen=True, slots=True)
class RenderInput:
    item: int
    image1: str
    image2: str
    regions: tuple[RenderRegion, ...]
    kind: Literal["render"] = "render"


@dataclass(frozen=True, slots=True)
class Rendered:
    """The left and the right image of a sample, boxes burnt in."""

    index: int
    left_image: str
    right_image: str


@dataclass(frozen=True, slots=True)
class RenderOutput:
    item: int
    regions: tuple[Rendered, ...]
    kind: Literal["render"] = "render"


StageInput = Annotated[
    RewriteInput
    | GenerateInput
    | CompareInput
    | VetInput
    | LocateInput
    | DescribeInput
    | ContrastInput
    | ScreenInput
    | RenderInput
    | EraseInput
    | InspectInput,
    Field(discriminator="kind"),
]
StageOutput = Annotated[
    RewriteOutput
    | GenerateOutput
    | CompareOutput
    | VetOutput
    | LocateOutput
    | DescribeOutput
    | ContrastOutput
    | ScreenOutput
    | RenderOutput
    | EraseOutput
    | InspectOutput,
    Field(discriminator="kind"),
]
