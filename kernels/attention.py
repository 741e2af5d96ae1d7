"""Fused attention behind one function: xformers where it works, torch's own everywhere else."""

import functools
import logging
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

logger = logging.getLogger(__name__)

Backend = Literal["xformers", "sdpa"]
AttentionChoice = Literal["auto", "xformers", "sdpa"]

_chosen: AttentionChoice = "auto"


def choose(backend: AttentionChoice) -> None:
    """Sets the backend of this process; "auto" chooses by device and dtype, as `backend_for` says.

    Raises RuntimeError with the reason where "xformers" is asked for by name and cannot run here.
    """
    global _chosen  # noqa: PLW0603 one choice per process, made at its start
    if backend == "xformers":
        reason = _refusal("cuda", torch.float16) if torch.cuda.is_available() else "there is no CUDA device"
        if reason:
            raise _unfit(reason)
    _chosen = backend


def _unfit(reason: str) -> RuntimeError:
    return RuntimeError(f"attention = xformers cannot run: {reason}; set it to auto")


def backend_for(device_type: str, dtype: torch.dtype) -> Backend:
    """The backend for tensors of `dtype` on `device_type` ("cuda", "cpu"); tried once, then remembered.

    With "auto", xformers serves half precision on CUDA if it imports and a small call of it succeeds; a failure is
    logged once, and everything else goes through `scaled_dot_product_attention`. Raises RuntimeError where xformers
    was chosen by name and does not serve these tensors.
    """
    if _chosen == "sdpa":
        return "sdpa"
    if _chosen == "auto":
        half_on_cuda = device_type == "cuda" and dtype in (torch.float16, torch.bfloat16)
        return "xformers" if half_on_cuda and not _refusal(device_type, dtype) else "sdpa"
    reason = _refusal(device_type, dtype) if device_type == "cuda" else f"it does not serve {device_type}"
    if reason:
        raise _unfit(reason)
    return "xformers"


@functools.cache
def _refusal(device_type: str, dtype: torch.dtype, value_dim: int = 64) -> str:
    """Why xformers does not take values of `value_dim` with queries and keys of 64 dims; empty where it does."""
    probe = torch.ones(1, 8, 1, 64, device=device_type, dtype=dtype)
    values = torch.ones(1, 8, 1, value_dim, device=device_type, dtype=dtype)
    try:
        _xformers().memory_efficient_attention(probe, probe, values)
    except (ImportError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        way = "attention goes through torch" if value_dim == 64 else "queries and keys are padded"
        logger.warning("%s: xformers fails on %s %s: %s", way, device_type, dtype, error)
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
    if scale is None:
        scale = q.shape[-1] ** -0.5
    value_dim = v.shape[-1]
    through_xformers = backend_for(q.device.type, q.dtype) == "xformers"
    if value_dim != q.shape[-1] and not (through_xformers and not _refusal(q.device.type, q.dtype, 128)):
        wide = max(q.shape[-1], value_dim)
        q, k, v = (
            functional.pad(each, (0, wide - each.shape[-1])) if each.shape[-1] < wide else each for each in (q, k, v)
        )
    if through_xformers:
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        out: Tensor = _xformers().memory_efficient_attention(q, k, v, scale=scale).transpose(1, 2)
    else:
        out = functional.scaled_dot_product_attention(q, k, v, scale=scale)
    return out[..., :value_dim]
