"""Turns the store's rows into columns."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from imgdiffd.choosing.columns import SCORE, Array, Columns, Table
from imgdiffd.job import ItemState
from imgdiffd.method.filters import says_yes
from imgdiffd.method.messages import RewriteOutput, Scores
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Rewrite
from imgdiffd.method.rewriting import judge_answer
from imgdiffd.pipeline import CAPTION_STAGES, seed_of
from imgdiffd.store import ItemMark, ScoredItem

STAGES = {stage: number for number, stage in enumerate(CAPTION_STAGES)}
STATES = {state: number for number, state in enumerate(ItemState)}
ANSWERS = {True: 1, False: 0, None: -1}  # says_yes, as a number
_NO_LIMIT = 1 << 40  # tokens


class Reasons:
    """Numbers reasons in the order in which they come, after those `known`; '' is 0."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._numbers = {reason: number for number, reason in enumerate(dict.fromkeys(("", *known)))}

    def number(self, reason: str) -> int:
        """The reason's number; a new one gets the next."""
        return self._numbers.setdefault(reason, len(self._numbers))

    @property
    def all(self) -> tuple[str, ...]:
        """All reasons so far, each at its number."""
        return tuple(self._numbers)


def mark_columns(marks: Sequence[ItemMark]) -> Table:
    """The marks as columns, but for their reasons."""
    digests = b"".join(mark.caption_sha[:16].ljust(16, b"\0") for mark in marks)
    shas = np.frombuffer(digests, dtype="<u8").reshape(len(marks), 2)
    return {
        "item": np.array([mark.item for mark in marks], dtype=np.int64),
        "job": np.array([mark.job for mark in marks], dtype=np.int64),
        "group": np.array([mark.group for mark in marks], dtype=np.int64),
        "sha1": shas[:, 0],
        "sha2": shas[:, 1],
        "stage": np.array([STAGES[mark.stage] for mark in marks], dtype=np.int8),
        "state": np.array([STATES[mark.state] for mark in marks], dtype=np.int8),
        "attempt": np.array([mark.attempt for mark in marks], dtype=np.int32),
        "created_at": np.array([mark.created_at for mark in marks], dtype=np.float64),
        "updated_at": np.array([mark.updated_at for mark in marks], dtype=np.float64),
    }


def gather(marks: Sequence[ItemMark], scored: Sequence[ScoredItem], profiles: Mapping[int, Profile]) -> Columns:
    """The columns of these captions: `scored` has those of `marks`, in the same order, `profiles` is by group."""
    reasons = Reasons()
    items = mark_columns(marks) | {
        "reason": np.array([reasons.number(mark.reason) for mark in marks], dtype=np.int16),
        "width": np.array([each.width for each in scored], dtype=np.int64),
        "height": np.array([each.height for each in scored], dtype=np.int64),
        "painted": np.array([each.painted for each in scored], dtype=bool),
        "located": np.array([each.boxes is not None for each in scored], dtype=bool),
        "nouns1": np.array([each.nouns[0] for each in scored], dtype=bool),
        "nouns2": np.array([each.nouns[1] for each in scored], dtype=bool),
        "answered": np.array([bool(each.answer) for each in scored], dtype=bool),
        "answer": np.array([ANSWERS[says_yes(each.answer)] for each in scored], dtype=np.int8),
        "draw": np.array([_draw(mark, each, profiles) for mark, each in zip(marks, scored, strict=True)], np.uint64),
        "n_rewrites": _counts(each.rewrites for each in scored),
        "n_boxes": _counts(each.boxes or () for each in scored),
        "n_regions": _counts(each.regions for each in scored),
        "n_letters": _counts(_letters(each) for each in scored),
        **_scores([each.scores for each in scored]),
    }
    return Columns(
        items,
        _rewrites(marks, scored, profiles, reasons),
        _boxes(scored, reasons),
        _regions(scored, reasons),
        {"byte": np.frombuffer(b"".join(map(_letters, scored)), dtype=np.uint8)},
        reasons.all,
    )


def _counts(parts: Iterable[Sequence[object]]) -> Array:
    return np.array([len(part) for part in parts], dtype=np.int32)


def _letters(each: ScoredItem) -> bytes:
    return each.caption.encode() if each.regions else b""


