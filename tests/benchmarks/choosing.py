"""How long another profile takes to answer for as many captions as the paper has, from drawn scores."""

import time
from collections.abc import Callable

import numpy as np

from imgdiffd.choosing.columns import SCORE, Columns, Table
from imgdiffd.choosing.course import REJECTED, SAMPLED
from imgdiffd.choosing.gathering import STAGES
from imgdiffd.choosing.outlook import outlook
from imgdiffd.choosing.plan import plan
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, CLIP_TEXT_COSINE, match_key, noun_key
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Bound
from imgdiffd.pipeline import Stage
from imgdiffd.schedulers.cost_table import BOXES, CAPTIONS, SIMILAR

BOXES_FOUND = 130  # of a pair's two images, by a segmenter at the paper's size
_SIDE = 1024
_ROUNDS = 3


def drawn_columns(captions: int, pairs: int, found: int, regions: int, seed: int = 1) -> Columns:
    """Columns of `captions`, of which `pairs` passed the gate with `found` boxes and `regions` regions each."""
    draw = np.random.default_rng(seed)
    kept = np.zeros(captions, dtype=bool)
    kept[draw.permutation(captions)[:pairs]] = True
    pair = np.where(kept, draw.uniform(0.9, 0.98, captions), draw.uniform(0.3, 0.9, captions))
    none = np.zeros(captions, dtype=np.int32)
    items: Table = {
        "item": np.arange(1, captions + 1),
        **{key: np.ones(captions, dtype=np.int64) for key in ("job", "group")},
        **{key: draw.integers(0, 2**63, captions, dtype=np.uint64) for key in ("sha1", "sha2", "draw")},
        "stage": np.where(kept, STAGES[Stage.RENDER], STAGES[Stage.COMPARE]).astype(np.int8),
        "state": np.where(kept, SAMPLED, REJECTED).astype(np.int8),
        "reason": np.where(kept, 0, 1).astype(np.int16),
        "attempt": np.ones(captions, dtype=np.int32),
        **{key: np.zeros(captions) for key in ("created_at", "updated_at")},
        **{key: np.full(captions, _SIDE) for key in ("width", "height")},
        **{key: np.ones(captions, dtype=bool) for key in ("painted", "nouns1", "nouns2")},
        "located": kept,
        "answered": np.zeros(captions, dtype=bool),
        "answer": np.full(captions, -1, dtype=np.int8),
        "n_rewrites": none + 1,
        "n_boxes": np.where(kept, found, 0).astype(np.int32),
        "n_regions": np.where(kept, regions, 0).astype(np.int32),
        "n_letters": np.where(kept, 8, 0).astype(np.int32),
        SCORE + CLIP_IMAGE_COSINE: pair,
    }
    rewrites: Table = {
        "attempt": np.ones(captions, dtype=np.int32),
        "asked": np.ones(captions, dtype=bool),
        **{key: np.full(captions, 12) for key in ("caption_tokens", "answer_tokens")},
        "reason": np.zeros(captions, dtype=np.int16),
    }
    letters: Table = {"byte": np.full(8 * pairs, 97, dtype=np.uint8)}
    boxes, chosen = _boxes(draw, pairs * found), _regions(draw, pairs, regions)
    return Columns(items, rewrites, boxes, chosen, letters, ("", "pair_too_different"))


def _boxes(draw: np.random.Generator, count: int) -> Table:
    corner = draw.integers(0, _SIDE - 200, (count, 2), dtype=np.int32)
    size = draw.integers(20, 200, (count, 2), dtype=np.int32)
    return {
        "image": draw.integers(1, 3, count).astype(np.int8),
        "box": np.concatenate((corner, corner + size), axis=1),
        "share": size.prod(axis=1) / _SIDE**2,
        "reason": np.zeros(count, dtype=np.int16),
        SCORE + CLIP_IMAGE_COSINE: 1 - draw.beta(1, 12, count),  # most crops hardly differ
        **{SCORE + noun_key("blip_itc_cosine", side): draw.normal(0.3, 0.08, count) for side in (1, 2)},
    }


def _regions(draw: np.random.Generator, pairs: int, each: int) -> Table:
    count = pairs * each
    flags = ("said1", "said2", "contrasted", "sampled")
    texts = draw.beta(5, 2, count)
    return {
        "number": np.tile(np.arange(each, dtype=np.int32), pairs),
        "candidate": np.tile(np.arange(each, dtype=np.int32), pairs),
        "reason": np.zeros(count, dtype=np.int16),
        **{key: np.ones(count, dtype=bool) for key in flags},
        **{key: np.zeros(count, dtype=bool) for key in ("blank", "equal", "screened")},
        **{key: np.full(count, 20, dtype=np.int32) for key in ("letters1", "letters2")},
        **{key: np.ones(count, dtype=np.int8) for key in ("left", "answer")},
        SCORE + CLIP_TEXT_COSINE: texts,
        **{SCORE + match_key("blip_itc_cosine", side): draw.normal(0.42, 0.05, count) for side in (1, 2)},
    }


def best_s(work: Callable[[], object]) -> float:
    """Seconds of the best round: what else the machine does only ever adds to a time."""
    taken = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def answering_s(columns: Columns) -> tuple[float, float]:
    """Seconds of the verdicts of every box, region and caption, and of the whole answer of `refilter --dry-run`."""
    own = load_profile("paper")
    stricter = own.describe.model_copy(update={"text_cosine_below": Bound(value=0.8)})
    wanted = own.model_copy(update={"describe": stricter})
    judging = best_s(lambda: outlook(columns, wanted, lambda group: own))
    return judging, best_s(lambda: plan(columns, wanted, lambda group: own))


def drawn() -> tuple[Columns, Columns]:
    """What is measured: 100,000 regions with twice as many boxes, and the paper's run with all its boxes."""
    regions = round(BOXES / SIMILAR)
    some = 100_000 // regions
    return drawn_columns(some, some, 2 * regions, regions), drawn_columns(CAPTIONS, SIMILAR, BOXES_FOUND, regions)
