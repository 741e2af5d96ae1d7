"""Fused attention behind one function: through xformers or through torch's own, whichever is faster here."""

import functools
import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

logger = logging.getLogger(__name__)

Backend = Literal["xformers", "sdpa"]
AttentionChoice = Literal["auto", "xformers", "sdpa"]

_HOPPER = (9, 0)  # from here on torch has faster kernels than xformers
_TIMED = (2, 4096, 10, 64)  # batch, tokens, heads, dim of SDXL's largest layers: kernels outlast their launch
_ROUNDS = 10
_GAIN = 0.9  # of torch's time that xformers may take: what noise decides would differ from start to start

_chosen: AttentionChoice = "auto"
_note: Callable[[str], None] = logger.warning


def choose(backend: AttentionChoice, device: torch.device, note: Callable[[str], None] = logger.warning) -> None:
    """Sets the backend of this process, whose tensors are on `device`; "auto" chooses as `backend_for` says.

    `note` is told what "auto" found out. Raises RuntimeError with the reason where "xformers" is asked for by name and
    cannot run here.
    """
    global _chosen, _note  # one choice per process, made at its start
    if backend == "xformers":
        reason = _refusal(device, torch.float16) if device.type == "cuda" else "there is no CUDA device"
        if reason:
            raise _unfit(reason)
    _chosen, _note = backend, note


def _unfit(reason: str) -> RuntimeError:
    return RuntimeError(f"attention = xformers cannot run: {reason}; set it to auto")


def backend_for(device: torch.device, dtype: torch.dtype) -> Backend:
    """The backend for tensors of `dtype` on `device`.

    With "auto", half precision on a CUDA device older than Hopper goes through whichever of the two was faster in one
    timed call, noted once; everything else goes through `scaled_dot_product_attention`. Raises RuntimeError where
    xformers was chosen by name and does not serve these tensors.
    """
    if _chosen == "sdpa":
        return "sdpa"
    if _chosen == "auto":
        half_on_cuda = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
        if not half_on_cuda or torch.cuda.get_device_capability(device) >= _HOPPER:
            return "sdpa"
        return _faster(device, dtype)
    reason = _refusal(device, dtype) if device.type == "cuda" else f"it does not serve {device.type}"
    if reason:
        raise _unfit(reason)
    return "xformers"


@functools.cache
def _faster(device: torch.device, dtype: torch.dtype) -> Backend:
    if reason := _refusal(device, dtype):
        _note(f"attention goes through torch, since xformers fails: {reason}")
        return "sdpa"
    probe = torch.ones(*_TIMED, device=device, dtype=dtype).transpose(1, 2)
    ours, theirs = (
        _milliseconds(functools.partial(_through, backend, probe, probe, probe, None), device)
        for backend in ("xformers", "sdpa")
    )
    chosen: Backend = "xformers" if ours < _GAIN * theirs else "sdpa"
    _note(f"attention goes through {chosen}: xformers takes {ours:.2f} ms a call, sdpa {theirs:.2f} ms")
    return chosen


def _milliseconds(call: Callable[[], Tensor], device: torch.device) -> float:
    """The device's time for one call."""
    call()
    event: Any = torch.cuda.Event  # torch declares no types for it
    begun, ended = event(enable_timing=True), event(enable_timing=True)
    begun.record(torch.cuda.current_stream(device))
    for _ in range(_ROUNDS):
        call()
    ended.record(torch.cuda.current_stream(device))
    ended.synchronize()
    return float(begun.elapsed_time(ended)) / _ROUNDS


@functools.cache
def _refusal(device: torch.device, dtype: torch.dtype) -> str:
    """Why xformers does not serve tensors of `dtype` on `device`; empty where it does."""
    probe = torch.ones(1, 8, 1, _TIMED[-1], device=device, dtype=dtype)
    try:
        _xformers().memory_efficient_attention(probe, probe, probe)
    except (ImportError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


def _xformers() -> Any:
    from xformers import ops  # seconds to import, and only worth it on CUDA

    return ops


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """softmax(scale · q kᵀ) v, without ever storing the attention map.

    q is [batch, heads, queries, dim], k and v are [batch, heads, keys, dim], and the result is shaped as q is. `scale`
    is dim ** -0.5 unless given.
    """
    return _through(backend_for(q.device, q.dtype), q, k, v, scale)


def _through(backend: Backend, q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    if backend == "sdpa":
        return functional.scaled_dot_product_attention(q, k, v, scale=scale)
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    out: Tensor = _xformers().memory_efficient_attention(q, k, v, scale=scale)
    return out.transpose(1, 2)
