"""What the scheduler keeps of one device: its deque, what runs there, and what it has done."""

from dataclasses import dataclass, field

from imgdiffd.pipeline import STAGES, LaneKey, Role, Stage
from imgdiffd.schedulers.costs import Costs
from imgdiffd.schedulers.limits import BatchLimits
from imgdiffd.schedulers.queues import DeviceQueue, Entry
from imgdiffd.schedulers.reasons import DeviceCode, Reason
from imgdiffd.schedulers.work import Batch

_NOT_READY = Reason(DeviceCode.NOT_READY, "not ready")


@dataclass(slots=True)
class InFlightBatch:
    """A batch that was sent to a device and has not come back. `alone`: no other was there at any time since."""

    device: str
    batch: Batch
    entries: tuple[Entry, ...]
    sent_s: float
    expected_s: float
    generation: int
    suspect: bool
    alone: bool = True
    measurable: bool = True  # False once a later batch came back first: its end says nothing of its seconds


@dataclass(slots=True)
class Device:
    """One device as the scheduler sees it. `generation` counts how often it came up."""

    name: str
    roles: frozenset[Role] = frozenset()
    up: bool = False
    generation: int = 0
    queue: DeviceQueue = field(default_factory=DeviceQueue)
    in_flight: list[InFlightBatch] = field(default_factory=list)  # in the order of sending, which is that of running
    last_done_s: float = float("-inf")
    busy_s: float = 0.0
    busy_since_s: float | None = None
    batches: int = 0
    steals: int = 0
    reason: Reason = _NOT_READY  # of its last decision
    last_failure: str = ""  # what its last failed batch was, and what became of it
    until_s: float | None = None  # when its decision may change without an event

    def holds(self, stage: Stage) -> bool:
        """Whether every model that the stage needs is resident."""
        return STAGES[stage].roles <= self.roles

    def head_in_s(self, now_s: float) -> float:
        """The expected seconds until the running batch is done; 0 where none runs, or where it is overdue."""
        if not self.in_flight:
            return 0.0
        begun_s = max(self.in_flight[0].sent_s, self.last_done_s)
        return max(0.0, begun_s + self.in_flight[0].expected_s - now_s)

    def rest_s(self) -> float:
        """The expected seconds of the batches sent behind the running one."""
        return sum(sent.expected_s for sent in self.in_flight[1:])

    def free_in_s(self, now_s: float) -> float:
        """The expected seconds until everything sent is done."""
        return self.head_in_s(now_s) + self.rest_s()

    def lane_seconds(self, key: LaneKey, costs: Costs, limits: BatchLimits) -> float:
        """The expected seconds of one lane of this device's deque."""
        count = len(self.queue.lanes[key])
        return costs.queue_seconds(self.name, key, count, limits.limit(self.name, key))

    def queued_seconds(self, costs: Costs, limits: BatchLimits) -> float:
        """The expected seconds of everything queued here."""
        lanes_s = sum(self.lane_seconds(key, costs, limits) for key in self.queue.lanes)
        return lanes_s + sum(costs.seconds(self.name, part.key, len(part.entries)) for part in self.queue.suspects)

    def send(self, sent: InFlightBatch) -> None:
        """The batch goes out: it runs after those that are there."""
        for other in self.in_flight:
            other.alone = False
        sent.alone = not self.in_flight
        if not self.in_flight:
            self.busy_since_s = sent.sent_s
        self.in_flight.append(sent)
        self.batches += 1

    def take_back(self, sent: InFlightBatch, now_s: float) -> float | None:
        """The batch came back, done or failed. Returns the seconds that it took, where that can be told."""
        for earlier in self.in_flight[: self.in_flight.index(sent)]:
            earlier.measurable = sent.measurable = False
        self.in_flight.remove(sent)
        begun_s = max(sent.sent_s, self.last_done_s)
        self.last_done_s = now_s
        if not self.in_flight and self.busy_since_s is not None:
            self.busy_s += now_s - self.busy_since_s
            self.busy_since_s = None
        return now_s - begun_s if sent.measurable else None

    def busy_seconds(self, now_s: float) -> float:
        """Seconds with at least one batch on the device, up to now."""
        return self.busy_s + (now_s - self.busy_since_s if self.busy_since_s is not None else 0.0)
