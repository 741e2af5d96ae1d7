"""What the daemon says of itself in one line."""

import pytest

from imgdiffd.status import JobView, RemovalView, Status, about, headline


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (20, "less than a minute"),
        (60, "about 1 min"),
        (150, "about 2 min"),
        (7199, "about 120 min"),
        (7200, "about 2 h"),
        (100_000, "about 28 h"),
        (1e6, "about 12 days"),
    ],
)
def test_a_long_time_is_told_in_hours_and_days(seconds: float, said: str) -> None:
    assert about(seconds) == said


def test_the_headline_mentions_removal_while_some_is_left() -> None:
    job = JobView(
        id=1, name="a.txt", state="done", profile="default", created_at=1.0, finished_at=2.0, captions=64,
        duplicates=0, problems=0, sampled=40, rejected=24, failed=0, cancelled=0, samples=41, error=None,
        duplicate_of=None,
    )  # fmt: skip
    status = Status(
        version="1", pid=1, uptime_s=0.0, ready=True, paused=False, problems=(), bundle="mini", inbox="",
        open_tasks=0, steals=0, devices=(), jobs=(job,),
        removal=RemovalView(waiting=14, sampled=4, rejected=2, samples=6),
    )  # fmt: skip
    said = "object removal: 6 of 20 pairs, samples: 6"
    assert headline(status) == f"no job is open; {said}"
    active = status.model_copy(update={"jobs": (job.model_copy(update={"state": "active"}), job)})
    assert said in headline(active)
    assert "removal" not in headline(status.model_copy(update={"no_removal": "removal = false"}))
    assert "removal" not in headline(status.model_copy(update={"removal": RemovalView(sampled=3, samples=3)}))
