"""Decides which models each device holds: from memory and footprints to a plan with a reason for every choice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from imgdiffd.errors import ConfigurationError
from imgdiffd.pipeline import OPTIONAL_ROLES, STAGES, Role, Stage
from imgdiffd.schedulers.cost_table import guessed_seconds_per_caption
from imgdiffd.schedulers.reasons import PlacementCode, Reason

CUDA_RESERVE_BYTES = 2_500_000_000  # contexts and captured graphs of one process
_LIGHT_SPARE = 10.0  # a unit that fits this many times more into the room it leaves may be on every device

_NEEDED = Reason(PlacementCode.NEEDED, "every job needs it; balances the load")
_PAINTER = Reason(PlacementCode.PAINTER, "heaviest stage: wherever it fits")
_FILTERS = Reason(PlacementCode.FILTERS, "light: spares a pair's next stage a hop")
_CAPTIONER = Reason(PlacementCode.CAPTIONER, "second heaviest: on half the devices")
_SHARED = Reason(PlacementCode.SHARED, "its weights are there already, for another role")
_OPTIONAL = Reason(PlacementCode.OPTIONAL, "optional: where most room was left")
_LIGHT = Reason(PlacementCode.LIGHT, "light beside the room that is left")
_IDLE_HOURS = Reason(PlacementCode.IDLE_HOURS, "for idle hours: wherever it fits")

Unit = frozenset[Role]


class PlacementError(ConfigurationError):
    """The models that every job needs do not fit on the devices."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one role takes. Roles with the same `weights` share them, so these count once on a device."""

    weights: str
    weights_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Space:
    """A device's memory. `reserve_bytes` of what is free are left to contexts and graphs."""

    device: str
    total_bytes: int
    free_bytes: int
    reserve_bytes: int = 0

    @property
    def usable_bytes(self) -> int:
        """What models and passes may take; never below 0."""
        return max(0, min(self.free_bytes, self.total_bytes) - self.reserve_bytes)


