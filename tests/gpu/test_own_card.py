"""A worker's process on CUDA: it sees the one card that the daemon chose for it."""

import os
import subprocess
import sys

import pytest
import torch

from imgdiffd.fleet.cards import VISIBLE, resolve_devices
from imgdiffd.kernels.step_graph import StepGraph

SEEN = "import torch; print(torch.cuda.device_count(), torch.cuda.get_device_properties(0).uuid)"


def test_each_card_is_the_only_one_that_its_worker_sees() -> None:
    found = resolve_devices(["auto"]).places
    assert len(found) >= torch.cuda.device_count()  # MIG: CUDA shows one instance to a process
    for name, place in found.items():
        told = subprocess.run(
            [sys.executable, "-c", SEEN], env={**os.environ, VISIBLE: place}, check=True, capture_output=True, text=True
        )
        count, uuid = told.stdout.split()
        assert (name, count) == (name, "1")
        assert uuid == place.removeprefix("GPU-") or place.startswith("MIG-")


def test_a_step_that_cannot_be_captured_leaves_nothing_behind() -> None:
    device, told = torch.device("cuda", torch.cuda.current_device()), list[str]()
    before = torch.cuda.current_stream(device)

    def step(rows: torch.Tensor) -> tuple[torch.Tensor]:
        return (rows * float(rows.sum()),)  # reads a value, which no graph can

    graph = StepGraph("the painter", step)
    graph.enable(told.append)
    rows = torch.ones(2, device=device)
    assert [graph(rows)[0].tolist() for _ in range(3)] == [[2.0, 2.0]] * 3
    assert torch.cuda.current_stream(device) == before
    assert len(told) == 1
    torch.cuda.empty_cache()  # an internal error for an allocator that takes the capture to go on
    other = StepGraph("the painter", lambda rows: (rows + 1,))
    other.enable(pytest.fail)
    assert [other(rows)[0].tolist() for _ in range(3)] == [[2.0, 2.0]] * 3
