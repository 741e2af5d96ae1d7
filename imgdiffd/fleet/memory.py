"""What the driver and the kernel say of each configured device: its memory, and how busy a card is."""

import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgdiffd.errors import SettingsError
from imgdiffd.fleet.cards import CPU, driver
from imgdiffd.schedulers.placement import CUDA_RESERVE_BYTES, Space

CPU_RESERVE_BYTES = 1_000_000_000  # for a worker process without its models: the libraries and recent images
ADDRESS_SPACE_BYTES = 8_000_000_000  # a worker's libraries alone map 6 GB, hardly any of which is ever in memory


def spaces(devices: Mapping[str, str], root: Path = Path("/")) -> list[Space]:
    """The memory of each of `devices` (name to "cpu" or a card's UUID), in order.

    Workers on the CPU share its memory evenly. Raises SettingsError if a card or the driver does not answer.
    """
    cpus = sum(place == CPU for place in devices.values())
    total, free = _host_bytes(root) if cpus else (0, 0)
    cards = _only_cards(devices)
    with driver(next(iter(cards))) if cards else nullcontext() as nvml:
        return [
            Space(name, total // cpus, free // cpus, CPU_RESERVE_BYTES) if place == CPU else _card(nvml, name, place)
            for name, place in devices.items()
        ]


def _only_cards(devices: Mapping[str, str]) -> dict[str, str]:
    return {name: place for name, place in devices.items() if place != CPU}


def refuse_limited_address_space() -> None:
    """Raise SettingsError under a `ulimit -v` with which libraries and threads fail one by one, each in its own way."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < ADDRESS_SPACE_BYTES:
        raise SettingsError(
            f"the address space of each process is limited to {limit / 1e9:.1f} GB, and a worker needs "
            f"{ADDRESS_SPACE_BYTES / 1e9:.0f} GB of it, whatever its memory",
            hint="`ulimit -v unlimited`; MemoryMax= in the service's unit limits the memory itself",
        )


def imagined(sizes_gb: Sequence[float]) -> list[Space]:
    """Empty cards of these sizes (in 10⁹ bytes), for planning a purchase."""
    sizes = [int(size * 1e9) for size in sizes_gb]
    return [Space(f"cuda:{index}", size, size, CUDA_RESERVE_BYTES) for index, size in enumerate(sizes)]


def _card(nvml: Any, name: str, uuid: str) -> Space:
    try:
        seen = nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(uuid))
    except nvml.NVMLError as error:
        hint = "see `nvidia-smi -L` for what the driver finds"
        raise SettingsError(f"{name} ({uuid}) does not answer: {error}", hint=hint) from error
    return Space(name, seen.total, seen.free, CUDA_RESERVE_BYTES)


@dataclass(frozen=True, slots=True)
class CardReading:
    """A card at this moment; None for what its driver does not tell. `busy` is a share of the last second or less."""

    used_bytes: int | None
    total_bytes: int | None
    busy: float | None
    watts: float | None


def readings(devices: Mapping[str, str]) -> dict[str, CardReading]:
    """What each card among `devices` (name to "cpu" or a card's UUID) is doing.

    A card that is lost tells nothing and costs the others nothing. Raises SettingsError if the driver does not answer.
    """
    cards = _only_cards(devices)
    if not cards:
        return {}
    with driver(next(iter(cards))) as nvml:
        return {name: _reading(nvml, uuid) for name, uuid in cards.items()}


def _reading(nvml: Any, uuid: str) -> CardReading:
    def ask(question: Callable[[Any], Any]) -> Any:
        try:
            return question(nvml.nvmlDeviceGetHandleByUUID(uuid))
        except nvml.NVMLError:  # this card does not tell
            return None

    memory = ask(nvml.nvmlDeviceGetMemoryInfo)
    rates, milliwatts = ask(nvml.nvmlDeviceGetUtilizationRates), ask(nvml.nvmlDeviceGetPowerUsage)
    return CardReading(
        used_bytes=None if memory is None else memory.total - memory.free,
        total_bytes=None if memory is None else memory.total,
        busy=None if rates is None else rates.gpu / 100,
        watts=None if milliwatts is None else milliwatts / 1000,
    )


def _host_bytes(root: Path) -> tuple[int, int]:
    """The total and available bytes of this machine, or of the control group that limits this process."""
    lines = (root / "proc/meminfo").read_text("ascii").splitlines()
    kib = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines)}
    total, free = 1024 * kib["MemTotal"], 1024 * kib["MemAvailable"]
    for group in _groups(root):
        limit = _count(group / "memory.max")
        used = _count(group / "memory.current")
        if limit is not None and used is not None:
            total, free = min(total, limit), min(free, max(0, limit - used))
    return total, free


def _groups(root: Path) -> Iterator[Path]:
    """The control group (version 2) of this process, and those above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return
    unified = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if unified is None:
        return
    mount = root / "sys/fs/cgroup"
    path = mount / unified.lstrip("/")
    while path != mount and mount in path.parents:
        yield path
        path = path.parent
    yield mount


def _count(path: Path) -> int | None:
    """The number in a file of a control group; None if there is no such file, or it says "max"."""
    try:
        text = path.read_text("ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return int(text) if text.isdigit() else None
