"""Which devices there are, and what becomes of one that will not start."""

import os
from collections.abc import Callable, Collection
from pathlib import Path

import anyio
import pytest

from imgdiffd.fleet import member
from imgdiffd.fleet.cards import resolve_devices
from imgdiffd.fleet.member import PARK_AFTER_FAILURES
from imgdiffd.fleet.supervisor import Fleet, compiles, threads_for
from imgdiffd.fleet.wire import Done
from imgdiffd.pipeline import OPTIONAL_ROLES, Role, Stage
from imgdiffd.schedulers.placement import PlacementError
from imgdiffd.testing.worker import COMMAND

LIMIT_S = 60.0
NEEDED = tuple(role for role in Role if role not in OPTIONAL_ROLES)


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))
    assert [threads_for(workers, 0) for workers in (1, 4, 5, 99)] == [16, 4, 3, 1]
    assert threads_for(2, 3) == 3


def test_each_worker_sees_its_own_card_and_its_share_of_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))
    devices = {"cuda:0": "GPU-aa", "cuda:1": "MIG-12", "cpu#0": "cpu", "cpu#1": "cpu"}
    fleet = Fleet(
        devices, dict.fromkeys(devices, NEEDED), bundle="mini", images=tmp_path, threads=0, compile="auto",
        command=COMMAND,
    )  # fmt: skip
    seen = {name: process._environment["CUDA_VISIBLE_DEVICES"] for name, process in fleet.processes.items()}
    assert seen == {"cuda:0": "GPU-aa", "cuda:1": "MIG-12", "cpu#0": "", "cpu#1": ""}
    starts = [process._start for process in fleet.processes.values()]
    assert [start.device for start in starts] == ["cuda:0", "cuda:0", "cpu", "cpu"]
    assert {start.threads for start in starts} == {4}
    assert [start.compile for start in starts] == [True, True, False, False]


def test_models_are_compiled_on_gpus_unless_told_otherwise() -> None:
    for choice in ("auto", "max-autotune"):
        assert [compiles(choice, place) for place in ("cpu", "GPU-aa")] == [False, True]
    assert [compiles(on, "GPU-aa") for on in (False, True)] == [False, True]
    assert compiles(True, "cpu")


def test_only_compiled_models_are_tuned(tmp_path: Path) -> None:
    devices = {"cuda:0": "GPU-aa", "cpu": "cpu"}
    roles = dict.fromkeys(devices, NEEDED)
    for choice, tuned in (("max-autotune", [True, False]), ("auto", [False, False])):
        fleet = Fleet(devices, roles, bundle="mini", images=tmp_path, threads=1, compile=choice, command=COMMAND)  # type: ignore[arg-type]
        assert [process._start.tune for process in fleet.processes.values()] == tuned


def _fleet(tmp_path: Path) -> Fleet:
    devices = resolve_devices(["cpu", "cpu"]).places
    roles = dict.fromkeys(devices, NEEDED)
    return Fleet(devices, roles, bundle="mini", images=tmp_path, threads=1, compile=False, command=COMMAND)


def test_two_workers_of_one_kind_have_names_of_their_own(tmp_path: Path) -> None:
    assert list(_fleet(tmp_path).processes) == ["cpu#0", "cpu#1"]


@pytest.mark.anyio
@pytest.mark.parametrize(("mishap", "attempts"), [("refuse", 1), ("crash", PARK_AFTER_FAILURES)])
async def test_a_device_that_will_not_start_is_parked_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mishap: str, attempts: int
) -> None:
    monkeypatch.setattr(member, "_BACKOFF_S", (0.0,))
    fleet = _fleet(tmp_path)
    bad, good = fleet.processes.values()
    bad._environment["FAKE_WORKER_START"] = mishap
    up: dict[str, frozenset[Role]] = {}
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(fleet.run, up.__setitem__, up.__delitem__)
            while fleet.views({})[0].state != "parked" or "cpu#1" not in up:
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    parked, ready = fleet.views({})
    assert parked.detail
    assert bad.generation == attempts
    assert (ready.state, good.alive) == ("ready", True)
    assert list(up) == ["cpu#1"]
    await fleet.stop(5.0)
    assert not good.alive


@pytest.mark.anyio
async def test_a_worker_that_dies_is_taken_down_and_replaced(tmp_path: Path) -> None:
    fleet = _fleet(tmp_path)
    events: list[tuple[str, str]] = []
    first = fleet.processes["cpu#0"]
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(
                fleet.run,
                lambda name, _roles: events.append(("up", name)),
                lambda name: events.append(("down", name)),
            )
            while ("up", "cpu#0") not in events:
                await anyio.sleep(0.01)
            assert first.pid is not None
            os.kill(first.pid, 9)
            while events.count(("up", "cpu#0")) < 2:
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    assert [event for event in events if event[1] == "cpu#0"] == [("up", "cpu#0"), ("down", "cpu#0"), ("up", "cpu#0")]
    assert fleet.views({})[0].restarts == 1
    await fleet.stop(5.0)


