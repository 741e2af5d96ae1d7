"""What one item of each stage costs on one kind of device, and the hours that a run of captions takes at that cost.

There is one table a shipped bundle, for an A100: the scheduler's first guesses, the ETA, the placement and `imgdiffd
simulate` all read them. No GPU has measured them; docs/measurements.md names the source of each line. `make bench-gpu`
writes the measured tables of a device for `simulate --costs`.
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
            raise ConfigurationError(
                f"{name}: not a cost table: {what}", hint="`make bench` and `make bench-gpu` write some"
            ) from error


def projected_hours(table: CostTable, captions: int, devices: int) -> float:
    """Hours that `captions` take on `devices` equal devices that are never idle and pass the paper's funnel."""
    if captions < 0 or devices < 1:
        raise ValueError(f"captions must be at least 0 and devices at least 1, not {captions} and {devices}")
    seconds = sum(table.seconds_per_item[stage] * items for stage, items in ITEMS_PER_CAPTION.items())
    return seconds * captions / devices / 3600


PAPER_HOURS = 6.5 * 24  # what the paper took for CAPTIONS on four A100s

_SOURCE = "estimate, not measured"


def _expected(rewrite: float, describe: float, contrast: float) -> CostTable:
    """Painting and filtering are the same in every shipped bundle; the language models' sizes make the rest."""
    costs = {
        Stage.REWRITE: rewrite,
        Stage.GENERATE: 10.15,  # 1,285 TFLOP of UNet at 45 % of an A100's rate: 9.1; two decodes 0.7; two PNGs 0.35
        Stage.COMPARE: 0.002,
        Stage.LOCATE: 0.26,
        Stage.DESCRIBE: describe,
        Stage.CONTRAST: contrast,
        Stage.RENDER: 0.0,  # drawing boxes and writing files takes no time of the GPU's
    }
    return CostTable("A100", {stage.value: seconds for stage, seconds in costs.items()}, _SOURCE)


# By bundle. `paper` has language models of 13 billion parameters, at a third more than their floor of reading weights
# and computing; `small` has those of 7 billion, with 0.52 of the weights, `compact` one of 2 billion, with 0.16.
EXPECTED: Mapping[str, CostTable] = {
    "paper": _expected(rewrite=0.06, describe=1.5, contrast=0.95),
    "small": _expected(rewrite=0.03, describe=0.79, contrast=0.50),
    "compact": _expected(rewrite=0.01, describe=0.24, contrast=0.15),
}
A100 = EXPECTED["paper"]


def first_guess_s(bundle: str) -> Mapping[Stage, float]:
    """Seconds an item of every stage, optional ones and object removal too, until a device has measured its own.

    A bundle without a table of its own is taken for the dearest, `paper`.
    """
    table = EXPECTED.get(bundle, A100)
    return {
        **{Stage(stage): seconds for stage, seconds in table.seconds_per_item.items()},
        Stage.VET: 0.35,
        Stage.SCREEN: 0.35,
        Stage.ERASE: 1.2,
        Stage.INSPECT: 0.9,
    }


def guessed_seconds_per_caption(stage: Stage) -> float:
    """What the stage costs a caption on average, by the first guesses; optional stages come after the pair's gate."""
    return first_guess_s("paper")[stage] * ITEMS_PER_CAPTION.get(stage, SIMILAR / CAPTIONS)
