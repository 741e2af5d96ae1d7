"""The laws of which device holds which models."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.pipeline import OPTIONAL_ROLES, STAGES, Role, Stage
from imgdiffd.schedulers.placement import CUDA_RESERVE_BYTES, Footprint, PlacementError, Space, needed_bytes, place
from imgdiffd.schedulers.reasons import PlacementCode, Reason

GB = 10**9


def models(rewriter: float, captioner: float) -> dict[Role, Footprint]:
    """The published sizes in fp16, in GB."""
    figures = {
        Role.REWRITER: (rewriter, 2.0),
        Role.PAINTER: (6.9, 6.0),
        Role.SEGMENTER: (0.2, 2.0),
        Role.CLIP: (0.3, 2.0),
        Role.BLIP: (0.9, 2.0),
        Role.CAPTIONER: (captioner, 4.0),
        Role.ERASER: (5.1, 4.0),
    }
    return {role: Footprint(role, int(weights * GB), int(peak * GB)) for role, (weights, peak) in figures.items()}


PAPER, SMALL = models(26.0, 26.7), models(13.5, 14.1)


def cards(*sizes_gb: float) -> list[Space]:
    return [
        Space(f"cuda:{index}", int(size * GB), int(size * GB), CUDA_RESERVE_BYTES)
        for index, size in enumerate(sizes_gb)
    ]


@pytest.mark.parametrize(("footprints", "size_gb"), [(PAPER, 80), (SMALL, 40)])
def test_four_cards_all_paint_and_share_the_language_models(footprints: dict[Role, Footprint], size_gb: int) -> None:
    plan = place(cards(*[size_gb] * 4), footprints)
    held = [set(placement.roles) for placement in plan.placements]
    assert all({Role.PAINTER, Role.SEGMENTER, Role.CLIP, Role.BLIP} <= roles for roles in held)
    heavy = sorted(sorted(roles & {Role.CAPTIONER, Role.REWRITER}) for roles in held)
    assert heavy == [[], [Role.CAPTIONER], [Role.CAPTIONER], [Role.REWRITER]]
    assert all(Role.ERASER in roles for roles in held)
    codes = [dict(zip(one.roles, (why.code for why in one.reasons), strict=True)) for one in plan.placements]
    assert {one[Role.PAINTER] for one in codes} == {PlacementCode.NEEDED, PlacementCode.PAINTER}
    assert {one.get(Role.CAPTIONER) for one in codes} == {PlacementCode.NEEDED, PlacementCode.CAPTIONER, None}


def test_an_eraser_goes_with_its_models_and_displaces_none() -> None:
    without: dict[Role, Footprint] = {role: SMALL[role] for role in Role if role in SMALL and role != Role.ERASER}
    for spaces in (cards(*[40] * 4), cards(40, 40, 24), cards(80, 24), cards(60)):
        plan, alone = place(spaces, SMALL), place(spaces, without)
        holders = [set(placement.roles) for placement in plan.placements if Role.ERASER in placement.roles]
        assert holders
        assert all(STAGES[Stage.ERASE].roles <= roles for roles in holders)
        for placement, before in zip(plan.placements, alone.placements, strict=True):
            assert set(before.roles) <= set(placement.roles) <= set(before.roles) | STAGES[Stage.ERASE].roles


def test_small_fits_one_card_of_80_gb_whole() -> None:
    plan = place(cards(80), SMALL)
    assert set(plan.placements[0].roles) == SMALL.keys()
    assert plan.left_out == ()


def test_one_card_of_24_gb_is_refused_with_the_numbers() -> None:
    with pytest.raises(PlacementError, match=r"rewriter 15\.5 GB.*all on one take 41\.9 GB. To use: cuda:0 21\.5 GB"):
        place(cards(24), SMALL)


def test_optional_role_without_room_is_left_out_with_its_reason() -> None:
    plan = place(cards(46), SMALL)
    assert plan.left_out == ((Role.ERASER, Reason(PlacementCode.NO_ROOM, "no room: its weights take 5.1 GB")),)


def test_a_judge_goes_where_most_room_is_left() -> None:
    judged = {**SMALL, Role.JUDGE: Footprint("judge", 16 * GB, 4 * GB)}
    plan, without = place(cards(40, 40, 40, 80), judged), place(cards(40, 40, 40, 80), SMALL)
    holders = [placement.device for placement in plan.placements if Role.JUDGE in placement.roles]
    assert holders == [max(without.placements, key=lambda placement: placement.left_bytes).device]
    assert all(Role.JUDGE not in placement.roles for placement in without.placements)


def test_a_judge_without_room_is_left_out_with_its_reason() -> None:
    plan = place(cards(60), {**SMALL, Role.JUDGE: Footprint("judge", 16 * GB, 4 * GB)})
    assert plan.left_out == ((Role.JUDGE, Reason(PlacementCode.NO_ROOM, "no room: its weights take 16.0 GB")),)


def test_shared_weights_count_once() -> None:
    shared = {role: Footprint("one", 5, 1) for role in (Role.PAINTER, Role.ERASER)}
    assert needed_bytes(frozenset(shared), shared) == 6


def test_a_device_with_the_weights_holds_all_roles_of_them() -> None:
    """The judge goes to the captioner's card, though more room is left elsewhere, and the captioner to the other's."""
    reader = {role: Footprint("reader", 4 * GB, 2 * GB) for role in (Role.REWRITER, Role.CAPTIONER, Role.JUDGE)}
    roles = {role: SMALL[role] for role in (Role.PAINTER, Role.SEGMENTER, Role.CLIP, Role.BLIP)} | reader
    for spaces in (cards(24, 24), cards(16, 80), cards(24)):
        held = [set(placement.roles) & reader.keys() for placement in place(spaces, roles).placements]
        assert any(held)
        assert all(each in (set(), set(reader)) for each in held)


def test_shared_weights_bring_no_role_that_has_no_room() -> None:
    reader = {
        Role.REWRITER: Footprint("r", 4, 1),
        Role.CAPTIONER: Footprint("r", 4, 1),
        Role.JUDGE: Footprint("r", 4, 9),
    }
    small = {role: Footprint(role, 1, 1) for role in (Role.PAINTER, Role.SEGMENTER, Role.CLIP, Role.BLIP)}
    plan = place([Space("cpu", 10, 10)], reader | small)
    assert set(plan.placements[0].roles) == {Role.REWRITER, Role.CAPTIONER, *small}
    assert [role for role, _ in plan.left_out] == [Role.JUDGE]


def test_a_cpu_holds_the_whole_miniature_bundle() -> None:
    mini = {role: Footprint(role, 50, 10) for role in Role if role not in OPTIONAL_ROLES}
    mini[Role.ERASER] = mini[Role.PAINTER]
    placement = place([Space("cpu", 400, 310)], mini).placements[0]
    assert (set(placement.roles), placement.used_bytes, placement.left_bytes) == (set(mini), 310, 0)


def test_models_that_are_light_are_on_every_device() -> None:
    mini = {role: Footprint(role, 50, 10) for role in Role if role not in OPTIONAL_ROLES}
    roomy = place([Space("cpu#0", 9_000, 9_000), Space("cpu#1", 9_000, 9_000)], mini)
    assert [set(placement.roles) for placement in roomy.placements] == [set(mini)] * 2
    tight = place([Space("cpu#0", 400, 400), Space("cpu#1", 400, 400)], mini)
    assert sum(Role.REWRITER in placement.roles for placement in tight.placements) == 1


sizes = st.integers(0, 8)


@given(
    st.lists(st.integers(0, 30), max_size=3),
    st.fixed_dictionaries({role: st.builds(Footprint, st.sampled_from("abcdef"), sizes, sizes) for role in Role}),
)
def test_a_plan_fits_memory_and_runs_every_stage_or_none_exists(
    free: list[int], footprints: dict[Role, Footprint]
) -> None:
    spaces = [Space(str(index), size, size) for index, size in enumerate(free)]
    stages = [spec.roles for spec in STAGES.values() if not spec.roles & OPTIONAL_ROLES and spec.roles]
    try:
        plan = place(spaces, footprints)
    except PlacementError:
        for choice in product(range(len(free)), repeat=len(stages)):
            held = [
                frozenset[Role]().union(*(s for s, d in zip(stages, choice, strict=True) if d == index))
                for index in range(len(free))
            ]
            assert any(needed_bytes(roles, footprints) > size for roles, size in zip(held, free, strict=True))
        return
    for placement, size in zip(plan.placements, free, strict=True):
        assert needed_bytes(frozenset(placement.roles), footprints) == placement.used_bytes <= size
    assert all(any(roles <= set(placement.roles) for placement in plan.placements) for roles in stages)
    assert place(spaces, footprints) == plan
