"""The laws of the one attention function."""

import sys
import types
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from imgdiffd.kernels import attention as module
from imgdiffd.kernels.attention import attention, backend_for, choose


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


@pytest.fixture
def fresh() -> Iterator[None]:
    module._refusal.cache_clear()
    yield
    module.choose("auto")
    module._refusal.cache_clear()


class FakeXformers:
    """Stands for xformers on a CUDA device: takes CPU tensors in its layout, and wide values if asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wide: bool) -> None:
        self.dims: list[tuple[int, int]] = []
        self.wide = wide
        ones = torch.ones
        monkeypatch.setattr(torch, "ones", lambda *shape, **_: ones(*shape))
        ops = types.SimpleNamespace(memory_efficient_attention=self.memory_efficient_attention)
        monkeypatch.setitem(sys.modules, "xformers", types.SimpleNamespace(ops=ops))
        monkeypatch.setattr(module, "backend_for", lambda *_: "xformers")

    def memory_efficient_attention(self, q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
        if q.shape[-1] != v.shape[-1] and not self.wide:
            raise NotImplementedError("query.shape[-1] != value.shape[-1]")
        assert q.shape[2] == k.shape[2] == v.shape[2]  # heads, behind the tokens
        self.dims.append((q.shape[-1], v.shape[-1]))
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        return plain(q, k, v, scale).transpose(1, 2)


@pytest.mark.usefixtures("fresh")
def test_a_broken_xformers_falls_back_to_torch_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_xformers", lambda: (_ for _ in ()).throw(ImportError("built for another torch")))
    monkeypatch.setattr(torch, "ones", lambda *_, **__: None)
    assert [backend_for("cuda", torch.float16) for _ in range(3)] == ["sdpa"] * 3
    assert caplog.text.count("built for another torch") == 1


@pytest.mark.usefixtures("fresh")
def test_xformers_by_name_is_an_error_where_it_cannot_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="there is no CUDA device"):
        choose("xformers")
    assert backend_for("cpu", torch.float32) == "sdpa"  # and nothing was chosen
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: None)
    monkeypatch.setattr(module, "_xformers", lambda: (_ for _ in ()).throw(ImportError("built for another torch")))
    with pytest.raises(RuntimeError, match="built for another torch"):
        choose("xformers")


@pytest.mark.usefixtures("fresh")
def test_a_choice_holds_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "_refusal", lambda *_: "")
    assert backend_for("cuda", torch.bfloat16) == "xformers"
    assert backend_for("cuda", torch.float32) == "sdpa"
    choose("xformers")
    assert backend_for("cuda", torch.float32) == "xformers"
    with pytest.raises(RuntimeError, match="does not serve cpu"):
        attention(draw(1, 1, 4, 8), draw(1, 1, 4, 8), draw(1, 1, 4, 8))
    choose("sdpa")
    assert backend_for("cuda", torch.bfloat16) == "sdpa"
    monkeypatch.undo()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("value_dim", [8, 16, 32])
@pytest.mark.parametrize("wide", [True, False], ids=["wide values taken", "refused"])
def test_xformers_gets_its_layout_and_padding_where_needed(
    monkeypatch: pytest.MonkeyPatch, value_dim: int, wide: bool
) -> None:
    q, k, v = draw(2, 3, 10, 16), draw(2, 3, 7, 16), draw(2, 3, 7, value_dim)
    wanted = plain(q, k, v)
    fake = FakeXformers(monkeypatch, wide)
    torch.testing.assert_close(attention(q, k, v), wanted, rtol=1e-5, atol=1e-6)
    assert fake.dims[-1] == ((16, value_dim) if wide else (max(16, value_dim),) * 2)


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


@pytest.fixture
def chosen() -> Iterator[None]:
    yield
    module.choose("auto")


@pytest.mark.usefixtures("chosen")
def test_sdpa_by_name_is_taken_where_auto_would_try_xformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_xformers", lambda: pytest.fail("xformers was tried"))
    module.choose("sdpa")
    assert backend_for("cuda", torch.float16) == "sdpa"
