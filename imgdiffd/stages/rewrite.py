"""rewrite: caption → the same caption with one object replaced, as the LLM puts it (paper, section 3.1).

It owns seeds and token counts; whether an answer is any good is decided in `imgdiffd.method.rewriting`.
"""

from collections.abc import Sequence

from imgdiffd.method.messages import RewriteInput, RewriteOutput
from imgdiffd.method.profile import Profile
from imgdiffd.models.loading import Models
from imgdiffd.models.rewriter import Answer
from imgdiffd.pipeline import Stage, seed_of
from imgdiffd.stages.images import Images


def rewrite(
    models: Models, profile: Profile, inputs: Sequence[RewriteInput], images: Images
) -> tuple[RewriteOutput, ...]:
    """Ask for every caption that the painter can read; one with too many tokens gets no answer and costs no call."""
    tokens = [_count(models, entry.caption) for entry in inputs]
    seeds = [seed_of(profile.seed, entry.caption, entry.attempt, Stage.REWRITE) for entry in inputs]
    asked = [index for index, count in enumerate(tokens) if count <= profile.rewrite.max_caption_tokens]
    answers: list[Answer | None] = [None] * len(inputs)
    if asked:
        given = models.need_rewriter.rewrite(
            [inputs[index].caption for index in asked], [seeds[index] for index in asked], profile.rewrite
        )
        for index, answer in zip(asked, given, strict=True):
            answers[index] = answer
    return tuple(
        RewriteOutput(
            item=entry.item,
            answer=answer.text if answer else None,
            truncated=bool(answer and answer.truncated),
            caption_tokens=count,
            answer_tokens=_count(models, answer.text) if answer and answer.text is not None else 0,
            seed=seed,
        )
        for entry, answer, count, seed in zip(inputs, answers, tokens, seeds, strict=True)
    )


def _count(models: Models, text: str) -> int:
    """Tokens of the painter's CLIP tokenizer, both end marks included, nothing cut off."""
    return len(models.tokenizer(text, truncation=False)["input_ids"])
