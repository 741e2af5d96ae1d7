"""Paired measurements: the time, memory and FLOPs of two ways to compute the same, taken in turns in one run."""

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.autograd.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

Work = Callable[[], object]

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler looks for a GPU, and complains where there is none


@dataclass(frozen=True, slots=True)
class Ratio:
    """How `ours` compares with `theirs`: below 1 is faster, or less work, or less memory; None where not looked at.

    `seconds`, `flops` and `peak` (bytes beyond what was there before) are ours / theirs. `rate` is what both do a
    second, ours first. The target holds for time and FLOPs.
    """

    what: str
    seconds: float
    flops: float | None = None
    peak: float | None = None
    rate: tuple[float, float] | None = None
    target: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether time and FLOPs are within the target; None without one."""
        return None if self.target is None else max(self.seconds, self.flops or 0.0) <= self.target


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; with a target, it must not be below it, or not above it where `at_most`."""

    what: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(work: Work) -> float:
    """Wall time of one call, the device waited for."""
    _wait()
    began = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - began


def median_seconds(work: Work, rounds: int = 3) -> float:
    """The median of `rounds` calls, after one that is not counted: first calls allocate and choose kernels."""
    work()
    return statistics.median(seconds_of(work) for _ in range(rounds))


def _attention_flops(q: torch.Size, k: torch.Size, v: torch.Size, *_: object, **__: object) -> int:
    return 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


# torch knows the operations of every fused attention but the CPU's.
_UNKNOWN_TO_TORCH = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def flops_of(work: Work) -> int:
    """Floating-point operations of one call, but for those inside xformers."""
    with FlopCounterMode(display=False, custom_mapping=_UNKNOWN_TO_TORCH) as counter:
        work()
    return int(counter.get_total_flops())


def peak_bytes(work: Work, device: torch.device) -> int:
    """The most memory of `device` that one call holds at a time, beside what was held before it."""
    if device.type == "cuda":
        _wait()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        _wait()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(profile_memory=True) as seen:  # type: ignore[no-untyped-call]
        work()
    events = seen.kineto_results.events()
    held = most = 0
    for _, taken in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        held += taken
        most = max(most, held)
    return most


def compare(
    what: str,
    ours: Work,
    theirs: Work,
    *,
    rounds: int = 7,
    flops: Callable[[Work], int] | None = None,
    peak: torch.device | None = None,
    items: int | None = None,
    target: float | None = None,
) -> Ratio:
    """The best of `rounds` of either, measured in turns: what else the machine does only ever adds to a time.

    `flops` counts the operations of either; `peak` is the device whose memory is compared, `items` what a call does,
    for the rate.
    """
    ours(), theirs()  # first calls allocate and choose kernels
    own, other = math.inf, math.inf
    for turn in range(rounds):
        for is_own in (turn % 2 == 0, turn % 2 == 1):
            seconds = seconds_of(ours if is_own else theirs)
            own, other = (min(own, seconds), other) if is_own else (own, min(other, seconds))
    return Ratio(
        what,
        own / other,
        flops(ours) / flops(theirs) if flops else None,
        peak_bytes(ours, peak) / peak_bytes(theirs, peak) if peak else None,
        (items / own, items / other) if items else None,
        target,
    )
