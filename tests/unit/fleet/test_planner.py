"""From memory to who holds what: the daemon's steps around the pure placement."""

from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest

from imgdiffd.bundles.bundle import Bundle, EraserSpec, load_bundle
from imgdiffd.fleet import planner as placing
from imgdiffd.fleet.footprints import Measurements
from imgdiffd.fleet.memory import imagined
from imgdiffd.fleet.planner import Planner, resident_roles, why_no_removal
from imgdiffd.fleet.wire import Done, Ready
from imgdiffd.pipeline import OPTIONAL_ROLES, Role, Stage
from imgdiffd.schedulers.placement import PlacementError, Space

GB = 1_000_000_000
CARDS = {f"cuda:{index}": f"cuda:{index}" for index in range(4)}


def _sized(size_gb: float) -> placing.Look:
    def look(devices: Mapping[str, str]) -> list[Space]:
        return [
            Space(name, int(size_gb * GB), int(size_gb * GB), space.reserve_bytes)
            for name, space in zip(devices, imagined([size_gb] * len(devices)), strict=True)
        ]

    return look


def _planner(folder: Path, look: placing.Look, devices: Mapping[str, str] = CARDS, bundle: str = "paper") -> Planner:
    return Planner(load_bundle(bundle), devices, Measurements(folder / "footprints.json"), look)


def test_judge_and_eraser_are_resident_only_where_wanted() -> None:
    paper = load_bundle("paper")
    assert set(resident_roles(paper, removal=False)) == set(Role) - OPTIONAL_ROLES
    assert set(resident_roles(paper, removal=True)) == set(Role) - {Role.JUDGE}
    judged = paper.model_copy(update={"judge": paper.captioner, "eraser": None})
    for removal in (False, True):
        assert set(resident_roles(judged, removal=removal)) == set(Role) - {Role.ERASER}


def test_object_removal_needs_the_wish_an_eraser_and_room_for_it(tmp_path: Path) -> None:
    paper = load_bundle("paper")
    poor = paper.model_copy(update={"eraser": None})

    def said(bundle: Bundle, size_gb: float, wanted: bool) -> str:
        measured = Measurements(tmp_path / "footprints.json")
        plan = Planner(bundle, CARDS, measured, _sized(size_gb), removal=wanted).plan_empty()
        return why_no_removal(bundle, plan, wanted=wanted)

    assert said(paper, 80, True) == ""
    assert said(paper, 80, False) == "removal = false"
    assert said(poor, 80, True) == "bundle paper has no eraser"
    unfit = paper.model_copy(update={"eraser": EraserSpec(source="a/b", weights_gb=70.0, peak_gb=1.0)})
    assert said(unfit, 80, True) == "no device has room for the eraser of bundle paper"


@pytest.mark.anyio
@pytest.mark.parametrize(("bundle", "size_gb"), [("paper", 80.0), ("small", 80.0), ("small", 40.0)])
async def test_the_shipped_bundles_fit_four_cards_that_all_paint(tmp_path: Path, bundle: str, size_gb: float) -> None:
    plan = await _planner(tmp_path, _sized(size_gb), bundle=bundle).plan()
    assert all(Role.PAINTER in roles for roles in plan.roles.values())
    assert set().union(*plan.roles.values()) == set(Role) - OPTIONAL_ROLES


@pytest.mark.anyio
async def test_one_card_of_24_gb_holds_compact_with_room_left(tmp_path: Path) -> None:
    plan = await _planner(tmp_path, _sized(24), {"cuda:0": "cuda:0"}, "compact").plan()
    (placement,) = plan.placements
    assert set(placement.roles) == set(Role) - {Role.ERASER}
    assert placement.left_bytes >= 3 * GB


@pytest.mark.anyio
async def test_a_card_of_24_gb_is_refused_at_once_with_the_numbers(tmp_path: Path) -> None:
    with anyio.fail_after(placing.FREE_WAIT_S / 2), pytest.raises(PlacementError, match=r"To use: cuda:0 21\.5 GB"):
        await _planner(tmp_path, _sized(24), {"cuda:0": "cuda:0"}, "small").plan()


@pytest.mark.anyio
async def test_memory_that_a_dying_worker_still_holds_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "_LOOK_S", 0.0)
    looks = 0

    def look(devices: Mapping[str, str]) -> list[Space]:
        nonlocal looks
        looks += 1
        return [Space(name, 80 * GB, 80 * GB if looks > 3 else GB) for name in devices]

    plan = await _planner(tmp_path, look).plan()
    assert looks == 4
    assert set().union(*plan.roles.values()) == set(Role) - OPTIONAL_ROLES


@pytest.mark.anyio
async def test_memory_that_others_keep_is_a_refusal_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "_LOOK_S", 0.0)

    def look(devices: Mapping[str, str]) -> list[Space]:
        return [Space(name, 80 * GB, GB) for name in devices]

    with pytest.raises(PlacementError, match=r"To use: cuda:0 1\.0 GB"):
        await _planner(tmp_path, look).plan(0.01)


@pytest.mark.anyio
async def test_what_a_lost_device_held_is_planned_for_the_others(tmp_path: Path) -> None:
    planner = _planner(tmp_path, _sized(80))
    first = await planner.plan()
    (lost,) = [name for name, roles in first.roles.items() if Role.REWRITER in roles]
    second = planner.plan_empty([lost])
    assert lost not in second.roles
    assert set().union(*second.roles.values()) == set(Role) - OPTIONAL_ROLES


@pytest.mark.anyio
async def test_what_workers_measured_makes_the_next_plan(tmp_path: Path) -> None:
    planner = _planner(tmp_path, _sized(80))
    planner.note_ready(Ready(1, weights_bytes={"captioner": 30 * GB}))
    planner.note_done(Stage.DESCRIBE, Done(1, (), 1.0, peak_bytes=2 * GB))
    again = _planner(tmp_path, _sized(80)).footprints()[Role.CAPTIONER]
    assert (again.weights_bytes, again.peak_bytes) == (30 * GB, round(2 * GB * 1.1))


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    planner = _planner(tmp_path / "none", _sized(80))
    planner.note_ready(Ready(1, weights_bytes={"clip": GB}))
    assert "measured footprints were not saved" in caplog.text
