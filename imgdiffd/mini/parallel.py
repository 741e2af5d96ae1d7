"""Data-parallel training on CPU cores: one-thread processes with averaged gradients, on a wall-clock schedule.

One-thread processes suffer far less than OpenMP threads where cores are shared.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn


def run_processes(work: Callable[..., None], processes: int, *args: Any) -> None:
    """Run `work(rank, *args)` in one-thread processes that can average their gradients; raise if one fails."""
    with tempfile.TemporaryDirectory() as folder:
        given = (work, processes, f"file://{folder}/rendezvous", args)
        spawn(_enter, given, nprocs=processes)  # type: ignore[no-untyped-call]


def _enter(rank: int, work: Callable[..., None], processes: int, rendezvous: str, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dist.init_process_group(
        "gloo", init_method=rendezvous, rank=rank, world_size=processes, timeout=timedelta(minutes=30)
    )
    try:
        work(rank, *args)
    finally:
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes, in one exchange."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


@dataclass
class WallClock:
    """How much of a time budget is spent, equal in all processes; a resumed run continues where it stopped."""

    budget_s: float
    spent_s: float = 0.0
    _last: float = field(default_factory=time.monotonic)

    def advance(self) -> float:
        """Count the time since the last call (process 0's clock decides) and return the fraction spent, at most 1."""
        now = time.monotonic()
        spent = torch.tensor([self.spent_s + now - self._last], dtype=torch.float64)
        dist.broadcast(spent, 0)
        self.spent_s, self._last = float(spent), now
        return min(1.0, self.spent_s / self.budget_s)


def cosine_rate(peak: float, fraction: float, step: int, *, warm_up: int, floor: float = 0.01) -> float:
    """The learning rate at a fraction of the schedule: linear warm-up by steps, then half a cosine down to a floor."""
    return peak * min(1.0, (step + 1) / warm_up) * max(floor, 0.5 * (1 + math.cos(math.pi * fraction)))


class MovingAverage:
    """An exponential moving average of a module's parameters, with a short memory while training is young."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move every floating-point value towards the module's."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, weight)
