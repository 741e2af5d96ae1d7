"""The laws of the one attention function."""

import sys
import types
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from imgdiffd.kernels import attention as module
from imgdiffd.kernels.attention import attention, backend_for, choose

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


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
    assert backend_for(CPU, torch.float16) == "sdpa"
    assert backend_for(CPU, torch.float32) == "sdpa"


@pytest.fixture
def fresh() -> Iterator[None]:
    module._refusal.cache_clear()
    module._faster.cache_clear()
    yield
    module.choose("auto", CPU)
    module._refusal.cache_clear()
    module._faster.cache_clear()


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


class Card:
    """A card that is not there: its compute capability, what xformers refuses on it, and the time of each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
        self.refused: dict[int, str] = {}
        self.milliseconds = {"xformers": {64: 0.5, 128: 0.5}, "sdpa": {64: 1.0, 128: 1.0}}
        self.asked: list[int] = []
        self.notes: list[str] = []
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
        monkeypatch.setattr(torch, "ones", lambda *shape, device, dtype: torch.zeros(*shape[:1], 1, 1, shape[-1]))
        monkeypatch.setattr(module, "_refusal", self.refuse)
        monkeypatch.setattr(module, "_milliseconds", self.time)
        choose("auto", CUDA, self.notes.append)

    def refuse(self, device: torch.device, dtype: torch.dtype, value_dim: int = 64) -> str:
        self.asked.append(value_dim)
        return self.refused.get(value_dim, "")

    def time(self, call: partial[Tensor], device: torch.device) -> float:
        assert device == CUDA
        return self.milliseconds[call.args[0]][call.args[3].shape[-1]]

    def backends(self, dtype: torch.dtype = torch.float16) -> tuple[str, str]:
        """What serves values as wide as the queries, and wider ones."""
        return backend_for(CUDA, dtype), backend_for(CUDA, dtype, True)


@pytest.mark.usefixtures("fresh")
def test_the_faster_backend_serves_each_kind_of_value(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, (8, 0))
    card.milliseconds["sdpa"][64] = 0.4
    assert [card.backends() for _ in range(3)] == [("sdpa", "xformers")] * 3
    assert card.notes == [
        "attention goes through sdpa (xformers 0.50 ms a call, sdpa 0.40 ms); "
        "with two values at once through xformers (xformers 0.50 ms a call, sdpa 1.00 ms)"
    ]
    assert card.backends(torch.float32) == ("sdpa", "sdpa")


@pytest.mark.usefixtures("fresh")
def test_what_noise_could_decide_goes_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, (8, 6))
    card.milliseconds["xformers"] = {64: 0.92, 128: 0.88}
    assert card.backends() == ("sdpa", "xformers")


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("capability", [(9, 0), (10, 0), (12, 1)])
def test_from_hopper_on_xformers_is_not_even_asked(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    card = Card(monkeypatch, capability)
    assert card.backends() == ("sdpa", "sdpa")
    assert (card.asked, card.notes) == ([], [])


@pytest.mark.usefixtures("fresh")
def test_a_broken_xformers_leaves_torch_to_serve_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, (8, 0))
    card.refused = dict.fromkeys((64, 128), "No operator found")
    assert [card.backends() for _ in range(3)] == [("sdpa", "sdpa")] * 3
    assert card.notes == ["attention goes through torch, since xformers fails: No operator found"]


@pytest.mark.usefixtures("fresh")
def test_without_its_kernel_for_wide_values_xformers_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, (8, 0))
    card.refused = {128: "dim > 64"}
    assert card.backends() == ("xformers", "xformers")
    assert card.notes[0].endswith("with two values at once through xformers (with padding)")


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("error", [ImportError("built for another torch"), OSError("libcudart.so.12"), ValueError()])
def test_xformers_is_tried_on_the_workers_own_card(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    tried: list[torch.device] = []
    monkeypatch.setattr(torch, "ones", lambda *_, device, dtype: tried.append(device))
    monkeypatch.setattr(module, "_xformers", lambda: (_ for _ in ()).throw(error))
    assert [module._refusal(CUDA, torch.float16) for _ in range(3)] == [str(error) or "ValueError"] * 3
    assert tried == [CUDA, CUDA]


@pytest.mark.usefixtures("fresh")
def test_xformers_by_name_is_an_error_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="there is no CUDA device"):
        choose("xformers", CPU)
    assert backend_for(CPU, torch.float32) == "sdpa"  # and nothing was chosen
    monkeypatch.setattr(torch, "ones", lambda *_, **__: None)
    monkeypatch.setattr(module, "_xformers", lambda: (_ for _ in ()).throw(ImportError("built for another torch")))
    with pytest.raises(RuntimeError, match="built for another torch"):
        choose("xformers", CUDA)


@pytest.mark.usefixtures("fresh")
def test_a_choice_by_name_holds_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, (9, 0))
    choose("xformers", CUDA)
    assert (card.backends(), card.backends(torch.float32)) == (("xformers", "xformers"),) * 2
    with pytest.raises(RuntimeError, match="does not serve cpu"):
        attention(draw(1, 1, 4, 8), draw(1, 1, 4, 8), draw(1, 1, 4, 8))
    choose("sdpa", CUDA)
    assert card.backends(torch.bfloat16) == ("sdpa", "sdpa")
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
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_both_backends_agree_on_cuda(dtype: torch.dtype) -> None:
    q, k, v = (draw(2, 3, 64, dim).to(CUDA, dtype) for dim in (64, 64, 128))
    choose("xformers", CUDA)
    through_xformers = attention(q, k, v)
    choose("sdpa", CUDA)
    torch.testing.assert_close(through_xformers, attention(q, k, v), rtol=2e-2, atol=2e-2)
