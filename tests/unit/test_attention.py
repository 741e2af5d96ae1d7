"""The laws of the one attention function."""

import sys
import types

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from imgdiffd.kernels import attention as module
from imgdiffd.kernels.attention import attention, backend_for


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def plain(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("value_dim", [8, 16, 24])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_equals_softmax_of_the_scores_times_values(value_dim: int, scale: float | None) -> None:
    q, k, v = draw(2, 3, 10, 16), draw(2, 3, 7, 16), draw(2, 3, 7, value_dim)
    torch.testing.assert_close(attention(q, k, v, scale), plain(q, k, v, scale), rtol=1e-5, atol=1e-6)


def test_two_values_joined_share_one_softmax() -> None:
    q, k, one, other = (draw(2, 3, 9, 16) + shift for shift in range(4))
    joined = attention(q, k, torch.cat([one, other], -1))
    torch.testing.assert_close(joined, torch.cat([attention(q, k, one), attention(q, k, other)], -1))


def test_half_precision_off_cuda_goes_through_torch() -> None:
    assert backend_for("cpu", torch.float16) == "sdpa"
    assert backend_for("cpu", torch.float32) == "sdpa"


def test_a_broken_xformers_falls_back_to_torch_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_xformers", lambda: (_ for _ in ()).throw(ImportError("built for another torch")))
    monkeypatch.setattr(torch, "ones", lambda *_, **__: None)
    assert backend_for.__wrapped__("cuda", torch.float16) == "sdpa"
    assert "built for another torch" in caplog.text


@pytest.mark.parametrize("value_dim", [16, 32])
def test_xformers_gets_its_own_layout(monkeypatch: pytest.MonkeyPatch, value_dim: int) -> None:
    q, k, v = draw(2, 3, 10, 16), draw(2, 3, 7, 16), draw(2, 3, 7, value_dim)
    wanted = plain(q, k, v)

    def memory_efficient_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        assert q.shape[:3] == (2, 10, 3)  # batch, tokens, heads
        assert q.shape[-1] == k.shape[-1] == v.shape[-1]
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        return plain(q, k, v, scale).transpose(1, 2)

    ops = types.SimpleNamespace(memory_efficient_attention=memory_efficient_attention)
    monkeypatch.setitem(sys.modules, "xformers", types.SimpleNamespace(ops=ops))
    monkeypatch.setattr(module, "backend_for", lambda *_: "xformers")
    torch.testing.assert_close(attention(q, k, v), wanted, rtol=1e-5, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any tensor made inside it has."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple) else (result,):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return result


@pytest.mark.parametrize("value_dim", [16, 32])
def test_no_attention_map_is_stored(value_dim: int) -> None:
    q, k, v = draw(1, 2, 512, 16), draw(1, 2, 512, 16), draw(1, 2, 512, value_dim)
    with LargestTensor() as fused:
        attention(q, k, v)
    with LargestTensor() as unfused:
        plain(q, k, v)
    assert unfused.elements == 2 * 512 * 512
    assert fused.elements == 2 * 512 * value_dim


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_both_backends_agree_on_cuda(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    q, k, v = (draw(2, 3, 64, dim).to("cuda", dtype) for dim in (64, 64, 128))
    through_xformers = attention(q, k, v)
    assert backend_for("cuda", dtype) == "xformers"
    monkeypatch.setattr(module, "backend_for", lambda *_: "sdpa")
    torch.testing.assert_close(through_xformers, attention(q, k, v), rtol=2e-2, atol=2e-2)
