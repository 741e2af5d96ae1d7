"""What a worker sets before its libraries are imported, and which card it makes its own."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from imgdiffd.fleet.wire import Start
from imgdiffd.kernels import attention
from imgdiffd.worker import __main__ as program
from imgdiffd.worker import engine


def test_a_gpu_worker_bounds_its_threads_and_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"]})
    monkeypatch.setitem(sys.modules, "imgdiffd.worker.engine", SimpleNamespace(StageEngine=lambda *_: "engine"))
    program.open_stages(Start("mini", "cuda:0", (), "/pictures", threads=1, compile=True), lambda _: None)
    told = "import torch, torch._inductor.config as c; print(torch.get_num_threads(), c.compile_threads)"
    ended = subprocess.run([sys.executable, "-c", told], env=os.environ, check=True, capture_output=True, text=True)
    assert ended.stdout.split() == ["1", "1"]


def test_a_worker_makes_its_card_current_before_all_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done: list[Any] = []

    def load(*_: Any, **__: Any) -> Any:
        done.append("load")
        return SimpleNamespace(repeated_decodes=int, sources={}, weights_bytes={})

    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(str(device)))
    monkeypatch.setattr(attention, "choose", lambda _, device, note: done.append(f"attention on {device}"))
    monkeypatch.setattr(engine, "load_models", load)
    engine.StageEngine(Start("mini", "cuda:0", (), str(tmp_path)), lambda _: None)
    assert done == ["cuda:0", "attention on cuda:0", "load"]
    done.clear()
    engine.StageEngine(Start("mini", "cpu", (), str(tmp_path)), lambda _: None)
    assert done == ["attention on cpu", "load"]
