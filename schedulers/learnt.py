"""What was learnt of the devices as text that outlives the process: seconds of batches, and how many items fit."""

import json

from imgdiffd.pipeline import Stage
from imgdiffd.schedulers.costs import Costs
from imgdiffd.schedulers.limits import BatchLimits


def to_text(costs: Costs, limits: BatchLimits) -> str:
    """Everything learnt so far, as JSON. The same knowledge gives the same text."""
    seconds = [
        [device, stage, group, dict(sorted(cost.seconds_by_items.items()))]
        for device, learnt in sorted(costs.learnt().items())
        for (stage, group), cost in sorted(learnt.items())
    ]
    caps = [[device, *key, size, patience] for device, key, size, patience in sorted(limits.remembered())]
    return json.dumps({"seconds": seconds, "caps": caps})


def take_over(text: str, costs: Costs, limits: BatchLimits) -> None:
    """Begin with what an earlier run learnt. Raises ValueError for what `to_text` did not write."""
    try:
        read = json.loads(text)
        for device, stage, group, by_size in read["seconds"]:
            means = {int(size): float(seconds) for size, seconds in by_size.items()}
            costs.expect(str(device), (Stage(stage), str(group)), means)
        for device, stage, group, size, patience in read["caps"]:
            limits.remember(str(device), (Stage(stage), str(group)), int(size), int(patience))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not what a scheduler learnt: {error!r}") from error
