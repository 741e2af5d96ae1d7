"""How many items fit on a device at once, learnt from running out of memory.

It owns the caps per device and stage; it does not know why memory ran out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from imgdiffd.pipeline import STAGES, Stage

_PROBE_AFTER = 256  # full batches at a cap before twice its size is tried again


@dataclass(slots=True)
class _Cap:
    size: int
    patience: int = _PROBE_AFTER
    worked: int = 0


class BatchLimits:
    """The largest batch to try per device and stage: `batch_limit` until memory runs out, then what fitted.

    A cap is not for ever, because one odd item may have set it: after many full batches at the cap its double is tried
    once. Every new failure doubles the number of batches before the next try, so that failures become ever rarer.
    """

    def __init__(self) -> None:
        self._caps: dict[tuple[str, Stage], _Cap] = {}

    def limit(self, device: str, stage: Stage) -> int:
        """The most items that a batch of this stage may have on this device; at least 1."""
        cap = self._caps.get((device, stage))
        return STAGES[stage].batch_limit if cap is None else cap.size

    def out_of_memory(self, device: str, stage: Stage, size: int) -> None:
        """A batch of `size` did not fit: from now on half of it. One item that does not fit says nothing of size."""
        if size == 1:
            return
        cap = self._caps.get((device, stage))
        if cap is None:
            self._caps[device, stage] = _Cap(size // 2)
        elif size // 2 < cap.size:
            cap.size = size // 2
            cap.patience *= 2
            cap.worked = 0

    def worked(self, device: str, stage: Stage, size: int) -> None:
        """A batch of `size` fitted."""
        cap = self._caps.get((device, stage))
        if cap is None or size < cap.size:
            return
        cap.worked += 1
        if cap.worked >= cap.patience:
            cap.size = min(cap.size * 2, STAGES[stage].batch_limit)
            cap.worked = 0

    def caps(self) -> Mapping[tuple[str, Stage], int]:
        """The caps now in force, by device and stage."""
        return {key: cap.size for key, cap in self._caps.items() if cap.size < STAGES[key[1]].batch_limit}
