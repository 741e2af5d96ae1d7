"""Whether nothing differs in a region whose two descriptions agree, so that a sample may say so."""

import re
from collections.abc import Mapping

from imgdiffd.method.filters import judge_matches
from imgdiffd.method.messages import CLIP_IMAGE_COSINE
from imgdiffd.method.profile import Profile

ALIKE_WITHIN = 0.05  # how far below the crop-difference bound the CLIP cosine of crops that agree may lie
_WORD = re.compile(r"[\w'-]+")
_ARTICLES = frozenset({"a", "an", "the"})


def agrees(text1: str, text2: str, scores: Mapping[str, float], profile: Profile) -> bool:
    """Whether two described crops show the same: the same words, true of both crops, and crops that look alike.

    The words are the same but for articles, case and punctuation. A cosine of texts is not enough: to CLIP "a red car"
    and "a blue car" are alike. Each text matches its crop (CITM), and the crops' CLIP cosine is, of those that the
    profile takes for different, among the highest. A score that is missing never agrees.
    """
    least = profile.locate.crop_cosine_below.value - ALIKE_WITHIN
    alike = scores.get(CLIP_IMAGE_COSINE, -1.0) >= least
    return alike and _words(text1) == _words(text2) != [] and judge_matches(scores, profile.describe).passed


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if word not in _ARTICLES]
