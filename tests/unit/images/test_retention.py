"""Which images stay: the rule by cases, and that it never changes its mind about one that it let go."""

import dataclasses
import itertools
from collections.abc import Iterator

import pytest

from imgdiffd.images.retention import ItemImages, ObjectImages, named, unfinished, wanted, why_gone
from imgdiffd.job import ItemState

PAIR = ("1.png", "2.png")
BOXED = ("left.png", "right.png")
TAKEN = ObjectImages("1.png", "1-e0.png", "1-e0-with.png", "1-e0-without.png")
THERE = ObjectImages("2.png", "2-e0.png", "", "")
OF_TAKEN = {"1.png", "1-e0.png", "1-e0-with.png", "1-e0-without.png"}
PAINTED = ItemImages(7, ItemState.REJECTED, True, None, False, PAIR, (), ())
REMOVED = dataclasses.replace(PAINTED, removal=ItemState.SAMPLED, objects=(TAKEN, THERE))
READY, FAILED, CANCELLED = ItemState.READY, ItemState.FAILED, ItemState.CANCELLED
SAMPLED, REJECTED = ItemState.SAMPLED, ItemState.REJECTED


def case(of: ItemImages, **changes: object) -> ItemImages:
    return dataclasses.replace(of, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("item", "stays"),
    [
        (PAINTED, set()),
        (case(PAINTED, state=CANCELLED), set()),
        (case(PAINTED, state=READY), set(PAIR)),
        (case(PAINTED, state=FAILED), set(PAIR)),  # it can be tried again
        (case(PAINTED, state=FAILED, live=False), set()),  # of a job that was cancelled, it cannot
        (case(PAINTED, state=SAMPLED, samples=BOXED), {*PAIR, *BOXED}),
        (case(PAINTED, state=SAMPLED, samples=BOXED, live=False), {*PAIR, *BOXED}),  # still exported
        (case(PAINTED, backfillable=True), set(PAIR)),
        (case(PAINTED, removal=READY), set(PAIR)),
        (case(PAINTED, removal=REJECTED), set()),
        (REMOVED, OF_TAKEN),  # not the pair's other image, nor what was erased in vain
        (case(REMOVED, state=READY), {*PAIR, *OF_TAKEN}),
        (case(REMOVED, removal=READY), {*PAIR, *OF_TAKEN, "2-e0.png"}),
        (case(REMOVED, removal=FAILED), {*PAIR, *OF_TAKEN, "2-e0.png"}),
        (case(REMOVED, removal=FAILED, live=False), OF_TAKEN),
        (case(REMOVED, removal=REJECTED, objects=(THERE,)), set()),
        (case(REMOVED, removal=CANCELLED, objects=(THERE,)), set()),
        (case(PAINTED, state=READY, pair=()), set()),
    ],
)
def test_what_no_sample_names_and_no_stage_may_ask_for_goes(item: ItemImages, stays: set[str]) -> None:
    assert wanted(item, "samples") == stays
    assert wanted(item, "all") == named(item) >= stays


def test_only_what_is_ready_may_have_images_that_no_row_names() -> None:
    ready = [
        (state, removal)
        for state, removal in itertools.product(ItemState, [None, *ItemState])
        if unfinished(case(PAINTED, state=state, removal=removal))
    ]
    assert set(ready) == {(READY, removal) for removal in [None, *ItemState]} | {(state, READY) for state in ItemState}


def every_item() -> Iterator[ItemImages]:
    flags = (False, True)
    for state, removal, live, backfillable in itertools.product(ItemState, [None, *ItemState], flags, flags):
        for objects in ((), (TAKEN, THERE), (THERE,)):
            if bool(objects) <= (removal is not None) and backfillable <= (removal is None and live):
                samples = BOXED if state is SAMPLED else ()
                yield ItemImages(7, state, live, removal, backfillable, PAIR, samples, objects)


def later(item: ItemImages) -> Iterator[ItemImages]:
    """Where the store may bring it next."""
    if item.state is READY:
        yield from (case(item, state=to, samples=BOXED if to is SAMPLED else ()) for to in ItemState)
    if item.state is FAILED and item.live:
        yield case(item, state=READY)
    if item.removal is READY:
        yield from (case(item, removal=to) for to in ItemState)
        if THERE in item.objects:  # inspected: it holds after all
            held = ObjectImages(THERE.source, THERE.erased, "2-with.png", "2-without.png")
            yield case(item, removal=SAMPLED, objects=(*item.objects[:-1], held))
    if item.removal is FAILED and item.live:
        yield case(item, removal=READY)
    if item.removal is None and (item.backfillable or item.state is READY):
        yield case(item, removal=READY, backfillable=False)
    if item.live:
        yield case(item, live=False, backfillable=False)


def test_a_image_that_is_not_wanted_is_never_wanted_again() -> None:
    steps = 0
    for item in every_item():
        for after in later(item):
            steps += 1
            assert wanted(after, "samples") & named(item) <= wanted(item, "samples"), (item, after)
    assert steps > 100


def test_a_missing_image_is_explained_by_the_setting_or_a_fault() -> None:
    assert why_gone(PAINTED, "1.png", "samples") == 'not kept: keep_pictures is "samples"'
    assert why_gone(PAINTED, "1.png", "all") == 'not kept: keep_pictures was "samples"'
    assert "missing" in why_gone(case(PAINTED, state=SAMPLED, samples=BOXED), "left.png", "samples")
