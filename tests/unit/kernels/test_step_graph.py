"""Graphed steps: once a phase captured, fresh latents in, a tensor of its own out, and a way back that is said once."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.kernels.step_graph import Capture, StepGraph, _side_stream, capture_cuda
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.models import painter as painting
from imgdiffd.models.loading import Models, load_models
from imgdiffd.models.painter import PairPrompt
from imgdiffd.pipeline import Role
from imgdiffd.worker.graph_checks import graph_steps
from tests.tiny.sdxl import IMAGE_PX


class Recorder:
    """Captures as CUDA does: nothing runs while recording; a replay runs what was recorded, on the same tensors."""

    def __init__(self, error: Exception | None = None) -> None:
        self.captures, self.replays, self.error = 0, 0, error

    def __call__(
        self, compute: Callable[[], tuple[Tensor, ...]], device: torch.device
    ) -> tuple[Callable[[], None], Sequence[Tensor]]:
        self.captures += 1
        if self.error is not None:
            raise self.error
        out: list[Tensor] = []

        def replay() -> None:
            self.replays += 1
            for place, result in enumerate(compute()):
                if len(out) == place:
                    out.append(result)
                else:
                    out[place].copy_(result)

        return replay, out


class Steps:
    """A step that counts its own runs, graphed."""

    def __init__(self, kinds: Sequence[object], error: Exception | None = None) -> None:
        self.calls, self.told, self.recorder = 0, list[str](), Recorder(error)
        kind = iter(kinds)
        self.graph = StepGraph("the painter", self.step, lambda: next(kind), self.recorder)
        self.graph.enable(self.told.append)

    def step(self, rows: Tensor, time: Tensor, *, text: Tensor, return_dict: bool) -> tuple[Tensor]:
        self.calls += 1
        return (rows * time + text,)

    @property
    def runs(self) -> int:
        return self.calls - self.recorder.replays

    @property
    def captures(self) -> int:
        return self.recorder.captures


TEXT = torch.tensor([7.0])


def step(steps: Steps, value: float, text: Tensor = TEXT, rows: int = 2) -> Tensor:
    return steps.graph(torch.full((rows,), value), torch.tensor(value), text=text, return_dict=False)[0]


def expected(value: float, text: Tensor = TEXT, rows: int = 2) -> Tensor:
    return torch.full((rows,), value * value) + text


def test_only_the_first_step_of_a_phase_is_not_a_replay() -> None:
    steps = Steps(["injected"] * 4 + ["free"] * 3)
    for value in range(7):
        assert torch.equal(step(steps, value), expected(value))
    assert (steps.runs, steps.captures) == (2, 2)


def test_a_steps_result_outlives_the_next_replay() -> None:
    steps = Steps(["free"] * 4)
    kept = [step(steps, value) for value in range(4)]
    assert all(torch.equal(each, expected(value)) for value, each in enumerate(kept))


def test_outside_of_a_pass_nothing_is_captured() -> None:
    steps = Steps([None] * 3)
    assert [step(steps, value).tolist() for value in range(3)] == [expected(value).tolist() for value in range(3)]
    assert (steps.runs, steps.captures) == (3, 0)


def test_other_tensors_or_another_shape_begin_a_phase() -> None:
    steps = Steps(["free"] * 6)
    other = torch.tensor([9.0])
    for value, (text, rows) in enumerate([(TEXT, 2), (TEXT, 2), (other, 2), (other, 2), (other, 3), (other, 3)]):
        assert torch.equal(step(steps, value, text, rows), expected(value, text, rows))
    assert (steps.runs, steps.captures) == (3, 3)


def test_nothing_is_captured_before_it_is_enabled() -> None:
    recorder = Recorder()
    graph = StepGraph("the painter", lambda rows: (rows + 1,), capture=recorder)
    for _ in range(3):
        graph(torch.ones(1))
    assert recorder.captures == 0


def test_a_pass_leaves_no_graph_behind_even_where_it_fails() -> None:
    steps = Steps(["free"] * 3)

    def broken_pass() -> None:
        with steps.graph.one_pass():
            step(steps, 1), step(steps, 2)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken_pass()
    step(steps, 3)
    assert (steps.runs, steps.captures) == (2, 1)


def test_a_forgotten_graph_is_captured_anew() -> None:
    steps = Steps(["free"] * 4)
    step(steps, 1), step(steps, 2)
    steps.graph.forget()
    step(steps, 3), step(steps, 4)
    assert (steps.runs, steps.captures) == (2, 2)


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted\nmore"), torch.OutOfMemoryError("full")])
def test_a_failing_capture_is_told_once_and_steps_run_as_before(error: Exception) -> None:
    steps = Steps(["free"] * 4, error)
    for value in range(4):
        assert torch.equal(step(steps, value), expected(value))
    assert (steps.runs, steps.captures) == (4, 1)
    assert steps.told == [f"the painter runs without CUDA graphs: {type(error).__name__}: {error}"]


class Cuda:
    """torch.cuda on a machine that has no card: the current stream, the allocator, and a graph that may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails_at: str) -> None:
        self.current = torch.device("cuda", 0), "the worker's own"
        self.recorded_on: list[object] = []
        self.underway: set[object] = set()
        self.in_use: set[object] = set()
        self.fails_at = fails_at
        for name in ("synchronize", "empty_cache"):
            monkeypatch.setattr(torch.cuda, name, lambda: None)
        monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _device=None: Stream(*self.current))
        monkeypatch.setattr(torch.cuda, "set_stream", self.use)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device=None: Stream(device, "a side stream"))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 7))
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda _, pool: self.in_use.remove(pool), raising=False)

    def use(self, stream: "Stream") -> None:
        self.current = stream.device, stream.name

    def capture_begin(self, pool: object, **_: object) -> None:
        self.recorded_on.append(self.current)
        self.underway.add(pool)
        self.in_use.add(pool)
        if self.fails_at == "begin":
            raise RuntimeError("operation not permitted when stream is capturing")

    def capture_end(self) -> None:
        if self.fails_at == "end":
            raise RuntimeError("operation failed due to a previous error during capture")
        self.end(0, (0, 7))

    def end(self, index: int, pool: object) -> None:
        if (index, pool) != (0, (0, 7)) or pool not in self.underway:
            raise RuntimeError("not currently recording to mempool_id")
        self.underway.remove(pool)

    def replay(self) -> None: ...


