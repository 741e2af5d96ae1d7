"""What the scheduler keeps of one device: its deque, what runs there, and what it has done.

It owns these figures; it does not know other devices, processes or models.
"""

from dataclasses import dataclass, field

from imgdiffd.pipeline import STAGES, LaneKey, Role, Stage
from imgdiffd.schedulers.costs import Costs
from imgdiffd.schedulers.limits import BatchLimits
from imgdiffd.schedulers.queues import DeviceQueue, Entry
from imgdiffd.schedulers.work import Batch


@dataclass(slots=True)
class InFlightBatch:
    """A batch on its way through a device. `alone`: no other batch was on the device at any time since."""

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
    flights: list[InFlightBatch] = field(default_factory=list)  # in the order of sending, which is that of running
    last_done_s: float = float("-inf")
    busy_s: float = 0.0
    busy_since_s: float | None = None
    batches: int = 0
    steals: int = 0
    reason: str = "not ready"
    last_failure: str = ""  # what its last failed batch was, and what became of it
    until_s: float | None = None  # when its decision may change without an event

    def holds(self, stage: Stage) -> bool:
        """Whether every model that the stage needs is resident."""
        return STAGES[stage].roles <= self.roles

    def head_in_s(self, now_s: float) -> float:
        """The expected seconds until the running batch is done; 0 where none runs or it is overdue."""
        if not self.flights:
            return 0.0
        begun_s = max(self.flights[0].sent_s, self.last_done_s)
        return max(0.0, begun_s + self.flights[0].expected_s - now_s)

    def rest_s(self) -> float:
        """The expected seconds of the batches sent behind the running one."""
        return sum(flight.expected_s for flight in self.flights[1:])

    def free_in_s(self, now_s: float) -> float:
        """The expected seconds until everything sent is done."""
        return self.head_in_s(now_s) + self.rest_s()

    def lane_seconds(self, key: LaneKey, costs: Costs, limits: BatchLimits) -> float:
        """The expected seconds of a lane on this device."""
        count = len(self.queue.lanes[key])
        return costs.queue_seconds(self.name, key, count, limits.limit(self.name, key))

    def queued_seconds(self, costs: Costs, limits: BatchLimits) -> float:
        """The expected seconds of everything queued here."""
        lanes_s = sum(self.lane_seconds(key, costs, limits) for key in self.queue.lanes)
        return lanes_s + sum(costs.seconds(self.name, part.key, len(part.entries)) for part in self.queue.suspects)

    def send(self, flight: InFlightBatch) -> None:
        """The batch goes out."""
        for other in self.flights:
            other.alone = False
        flight.alone = not self.flights
        if not self.flights:
            self.busy_since_s = flight.sent_s
        self.flights.append(flight)
        self.batches += 1

    def land(self, flight: InFlightBatch, now_s: float) -> float | None:
        """The batch came back, done or failed. Returns the seconds that it took, where that can be told."""
        for earlier in self.flights[: self.flights.index(flight)]:
            earlier.measurable = flight.measurable = False
        self.flights.remove(flight)
        begun_s = max(flight.sent_s, self.last_done_s)
        self.last_done_s = now_s
        if not self.flights and self.busy_since_s is not None:
            self.busy_s += now_s - self.busy_since_s
            self.busy_since_s = None
        return now_s - begun_s if flight.measurable else None

    def busy_seconds(self, now_s: float) -> float:
        """Seconds with at least one batch on the device, up to now."""
        return self.busy_s + (now_s - self.busy_since_s if self.busy_since_s is not None else 0.0)
