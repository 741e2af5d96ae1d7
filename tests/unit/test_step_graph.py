"""Graphed steps: once a phase captured, fresh latents in, a tensor of its own out, and a way back that is said once."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from imgdiffd.kernels.step_graph import StepGraph


class Steps:
    """A forward that counts its runs, and a capture that records it as CUDA does: replays read and write in place."""

    def __init__(self, phases: Sequence[object], error: Exception | None = None) -> None:
        self.runs, self.captures, self.told = 0, 0, list[str]()
        self.phases, self.error = iter(phases), error
        self.graph = StepGraph(self.forward, lambda: next(self.phases), self.told.append, self.capture)

    def forward(self, rows: Tensor, time: Tensor, *, text: Tensor, return_dict: bool) -> tuple[Tensor]:
        self.runs += 1
        return (rows * time + text,)

    def capture(self, compute: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.captures += 1
        if self.error is not None:
            raise self.error
        out = compute()
        self.runs -= 1  # recorded, not run

        def replay() -> None:
            out.copy_(compute())
            self.runs -= 1

        return replay, out


TEXT = torch.tensor([7.0])


def step(steps: Steps, value: float, text: Tensor = TEXT, rows: int = 2) -> Tensor:
    out: Any = steps.graph(torch.full((rows,), value), torch.tensor(value), text=text, return_dict=False)
    return out[0]  # type: ignore[no-any-return]


def expected(value: float, text: Tensor = TEXT, rows: int = 2) -> Tensor:
    return torch.full((rows,), value * value) + text


def test_the_first_step_of_a_phase_runs_and_the_others_are_replays_of_one_capture() -> None:
    steps = Steps(["injected"] * 4 + ["free"] * 3)
    for value in range(7):
        assert torch.equal(step(steps, value), expected(value))
    assert (steps.runs, steps.captures) == (2, 2)


def test_a_step_s_result_outlives_the_next_replay() -> None:
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
    assert steps.told == [f"the painter's steps run without CUDA graphs: {str(error).splitlines()[0]}"]
