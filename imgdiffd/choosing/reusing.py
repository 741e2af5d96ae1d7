"""Which stored outputs of each caption count under another profile."""

from collections.abc import Callable

import numpy as np

from imgdiffd.choosing.columns import Array, Columns
from imgdiffd.method.calibration import preview_at
from imgdiffd.method.profile import Profile
from imgdiffd.method.reuse import unchanged
from imgdiffd.pipeline import Stage


class Reusable:
    """By stage, and for each caption, whether what is stored of it would be the same under `profile`.

    `previews` says so of the previews' scores. `profile_of` gives a group's own profile.
    """

    def __init__(self, columns: Columns, profile: Profile, profile_of: Callable[[int], Profile]) -> None:
        groups, self._which = np.unique(columns.items["group"], return_inverse=True)
        own = [profile_of(int(group)) for group in groups]
        self._stages = [unchanged(each, profile) for each in own]
        self.previews: Array = self._of([preview_at(each) == preview_at(profile) for each in own])

    def __getitem__(self, stage: Stage) -> Array:
        return self._of([stage in stages for stages in self._stages])

    def _of(self, groups: list[bool]) -> Array:
        found: Array = np.array(groups, dtype=bool)[self._which]
        return found
