"""Plans which device holds which models, from what they take and what is free, and keeps what workers measure.

The decision itself is made in `schedulers.placement`.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import anyio

from imgdiffd.bundles.bundle import Bundle
from imgdiffd.fleet import memory
from imgdiffd.fleet.footprints import Measurements, footprints
from imgdiffd.fleet.wire import Done, Ready
from imgdiffd.pipeline import STAGES, Role, Stage
from imgdiffd.schedulers.placement import Footprint, PlacementError, Plan, Space, place

_log = logging.getLogger(__name__)

FREE_WAIT_S = 30.0  # for the workers of a daemon that was killed: their memory is free only a moment after they end
_LOOK_S = 1.0

Look = Callable[[Mapping[str, str]], list[Space]]


def resident_roles(bundle: Bundle, *, removal: bool) -> tuple[Role, ...]:
    """The roles of `bundle` that the daemon keeps resident: all, but the eraser only with `removal`."""
    return tuple(role for role in bundle.roles if removal or role is not Role.ERASER)


def why_no_removal(bundle: Bundle, plan: Plan, *, wanted: bool) -> str:
    """Why object removal does not run with this plan, in a few words; empty if it does."""
    if not wanted:
        return "removal = false"
    if bundle.eraser is None:
        return f"bundle {bundle.name} has no eraser"
    if not any(STAGES[Stage.ERASE].roles <= set(held) for held in plan.roles.values()):
        return f"no device has room for the eraser of bundle {bundle.name}"
    return ""


class Planner:
    """Plans for one bundle on one set of devices (name to "cpu" or a card's UUID).

    With `removal`, the eraser has a place too. `look` says how much memory there is.
    """

    def __init__(
        self,
        bundle: Bundle,
        devices: Mapping[str, str],
        measured: Measurements,
        look: Look = memory.spaces,
        *,
        removal: bool = False,
    ) -> None:
        self._bundle, self._devices, self._measured, self._look = bundle, devices, measured, look
        self._resident = resident_roles(bundle, removal=removal)

    def footprints(self) -> dict[Role, Footprint]:
        """What each role takes: on a CPU if any device is one, else on a card."""
        cpu = "cpu" in self._devices.values()
        return footprints(self._bundle, self._resident, self._measured, cpu=cpu)

    async def plan(self, patience_s: float = FREE_WAIT_S) -> Plan:
        """The plan for the memory that is free; waits a while for memory that is in use, if that is all it needs.

        Raises PlacementError with the figures, SettingsError for a card that is not there, and BundleError for a model
        of unknown size.
        """
        last_look = anyio.current_time() + patience_s
        while True:
            try:
                return self.plan_now()
            except PlacementError:
                if anyio.current_time() >= last_look or not self._would_fit():
                    raise
            _log.info("not enough memory is free yet: %s", "; ".join(map(_free, self._look(self._devices))))
            await anyio.sleep(_LOOK_S)

    def plan_now(self) -> Plan:
        """The plan for the memory that is free now. Raises as `plan` does."""
        return place(self._look(self._devices), self.footprints())

    def plan_empty(self, lost: Collection[str] = ()) -> Plan:
        """The plan without the devices `lost`, for the memory that the others have when nothing is loaded."""
        kept = {name: device for name, device in self._devices.items() if name not in lost}
        return place([replace(space, free_bytes=space.total_bytes) for space in self._look(kept)], self.footprints())

    def _would_fit(self) -> bool:
        try:
            self.plan_empty()
        except PlacementError:
            return False
        return True

    def note_ready(self, ready: Ready) -> None:
        """Keep what each role's weights took."""
        for role, count_bytes in ready.weights_bytes.items():
            self._measured.note_weights(self._bundle.model(Role(role)), count_bytes)
        self._save()

    def note_done(self, stage: Stage, done: Done) -> None:
        """Keep what a batch took at its peak."""
        self._measured.note_peak(self._bundle, stage, done.peak_bytes)
        self._save()

    def _save(self) -> None:
        try:
            self._measured.save()
        except OSError as error:  # the next start then plans with older figures
            _log.warning("measured footprints were not saved: %s", error)


def _free(space: Space) -> str:
    return f"{space.device} {space.free_bytes / 1e9:.1f} of {space.total_bytes / 1e9:.1f} GB"
