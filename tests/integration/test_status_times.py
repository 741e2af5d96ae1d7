"""How soon the status is told over the socket while a large database is worked on.

What it costs in statements is in `test_store_costs`, and `make bench-store` measures ten times as many items.
"""

from pathlib import Path

import pytest

from imgdiffd.store import Store
from tests.benchmarks.asking import Asked, asking
from tests.benchmarks.mill import Mill, fill

pytestmark = [pytest.mark.anyio, pytest.mark.long]  # times mean something on a quiet machine only
ITEMS = 100_000
ROUND, ROUNDS = 40, 4  # answers; one round is enough, since what else a machine does only adds to a time
P99_S = 0.1


async def test_status_of_a_hundred_thousand_items_is_fast(
    tmp_path: Path,
) -> None:
    def rounds(asked: Asked) -> list[float]:
        starts = range(0, len(asked.seconds) - ROUND + 1, ROUND)
        return [Asked(asked.seconds[start : start + ROUND]).p99_s for start in starts]

    def enough(asked: Asked) -> bool:
        return len(rounds(asked)) == ROUNDS or any(p99_s < P99_S for p99_s in rounds(asked))

    async with Store.open(tmp_path / "state.db") as store:
        await fill(store, ITEMS)
        mill = Mill(store, tmp_path)
        async with asking(store, mill.scheduler, tmp_path) as asked:
            worked = await mill.run(lambda _: enough(asked))
    assert worked.results > ROUND
    assert min(rounds(asked)) < P99_S
