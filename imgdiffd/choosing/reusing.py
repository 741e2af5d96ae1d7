"""Which stored outputs of each caption count under another profile."""

from collections.abc import Callable, Collection

import numpy as np

from imgdiffd.choosing.columns import Array, Columns
from imgdiffd.method.calibration import preview_at
from imgdiffd.method.profile import Profile
from imgdiffd.method.reuse import unchanged
from imgdiffd.pipeline import Stage


class Reusable:
    """By stage, and for each caption, whether what is stored of it would be the same under `profile`.

    `previews` says so of the previews' scores. `profile_of` gives a group's own profile. Of captions of other jobs than
    `jobs`, where these are given, nothing is `counted` unless they have the profile itself.
    """

    def __init__(
        self,
        columns: Columns,
        profile: Profile,
        profile_of: Callable[[int], Profile],
        jobs: Collection[int] | None = None,
    ) -> None:
        groups, self._which = np.unique(columns.items["group"], return_inverse=True)
        own = [profile_of(int(group)) for group in groups]
        self._stages = [unchanged(each, profile) for each in own]
        self.counted: Array = np.ones(len(columns), dtype=bool)
        if jobs is not None:
            itself = self._of([each.stored() == profile.stored() for each in own])
            self.counted = itself | np.isin(columns.items["job"], np.array(list(jobs), dtype=np.int64))
        self.previews: Array = self._of([preview_at(each) == preview_at(profile) for each in own])

    def __getitem__(self, stage: Stage) -> Array:
        found: Array = self.counted & self._of([stage in stages for stages in self._stages])
        return found

    def _of(self, groups: list[bool]) -> Array:
        found: Array = np.array(groups, dtype=bool)[self._which]
        return found
