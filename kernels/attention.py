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
_DIM = 64  # of SDXL's heads; two values that share a softmax have twice that
_TIMED = (2, 10, 4096)  # batch, heads, tokens: enough for kernels to outlast their launch
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


def backend_for(device: torch.device, dtype: torch.dtype, wide: bool = False) -> Backend:
    """The backend for tensors of `dtype` on `device`; with `wide`, for values wider than queries and keys.

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
        return _faster(device, dtype)[wide]
    reason = _refusal(device, dtype) if device.type == "cuda" else f"it does not serve {device.type}"
    if reason:
        raise _unfit(reason)
    return "xformers"


@functools.cache
def _faster(device: torch.device, dtype: torch.dtype) -> tuple[Backend, Backend]:
    """What serves values as wide as the queries, and what serves wider ones."""
    if reason := _refusal(device, dtype):
        _note(f"attention goes through torch, since xformers fails: {reason}")
        return "sdpa", "sdpa"
    plain, told = _by_time(device, dtype, _DIM)
    if _refusal(device, dtype, 2 * _DIM):
        wide, told_wide = plain, "with padding"
    else:
        wide, told_wide = _by_time(device, dtype, 2 * _DIM)
    _note(f"attention goes through {plain} ({told}); with two values at once through {wide} ({told_wide})")
    return plain, wide


def _by_time(device: torch.device, dtype: torch.dtype, value_dim: int) -> tuple[Backend, str]:
    query, value = (torch.ones(*_TIMED, dim, device=device, dtype=dtype) for dim in (_DIM, value_dim))
    ours, theirs = (
        _milliseconds(functools.partial(_through, backend, query, query, value, _DIM**-0.5), device)
        for backend in ("xformers", "sdpa")
    )
    return "xformers" if ours < _GAIN * theirs else "sdpa", f"xformers {ours:.2f} ms a call, sdpa {theirs:.2f} ms"


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
def _refusal(device: torch.device, dtype: torch.dtype, value_dim: int = _DIM) -> str:
    """Why xformers does not take values of `value_dim` with queries and keys of 64 dims; empty where it does."""
    probe = torch.ones(1, 8, 1, _DIM, device=device, dtype=dtype)
    values = torch.ones(1, 8, 1, value_dim, device=device, dtype=dtype)
    try:
        _xformers().memory_efficient_attention(probe, probe, values)
    except (ImportError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


def _xformers() -> Any:
    from xformers import ops  # seconds to import, and only worth it on CUDA

    return ops


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """softmax(scale · q kᵀ) v, without ever storing the attention map.

    q is [batch, heads, queries, dim], k [batch, heads, keys, dim], v [batch, heads, keys, value dim]; the result is
    [batch, heads, queries, value dim]. `scale` is dim ** -0.5 unless given. xformers has a kernel for values wider than
    the queries (two values that share a softmax). Where that kernel refuses, and in torch's, which want one dim for all
    three, the narrower tensors are padded with zeros. That changes no product, and was faster than two calls (65 % of
    their time at 1,024 tokens of 64 dims on a CPU core) and than unfused attention.
    """
    backend = backend_for(q.device, q.dtype, v.shape[-1] != q.shape[-1])
    return _through(backend, q, k, v, q.shape[-1] ** -0.5 if scale is None else scale)


def _through(backend: Backend, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    value_dim = v.shape[-1]
    if value_dim != q.shape[-1] and (backend == "sdpa" or _refusal(q.device, q.dtype, 2 * _DIM)):
        wide = max(q.shape[-1], value_dim)
        q, k, v = (
            functional.pad(each, (0, wide - each.shape[-1])) if each.shape[-1] < wide else each for each in (q, k, v)
        )
    if backend == "xformers":
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        out: Tensor = _xformers().memory_efficient_attention(q, k, v, scale=scale).transpose(1, 2)
    else:
        out = functional.scaled_dot_product_attention(q, k, v, scale=scale)
    return out[..., :value_dim]
