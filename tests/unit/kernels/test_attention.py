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


@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_equals_softmax_of_the_scores_times_values(scale: float | None) -> None:
    q, k, v = draw(2, 3, 10, 16), draw(2, 3, 7, 16), draw(2, 3, 7, 16)
    torch.testing.assert_close(attention(q, k, v, scale), plain(q, k, v, scale), rtol=1e-5, atol=1e-6)


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


class Card:
    """A card that is not there: its compute capability, what xformers says to it, and the time of each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
        self.refusal = ""
        self.milliseconds = {"xformers": 0.5, "sdpa": 1.0}
        self.asked = 0
        self.notes: list[str] = []
        ones = torch.ones
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
        monkeypatch.setattr(torch, "ones", lambda *shape, device, dtype: ones(1).expand(*shape))
        monkeypatch.setattr(module, "_refusal", self.refuse)
        monkeypatch.setattr(module, "_milliseconds", self.time)
        choose("auto", CUDA, self.notes.append)

    def refuse(self, device: torch.device, dtype: torch.dtype) -> str:
        self.asked += 1
        return self.refusal

    def time(self, call: partial[Tensor], device: torch.device) -> float:
        assert device == CUDA
        assert {each.shape for each in call.args[1:4]} == {(2, 10, 4096, 64)}
        return self.milliseconds[call.args[0]]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("xformers", "sdpa", "chosen"), [(0.5, 1.0, "xformers"), (1.0, 0.5, "sdpa"), (0.92, 1.0, "sdpa")]
)
def test_the_faster_backend_serves_and_the_note_says_so(
    monkeypatch: pytest.MonkeyPatch, xformers: float, sdpa: float, chosen: str
) -> None:
    card = Card(monkeypatch, (8, 0))
    card.milliseconds = {"xformers": xformers, "sdpa": sdpa}
    assert [backend_for(CUDA, torch.float16) for _ in range(3)] == [chosen] * 3
    assert card.notes == [
        f"attention goes through {chosen}: xformers takes {xformers:.2f} ms a call, sdpa {sdpa:.2f} ms"
    ]
    assert backend_for(CUDA, torch.float32) == "sdpa"


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("capability", [(9, 0), (10, 0), (12, 1)])
def test_from_hopper_on_xformers_is_not_even_asked(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    card = Card(monkeypatch, capability)
    assert backend_for(CUDA, torch.float16) == "sdpa"
    assert (card.asked, card.notes) == (0, [])


@pytest.mark.usefixtures("fresh")
def test_a_broken_xformers_leaves_torch_to_serve_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, (8, 0))
    card.refusal = "No operator found"
    assert [backend_for(CUDA, torch.float16) for _ in range(3)] == ["sdpa"] * 3
    assert card.notes == ["attention goes through torch, since xformers fails: No operator found"]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("error", [ImportError("built for another torch"), OSError("libcudart.so.12"), ValueError()])
def test_xformers_is_tried_on_the_workers_own_card(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    tried: list[torch.device] = []
    monkeypatch.setattr(torch, "ones", lambda *_, device, dtype: tried.append(device))
    monkeypatch.setattr(module, "_xformers", lambda: (_ for _ in ()).throw(error))
    assert [module._refusal(CUDA, torch.float16) for _ in range(3)] == [str(error) or "ValueError"] * 3
    assert tried == [CUDA]


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
    assert [backend_for(CUDA, dtype) for dtype in (torch.float16, torch.float32)] == ["xformers"] * 2
    with pytest.raises(RuntimeError, match="does not serve cpu"):
        attention(draw(1, 1, 4, 8), draw(1, 1, 4, 8), draw(1, 1, 4, 8))
    choose("sdpa", CUDA)
    assert backend_for(CUDA, torch.bfloat16) == "sdpa"
    assert card.notes == []


@pytest.mark.usefixtures("fresh")
def test_xformers_gets_its_own_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    def xformers(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
        assert q.shape[2] == k.shape[2] == v.shape[2] == 3  # heads, behind the tokens
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        return plain(q, k, v, scale).transpose(1, 2)

    fake = types.SimpleNamespace(ops=types.SimpleNamespace(memory_efficient_attention=xformers))
    monkeypatch.setitem(sys.modules, "xformers", fake)
    monkeypatch.setattr(module, "backend_for", lambda *_: "xformers")
    q, k, v = draw(2, 3, 10, 16), draw(2, 3, 7, 16), draw(2, 3, 7, 16)
    torch.testing.assert_close(attention(q, k, v), plain(q, k, v), rtol=1e-5, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any tensor made inside it has."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple) else (result,):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return result


def test_no_attention_map_is_stored() -> None:
    q, k, v = draw(1, 2, 512, 16), draw(1, 2, 512, 16), draw(1, 2, 512, 16)
    with LargestTensor() as fused:
        attention(q, k, v)
    with LargestTensor() as unfused:
        plain(q, k, v)
    assert unfused.elements == 2 * 512 * 512
    assert fused.elements == 2 * 512 * 16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_both_backends_agree_on_cuda(dtype: torch.dtype) -> None:
    q, k, v = (draw(2, 3, tokens, 64).to(CUDA, dtype) for tokens in (50, 77, 77))
    choose("xformers", CUDA)
    through_xformers = attention(q, k, v)
    choose("sdpa", CUDA)
    torch.testing.assert_close(through_xformers, attention(q, k, v), rtol=2e-2, atol=2e-2)
