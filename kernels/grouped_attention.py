"""Masked attention in which several query heads read the same key head, without repeating keys or values."""

from torch import Tensor
from torch.nn import functional


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float | None = None) -> Tensor:
    """softmax(scale · q kᵀ) v over the keys that `mask` lets each query see, fused.

    q is [batch, heads, queries, dim], k [batch, key heads, keys, dim], v [batch, key heads, keys, value dim], `mask`
    boolean [batch, 1, queries, keys], True where a query sees a key; each query must see one. Query head h reads key
    head h // (heads / key heads). `scale` is dim ** -0.5 unless given. The result is [batch, heads, queries, value
    dim].

    torch's own grouped attention takes no mask in its fused kernels on CUDA. Here the heads of a group become further
    queries of their key head, so that no key or value is copied and each is read once.
    """
    batch, heads, queries, dim = q.shape
    key_heads = k.shape[1]
    group = heads // key_heads
    if group > 1:
        q, mask = q.reshape(batch, key_heads, group * queries, dim), mask.repeat(1, 1, group, 1)
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.reshape(batch, heads, queries, v.shape[-1])
