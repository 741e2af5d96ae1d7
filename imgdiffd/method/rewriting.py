"""Takes the second caption from a language model's answer and judges whether one object is replaced (paper, 3.1)."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from imgdiffd.method.filters import PASSED, Verdict
from imgdiffd.method.messages import RewriteOutput
from imgdiffd.method.nouns import changed_nouns, split_words
from imgdiffd.method.profile_sections import Rewrite

_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}
_TRAILING_JUNK = re.compile(r"(?:\s|###|</s>|\\)+$")

# A pattern counts only where the caption itself does not match it: "Note: no parking" may be a caption.
_REFUSAL = re.compile(
    r"\b(?:i['’]?m (?:sorry|unable|afraid|not (?:sure|able))|i apologi[sz]e|sorry,|i (?:cannot|can['’]?t|am unable)"
    r"|as an? (?:ai|language model|large language)|language model"
    r"|there (?:is|are) no (?:entity|entities|objects?)\b|(?:cannot|can['’]?t|could not) be replaced)",
    re.IGNORECASE,
)
_META_TALK = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|absolutely|great|yes|no)\b\s*[,!.:]"
    r"|^(?:user|assistant|human|answer|output|result|response|rewritten|revised|new|original|note|caption)\b[^:]{0,30}:"
    r"|\bhere(?:['’]s| is| are)\b[^:]*:|\((?:note|replac|chang|original)|->|=>|→|\breplac(?:e|es|ed|ing|ement)\b"
    r"|\b(?:the|this|new|modified|revised) sentence\b|\bsentence\s*:",
    re.IGNORECASE,
)

MAX_GROWTH = 2.0  # a replacement has about as many words as its caption: this many times, plus MAX_MORE_WORDS
MAX_MORE_WORDS = 5
MIN_KEPT = 1 / 3  # of the caption's words, in order; replacing one object keeps most of them
MIN_WORDS_TO_COMPARE = 3  # of a shorter caption, one replaced object may be nearly all


def clean_answer(text: str) -> str:
    """The caption in an answer: without the white space, stop marks and quotes around it.

    Quotes are removed where they enclose the whole, or where a single double quote is left at an end. Line breaks
    inside stay, so that `judge_answer` sees them.
    """
    lines = (re.sub(r"[^\S\n]+", " ", line).strip() for line in text.splitlines())
    cleaned = "\n".join(line for line in lines if line)
    while True:
        cleaned = _TRAILING_JUNK.sub("", cleaned).strip()
        closing = _QUOTES.get(cleaned[:1])
        inner = cleaned[1:-1]
        if closing and len(cleaned) > 1 and cleaned.endswith(closing) and not {cleaned[0], closing} & {*inner}:
            cleaned = inner
        elif cleaned.count('"') == 1 and (cleaned.startswith('"') or cleaned.endswith('"')):
            cleaned = cleaned.strip('"')
        else:
            return cleaned


def _matched_only_by_answer(pattern: re.Pattern[str], caption: str, answer: str) -> str | None:
    if pattern.search(caption):
        return None
    found = pattern.search(answer)
    return found.group().strip() if found else None


def _too_long(words1: Sequence[str], words2: Sequence[str], output: RewriteOutput, rewrite: Rewrite) -> str | None:
    if output.answer_tokens > rewrite.max_caption_tokens:
        return f"{output.answer_tokens} tokens, at most {rewrite.max_caption_tokens}"
    if len(words2) > MAX_GROWTH * len(words1) + MAX_MORE_WORDS:
        return f"{len(words2)} words for a caption of {len(words1)}"
    return None


def _too_different(words1: Sequence[str], words2: Sequence[str]) -> str | None:
    if len(words1) < MIN_WORDS_TO_COMPARE:
        return None
    blocks = SequenceMatcher(None, words1, words2, autojunk=False).get_matching_blocks()
    kept = sum(block.size for block in blocks) / len(words1)
    return f"keeps {kept:.0%} of the caption's words" if kept < MIN_KEPT else None


def judge_answer(caption: str, output: RewriteOutput, rewrite: Rewrite) -> Verdict:
    """Whether `clean_answer(output.answer)` can be the second caption; else the first rule that it breaks.

    caption_too_long: the model was never asked. empty, truncated, several_lines: not one whole line. unchanged: the
    same words, whatever their case, quotes and punctuation. refusal, meta_talk: about the task, not a caption.
    too_long: more tokens than the painter reads, or far more words than the caption. too_different: another sentence,
    not the same one with an object replaced. no_noun_changed: other words, but no object that crops can be matched
    with.
    """
    if output.answer is None:
        return Verdict("caption_too_long", f"{output.caption_tokens} tokens, at most {rewrite.max_caption_tokens}")
    answer = clean_answer(output.answer)
    words1, words2 = split_words(caption), split_words(answer)
    complaints: tuple[tuple[str, str | None], ...] = (
        ("empty", None if words2 else repr(output.answer[:80])),
        ("truncated", f"no end within {rewrite.max_new_tokens} tokens" if output.truncated else None),
        ("refusal", _matched_only_by_answer(_REFUSAL, caption, answer)),
        ("several_lines", f"{len(answer.splitlines())} lines" if "\n" in answer else None),
        ("unchanged", "the same words" if words1 == words2 else None),
        ("meta_talk", _matched_only_by_answer(_META_TALK, caption, answer)),
        ("too_long", _too_long(words1, words2, output, rewrite)),
        ("too_different", _too_different(words1, words2)),
        ("no_noun_changed", None if any(changed_nouns(caption, answer)) else answer[:80]),
    )
    return next((Verdict(reason, detail) for reason, detail in complaints if detail is not None), PASSED)
