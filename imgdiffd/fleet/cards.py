"""Finds the cards that configured devices mean, through the NVIDIA driver's own library (NVML)."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from imgdiffd.errors import SettingsError

CPU = "cpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Devices:
    """The configured devices: where each is, by its name, and what was found, in a sentence for people.

    A place is "cpu", or the UUID of a card ("GPU-…") or of an instance of one ("MIG-…"). Unlike its number, a UUID
    means the same card when another one is hidden or lost.
    """

    places: Mapping[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class _Card:
    """What one worker can use: a whole card, or a MIG instance of one. `index` and `owner` are those of the card."""

    uuid: str
    model: str
    index: int
    owner: str


@contextmanager
def driver(asking: str) -> Iterator[Any]:
    """NVML, opened. Raises SettingsError where the driver does not answer; `asking` is what it was asked for."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        hint = 'load the NVIDIA driver, or set devices = ["cpu"] to try it out'
        raise SettingsError(f"{asking}: the NVIDIA driver does not answer: {error}", hint=hint) from error
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def resolve_devices(devices: Sequence[str], environ: Mapping[str, str] = os.environ) -> Devices:
    """The places of `devices` as configured; with "auto", of each card that $CUDA_VISIBLE_DEVICES leaves.

    Cards are "cuda:0" and so on, in the order in which CUDA numbers them. A CPU that is named twice gives "cpu#0" and
    "cpu#1". Raises SettingsError for a card that is not there or not visible, where the driver does not answer, and if
    "auto" finds no card: a CPU is far too slow to be used without being named.
    """
    auto = tuple(devices) == ("auto",)
    repeated = {device for device in devices if devices.count(device) > 1}
    if not auto and set(devices) == {CPU}:
        places = {f"{CPU}#{number}" if repeated else CPU: CPU for number in range(len(devices))}
        return Devices(places, ", ".join(places))
    asking = 'devices = "auto"' if auto else next(device for device in devices if device != CPU)
    with driver(asking) as nvml:
        installed, remarks = _installed(nvml)
    visible, why = _visible(installed, environ)
    found = {f"cuda:{number}": card for number, card in enumerate(visible)}
    remarks += why
    if auto and not found:
        raise _none_such(asking, found, remarks)
    places = {}
    for number, device in enumerate(found if auto else devices):
        if device != CPU and device not in found:
            raise _none_such(device, found, remarks)
        name = f"{device}#{number}" if device in repeated else device
        places[name] = CPU if device == CPU else found[device].uuid
    return Devices(places, "; ".join([_told(places, visible), *remarks]))


def _none_such(asking: str, found: Mapping[str, _Card], remarks: Sequence[str]) -> SettingsError:
    there = f"there is only {', '.join(found)}" if found else "no NVIDIA card was found"
    because = f" ({'; '.join(remarks)})" if remarks else ""
    return SettingsError(
        f"{asking}: {there}{because}",
        hint="`nvidia-smi -L` lists what the driver finds; correct devices or CUDA_VISIBLE_DEVICES",
    )


def _told(places: Mapping[str, str], visible: Sequence[_Card]) -> str:
    models = {card.uuid: f" ({card.model})" for card in visible}
    alike = groupby(places, lambda name: models.get(places[name], ""))
    return ", ".join(", ".join(names) + model for model, names in alike)


def _installed(nvml: Any) -> tuple[list[_Card], list[str]]:
    """Every card and MIG instance by bus order, and a remark for each card that gives none."""
    cards: list[_Card] = []
    remarks: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            owner = nvml.nvmlDeviceGetUUID(handle)
            parts = [handle] if not _has_mig(nvml, handle) else _instances(nvml, handle)
            cards += [_Card(nvml.nvmlDeviceGetUUID(p), nvml.nvmlDeviceGetName(p), index, owner) for p in parts]
            if not parts:
                remarks.append(f"card {index} has MIG enabled, but no instance")
        except nvml.NVMLError as error:
            remarks.append(f"card {index} does not answer: {error}")
    return cards, remarks


def _has_mig(nvml: Any, handle: Any) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:  # a card that cannot be divided
        return False
    return bool(current)


def _instances(nvml: Any, handle: Any) -> list[Any]:
    found = []
    for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place))
        except nvml.NVMLError:  # nothing at this place
            continue
    return found


def _visible(installed: list[_Card], environ: Mapping[str, str]) -> tuple[list[_Card], list[str]]:
    """What $CUDA_VISIBLE_DEVICES leaves of `installed`, in its order, and remarks on what it hides.

    As in CUDA: cards are named by index or by the beginning of a UUID, the list ends at the first entry that is
    neither (such as -1), and one that names a card twice hides all. An index or UUID of a card that is divided means
    all of its instances, each of which gets a process of its own.
    """
    named = environ.get(VISIBLE)
    if named is None:
        return installed, []
    visible: list[_Card] = []
    why = ""
    for entry in map(str.strip, named.split(",")):
        meant = _meant(entry, installed)
        if not meant:
            why = f", and ends at {entry!r}, which names no card here" if entry else ""
            break
        if any(card in visible for card in meant):
            visible, why = [], f", since it names {entry} twice"
            break
        visible += meant
    if visible == installed:
        return visible, []
    return visible, [f"${VISIBLE}={named} leaves {len(visible)} of {len(installed)}{why}"]


def _meant(entry: str, installed: list[_Card]) -> list[_Card]:
    """The cards that one entry names; none where it is unknown, or the beginning of several UUIDs."""
    if entry.startswith("MIG-"):
        meant = [card for card in installed if card.uuid.startswith(entry)]
        return meant if len(meant) == 1 else []
    if entry.startswith("GPU-"):
        meant = [card for card in installed if card.owner.startswith(entry)]
        return meant if len({card.owner for card in meant}) == 1 else []
    number = re.match(r"\+?0*([0-9]+)", entry)  # whatever follows the digits is ignored by CUDA too
    return [card for card in installed if number and str(card.index) == number[1]]
