"""rewrite: caption → the LLM's version of it, with one object replaced (paper, section 3.1)."""

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
    """Ask about every caption that the painter can read; one with too many tokens gets no answer."""
    tokens = [_count(models, entry.caption) for entry in inputs]
    seeds = [seed_of(profile.seed, entry.caption, entry.attempt, Stage.REWRITE) for entry in inputs]
    asked = [index for index, count in enumerate(tokens) if count <= profile.rewrite.max_caption_tokens]
    answers: list[Answer | None] = [None] * len(inputs)
    if asked:
        given = (models.lexicon or models.need_rewriter).rewrite(
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
    """The tokens of `text` in the painter's CLIP tokenizer, with both end marks and nothing cut off."""
    return len(models.tokenizer(text, truncation=False)["input_ids"])