def _draw(mark: ItemMark, each: ScoredItem, profiles: Mapping[int, Profile]) -> int:
    """What `finishes_anyway` compares, for pairs with a preview's score."""
    if not each.scores:
        return 0
    return seed_of(profiles[mark.group].seed, each.caption, mark.attempt, "abort")


def _scores(found: Sequence[Scores]) -> Table:
    keys = dict.fromkeys(key for scores in found for key in scores)
    missing = float("nan")
    return {
        SCORE + key: np.array([scores.get(key, missing) for scores in found], dtype=np.float64) for key in sorted(keys)
    }


def _rewrites(
    marks: Sequence[ItemMark], scored: Sequence[ScoredItem], profiles: Mapping[int, Profile], reasons: Reasons
) -> Table:
    """`reason` is each answer's verdict without the limit of tokens, so that any limit can be applied."""
    rows = [
        (
            number,
            output.answer is not None,
            output.caption_tokens,
            output.answer_tokens,
            reasons.number(_unlimited(each.caption, output, reason, profiles[mark.group].rewrite)),
        )
        for mark, each in zip(marks, scored, strict=True)
        for number, output, reason in each.rewrites
    ]
    numbers, asked, captions, answers, codes = zip(*rows, strict=True) if rows else ((),) * 5
    return {
        "attempt": np.array(numbers, dtype=np.int32),
        "asked": np.array(asked, dtype=bool),
        "caption_tokens": np.array(captions, dtype=np.int64),
        "answer_tokens": np.array(answers, dtype=np.int64),
        "reason": np.array(codes, dtype=np.int16),
    }


def _unlimited(caption: str, output: RewriteOutput, reason: str, rewrite: Rewrite) -> str:
    if reason != "too_long":
        return reason
    return judge_answer(caption, output, rewrite.model_copy(update={"max_caption_tokens": _NO_LIMIT})).reason or ""


def _boxes(scored: Sequence[ScoredItem], reasons: Reasons) -> Table:
    """`share` is of the image; NaN where a box has no pixel."""
    rows = [box for each in scored for box in each.boxes or ()]
    images, corners, found, codes, _ = zip(*rows, strict=True) if rows else ((),) * 5
    box = np.array(corners, dtype=np.int32).reshape(-1, 4)
    sides = (box[:, 2:] - box[:, :2]).astype(np.float64)
    whole = np.array([each.width * each.height for each in scored for _ in each.boxes or ()], dtype=np.float64)
    there = (sides > 0).all(axis=1) & (whole > 0)
    return {
        "image": np.array(images, dtype=np.int8),
        "box": box,
        "share": np.divide(sides[:, 0] * sides[:, 1], whole, out=np.full(len(rows), np.nan), where=there),
        "reason": np.array([reasons.number(code) for code in codes], dtype=np.int16),
        **_scores(found),
    }


def _regions(scored: Sequence[ScoredItem], reasons: Reasons) -> Table:
    rows = [region for each in scored for region in each.regions]
    return {
        "number": np.array([row.number for row in rows], dtype=np.int32),
        "candidate": np.array([row.candidate for row in rows], dtype=np.int32),
        "reason": np.array([reasons.number(row.reason) for row in rows], dtype=np.int16),
        "said1": np.array([bool(row.text1.strip()) for row in rows], dtype=bool),
        "said2": np.array([bool(row.text2.strip()) for row in rows], dtype=bool),
        "letters1": np.array([len(row.text1) for row in rows], dtype=np.int32),
        "letters2": np.array([len(row.text2) for row in rows], dtype=np.int32),
        "equal": np.array([row.text1 == row.text2 for row in rows], dtype=bool),
        "left": np.array([row.left for row in rows], dtype=np.int8),
        "contrasted": np.array([bool(row.difference) for row in rows], dtype=bool),
        "blank": np.array([not row.difference.strip() for row in rows], dtype=bool),
        "screened": np.array([bool(row.answer) for row in rows], dtype=bool),
        "answer": np.array([ANSWERS[says_yes(row.answer)] for row in rows], dtype=np.int8),
        "sampled": np.array([row.sampled for row in rows], dtype=bool),
        **_scores([row.scores for row in rows]),
    }
