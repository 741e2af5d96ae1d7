"""The laws of `choose_regions`: which of a pair's boxes become regions, and why the others do not."""

from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.method.filters import PASSED, Verdict, choose_regions
from imgdiffd.method.messages import Candidate
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Locate

DEFAULT = load_profile("default")

NOUN1, NOUN2 = "blip_itc_cosine.noun1", "blip_itc_cosine.noun2"
IMAGE = "clip_image_cosine"
GOOD = {IMAGE: 0.5, NOUN1: 0.4, NOUN2: 0.1}
SIZE = 100


def spaced(count: int, **over: float) -> list[Candidate]:
    return [
        Candidate(1 + n % 2, (n * 10, 0, n * 10 + 8, 8), GOOD | {IMAGE: 0.8 - n / 100} | over) for n in range(count)
    ]


def test_every_candidate_has_its_verdict_in_order() -> None:
    candidates = [
        Candidate(1, (0, 0, 2, 2), GOOD),
        Candidate(1, (10, 10, 30, 30), GOOD | {IMAGE: 0.9}),
        Candidate(2, (10, 10, 30, 30), {IMAGE: 0.5, NOUN1: 0.1, NOUN2: 0.2}),
        Candidate(2, (10, 10, 30, 30), {IMAGE: 0.5}),
        Candidate(2, (40, 40, 60, 60), GOOD),
        Candidate(1, (40, 40, 60, 61), GOOD | {IMAGE: 0.4}),
        Candidate(1, (5, 5, 5, 9), GOOD),
    ]
    choice = choose_regions(candidates, DEFAULT.locate, SIZE, SIZE)
    assert [verdict.reason for verdict in choice.verdicts] == [
        "box_too_small",
        "crops_too_similar",
        "no_object_in_box",
        "score_missing",
        "overlaps_more_different_box",
        None,
        "box_degenerate",
    ]
    assert [(region.index, region.candidate, region.image, region.box) for region in choice.regions] == [
        (0, 5, 1, (40, 40, 60, 61))
    ]
    assert choice.verdict == PASSED


def test_one_degenerate_box_does_not_cost_the_pair() -> None:
    """The authors' scripts drop the whole pair."""
    choice = choose_regions([Candidate(1, (5, 5, 5, 9), {}), *spaced(1)], DEFAULT.locate, SIZE, SIZE)
    assert len(choice.regions) == 1


def test_pair_without_boxes_is_rejected_with_its_reason() -> None:
    choice = choose_regions([], DEFAULT.locate, SIZE, SIZE)
    assert choice.verdict.reason == "no_boxes"


def test_pair_without_a_region_says_what_became_of_its_boxes() -> None:
    choice = choose_regions(
        [*spaced(2, clip_image_cosine=0.9), Candidate(1, (0, 0, 1, 1), {})], DEFAULT.locate, SIZE, SIZE
    )
    assert choice.verdict == Verdict("no_region", "crops_too_similar 2, box_too_small 1")
    assert choice.regions == ()


def test_at_most_five_regions_the_most_different_first() -> None:
    choice = choose_regions(spaced(8), DEFAULT.locate, SIZE, SIZE)
    assert [region.candidate for region in choice.regions] == [7, 6, 5, 4, 3]
    assert [region.index for region in choice.regions] == [0, 1, 2, 3, 4]
    assert [verdict.reason for verdict in choice.verdicts] == ["beyond_region_limit"] * 3 + [None] * 5


def test_weak_box_cannot_push_out_a_good_one() -> None:
    """Overlap compares boxes that passed: a more different one without an object is no rival."""
    weak = Candidate(1, (0, 0, 20, 20), {IMAGE: 0.1, NOUN1: 0.0, NOUN2: 0.0})
    good = Candidate(2, (0, 0, 20, 20), GOOD)
    choice = choose_regions([weak, good], DEFAULT.locate, SIZE, SIZE)
    assert [region.candidate for region in choice.regions] == [1]


SCRIPTS, DATA_JUICER = load_profile("scripts").locate, load_profile("data-juicer").locate


def reasons(candidates: list[Candidate], locate: Locate) -> list[str | None]:
    return [verdict.reason for verdict in choose_regions(candidates, locate, SIZE, SIZE).verdicts]


def test_the_scripts_compare_then_keep_ten_then_judge_sizes_then_five() -> None:
    """Twelve boxes that pass; the most different are a tiny one over a good one, and then four more tiny ones."""
    tiny = [Candidate(1, (n * 8, 90, n * 8 + 4, 91), GOOD | {IMAGE: 0.11 + n / 100}) for n in range(4)]
    under, over = (
        Candidate(1, (40, 80, 45, 85), GOOD | {IMAGE: 0.3}),
        Candidate(2, (40, 80, 44, 84), GOOD | {IMAGE: 0.1}),
    )
    large = [Candidate(2, (n * 12, 0, n * 12 + 8, 8), GOOD | {IMAGE: 0.4 + n / 100}) for n in range(7)]
    locate = SCRIPTS.model_copy(update={"min_area": 0.002})
    assert reasons([under, over, *tiny, *large], locate) == [
        "overlaps_more_different_box",
        "box_too_small",
        *["box_too_small"] * 4,
        *[None] * 5,
        *["beyond_overlap_limit"] * 2,
    ]
    choice = choose_regions([*tiny, *large], locate.model_copy(update={"regions": 3}), SIZE, SIZE)
    assert [region.candidate for region in choice.regions] == [4, 5, 6]
    assert [verdict.reason for verdict in choice.verdicts][7:9] == ["beyond_region_limit"] * 2
    default = locate.model_copy(update={"area_test": "first", "overlap_limit": 0})
    assert reasons([under, over], default) == [None, "box_too_small"]


ITM = {IMAGE: 0.5, "blip_itm_probability.noun1": 0.9, "blip_itm_probability.noun2": 0.4}


def test_data_juicer_keeps_the_box_found_first_and_all_that_are_left() -> None:
    first = Candidate(1, (0, 0, 20, 20), ITM | {IMAGE: 0.8})
    second = Candidate(2, (0, 0, 20, 21), ITM | {IMAGE: 0.1})
    apart = [Candidate(2, (n * 10, 30, n * 10 + 8, 38), ITM | {IMAGE: 0.7 - n / 100}) for n in range(8)]
    choice = choose_regions([first, second, *apart], DATA_JUICER, SIZE, SIZE)
    assert [region.candidate for region in choice.regions] == [0, *range(2, 10)]
    assert choice.verdicts[1].reason == "overlaps_earlier_box"


def test_in_data_juicer_a_box_too_large_still_pushes_others_out() -> None:
    large = Candidate(1, (0, 0, 40, 40), ITM)
    inside = Candidate(1, (0, 0, 31, 31), ITM)
    assert reasons([large, inside], DATA_JUICER) == ["box_too_large", "overlaps_earlier_box"]


@given(st.permutations(range(6)))
def test_choice_does_not_depend_on_the_order_of_the_boxes(order: list[int]) -> None:
    candidates = spaced(6)
    choice = choose_regions([candidates[index] for index in order], DEFAULT.locate, SIZE, SIZE)
    assert [region.box for region in choice.regions] == [candidates[index].box for index in (5, 4, 3, 2, 1)]
