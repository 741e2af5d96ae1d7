"""An asyncio event loop whose clock jumps to the next timer, and whose order of ready callbacks a seed can shuffle.

Hours of scheduling take seconds, and an order that fails can be replayed.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from selectors import SelectorKey, SelectSelector
from typing import TypeVar

import anyio

T = TypeVar("T")

MOST_TURNS = 100_000  # of the loop at one moment: far above what hundreds of tasks need to settle


class StuckError(RuntimeError):
    """The run has no end: every task waits and no timer is set, or tasks keep waking each other at one moment."""


class _JumpingSelector(SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if timeout is None:
            raise StuckError(f"after {self.now_s} s every task waits and no timer is set")
        self.now_s += max(timeout, 0.0)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop without input and output: when nothing is ready, its clock jumps to the next timer.

    With a `seed`, the callbacks that are ready at the same moment run in an order drawn from it.
    """

    _ready: deque[asyncio.Handle]  # asyncio's own name: the shuffle below needs it

    def __init__(self, seed: int | None = None) -> None:
        self._jumping = _JumpingSelector()
        self._random = None if seed is None else random.Random(seed)
        self._moment_s = 0.0
        self._turns = 0
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now_s

    def _run_once(self) -> None:
        if self._jumping.now_s > self._moment_s:
            self._moment_s, self._turns = self._jumping.now_s, 0
        self._turns += 1
        if self._turns > MOST_TURNS:
            self._turns = 0  # the tasks are cancelled now, which takes turns too
            raise StuckError(f"at {self._moment_s} s the loop spins: {MOST_TURNS:,} turns and no time has passed")
        if self._random and len(self._ready) > 1:
            mixed = list(self._ready)
            self._random.shuffle(mixed)
            self._ready.clear()
            self._ready.extend(mixed)
        super()._run_once()  # type: ignore[misc]


def run_virtual(main: Callable[[], Awaitable[T]], *, seed: int | None = None) -> T:
    """Run `main` to its end on virtual time and return its result. Raises StuckError where it can never end."""
    options: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {"loop_factory": lambda: VirtualTimeLoop(seed)}
    return anyio.run(main, backend="asyncio", backend_options=dict(options))
