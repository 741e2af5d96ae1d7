"""What people read in the terminal."""

import io

from rich.console import Console

from imgdiffd.cli.terminal import Rates, duration, funnel_table, plain_line, plan_table, status_view
from imgdiffd.pipeline import Role
from imgdiffd.schedulers.placement import Footprint, Placement, Plan
from imgdiffd.schedulers.reasons import PlacementCode, Reason
from imgdiffd.status import (
    DeviceView,
    Funnel,
    FunnelStep,
    JobView,
    LoadView,
    RemovalView,
    SchedulerView,
    Status,
)

JOB = JobView(
    id=1, name="a.txt", state="done", profile="default", created_at=1.0, finished_at=2.0, captions=64, duplicates=0,
    problems=0, sampled=40, rejected=24, failed=0, cancelled=0, samples=41, error=None, duplicate_of=None, eta_s=0.0,
)  # fmt: skip
STATUS = Status(
    version="1", pid=1, uptime_s=0.0, ready=True, paused=False, problems=(), bundle="mini", inbox="", open_tasks=0,
    steals=0, devices=(), jobs=(JOB,),
)  # fmt: skip


def test_durations_are_readable_at_every_scale() -> None:
    assert [duration(value) for value in (None, 0, 65, 3_661, 200_000)] == [
        "–",
        "00:00",
        "01:05",
        "01:01:01",
        "2 d 07:33",
    ]


def test_a_rate_is_taken_over_the_window_and_not_since_the_start() -> None:
    now = 0.0
    rates = Rates(lambda: now)
    assert rates.update("paint", 0) == 0.0
    for now in range(10, 101, 10):
        rate = rates.update("paint", 0 if now <= 50 else now - 50)
    assert rate == 1.0


def test_the_funnel_names_each_loss_with_its_reason() -> None:
    output = io.StringIO()
    funnel = Funnel(
        steps=(
            FunnelStep(name="captions", count=10),
            FunnelStep(name="rewritten", count=8, lost={"unchanged": 1, "refusal": 1}),
        )
    )
    Console(file=output, width=120).print(funnel_table(funnel))
    assert "unchanged 1, refusal 1" in output.getvalue()
    assert "80%" in output.getvalue()


def test_a_plan_shows_devices_models_and_what_has_no_place() -> None:
    taken = {role: Footprint(role, 2_000_000_000, 500_000_000) for role in Role}
    first, second = (Reason(PlacementCode.NEEDED, text) for text in ("first", "second"))
    placements = (
        Placement("cuda:0", (Role.CLIP, Role.BLIP), (first, second), 4_500_000_000, 5_500_000_000),
        Placement("cuda:1", (), (), 0, 1_000_000_000),
    )
    left_out = ((Role.ERASER, Reason(PlacementCode.NO_ROOM, "no room: its weights take 5.1 GB")),)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(plan_table(Plan(placements, left_out), taken))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines() if line.strip()]
    assert lines[2:] == [
        "cuda:0 clip 2.00 0.50 first",
        "blip 2.00 0.50 second",
        "4.5 of 10.0 all weights and the largest peak",
        "cuda:1 0.0 of 1.0 all weights and the largest peak",
        "none eraser no room: its weights take 5.1 GB",
    ]


def test_an_idle_device_says_why_while_there_is_work() -> None:
    device = DeviceView(
        name="cuda:1", state="ready", detail="", pid=1, restarts=0, running=0, queued=0, busy_s=0.0, roles=("clip",)
    )
    load = LoadView(
        name="cuda:1", up=True, reason="nothing to steal: no other device has work for its models", last_failure="",
        queued={}, queued_s=0.0, in_flight=0, batches=0, steals=0, learnt=(),
    )  # fmt: skip
    scheduler = SchedulerView(
        devices=(load,), admission="", held_back=(), open_bytes=0, queued=0, running=0, stranded=0,
        batches_by_items={}, out_of_memory=0, deaths=0, broken=0, quarantined=0,
    )  # fmt: skip
    status = STATUS.model_copy(update={"devices": (device,), "scheduler": scheduler, "open_tasks": 5})
    assert "idle: nothing to steal" in _shown(status)
    assert "0 running, 0 queued" in _shown(status.model_copy(update={"open_tasks": 0}))


def _shown(status: Status, rates: Rates | None = None) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(status_view(status, rates or Rates()))
    return console.export_text()


def test_removal_is_shown_with_its_rate_or_why_there_is_none() -> None:
    now = 0.0
    rates = Rates(lambda: now)
    assert "removal" not in _shown(STATUS, rates) + plain_line(JOB)
    begun = JOB.model_copy(update={"removal": RemovalView(waiting=30, sampled=20, rejected=5, failed=5, samples=31)})
    rates.update("1/removal", 20)
    now = 60.0
    line = "object removal: 30 of 60 pairs done, 5 failed, 20 gave 31 samples, 10 per min"
    assert line in _shown(STATUS.model_copy(update={"jobs": (begun,)}), rates)
    assert "  removal 30/60  samples 41" in plain_line(begun)
    off = STATUS.model_copy(update={"no_removal": "bundle mini has no eraser"})
    assert "no object removal: bundle mini has no eraser" in _shown(off)
