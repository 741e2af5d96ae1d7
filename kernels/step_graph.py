"""CUDA graphs of steps that repeat: captured once, replayed for all further steps of the same kind."""

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

Step = Callable[..., tuple[Tensor, ...]]
Capture = Callable[[Callable[[], tuple[Tensor, ...]], torch.device], tuple[Callable[[], None], Sequence[Tensor]]]


def capture_cuda(
    compute: Callable[[], tuple[Tensor, ...]], device: torch.device
) -> tuple[Callable[[], None], Sequence[Tensor]]:
    """Records what `compute` launches on `device`, without running it.

    Returns the replay and the tensors that it overwrites. A capture that fails leaves nothing behind: the stream that
    was current is current again, and the allocator gives back memory as before.
    """
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    current = torch.cuda.stream(torch.cuda.current_stream(device))  # torch's own way back is left out by a failure
    try:
        with current, torch.cuda.graph(graph, pool=pool, stream=_side_stream(device)):
            out = compute()
    except BaseException:
        _end_recording(device, pool)
        raise
    return graph.replay, out


def _end_recording(device: torch.device, pool: Any) -> None:
    """Tell the allocator that the capture is over, as torch does only where the capture itself ends well.

    For an allocator that knows of a capture under way, empty_cache() is an internal error, for ever.
    """
    with suppress(RuntimeError):  # of an allocator that knows of none: it had not begun, or has ended
        torch._C._cuda_endAllocateToPool(device.index, pool)
        torch._C._cuda_releasePool(device.index, pool)


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures, since cuBLAS keeps a workspace for each stream that it sees."""
    stream: Any = torch.cuda.Stream  # torch declares no types for it
    return cast(torch.cuda.Stream, stream(device))


def _one_kind() -> Hashable | None:
    return True


@dataclass(frozen=True, eq=False)
class _Captured:
    """A captured step: it reads its changing arguments from the tensors `given` and writes its results into `out`."""

    given: tuple[Tensor, ...]
    replay: Callable[[], None]
    out: Sequence[Tensor]


class StepGraph:
    """Stands in for a `step` on CUDA: the first call of a kind runs as usual, the second is captured, others replayed.

    Calls are of one kind while `kind` returns the same, the positional tensors keep their shapes and every other
    argument is the same object; a kind of None is never captured. Everything else that the step reads or writes must
    stay at its address, and what it changes it must change on the device, since a replay runs no Python. Nothing is
    captured before `enable`.
    """

    def __init__(
        self,
        what: str,
        step: Step,
        kind: Callable[[], Hashable | None] = _one_kind,
        capture: Capture = capture_cuda,
    ) -> None:
        self._what, self._step, self._kind, self._capture = what, step, kind, capture
        self._say: Callable[[str], None] | None = None
        self._key: tuple[object, ...] | None = None
        self._constant: dict[str, Any] = {}
        self._captured: _Captured | None = None

    def enable(self, say: Callable[[str], None]) -> None:
        """Captures steps from now on, until a capture fails; `say` then gets the reason.

        Running out of memory is such a failure too, since a graph keeps memory of its own.
        """
        self._say = say

    def disable(self) -> None:
        """Captures nothing from now on, and gives back the memory of what was captured."""
        self._say = None
        self.forget()

    def __call__(self, *changing: Tensor, **constant: Any) -> tuple[Tensor, ...]:
        """The step's results, in tensors that no later call overwrites."""
        kind = None if self._say is None else self._kind()
        if kind is None:
            self.forget()
            return self._step(*changing, **constant)
        key = (kind, *((each.shape, each.stride(), each.dtype, each.device) for each in changing))
        if key != self._key or not _same(constant, self._constant):
            self.forget()
            self._key, self._constant = key, constant
            return self._step(*changing, **constant)
        if self._captured is None:
            self._captured = self._capture_step(changing, constant)
        if self._captured is None:
            return self._step(*changing, **constant)
        for held, each in zip(self._captured.given, changing, strict=True):
            held.copy_(each)
        self._captured.replay()
        return tuple(each.clone() for each in self._captured.out)  # the next replay overwrites them

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """Forgets at its end what was captured inside the block."""
        try:
            yield
        finally:
            self.forget()

    def forget(self) -> None:
        """Gives back the graph's memory and the arguments held for it; the next call runs as usual."""
        self._key, self._constant, self._captured = None, {}, None

    def _capture_step(self, changing: tuple[Tensor, ...], constant: dict[str, Any]) -> _Captured | None:
        given = tuple(each.clone() for each in changing)
        try:
            replay, out = self._capture(lambda: self._step(*given, **constant), given[0].device)
        except RuntimeError as error:  # CUDA's errors and running out of memory are of this type
            say, self._say = self._say, None
            self.forget()
            if say is not None:
                say(f"{self._what} runs without CUDA graphs: {type(error).__name__}: {error}")
            return None
        return _Captured(given, replay, out)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(value is other[name] for name, value in one.items())
