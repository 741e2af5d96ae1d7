"""describe: a pair's regions → what each image shows there, and how well the texts fit (paper, section 3.3)."""

from collections.abc import Sequence

from torch import Tensor

from imgdiffd.method.filters import judge_texts
from imgdiffd.method.messages import (
    CLIP_TEXT_COSINE,
    Box,
    DescribeInput,
    DescribeOutput,
    Description,
    Scores,
    match_key,
)
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Describe
from imgdiffd.method.red_box import grown
from imgdiffd.models.loading import Models
from imgdiffd.stages.images import Images
from imgdiffd.stages.scores import cosines, put


def describe(
    models: Models, profile: Profile, inputs: Sequence[DescribeInput], images: Images
) -> tuple[DescribeOutput, ...]:
    """Ask about every region in both whole images, then score text against text, then each text against its crop.

    Text scores exist where neither text is empty. Under `scores = "all"` crop scores exist for every text that is not
    empty, otherwise only where the two texts also differ enough.
    """
    pairs = [images.read_pair(entry.image1, entry.image2) for entry in inputs]
    questions = [
        [question(profile.describe, region.box, pair[0].shape[2], pair[0].shape[1]) for region in entry.regions]
        for entry, pair in zip(inputs, pairs, strict=True)
    ]
    answers = models.need_captioner.answer(
        [image for pair in pairs for image in pair],
        [asked for asked in questions for _ in (1, 2)],
        profile.describe.max_new_tokens,
        profile.describe.system_prompt,
    )
    texts = [list(zip(answers[2 * i], answers[2 * i + 1], strict=True)) for i in range(len(inputs))]
    scores = _text_scores(models, texts)
    outputs = []
    for entry, pair, said, scored in zip(inputs, pairs, texts, scores, strict=True):
        _put_matches(models, profile, pair, [region.box for region in entry.regions], said, scored)
        regions = [
            Description(region.index, text1, text2, values)
            for region, (text1, text2), values in zip(entry.regions, said, scored, strict=True)
        ]
        outputs.append(DescribeOutput(entry.item, tuple(regions)))
    return tuple(outputs)


def question(describe: Describe, box: Box, width: int, height: int) -> str:
    """The prompt for a region: the box before it is grown, as fractions of the image with two decimals."""
    x1, y1, x2, y2 = box
    fractions = (x1 / width, y1 / height, x2 / width, y2 / height)
    return describe.prompt.replace("{box}", f"[{', '.join(f'{fraction:.2f}' for fraction in fractions)}]")


def _text_scores(models: Models, texts: Sequence[Sequence[tuple[str, str]]]) -> list[list[Scores]]:
    """The scores so far of every region of every pair, all texts embedded in one call."""
    scores: list[list[Scores]] = [[{} for _ in said] for said in texts]
    spoken = [
        (values, pair)
        for said, scored in zip(texts, scores, strict=True)
        for pair, values in zip(said, scored, strict=True)
        if pair[0].strip() and pair[1].strip()
    ]
    if spoken:
        vectors = models.need_clip.embed_texts([text for _, pair in spoken for text in pair])
        for (values, _), cosine in zip(spoken, cosines(vectors[0::2], vectors[1::2]), strict=True):
            put(values, CLIP_TEXT_COSINE, cosine)
    return scores


def _put_matches(
    models: Models,
    profile: Profile,
    pair: tuple[Tensor, Tensor],
    boxes: Sequence[Box],
    texts: Sequence[tuple[str, str]],
    scores: Sequence[Scores],
) -> None:
    """Adds BLIP's score of each grown crop with its own text; those that matter no more come after those that do."""
    describe = profile.describe
    chosen = [index for index, values in enumerate(scores) if judge_texts(values, describe).passed]
    rest = [index for index in range(len(scores)) if index not in chosen] if profile.scores == "all" else []
    for group in (chosen, rest):  # each in passes of its own, as in `locate`
        for side, image in enumerate(pair):
            spoken = [index for index in group if texts[index][side].strip()]
            if not spoken:
                continue
            height, width = image.shape[1:]
            crops = [grown(boxes[index], describe.match_grow_px, width, height) for index in spoken]
            said = [texts[index][side] for index in spoken]
            values = models.need_blip.score(image, crops, said, describe.match_kind)
            for index, value in zip(spoken, values, strict=True):
                put(scores[index], match_key(describe.match_kind, side + 1), value)
