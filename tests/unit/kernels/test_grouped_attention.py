"""Grouped masked attention against its written-out form, for any number of heads a group."""

import pytest
import torch

from imgdiffd.kernels.grouped_attention import grouped_attention


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (6, 2), (4, 1)])
@pytest.mark.parametrize("queries", [1, 5])
def test_grouped_attention_is_softmax_over_the_groups_seen_keys(heads: int, key_heads: int, queries: int) -> None:
    noise = torch.Generator().manual_seed(heads * 10 + key_heads)
    q = torch.randn(2, heads, queries, 8, generator=noise)
    k, v = (torch.randn(2, key_heads, 7, dim, generator=noise) for dim in (8, 8))
    mask = torch.rand(2, 1, queries, 7, generator=noise) > 0.4
    mask[..., 3] = True
    found = grouped_attention(q, k, v, mask, 0.3)
    group = heads // key_heads
    scores = q @ k.repeat_interleave(group, 1).transpose(2, 3) * 0.3
    expected = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v.repeat_interleave(group, 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_scale_is_that_of_the_dim_unless_given() -> None:
    q, k, v = (torch.randn(1, 2, 3, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3))
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    torch.testing.assert_close(grouped_attention(q, k, v, mask), grouped_attention(q, k, v, mask, 0.25))