class Stream(NamedTuple):
    device: torch.device
    name: str


@pytest.mark.parametrize("fails_at", ["", "begin", "compute", "end"])
def test_a_capture_leaves_stream_and_allocator_as_they_were(monkeypatch: pytest.MonkeyPatch, fails_at: str) -> None:
    _side_stream.cache_clear()
    cuda, device = Cuda(monkeypatch, fails_at), torch.device("cuda", 0)
    before = cuda.current

    def compute() -> tuple[Tensor, ...]:
        assert cuda.current == (device, "a side stream")
        if fails_at == "compute":
            raise RuntimeError("operation not permitted")
        return ()

    with nullcontext() if not fails_at else pytest.raises(RuntimeError, match="operation"):
        capture_cuda(compute, device)
    _side_stream.cache_clear()
    assert cuda.current == before
    assert cuda.recorded_on == [(device, "a side stream")]
    assert cuda.underway == set()
    # A graph that ended its recording gives its pool back itself.
    assert cuda.in_use == (set() if fails_at in ("begin", "end") else {(0, 7)})


@pytest.fixture(scope="module")
def language_models(tiny_bundle: Path) -> Models:
    bundle = load_bundle(tiny_bundle)
    roles = [Role.REWRITER, Role.CAPTIONER, Role.PAINTER]
    return load_models(bundle, roles, torch.device("cpu"), lambda _: None, compile=False)


def recorded(graph: StepGraph) -> Recorder:
    """Has `graph` capture, as far as that is possible without CUDA."""
    recorder = Recorder()
    graph._capture = recorder
    graph.enable(pytest.fail)
    return recorder


def test_a_rewriter_with_replayed_steps_answers_the_same(language_models: Models) -> None:
    rewriter = language_models.need_rewriter
    rewrite = load_profile("default").rewrite.model_copy(update={"prompt": "{caption}", "max_new_tokens": 8})
    captions, seeds = ["a dog", "a cat on the grass", "a red ball " * 15, "sea", "on"], [1, 2, 3, 4, 5]
    wanted = rewriter.rewrite(captions, seeds, rewrite)
    recorder = recorded(rewriter._steps)
    assert rewriter.rewrite(captions, seeds, rewrite) == wanted
    assert 0 < recorder.captures < recorder.replays


