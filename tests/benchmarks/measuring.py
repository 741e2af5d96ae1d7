"""Paired measurements: two ways of doing one thing, in turns, in one run.

It owns clocks and FLOP counts; it does not know what is measured.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How `ours` compares with `theirs`: below 1 is faster, or less work. `flops` is None if not counted."""

    what: str
    seconds: float
    flops: float | None
    target: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether time and FLOPs are within the target; None without one."""
        return None if self.target is None else max(self.seconds, self.flops or 0.0) <= self.target


def seconds_of(work: Work) -> float:
    """Wall time of one call, the device waited for."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def flops_of(work: Work) -> int:
    """Floating-point operations of one call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def compare(
    what: str, ours: Work, theirs: Work, *, rounds: int = 7, count: bool = True, target: float | None = None
) -> Ratio:
    """The median over `rounds` of ours / theirs, each pair measured one right after the other, in alternating order."""
    ours(), theirs()  # first calls allocate and choose kernels
    ratios = []
    for turn in range(rounds):
        order = (ours, theirs) if turn % 2 else (theirs, ours)
        first, second = (seconds_of(work) for work in order)
        ratios.append(first / second if turn % 2 else second / first)
    flops = flops_of(ours) / flops_of(theirs) if count else None
    return Ratio(what, statistics.median(ratios), flops, target)
