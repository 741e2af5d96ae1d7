"""A made-up NVIDIA driver: what `pynvml` answers of cards that are not there."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

GIB = 1 << 30
A100 = "NVIDIA A100-SXM4-80GB"


@dataclass
class FakeCard:
    """A card, or an instance of one. A lost one still counts, but answers nothing."""

    uuid: str
    model: str = A100
    total_gib: int = 80
    free_gib: int = 80
    lost: bool = False
    instances: Sequence["FakeCard | None"] | None = None  # None: MIG is off; a None among them is an empty place
    rates: SimpleNamespace | None = None
    milliwatts: int | None = None


@dataclass
class FakeDriver:
    """Stands for the module `pynvml`; handles are the cards themselves."""

    cards: list[FakeCard]
    loaded: bool = True
    opened: int = field(default=0, init=False)

    class NVMLError(Exception):
        """What NVML raises."""

    def nvmlInit(self) -> None:
        if not self.loaded:
            raise self.NVMLError("Driver Not Loaded")
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeCard:
        return self._answering(self.cards[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeCard:
        for card in self.cards:
            for part in (card, *filter(None, card.instances or ())):
                if part.uuid == uuid:
                    return self._answering(part)
        raise self.NVMLError("Not Found")

    def nvmlDeviceGetUUID(self, handle: FakeCard) -> str:
        return handle.uuid

    def nvmlDeviceGetName(self, handle: FakeCard) -> str:
        return handle.model

    def nvmlDeviceGetMigMode(self, handle: FakeCard) -> list[int]:
        if handle.model != A100:
            raise self.NVMLError("Not Supported")
        return [int(handle.instances is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: FakeCard) -> int:
        return len(handle.instances or ())

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: FakeCard, index: int) -> FakeCard:
        found = (handle.instances or ())[index]
        if found is None:
            raise self.NVMLError("Not Found")
        return found

    def nvmlDeviceGetMemoryInfo(self, handle: FakeCard) -> Any:
        return SimpleNamespace(total=handle.total_gib * GIB, free=handle.free_gib * GIB)

    def nvmlDeviceGetUtilizationRates(self, handle: FakeCard) -> Any:
        return self._told(handle.rates)

    def nvmlDeviceGetPowerUsage(self, handle: FakeCard) -> Any:
        return self._told(handle.milliwatts)

    def _answering(self, card: FakeCard) -> FakeCard:
        if card.lost:
            raise self.NVMLError("GPU is lost")
        return card

    def _told(self, answer: Any) -> Any:
        if answer is None:
            raise self.NVMLError("Not Supported")
        return answer


def four_cards() -> FakeDriver:
    """A machine as in the paper: GPU-aa, GPU-ab, GPU-ba and GPU-bb, by bus order."""
    return FakeDriver([FakeCard(f"GPU-{name}") for name in ("aa", "ab", "ba", "bb")])


def install(driver: FakeDriver) -> None:
    """Makes this process take `driver` for the real one."""
    sys.modules["pynvml"] = driver  # type: ignore[assignment]
