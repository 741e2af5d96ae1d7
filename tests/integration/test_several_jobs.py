"""Orders about several jobs at once: all that can be done is done, and what cannot is named."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from imgdiffd.cli.main import COMPLETION, main
from imgdiffd.errors import RefusedError
from tests.integration.daemon_process import RunningDaemon, daemon
from tests.integration.faulty import answer

JOBS = 6


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon that is paused as a whole, so that jobs stay as they are put."""
    with daemon(tmp_path_factory.mktemp("daemon"), IMGDIFFD_DEVICES="cpu") as found:
        found.wait(lambda status: status.ready, "readiness")
        found.client.set_paused(True)
        yield found


@pytest.fixture
def first(running: RunningDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """The number of the first of JOBS new jobs of two captions; cancelled afterwards."""
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_SOCKET_PATH", str(running.folder / "s"))
    jobs = []
    for number in range(JOBS):
        file = tmp_path / f"{tmp_path.name}-{number}.txt"
        file.write_text(f"a cat beside bus {tmp_path.name} {number}\na dog beside bus {tmp_path.name} {number}\n")
        jobs.append(running.client.submit(file).id)
    yield jobs[0]
    for job in jobs:
        if running.client.job(job).state in {"active", "paused"}:
            running.client.change(job, "cancel")


def said(capsys: pytest.CaptureFixture[str], order: str) -> tuple[int, str, str]:
    """Status, output and errors of one command line."""
    try:
        main(order.split())
    except SystemExit as ended:
        return (int(ended.code or 0), *capsys.readouterr())
    return (0, *capsys.readouterr())


def states(running: RunningDaemon, first: int) -> list[str]:
    return [running.client.job(job).state for job in range(first, first + JOBS)]


def test_of_several_jobs_a_wrong_one_costs_the_others_nothing(
    running: RunningDaemon, first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said(capsys, f"cancel {first} 999 {first} {first + 1}")
    assert status == 1
    assert out == f"job {first} is cancelled\njob {first + 1} is cancelled\n"
    assert err.startswith("imgdiffd: there is no job 999")
    assert len(err.splitlines()) == 1
    status, out, err = said(capsys, f"pause {first} {first + 2} {first + 3}")
    assert (status, out) == (1, f"job {first + 2} is paused\njob {first + 3} is paused\n")
    assert f"job {first}: cannot be paused, it is cancelled" in err
    assert said(capsys, f"resume {first + 2} {first + 3}")[0] == 0
    assert states(running, first) == ["cancelled"] * 2 + ["active"] * 4


def test_all_means_each_job_for_which_it_can_be_done(
    running: RunningDaemon, first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, f"cancel {first}")
    assert said(capsys, "pause --all") == (0, "5 jobs were paused\n", "")
    still = "but all work is paused: `imgdiffd resume` alone ends that\n"
    assert said(capsys, f"resume {first + 1}") == (0, f"job {first + 1} is active\n{still}", "")
    assert said(capsys, "resume --all") == (0, f"4 jobs were resumed\n{still}", "")
    assert running.client.status().paused
    said(capsys, f"pause {first + 2}")
    assert said(capsys, "cancel --all") == (0, "5 jobs were cancelled\n", "")
    assert said(capsys, "cancel --all") == (0, "no jobs were cancelled\n", "")
    assert states(running, first) == ["cancelled"] * JOBS


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("order", ["cancel", "cancel --all 1", "pause 1 --all", "retry", "retry 1 --all"])
def test_jobs_and_all_exclude_one_another(order: str, first: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert first
    status, out, err = said(capsys, order)
    assert (status, out) == (2, "")
    assert "numbers of jobs" in err


def fail(running: RunningDaemon, job: int, reason: str) -> None:
    """Have every caption of the job failed for `reason`."""
    with closing(sqlite3.connect(running.folder / "state.db", isolation_level=None)) as connection:
        connection.execute("UPDATE items SET state = 'failed', reason = ? WHERE job_id = ?", (reason, job))


def test_an_unknown_reason_is_answered_with_those_there_are(
    running: RunningDaemon, first: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(running, first, "broke_generate")
    fail(running, first + 1, "broke_locate")
    fail(running, first + 2, "broke_locate")
    listed = "what has failed, by reason: broke_locate (4), broke_generate (2)"
    assert said(capsys, "retry --failed --reason broke_genrate") == (
        1, "", f"imgdiffd: nothing has failed for 'broke_genrate' ({listed})\n",
    )  # fmt: skip
    status, out, err = said(capsys, f"retry {first} {first + 3} --reason odd")
    assert (status, out) == (1, "")
    assert f"job {first}: nothing has failed for 'odd' (what has failed, by reason: broke_generate (2))" in err
    assert f"job {first + 3}: nothing has failed for 'odd' (what has failed, by reason: nothing)" in err
    refused = answer(running.folder, "/retry?reason=odd", method="POST")
    assert (refused.status_code, listed in refused.text) == (422, True)

    monkeypatch.setenv(COMPLETION, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "imgdiffd retry --failed --reason broke_l")
    monkeypatch.setenv("COMP_CWORD", "4")
    assert said(capsys, "") == (0, "broke_locate\n", "")
    monkeypatch.delenv(COMPLETION)

    assert said(capsys, "retry --all --reason broke_generate")[1] == "2 captions and removals are tried again\n"
    assert said(capsys, "retry --all --reason broke_generate")[1] == "0 captions and removals are tried again\n"
    assert said(capsys, f"retry {first + 1} {first + 2}")[1] == "".join(
        f"job {job}: 2 captions and removals are tried again\n" for job in (first + 1, first + 2)
    )


def test_captions_of_a_cancelled_job_stay_cancelled_and_it_says_so(
    running: RunningDaemon, first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(running, first, "broke_generate")
    said(capsys, f"cancel {first}")
    status, out, err = said(capsys, f"retry {first}")
    assert (status, out) == (1, "")
    assert f"job {first}: cannot be retried, it is cancelled: its captions stay cancelled (submit its file" in err
    assert running.client.failures(first) == {}
    with pytest.raises(RefusedError, match="its captions stay cancelled"):
        running.client.change(first, "retry")
