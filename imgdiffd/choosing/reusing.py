"""Which stored outputs of each caption count under another profile."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from imgdiffd.choosing.columns import Array, Columns
from imgdiffd.choosing.gathering import STAGES, STATES
from imgdiffd.job import ItemState
from imgdiffd.method.profile import Profile
from imgdiffd.method.reuse import fingerprint
from imgdiffd.pipeline import CAPTION_STAGES, Stage

_ENDED = (STATES[ItemState.SAMPLED], STATES[ItemState.REJECTED])


@dataclass(frozen=True, slots=True)
class Usable:
    """By stage, for each caption: whether its output would be the `same` under both profiles, and whether it `has` one.

    `needed` says that its profile scored only what was needed.
    """

    same: Mapping[Stage, Array]
    has: Mapping[Stage, Array]
    needed: Array


def usable(columns: Columns, profile: Profile, profile_of: Callable[[int], Profile]) -> Usable:
    """What counts of the captions in `columns` under `profile`; `profile_of` gives a group's own."""
    groups, which = np.unique(columns.items["group"], return_inverse=True)
    own = [profile_of(int(group)) for group in groups]
    through = columns.items["stage"] + np.isin(columns.items["state"], _ENDED)

    def of_own(says: Callable[[Profile], bool]) -> Array:
        return np.array([says(each) for each in own], dtype=bool)[which]

    same = {
        stage: of_own(lambda each, stage=stage: fingerprint(each, stage) == fingerprint(profile, stage))  # type: ignore[misc]
        for stage in CAPTION_STAGES
    }
    has = {
        stage: same[stage]
        & (through > STAGES[stage])
        & of_own(lambda each, stage=stage: stage not in each.skipped_stages)  # type: ignore[misc]
        for stage in CAPTION_STAGES
    }
    return Usable(
        same,
        has,
        of_own(lambda each: each.scores == "needed"),
    )
