"""The laws of virtual time: it jumps, and a run that can never end says so."""

import anyio
import pytest

from imgdiffd.schedulers import virtual_time
from imgdiffd.schedulers.virtual_time import StuckError, run_virtual


def test_a_days_sleep_takes_no_time() -> None:
    async def main() -> float:
        await anyio.sleep(86_400.0)
        return anyio.current_time()

    assert run_virtual(main) == pytest.approx(86_400.0)


def test_run_that_waits_for_nothing_says_that_it_is_stuck() -> None:
    with pytest.raises(StuckError, match="no timer"):
        run_virtual(lambda: anyio.Event().wait())


def test_a_loop_that_spins_fails_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "MOST_TURNS", 1000)

    async def main() -> None:
        await anyio.sleep(3.0)
        while True:
            await anyio.sleep(0.0)

    with pytest.raises(StuckError, match=r"at 3\.0 s the loop spins"):
        run_virtual(main)


def test_many_turns_over_time_are_no_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "MOST_TURNS", 100)

    async def main() -> None:
        for _ in range(1000):
            await anyio.sleep(0.001)

    run_virtual(main)
