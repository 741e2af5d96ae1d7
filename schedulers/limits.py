"""How many items fit on a device at once, learnt from running out of memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from imgdiffd.pipeline import STAGES, LaneKey

_PROBE_AFTER = 256  # full batches at a cap before twice its size is tried again


@dataclass(slots=True)
class _Cap:
    size: int
    patience: int = _PROBE_AFTER
    worked: int = 0


class BatchLimits:
    """The largest batch to try per device, stage and group: `batch_limit` until memory runs out, then what fitted.

    A cap does not last for ever, because one odd item may have set it: after many full batches at the cap, twice its
    size is tried. Every new failure doubles the number of batches before the next try, so failures become ever rarer.
    """

    def __init__(self) -> None:
        self._caps: dict[tuple[str, LaneKey], _Cap] = {}

    def limit(self, device: str, key: LaneKey) -> int:
        """The most items that a batch of this stage may have on this device; at least 1."""
        cap = self._caps.get((device, key))
        return STAGES[key[0]].batch_limit if cap is None else cap.size

    def out_of_memory(self, device: str, key: LaneKey, size: int) -> None:
        """A batch of `size` did not fit: half of it from now on. One item that does not fit says nothing about size."""
        if size == 1:
            return
        cap = self._caps.get((device, key))
        if cap is None:
            self._caps[device, key] = _Cap(size // 2)
        elif size // 2 < cap.size:
            cap.size = size // 2
            cap.patience *= 2
            cap.worked = 0

    def worked(self, device: str, key: LaneKey, size: int) -> None:
        """A batch of `size` fitted."""
        cap = self._caps.get((device, key))
        if cap is None or size < cap.size:
            return
        cap.worked += 1
        if cap.worked >= cap.patience:
            cap.size = min(cap.size * 2, STAGES[key[0]].batch_limit)
            cap.worked = 0

    def remembered(self) -> Iterator[tuple[str, LaneKey, int, int]]:
        """What `remember` takes, for every cap: device, stage and group, size, and its number of batches to wait."""
        for (device, key), cap in self._caps.items():
            yield device, key, cap.size, cap.patience

    def remember(self, device: str, key: LaneKey, size: int, patience: int) -> None:
        """Take over a cap of an earlier run; `patience` full batches go by before twice its size is tried."""
        if not 1 <= size <= STAGES[key[0]].batch_limit or patience < 1:
            raise ValueError(f"a cap of {size} for {key[0]}, with {patience} batches to wait, cannot be learnt")
        self._caps[device, key] = _Cap(size, patience)

    def caps(self, device: str) -> Mapping[LaneKey, int]:
        """The caps now in force on a device, by stage and group."""
        mine = {key: cap.size for (name, key), cap in self._caps.items() if name == device}
        return {key: size for key, size in mine.items() if size < STAGES[key[0]].batch_limit}
