"""What people read in the terminal."""

import io

from rich.console import Console

from imgdiffd.status import Funnel, FunnelStep
from imgdiffd.terminal import Rates, duration, funnel_table


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
