"""A worker process that speaks the real protocol without any model: `python -P -m imgdiffd.testing.worker`.

One of these words in a caption makes the rewrite stage go wrong, or the stage named after an @, as in
"a dog near a kill-worker@locate":

    kill-worker    the process kills itself with SIGKILL
    fault-device   the stage raises the CUDA error of a device assert
    raise-error    the stage raises an error
    need-memory    the stage runs out of memory unless the item is alone in its batch
    take-memory    the stage takes 1 GB of real memory, for a limit of the kernel's to act on
    hang-worker    the stage never ends, but the pulse continues
    mute-worker    the process stops, including its pulse
    print-noise    the stage prints a line to stdout, as a careless library would

FAKE_WORKER_DELAY_S is the time that every item takes. With FAKE_WORKER_START the worker never becomes ready: "refuse"
raises a configuration error, "crash" any other error, and "hang" blocks for good.
"""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from imgdiffd.errors import BundleError
from imgdiffd.fleet.wire import Report, Start
from imgdiffd.method.messages import GenerateInput, RewriteInput, StageInput, StageOutput
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal_messages import InspectInput
from imgdiffd.pipeline import Stage
from imgdiffd.testing.stages import FakeStages
from imgdiffd.worker.serve import serve

COMMAND = (sys.executable, "-P", "-m", "imgdiffd.testing.worker")
PULSE_S = 0.2
_MISHAP = re.compile(
    r"\b(kill-worker|fault-device|raise-error|need-memory|take-memory|hang-worker|mute-worker|print-noise)(?:@(\w+))?"
)


class FakeEngine:
    """Answers every stage in about a millisecond per item, unless a caption orders a mishap."""

    def __init__(self, start: Start, say: Callable[[str], None]) -> None:
        for role in start.roles:
            say(role)
        match os.environ.get("FAKE_WORKER_START", ""):
            case "refuse":
                raise BundleError(f"bundle {start.bundle}: refused", hint="unset FAKE_WORKER_START")
            case "crash":
                raise ZeroDivisionError("the start was told to crash")
            case "hang":
                threading.Event().wait()
        self.weights_bytes = dict.fromkeys(start.roles, 0)
        self.models = {role: f"fake {role}" for role in start.roles}
        self._delay_s = float(os.environ.get("FAKE_WORKER_DELAY_S", "0"))
        self._stages = FakeStages(Path(start.images))

    def run(self, stage: Stage, profile: Profile, inputs: Sequence[StageInput]) -> tuple[StageOutput, ...]:
        """One plausible output for each input."""
        for entry in inputs:
            for mishap, where in _MISHAP.findall(self._caption(entry)):
                if (where or Stage.REWRITE) == stage:
                    _suffer(mishap, len(inputs))
        time.sleep(self._delay_s * len(inputs))
        return self._stages.run(profile, inputs)

    def _caption(self, entry: StageInput) -> str:
        if isinstance(entry, RewriteInput):
            return entry.caption
        if isinstance(entry, GenerateInput):
            return entry.caption1
        if isinstance(entry, InspectInput):
            return self._stages.caption_of(entry.erasures[0].source) if entry.erasures else ""
        return self._stages.caption_of(entry.image1)

    def take_writes(self) -> Callable[[], None]:
        """What makes the files of the last run durable, in any thread. Raises OSError."""
        return self._stages.take_writes()

    def report(self) -> Report:
        """Nothing to report."""
        return Report()

    def free_memory(self) -> None:
        """Nothing is cached."""


def _suffer(mishap: str, batch_items: int) -> None:
    match mishap:
        case "kill-worker":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fault-device":
            raise RuntimeError("CUDA error: device-side assert triggered")
        case "raise-error":
            raise ZeroDivisionError("the caption asked for an error")
        case "need-memory" if batch_items > 1:
            raise MemoryError(f"no room for {batch_items} items")
        case "take-memory":
            taken = [bytes(range(256)) * (1 << 16) for _ in range(64)]
            raise MemoryError(f"no limit acted on {len(taken)} times 16 MiB")
        case "hang-worker":
            threading.Event().wait()
        case "mute-worker":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "print-noise":
            print("noise on stdout", flush=True)


if __name__ == "__main__":
    sys.exit(serve(FakeEngine, pulse_s=PULSE_S))
