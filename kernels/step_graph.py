"""CUDA graphs of a denoising step: captured once a phase, replayed for its other steps.

It owns capture, static inputs and the way back; it does not know what a step computes nor what divides the phases.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]


def capture_cuda(compute: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Records what `compute` launches, without running it: the replay, and the tensor that each replay overwrites."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = compute()
    return graph.replay, out


@dataclass(frozen=True, eq=False)
class _Captured:
    """`rows` and `time` are what the graph reads, `out` what it writes."""

    rows: Tensor
    time: Tensor
    replay: Callable[[], None]
    out: Tensor


class StepGraph:
    """Stands in for a UNet's forward, on CUDA: the first call of a phase runs as ever, the second one is captured.

    `phase` names the step in hand by everything but the latents and the time; None is never captured. Every other
    tensor that the step reads must stay where it is while the phase lasts. A capture that fails is not tried again, and
    `say` gets the reason; torch's OutOfMemoryError is such a failure, since a graph keeps memory of its own.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        phase: Callable[[], Hashable | None],
        say: Callable[[str], None],
        capture: Capture = capture_cuda,
    ) -> None:
        self._forward, self._phase, self._say, self._capture = forward, phase, say, capture
        self._key: tuple[Any, ...] | None = None
        self._captured: _Captured | None = None
        self._failed = False

    def __call__(self, rows: Tensor, time: Tensor, **constant: Any) -> tuple[Tensor, ...]:
        """What the forward gives for `rows` at `time`, in a tensor of its own. `constant` are the same all through."""
        phase = None if self._failed else self._phase()
        if phase is None:
            self.forget()
            return self._run(rows, time, constant)
        key = (phase, rows.shape, rows.dtype, rows.stride(), *((name, id(value)) for name, value in constant.items()))
        if key != self._key:
            self.forget()
            self._key = key
            return self._run(rows, time, constant)
        if self._captured is None:
            self._captured = self._capture_step(rows, time, constant)
        if self._captured is None:
            return self._run(rows, time, constant)
        self._captured.rows.copy_(rows)
        self._captured.time.copy_(time)
        self._captured.replay()
        return (self._captured.out.clone(),)  # the next replay overwrites it

    def forget(self) -> None:
        """Gives the graph's memory back; the next call begins a phase."""
        self._key = self._captured = None

    def _run(self, rows: Tensor, time: Tensor, constant: dict[str, Any]) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = self._forward(rows, time, **constant)
        return out

    def _capture_step(self, rows: Tensor, time: Tensor, constant: dict[str, Any]) -> _Captured | None:
        held_rows, held_time = rows.clone(), time.clone()
        try:
            replay, out = self._capture(lambda: self._run(held_rows, held_time, constant)[0])
        except RuntimeError as error:  # CUDA's errors and running out of memory are of this type
            self._failed = True
            self.forget()
            reason = str(error).strip().splitlines()
            self._say(f"the painter's steps run without CUDA graphs: {reason[0] if reason else type(error).__name__}")
            return None
        return _Captured(held_rows, held_time, replay, out)
