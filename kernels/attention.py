"""Fused attention behind one function: xformers where it works, torch's own everywhere else.

It owns the choice of backend and the tensor layouts; it does not know what attends to what.
"""

import functools
import logging
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

logger = logging.getLogger(__name__)

Backend = Literal["xformers", "sdpa"]


@functools.cache
def backend_for(device_type: str, dtype: torch.dtype) -> Backend:
    """The backend for tensors on `device_type` ("cuda", "cpu") of `dtype`; tried once, then remembered.

    xformers serves half precision on CUDA, if it imports and one small call of it succeeds; whatever it fails with is
    logged once. All else goes through `scaled_dot_product_attention`.
    """
    if device_type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return "sdpa"
    probe = torch.ones(1, 8, 1, 64, device=device_type, dtype=dtype)
    try:
        _xformers().memory_efficient_attention(probe, probe, probe)
    except (ImportError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        logger.warning("attention goes through torch: xformers fails on %s %s: %s", device_type, dtype, error)
        return "sdpa"
    return "xformers"


def _xformers() -> Any:
    from xformers import ops  # seconds to import, and only worth it on CUDA

    return ops


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """softmax(scale · q kᵀ) v, without the map between them ever being stored.

    q is [batch, heads, queries, dim], k [batch, heads, keys, dim], v [batch, heads, keys, value dim]; the result is
    [batch, heads, queries, value dim]. `scale` is dim ** -0.5 unless given. The fused kernels want one dim for all
    three: where v is wider (two values that share a softmax), q and k are padded with zeros, which changes no product
    and was faster than two calls (65 % of their time at 1,024 tokens of 64 dims on a CPU core) or an unfused one.
    """
    if scale is None:
        scale = q.shape[-1] ** -0.5
    wide = max(q.shape[-1], v.shape[-1])
    value_dim = v.shape[-1]
    q, k, v = (
        functional.pad(each, (0, wide - each.shape[-1])) if each.shape[-1] < wide else each for each in (q, k, v)
    )
    if backend_for(q.device.type, q.dtype) == "xformers":
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        out: Tensor = _xformers().memory_efficient_attention(q, k, v, scale=scale).transpose(1, 2)
    else:
        out = functional.scaled_dot_product_attention(q, k, v, scale=scale)
    return out[..., :value_dim]
