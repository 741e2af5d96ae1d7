"""What devices have, read from a made-up driver and kernel."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imgdiffd.errors import SettingsError
from imgdiffd.fleet.memory import CPU_RESERVE_BYTES, imagined, spaces
from imgdiffd.schedulers.placement import CUDA_RESERVE_BYTES

GIB = 1 << 30


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


class Driver:
    """NVML with cards of 80 and 40 GB, the second half in use."""

    class NVMLError(Exception):
        """What NVML raises."""

    def __init__(self) -> None:
        self.loaded = True
        self.cards = {"0": (80, 80), "1": (40, 20), "GPU-b": (40, 20)}

    def nvmlInit(self) -> None:
        if not self.loaded:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return str(index)

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:
        if name not in self.cards:
            raise self.NVMLError("Not Found")
        return name

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        total, free = self.cards[handle]
        return SimpleNamespace(total=total * GIB, free=free * GIB)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
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


@pytest.mark.usefixtures("driver")
def test_cards_are_numbered_within_what_is_visible() -> None:
    devices = {"cuda:0": "cuda:0"}
    (every,) = spaces(devices, environ={})
    (second,) = spaces(devices, environ={"CUDA_VISIBLE_DEVICES": "1"})
    (by_uuid,) = spaces(devices, environ={"CUDA_VISIBLE_DEVICES": "GPU-b"})
    assert (every.total_bytes, every.reserve_bytes) == (80 * GIB, CUDA_RESERVE_BYTES)
    assert (second.total_bytes, second.free_bytes) == (40 * GIB, 20 * GIB)
    assert by_uuid == second


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("device", "environ", "message"),
    [
        ("cuda:2", {}, "cuda:2: there are 2 cards"),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "0"}, r"there are 1 cards in \$CUDA_VISIBLE_DEVICES=0"),
        ("cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-x"}, r"cuda:0 \(GPU-x\): Not Found"),
    ],
)
def test_a_card_that_is_not_there_is_named(device: str, environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        spaces({device: device}, environ=environ)


def test_a_driver_that_does_not_answer_is_said(driver: Driver) -> None:
    driver.loaded = False
    with pytest.raises(SettingsError, match="cuda:0: the NVIDIA driver does not answer: Driver Not Loaded"):
        spaces({"cuda:0": "cuda:0"}, environ={})


def test_imagined_cards_are_empty() -> None:
    assert [(s.device, s.usable_bytes) for s in imagined([80, 24])] == [
        ("cuda:0", 80_000_000_000 - CUDA_RESERVE_BYTES),
        ("cuda:1", 24_000_000_000 - CUDA_RESERVE_BYTES),
    ]