@dataclass(frozen=True, slots=True)
class Placement:
    """One device's roles, each with its reason. `used_bytes` has weights and the largest peak, not the reserve."""

    device: str
    roles: tuple[Role, ...]
    reasons: tuple[Reason, ...]
    used_bytes: int
    left_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What every device holds. `left_out` says why an optional role has no place: (role, reason)."""

    placements: tuple[Placement, ...]
    left_out: tuple[tuple[Role, Reason], ...]

    @property
    def roles(self) -> dict[str, tuple[Role, ...]]:
        """What each device holds, by its name."""
        return {placement.device: placement.roles for placement in self.placements}

    def lines(self) -> list[str]:
        """A sentence for each device and each role without a place, for logs."""
        held = [
            f"{p.device} holds {', '.join(p.roles) or 'nothing'}: {_gb(p.used_bytes)} taken, {_gb(p.left_bytes)} left"
            for p in self.placements
        ]
        return held + [f"{role} has no place: {reason}" for role, reason in self.left_out]


def needed_bytes(roles: Unit, footprints: Mapping[Role, Footprint]) -> int:
    """The distinct weights and the largest peak, since one batch runs at a time."""
    weights: dict[str, int] = {}
    for role in roles:
        found = footprints[role]
        weights[found.weights] = max(weights.get(found.weights, 0), found.weights_bytes)
    return sum(weights.values()) + max((footprints[role].peak_bytes for role in roles), default=0)


def place(spaces: Sequence[Space], footprints: Mapping[Role, Footprint]) -> Plan:
    """The plan for `spaces`, in their order; the same arguments give the same plan.

    Every stage has all its roles on one device. Raises PlacementError, with the numbers, exactly where no plan exists.
    """
    _refuse_unknown(footprints)
    best = max(_bases(spaces, footprints), key=lambda held: _merit(held, spaces, footprints), default=None)
    if best is None:
        raise _refusal(spaces, footprints)
    held = [dict.fromkeys(sorted(roles), _NEEDED) for roles in best]
    _replicate(held, STAGES[Stage.GENERATE].roles, len(held), _PAINTER, spaces, footprints)
    _replicate(held, STAGES[Stage.LOCATE].roles, len(held), _FILTERS, spaces, footprints)
    _replicate(held, STAGES[Stage.DESCRIBE].roles, max(1, len(held) // 2), _CAPTIONER, spaces, footprints)
    _share(held, spaces, footprints)
    left_out: list[tuple[Role, Reason]] = []
    for role in (role for role in Role if role in OPTIONAL_ROLES & footprints.keys()):
        _replicate(held, _needing(role), 1, _OPTIONAL, spaces, footprints)
        if not any(role in roles for roles in held):
            text = f"no room: its weights take {_gb(footprints[role].weights_bytes)}"
            left_out.append((role, Reason(PlacementCode.NO_ROOM, text)))
    for unit in _units():
        _replicate(held, unit, len(held), _LIGHT, spaces, footprints, spare=_LIGHT_SPARE)
    if Role.ERASER in footprints:
        _replicate(held, _needing(Role.ERASER), len(held), _IDLE_HOURS, spaces, footprints)
    _share(held, spaces, footprints)
    placements = tuple(_placement(space, roles, footprints) for space, roles in zip(spaces, held, strict=True))
    return Plan(placements, tuple(left_out))


def _units() -> list[Unit]:
    """The sets of roles that must be together, those within another left out, the dearest first.

    A stage that needs an optional role is one that not every job has: it asks for nothing here.
    """
    sets = {spec.roles for spec in STAGES.values() if spec.roles and not spec.roles & OPTIONAL_ROLES}
    units = [roles for roles in sets if not any(roles < other for other in sets)]
    return sorted(units, key=lambda roles: (-_load_s(roles), sorted(roles)))


def _needing(role: Role) -> Unit:
    """The optional `role` with those that must be beside it."""
    return frozenset[Role]().union(*(spec.roles for spec in STAGES.values() if role in spec.roles))


def _load_s(roles: Unit) -> float:
    """The seconds that a caption costs in the stages that run with `roles`."""
    ran = (spec for spec in STAGES.values() if spec.roles and spec.roles <= roles)
    return sum(guessed_seconds_per_caption(spec.stage) for spec in ran)


def _bases(spaces: Sequence[Space], footprints: Mapping[Role, Footprint]) -> Iterator[tuple[Unit, ...]]:
    """Every way to have each unit once; of equal devices only the first empty one is tried."""
    units = _units()

    def fill(depth: int, held: tuple[Unit, ...]) -> Iterator[tuple[Unit, ...]]:
        if depth == len(units):
            yield held
            return
        tried: set[tuple[int, Unit]] = set()
        for index, space in enumerate(spaces):
            key = (space.usable_bytes, held[index])
            roles = held[index] | units[depth]
            if key not in tried and needed_bytes(roles, footprints) <= space.usable_bytes:
                yield from fill(depth + 1, (*held[:index], roles, *held[index + 1 :]))
            tried.add(key)

    yield from fill(0, tuple(frozenset() for _ in spaces))


def _merit(
    held: tuple[Unit, ...], spaces: Sequence[Space], footprints: Mapping[Role, Footprint]
) -> tuple[int, float, int]:
    """First the devices that can paint, then the even load of the rest, then the room on the fullest device."""
    fits = 0
    for space, roles in zip(spaces, held, strict=True):
        fits += needed_bytes(roles | STAGES[Stage.GENERATE].roles, footprints) <= space.usable_bytes
    loads = (_load_s(roles - {Role.PAINTER}) for roles in held)
    left = (space.usable_bytes - needed_bytes(r, footprints) for space, r in zip(spaces, held, strict=True))
    return fits, -max(loads), min(left)


def _replicate(
    held: list[dict[Role, Reason]],
    unit: Unit,
    copies: int,
    reason: Reason,
    spaces: Sequence[Space],
    footprints: Mapping[Role, Footprint],
    spare: float = 0.0,
) -> None:
    """Add `unit` where most room is left until `copies` devices have it or it fits nowhere.

    `spare` times the unit's own need must be left beside it.
    """
    kept = spare * needed_bytes(unit, footprints)

    def left(index: int) -> float:
        return spaces[index].usable_bytes - needed_bytes(unit | held[index].keys(), footprints) - kept

    while sum(unit <= roles.keys() for roles in held) < copies:
        open_to = [index for index, roles in enumerate(held) if not unit <= roles.keys() and left(index) >= 0]
        if not open_to:
            return
        chosen = max(open_to, key=lambda index: (left(index), -index))
        for role in sorted(unit):
            held[chosen].setdefault(role, reason)


def _share(held: list[dict[Role, Reason]], spaces: Sequence[Space], footprints: Mapping[Role, Footprint]) -> None:
    """Add every unit to the devices that have its weights already, for other roles, and room for its passes."""
    units = [*_units(), *(_needing(role) for role in sorted(OPTIONAL_ROLES & footprints.keys()))]
    for roles, space in zip(held, spaces, strict=True):
        there = {footprints[role].weights for role in roles}
        for unit in units:
            needed = needed_bytes(unit | roles.keys(), footprints)
            if {footprints[role].weights for role in unit} <= there and needed <= space.usable_bytes:
                for role in sorted(unit):
                    roles.setdefault(role, _SHARED)


def _placement(space: Space, roles: Mapping[Role, Reason], footprints: Mapping[Role, Footprint]) -> Placement:
    used = needed_bytes(frozenset(roles), footprints)
    ordered = tuple(role for role in Role if role in roles)
    reasons = tuple(roles[role] for role in ordered)
    return Placement(space.device, ordered, reasons, used, space.usable_bytes - used)


def _refuse_unknown(footprints: Mapping[Role, Footprint]) -> None:
    unknown = [role for role in Role if role not in OPTIONAL_ROLES and role not in footprints]
    if unknown:
        names = ", ".join(unknown)
        raise PlacementError(f"no footprint of {names}", hint="give weights_gb and peak_gb in the bundle")


def _refusal(spaces: Sequence[Space], footprints: Mapping[Role, Footprint]) -> PlacementError:
    needs = [f"{' + '.join(sorted(unit))} {_gb(needed_bytes(unit, footprints))}" for unit in _units()]
    total = _gb(needed_bytes(frozenset(Role) - OPTIONAL_ROLES, footprints))
    rooms = ", ".join(f"{space.device} {_gb(space.usable_bytes)}" for space in spaces) or "none"
    message = f"no room: {', '.join(needs)}, each on one device; all on one take {total}. To use: {rooms}"
    return PlacementError(
        message, hint="take smaller models (of the shipped bundles, compact has the smallest) or passes, or more memory"
    )


def _gb(count_bytes: int) -> str:
    return f"{count_bytes / 1e9:.1f} GB"
