"""What devices have, read from a made-up driver and kernel."""

import sys
from pathlib import Path

import pytest

from imgdiffd.errors import SettingsError
from imgdiffd.fleet.memory import CPU_RESERVE_BYTES, CardReading, imagined, readings, spaces
from imgdiffd.schedulers.placement import CUDA_RESERVE_BYTES
from tests.fakes.nvml import GIB, FakeCard, FakeDriver


def host(root: Path, *, total: int, free: int, limit: str = "max", used: int = 0) -> Path:
    """A machine's /proc, with this process in a control group of its own."""
    group = root / "sys/fs/cgroup/system.slice"
    (root / "proc/self").mkdir(parents=True)
    group.mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {total // 1024} kB\nMemAvailable: {free // 1024} kB\n")
    (root / "proc/self/cgroup").write_text("0::/system.slice\n")
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{used}\n")
    return root


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """Cards of 80 and 40 GB, half of the second one in use, and an instance of 20."""
    instance = FakeCard("MIG-c", "A100 1g.20gb", 20, 5)
    made = FakeDriver([FakeCard("GPU-a"), FakeCard("GPU-b", "A100", 40, 20), FakeCard("GPU-c", instances=[instance])])
    monkeypatch.setitem(sys.modules, "pynvml", made)
    return made


def test_cpu_workers_share_what_is_available(tmp_path: Path) -> None:
    found = spaces({"cpu#0": "cpu", "cpu#1": "cpu"}, host(tmp_path, total=64 * GIB, free=40 * GIB))
    assert [(s.device, s.total_bytes, s.free_bytes) for s in found] == [
        ("cpu#0", 32 * GIB, 20 * GIB),
        ("cpu#1", 32 * GIB, 20 * GIB),
    ]
    assert found[0].reserve_bytes == CPU_RESERVE_BYTES


def test_a_control_groups_limit_bounds_the_cpu(tmp_path: Path) -> None:
    root = host(tmp_path, total=64 * GIB, free=40 * GIB, limit=str(16 * GIB), used=6 * GIB)
    (found,) = spaces({"cpu": "cpu"}, root)
    assert (found.total_bytes, found.free_bytes) == (16 * GIB, 10 * GIB)


CARDS = {"cuda:0": "GPU-a", "cuda:1": "GPU-b", "cuda:2": "MIG-c"}


def test_each_card_is_asked_for_its_own_memory(driver: FakeDriver) -> None:
    found = spaces(CARDS)
    assert [(s.device, s.total_bytes // GIB, s.free_bytes // GIB) for s in found] == [
        ("cuda:0", 80, 80), ("cuda:1", 40, 20), ("cuda:2", 20, 5),
    ]  # fmt: skip
    assert found[0].reserve_bytes == CUDA_RESERVE_BYTES
    assert driver.opened == 0


def test_cards_keep_their_figures_when_another_is_lost(driver: FakeDriver) -> None:
    before = readings(CARDS)
    del driver.cards[0]  # from now on the driver counts the others from 0
    after = readings(CARDS)
    assert (after["cuda:1"], after["cuda:2"]) == (before["cuda:1"], before["cuda:2"])
    assert after["cuda:0"] == CardReading(None, None, None, None)
    assert [s.total_bytes // GIB for s in spaces({"cuda:1": "GPU-b", "cuda:2": "MIG-c"})] == [40, 20]
    with pytest.raises(SettingsError, match=r"cuda:0 \(GPU-a\) does not answer: Not Found"):
        spaces(CARDS)


def test_a_driver_that_does_not_answer_is_said(driver: FakeDriver) -> None:
    driver.loaded = False
    with pytest.raises(SettingsError, match="cuda:0: the NVIDIA driver does not answer: Driver Not Loaded"):
        spaces(CARDS)


def test_imagined_cards_are_empty() -> None:
    assert [(s.device, s.usable_bytes) for s in imagined([80, 24])] == [
        ("cuda:0", 80_000_000_000 - CUDA_RESERVE_BYTES),
        ("cuda:1", 24_000_000_000 - CUDA_RESERVE_BYTES),
    ]
