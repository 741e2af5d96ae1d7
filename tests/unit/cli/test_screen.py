"""What `status`, `watch` and `jobs` show of the daemon."""

import io
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from rich.console import Console

from imgdiffd.cli.main import main
from imgdiffd.cli.screen import Rates, follow, jobs_table, plain_line, status_view
from imgdiffd.daemon.progress import stages_of
from imgdiffd.job import JobState
from imgdiffd.status import (
    DeviceView,
    GateView,
    JobView,
    LoadView,
    OpenJobs,
    ProblemView,
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


def test_a_rate_is_taken_over_the_window_and_not_since_the_start() -> None:
    now = 0.0
    rates = Rates(lambda: now)
    assert rates.update("paint", 0) == 0.0
    for now in range(10, 101, 10):
        rate = rates.update("paint", 0 if now <= 50 else now - 50)
    assert rate == 1.0


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


def _shown(status: Status, rates: Rates | None = None, width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
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


def test_status_says_on_which_side_of_the_gate_pairs_fall() -> None:
    assert "similarity gate" not in _shown(STATUS)
    job = JOB.model_copy(update={"gate": GateView(too_different=15, too_similar=4)})
    line = "rejected by the similarity gate: 15 pairs too different, 4 too similar"
    shown = _shown(STATUS.model_copy(update={"jobs": (job,)}))
    assert line in [each.rstrip() for each in shown.splitlines()]
    job = JOB.model_copy(update={"gate": GateView(too_different=15, too_similar=4, half_painted=9)})
    assert f"{line}; 9 of them given up half-painted" in _shown(STATUS.model_copy(update={"jobs": (job,)}))


NASTY = "[/] [red]x[/] :cat: \x1b[2J\x07 two\nlines \u202e\udcff"
SEEN = r"[/] [red]x[/] :cat: \x1b[2J\x07 two\nlines \u202e\udcff"


def nasty_device(**over: Any) -> DeviceView:
    given = {"name": NASTY, "state": NASTY, "detail": NASTY, "notes": (NASTY,), "counters": {NASTY: 1}, **over}
    return DeviceView(pid=None, restarts=0, running=0, queued=0, busy_s=0.0, **given)


def test_markup_and_control_characters_of_others_do_nothing() -> None:
    load = LoadView(
        name=NASTY, up=True, reason=NASTY, last_failure="", queued={}, queued_s=0.0, in_flight=0, batches=0, steals=0,
        learnt=(),
    )  # fmt: skip
    scheduler = SchedulerView(
        devices=(load,), admission="", held_back=(), open_bytes=0, queued=0, running=0, stranded=0,
        batches_by_items={}, out_of_memory=0, deaths=0, broken=0, quarantined=0,
    )  # fmt: skip
    job = JOB.model_copy(update={"name": NASTY, "state": "failed", "error": NASTY, "profile": NASTY})
    status = STATUS.model_copy(
        update={
            "devices": (nasty_device(), nasty_device(state="ready")), "scheduler": scheduler, "open_tasks": 1,
            "problems": (NASTY,), "jobs": (job,) * 3, "no_removal": NASTY,
        }
    )  # fmt: skip
    shown = _shown(status, width=1000)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    # two devices, the problem, two jobs whole, one in a line (its name cut), why no removal
    assert shown.count(SEEN) == 5 + 4 + 1 + 2 * 2 + 1 + 1
    assert plain_line(job) == f"job 1 failed: {SEEN}"


def test_three_thousand_jobs_are_one_screen_with_the_first_ones() -> None:
    active = JOB.model_copy(update={"state": "active", "finished_at": None, "stages": stages_of({}, {})})
    jobs = tuple(active.model_copy(update={"id": number, "eta_s": 60.0 * number}) for number in range(1, 3001))
    devices = tuple(nasty_device(name=f"cuda:{number}", state="ready", counters={}, notes=()) for number in range(8))
    work = OpenJobs(captions=192_000, done=1, samples=2, eta_s=180_000.0)
    many = {"job_counts": {JobState.ACTIVE: 3000}, "open": work}
    lines = _shown(STATUS.model_copy(update={"jobs": jobs, "devices": devices, **many})).splitlines()
    assert len(lines) <= 40
    assert "open jobs: 3000, captions: 1 of 192000, samples: 2; about 2 days left" in " ".join(lines[:3])
    assert any(line.split()[:3] == ["11", "a.txt", "active"] for line in lines)
    assert lines[-1] == "… and 2,989 more that are open; `imgdiffd jobs` lists them"


@pytest.mark.parametrize("width", [80, 120, 160])
def test_a_long_reason_takes_no_room_from_a_jobs_number_or_state(width: int) -> None:
    failed = JOB.model_copy(update={"id": 1234, "state": "failed", "error": "it is a PNG image " + "and so on " * 20})
    console = Console(width=width, file=io.StringIO())
    console.print(jobs_table([JOB.model_copy(update={"state": "cancelled", "name": "n" * 200}), failed]))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[2].split()[0] == "1"
    assert " cancelled " in lines[2]
    assert lines[3].split()[0] == "1234"
    assert " failed " in lines[3]
    assert "it is" in lines[3]


def test_forty_columns_show_numbers_and_states_whole() -> None:
    stages = stages_of({}, {})
    job = JOB.model_copy(update={"id": 1234, "state": "cancelled", "name": "n" * 50, "stages": stages})
    shown = _shown(STATUS.model_copy(update={"jobs": (job,) * 4}), width=40)
    assert all(len(line) <= 40 for line in shown.splitlines())
    for view in stages:
        assert f"\n{view.stage} " in shown
    assert shown.count("cancelled     64/64") == 2
    assert shown.count("…") == 2, "only the names are cut"


def test_without_a_terminal_no_line_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgdiffd.cli.screen.REFRESH_S", 0)
    monkeypatch.setattr("imgdiffd.cli.screen.PLAIN_LINE_S", 0)
    active = JOB.model_copy(update={"state": "active", "sampled": 1, "finished_at": None})
    looks = iter([active, active, active.model_copy(update={"samples": 50}), JOB, JOB])
    console = Console(width=300, file=io.StringIO())
    for job in (None, 1):
        follow(
            lambda: STATUS.model_copy(update={"jobs": (next(looks, JOB),), "open": OpenJobs()}),
            lambda status: status.jobs[0].state == "done",
            console,
            job,
        )
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4, lines
    assert [line.split("samples ")[-1][:2] for line in lines[:2]] == ["41", "50"]


def test_one_of_a_thing_is_said_in_the_singular() -> None:
    job = JOB.model_copy(update={"captions": 1, "sampled": 1, "samples": 1, "rejected": 0, "duplicates": 1})
    shown = _shown(STATUS.model_copy(update={"jobs": (job,)}))
    assert "1 caption, 1 duplicate" in shown
    assert "1 caption gave 1 sample" in shown


def test_paused_is_said_first_and_why_a_job_failed_with_it() -> None:
    failed = JOB.model_copy(update={"state": "failed", "error": "it is empty", "captions": 0, "sampled": 0})
    status = STATUS.model_copy(
        update={"paused": True, "problems": ("disk: full",), "jobs": (failed,), "open": OpenJobs(eta_s=60.0)}
    )
    lines = _shown(status).splitlines()
    assert lines[0].startswith("paused: ")
    assert "left" not in lines[1]
    assert "job 1 a.txt: failed: it is empty" in lines


def test_what_a_file_says_does_nothing_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class OneProblem:
        def job(self, job: int) -> JobView:
            return JOB.model_copy(update={"problems": 1})

        def every_problem(self, job: int) -> Iterator[ProblemView]:
            yield ProblemView(line=3, reason="no_caption", message=f"has no caption, only {NASTY}")

    monkeypatch.setattr("imgdiffd.cli.offline.answers_of", lambda _: nullcontext(OneProblem()))
    main(["problems", "1"])
    assert capsys.readouterr().out == f"line 3: has no caption, only {SEEN} (no_caption)\n"
