"""The daemon's own memory is given back to the system while it runs."""

import anyio
import pytest

from imgdiffd import heap
from imgdiffd.daemon import serve

pytestmark = pytest.mark.anyio


async def test_memory_is_given_back_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[None] = []
    monkeypatch.setattr(serve, "GIVE_BACK_S", 0.0)
    monkeypatch.setattr(heap, "give_back", lambda: given.append(None))
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(serve._give_back_memory)
            while len(given) < 2:
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
