"""What a connection takes for a request, whole or in parts."""

from pathlib import Path

import anyio
import pytest

from imgdiffd.api.connections import HEAD_BYTES, serve
from imgdiffd.api.listening import bind
from imgdiffd.api.starting import starting_app
from tests.unit.api.test_starting import STATUS

HEAD = b"GET /health HTTP/1.1\r\nHost: i\r\nConnection: close\r\nX: %s\r\n\r\n"


def head_of(size: int) -> bytes:
    return HEAD % (b"y" * (size - len(HEAD % b"")))


async def heard(path: Path, said: bytes, part: int) -> bytes:
    async with await anyio.connect_unix(path) as client:
        try:
            for start in range(0, len(said), part):
                await client.send(said[start : start + part])
                await anyio.wait_all_tasks_blocked()
        except anyio.BrokenResourceError:  # refused before it was whole
            pass
        return await client.receive()


@pytest.mark.parametrize("part", [4000, 1 << 20])
@pytest.mark.parametrize(("size", "status"), [(HEAD_BYTES, b"200"), (HEAD_BYTES + 1, b"400"), (90_000, b"400")])
def test_a_head_beyond_64_kib_is_refused(tmp_path: Path, size: int, status: bytes, part: int) -> None:
    async def main() -> bytes:
        with bind(tmp_path / "s") as listener:
            async with anyio.create_task_group() as group:
                group.start_soon(serve, starting_app(lambda: STATUS), listener)
                answer = await heard(tmp_path / "s", head_of(size), part)
                group.cancel_scope.cancel()
        return answer

    answer = anyio.run(main)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert status == b"200" or b"a head of at most 64 KiB" in answer
