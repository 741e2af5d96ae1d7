"""The rewriter without a model: it replaces the name of an object by another of its kind (paper, section 11)."""

from collections.abc import Sequence

from imgdiffd.method.lexicon import replace_object
from imgdiffd.method.profile_sections import Rewrite
from imgdiffd.models.rewriter import Answer


class LexiconRewriter:
    """Answers as a language model would, in no time and with the captions' seeds alone."""

    def rewrite(self, captions: Sequence[str], seeds: Sequence[int], rewrite: Rewrite) -> list[Answer]:
        """One answer per caption; the caption itself where it names no object that could be replaced."""
        made = (replace_object(caption, seed, rewrite) for caption, seed in zip(captions, seeds, strict=True))
        return [Answer(each.caption if each else caption, False) for caption, each in zip(captions, made, strict=True)]
