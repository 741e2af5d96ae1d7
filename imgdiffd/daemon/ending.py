"""Runs the daemon's parts so that an error of any ends the daemon in order, and waits for the order to stop."""

import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import anyio
from anyio.abc import TaskGroup, TaskStatus

from imgdiffd.errors import ImgdiffdError

_log = logging.getLogger(__name__)


class Ending:
    """`error` is the first reason, None while there is none; `begun` is set with it."""

    def __init__(self) -> None:
        self.error: ImgdiffdError | None = None
        self.begun = anyio.Event()

    def because(self, error: ImgdiffdError) -> None:
        """Have the daemon stop in order and report this error; later ones are its consequences and only logged."""
        if self.error is not None:
            _log.debug("while ending: %s", error)
            return
        self.error = error
        _log.critical("%s", error)
        self.begun.set()

    def because_of(self, group: BaseExceptionGroup[ImgdiffdError]) -> None:
        """As `because`, with the first error in a group."""
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, ImgdiffdError)
        self.because(error)


async def _scoped(
    function: Callable[[], Awaitable[None]],
    ending: Ending,
    *,
    task_status: TaskStatus[anyio.CancelScope] = anyio.TASK_STATUS_IGNORED,
) -> None:
    with anyio.CancelScope() as scope:
        task_status.started(scope)
        try:
            await function()
        except* ImgdiffdError as group:
            ending.because_of(group)


async def start(
    group: TaskGroup, name: str, function: Callable[[], Awaitable[None]], ending: Ending
) -> anyio.CancelScope:
    """Run `function` in `group`; cancelling the returned scope stops it alone. An error of ours ends the daemon."""
    scope: anyio.CancelScope = await group.start(partial(_scoped, function, ending), name=name)
    return scope


async def first_order(signals: AsyncIterator[signal.Signals], ending: Ending) -> signal.Signals | None:
    """The first signal; None if the daemon has to end without one."""
    received: list[signal.Signals] = []
    async with anyio.create_task_group() as waiting:

        async def watch() -> None:
            await ending.begun.wait()
            waiting.cancel_scope.cancel()

        waiting.start_soon(watch)
        received.append(await anext(aiter(signals)))
        waiting.cancel_scope.cancel()
    return received[0] if received else None