async def _kill_until(fleet: Fleet, over: Callable[[], bool], fruitful: bool = False) -> None:
    """Runs the fleet and kills each worker of its first device once it is ready, until `over`."""
    first = fleet.processes["cpu#0"]
    killed: set[int] = set()

    def kill(name: str, _roles: frozenset[Role]) -> None:
        if name == "cpu#0" and first.pid is not None:
            if fruitful and first.on_done is not None:
                first.on_done(Stage.REWRITE, Done(1, (), 0.1, 0))
            killed.add(first.pid)
            os.kill(first.pid, 9)

    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(fleet.run, kill, lambda _: None)
            while not over():
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    await fleet.stop(5.0)


@pytest.mark.anyio
async def test_workers_that_die_idle_are_restarted_ever_more_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "_FRUITLESS_S", (0.0, 0.0, 0.0, 3600.0))
    fleet = _fleet(tmp_path)
    await _kill_until(fleet, lambda: "the next starts in 3600 s" in fleet.views({})[0].detail)
    assert "the last 3 workers did no batch" in fleet.views({})[0].detail
    assert fleet.processes["cpu#0"].generation == 3


@pytest.mark.anyio
async def test_a_worker_that_did_a_batch_is_replaced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "_FRUITLESS_S", (0.0, 3600.0))
    fleet = _fleet(tmp_path)
    await _kill_until(fleet, lambda: fleet.views({})[0].restarts == 4, fruitful=True)


@pytest.mark.anyio
async def test_what_only_a_parked_device_held_is_taken_over_by_another(tmp_path: Path) -> None:
    devices = resolve_devices(["cpu", "cpu"]).places
    lean = tuple(role for role in NEEDED if role is not Role.REWRITER)
    asked: list[list[str]] = []

    def replan(lost: Collection[str]) -> dict[str, tuple[Role, ...]]:
        asked.append(list(lost))
        return {"cpu#1": NEEDED}

    roles = {"cpu#0": NEEDED, "cpu#1": lean}
    fleet = Fleet(
        devices, roles, bundle="mini", images=tmp_path, threads=1, compile=False, command=COMMAND, replan=replan
    )
    fleet.processes["cpu#0"]._environment["FAKE_WORKER_START"] = "refuse"
    up: dict[str, frozenset[Role]] = {}
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(fleet.run, up.__setitem__, up.__delitem__)
            while up.get("cpu#1") != frozenset(NEEDED):
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    assert asked == [["cpu#0"]]
    assert fleet.problems() == ()
    assert [(view.state, view.restarts) for view in fleet.views({})] == [("parked", 0), ("ready", 0)]
    await fleet.stop(5.0)


@pytest.mark.anyio
async def test_a_stage_that_no_device_can_run_is_reported_with_why(tmp_path: Path) -> None:
    devices = resolve_devices(["cpu", "cpu"]).places

    def replan(lost: Collection[str]) -> dict[str, tuple[Role, ...]]:
        raise PlacementError("the largest device has 1.0 GB to use")

    roles = {"cpu#0": (Role.REWRITER,), "cpu#1": (Role.PAINTER,)}
    fleet = Fleet(
        devices, roles, bundle="mini", images=tmp_path, threads=1, compile=False, command=COMMAND, replan=replan
    )
    assert fleet.problems() == ()
    fleet.processes["cpu#0"]._environment["FAKE_WORKER_START"] = "refuse"
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(fleet.run, lambda _name, _roles: None, lambda _name: None)
            while len(fleet.problems()) < 2:
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    assert fleet.problems() == ("rewrite: no device holds rewriter", "the largest device has 1.0 GB to use")
    await fleet.stop(5.0)


def test_a_workers_notes_are_shown_once_and_counted(tmp_path: Path) -> None:
    fleet = _fleet(tmp_path)
    name, process = next(iter(fleet.processes.items()))
    assert process.on_done is not None
    for batch in (1, 2):
        process.on_done(
            Stage.GENERATE,
            Done(batch, (), 0.1, 0, {"decodes_repeated": 2}, ("the painter runs uncompiled: no compiler",)),
        )
    view = next(view for view in fleet.views({}) if view.name == name)
    assert view.counters == {"decodes_repeated": 4}
    assert view.notes == ("the painter runs uncompiled: no compiler",)