def test_a_captioner_with_replayed_steps_answers_the_same(language_models: Models) -> None:
    captioner = language_models.need_captioner
    images = [torch.arange(3 * 32 * 32).remainder(number).to(torch.uint8).view(3, 32, 32) for number in (251, 97)]
    questions = [["what is this", "a dog ?", "in the region ?"], ["a cat on the grass ?"] * 7]
    wanted = captioner.answer(images, questions, 8)
    recorder = recorded(captioner._steps)
    assert captioner.answer(images, questions, 8) == wanted
    assert 0 < recorder.captures < recorder.replays


def test_a_painter_with_replayed_steps_paints_the_same(language_models: Models) -> None:
    painter = language_models.need_painter
    changes = {"picture_px": IMAGE_PX, "steps": 9, "cross_injection": 0.67, "self_injection": 0.34}
    generate = load_profile("default").generate.model_copy(update=changes)
    pairs = [PairPrompt("a red ball", "a blue ball", 1), PairPrompt("a cat on grass", "a dog on grass", 2)]
    wanted = painter.paint_pairs(pairs, generate)
    painter.graph_steps(pytest.fail)
    assert painter._step_graph is not None
    recorder = recorded(painter._step_graph)
    found = painter.paint_pairs(pairs, generate)
    painter.sdxl.unet.forward = painter._step_graph._step
    for (one, two), (first, second) in zip(found, wanted, strict=True):
        assert torch.equal(one, first)
        assert torch.equal(two, second)
    assert (recorder.captures, recorder.replays) == (6, 12)  # three phases a pass: one step each runs as ever


def stale(
    compute: Callable[[], tuple[Tensor, ...]], device: torch.device
) -> tuple[Callable[[], None], Sequence[Tensor]]:
    """A capture whose replays do not look at their arguments."""
    out = compute()
    return (lambda: None), tuple(torch.arange(each.numel()).view_as(each).to(each.dtype) for each in out)


def graphed(models: Models, capture: Capture, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """What `graph_steps` says and notes of `models` where steps are captured with `capture`."""
    said, noted = list[str](), list[str]()
    monkeypatch.setattr(painting, "StepGraph", partial(StepGraph, capture=capture))
    for model in (models.need_rewriter, models.need_captioner):
        monkeypatch.setattr(model._steps, "_capture", capture)
    unet = models.need_painter.sdxl.unet
    monkeypatch.setattr(unet, "forward", unet.forward)
    graph_steps(models, small_profile(), torch.device("cpu"), said.append, noted.append)
    return said, noted


def small_profile() -> Profile:
    profile = load_profile("default")
    return profile.model_copy(
        update={
            "rewrite": profile.rewrite.model_copy(update={"prompt": "{caption}"}),
            "generate": profile.generate.model_copy(update={"picture_px": IMAGE_PX}),
            "describe": profile.describe.model_copy(update={"prompt": "what is this"}),
        }
    )


def test_steps_whose_replays_agree_are_captured_from_then_on(
    language_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    said, noted = graphed(language_models, recorder, monkeypatch)
    assert noted == []
    assert said == [
        "capturing the steps of the rewriter (1 of 3)",
        "capturing the steps of the painter (2 of 3)",
        "capturing the steps of the captioner (3 of 3)",
    ]
    before = recorder.captures
    assert before > 3
    language_models.need_rewriter.rewrite(["a dog"], [1], small_profile().rewrite)
    assert recorder.captures > before


def test_steps_whose_replays_differ_run_uncaptured_and_noted(
    language_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite = small_profile().rewrite
    wanted = language_models.need_rewriter.rewrite(["a dog"], [1], rewrite)
    _, noted = graphed(language_models, stale, monkeypatch)
    assert noted == [
        f"the {role} runs without CUDA graphs: a replayed step gave another result than the step itself"
        for role in ("rewriter", "painter", "captioner")
    ]
    assert language_models.need_rewriter.rewrite(["a dog"], [1], rewrite) == wanted
