"""What one item of each stage costs on one kind of device, and the hours that a run of captions takes at that cost.

The A100's figures are the only estimates there are: the scheduler's first guesses, the ETA, the placement and
`imgdiffd simulate` all read them. They come from published throughput of models of these sizes and from the paper's
funnel; no GPU has measured them. `make bench-gpu` writes the measured table of a device for `simulate --costs`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from imgdiffd.errors import ConfigurationError
from imgdiffd.pipeline import Stage

# The paper's funnel: captions with a pair of images, of those the pairs similar enough, their valid boxes, and the
# samples that came out.
CAPTIONS, SIMILAR, BOXES, SAMPLES = 118_000, 38_533, 117_779, 12_688

# Items of each stage that one caption leads to, optional stages left out. An item of `describe` has BOXES / SIMILAR
# regions, one of `contrast` and `render` a single one.
ITEMS_PER_CAPTION: Mapping[str, float] = {
    Stage.REWRITE.value: 1.0,
    Stage.GENERATE.value: 1.0,
    Stage.COMPARE.value: 1.0,
    Stage.LOCATE.value: SIMILAR / CAPTIONS,
    Stage.DESCRIBE.value: SIMILAR / CAPTIONS,
    Stage.CONTRAST.value: SAMPLES / CAPTIONS,
    Stage.RENDER.value: SAMPLES / CAPTIONS,
}


@dataclass(frozen=True)
class CostTable:
    """Device seconds per item of each stage in ITEMS_PER_CAPTION, and the source of the figures."""

    device: str
    seconds_per_item: Mapping[str, float]
    source: str

    def __post_init__(self) -> None:
        """Raise ConfigurationError unless there is exactly one finite cost, not negative, for every stage."""
        wrong = sorted(set(self.seconds_per_item) ^ set(ITEMS_PER_CAPTION))
        wrong += [s for s, cost in self.seconds_per_item.items() if not (math.isfinite(cost) and cost >= 0)]
        if wrong:
            raise ConfigurationError(
                f"the cost table of {self.device} is missing, unknown or not a cost for: {', '.join(wrong)}",
                hint=f"give seconds per item for {', '.join(ITEMS_PER_CAPTION)}",
            )

    def to_json(self) -> str:
        """Return the table as one JSON object."""
        return json.dumps({**asdict(self), "seconds_per_item": dict(self.seconds_per_item)}, indent=2)

    @classmethod
    def from_json(cls, text: str, name: str = "the cost table") -> "CostTable":
        """Read what `to_json` wrote; raise ConfigurationError, calling it `name`, for anything else."""
        try:
            read = json.loads(text)
            costs = {str(stage): float(cost) for stage, cost in read["seconds_per_item"].items()}
            return cls(str(read["device"]), costs, str(read["source"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
            raise ConfigurationError(f"{name}: not a cost table: {what}", hint="`make bench` writes one") from error


def projected_hours(table: CostTable, captions: int, devices: int) -> float:
    """Hours that `captions` take on `devices` equal devices that are never idle and pass the paper's funnel."""
    if captions < 0 or devices < 1:
        raise ValueError(f"captions must be at least 0 and devices at least 1, not {captions} and {devices}")
    seconds = sum(table.seconds_per_item[stage] * items for stage, items in ITEMS_PER_CAPTION.items())
    return seconds * captions / devices / 3600


PAPER_HOURS = 6.5 * 24  # what the paper took for CAPTIONS on four A100s

# Estimated seconds per 1,000 captions, divided by the items that 1,000 captions lead to. Drawing boxes and writing
# files takes no time of the GPU's.
_A100_PER_1000 = {
    "rewrite": 25.0,
    "generate": 7750.0,
    "compare": 2.0,
    "locate": 85.0,
    "describe": 270.0,
    "contrast": 32.0,
    "render": 0.0,
}
A100 = CostTable(
    "A100", {s: cost / 1000 / ITEMS_PER_CAPTION[s] for s, cost in _A100_PER_1000.items()}, "estimate, not measured"
)

# Seconds an item of every stage, the optional ones and object removal too, until a device has measured its own.
FIRST_GUESS_S: Mapping[Stage, float] = {
    **{Stage(stage): seconds for stage, seconds in A100.seconds_per_item.items()},
    Stage.VET: 0.35,
    Stage.SCREEN: 0.35,
    Stage.ERASE: 1.2,
    Stage.INSPECT: 0.9,
}


def guessed_seconds_per_caption(stage: Stage) -> float:
    """What the stage costs a caption on average, by the first guesses; optional stages come after the pair's gate."""
    return FIRST_GUESS_S[stage] * ITEMS_PER_CAPTION.get(stage, SIMILAR / CAPTIONS)
