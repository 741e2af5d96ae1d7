"""How much memory each model of a bundle takes: as measured here before, else as the bundle or its files say."""

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from imgdiffd import durable, hub
from imgdiffd.bundles.bundle import Bundle, Model, SegmenterSpec
from imgdiffd.errors import BundleError
from imgdiffd.pipeline import STAGES, Role, Stage
from imgdiffd.schedulers.placement import Footprint

GIGABYTE = 1_000_000_000
_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
_PEAK_GUESS = 0.75  # of the weights: that of SDXL, the largest share in the shipped bundles
_PEAK_MARGIN = 1.1  # on a measured peak: the allocator's blocks are larger than what is in them


@dataclass(frozen=True, slots=True)
class Measured:
    """What one model took when it last ran, in bytes; 0 if that was not measured yet."""

    weights_bytes: int = 0
    peak_bytes: int = 0


class Measurements:
    """Measured footprints, kept in a JSON file of the state folder so that the next start plans with them.

    A file that is missing, unreadable or damaged is written anew; until then the figures of the bundle are used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._figures = _read(path)
        self._changed = False

    @classmethod
    def of_folder(cls, state_folder: Path) -> Self:
        """The measurements of the daemon whose state is in that folder."""
        return cls(state_folder / "footprints.json")

    def of(self, model: Model) -> Measured:
        """What was measured of `model`."""
        return self._figures.get(_key(model), Measured())

    def note_weights(self, model: Model, count_bytes: int) -> None:
        """`model` took this much when it was loaded; 0, from a device that does not tell, changes nothing."""
        if count_bytes:
            self._set(model, Measured(count_bytes, self.of(model).peak_bytes))

    def note_peak(self, bundle: Bundle, stage: Stage, count_bytes: int) -> None:
        """A batch of `stage` took this much besides the resident models: a peak of the stage's largest model."""
        roles = [role for role in STAGES[stage].roles if role in bundle.roles]
        if not roles or not count_bytes:
            return
        model = bundle.model(max(roles, key=lambda role: (self._size(bundle.model(role)), role)))
        known = self.of(model)
        if count_bytes > known.peak_bytes:
            self._set(model, Measured(known.weights_bytes, count_bytes))

    def save(self) -> None:
        """Write the file if anything changed. Raises OSError."""
        if not self._changed:
            return
        figures = {key: asdict(figure) for key, figure in sorted(self._figures.items())}
        durable.write({self.path: json.dumps(figures, indent=2)})
        self._changed = False

    def _set(self, model: Model, figure: Measured) -> None:
        if self._figures.get(_key(model)) != figure:
            self._figures[_key(model)] = figure
            self._changed = True

    def _size(self, model: Model) -> float:
        return self.of(model).weights_bytes or (model.weights_gb or 0.0) * GIGABYTE


def _key(model: Model) -> str:
    """What a measurement belongs to: the model and its pass sizes, on which the peak depends."""
    rows = [str(value) for key, value in model.model_dump().items() if key.endswith("_per_pass")]
    return " ".join([model.label, model.precision, *rows])


def _read(path: Path) -> dict[str, Measured]:
    try:
        entries = json.loads(path.read_text("utf-8"))
        found = {str(key): Measured(int(e["weights_bytes"]), int(e["peak_bytes"])) for key, e in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}
    return {key: each for key, each in found.items() if min(each.weights_bytes, each.peak_bytes) >= 0}


def footprints(bundle: Bundle, roles: Iterable[Role], measured: Measurements, *, cpu: bool) -> dict[Role, Footprint]:
    """The footprint of each role. On a CPU models run in fp32 unless the bundle says otherwise, and take twice as much.

    Raises BundleError if neither the bundle nor the files of a model say how large its weights are.
    """
    return {role: _footprint(bundle, role, measured.of(bundle.model(role)), cpu=cpu) for role in roles}


def _footprint(bundle: Bundle, role: Role, measured: Measured, *, cpu: bool) -> Footprint:
    model = bundle.model(role)
    width = _BYTES.get(model.precision, 4 if cpu else 2)
    if measured.weights_bytes:
        weights = measured.weights_bytes
    elif model.weights_gb is not None:
        weights = round(model.weights_gb * GIGABYTE * width / 2)
    else:
        weights = _weights_in_files(bundle, role, width)
    if measured.peak_bytes:
        peak = round(measured.peak_bytes * _PEAK_MARGIN)
    elif model.peak_gb is not None:
        peak = round(model.peak_gb * GIGABYTE * width / 2)
    else:
        peak = round(weights * _PEAK_GUESS)
    return Footprint(model.weights, weights, peak)


def _weights_in_files(bundle: Bundle, role: Role, width: int) -> int:
    """The bytes of all tensors, at `width` bytes a number, from the headers of the files."""
    model = bundle.model(role)
    folder = bundle.folder(model.source) or hub.cached(model.source, model.revision)
    if folder is None or not folder.is_dir():
        hint = f"give weights_gb under [{role}] in {bundle.path}, or fetch the model"
        raise BundleError(f"bundle {bundle.name}: {role}: {model.label}: its size is not known here", hint=hint)
    if isinstance(model, SegmenterSpec):
        return (folder / model.file).stat().st_size * width // 2
    elements = sum(_elements(path) for path in _weight_files(folder, model.variant))
    pickled = sum(path.stat().st_size for path in folder.glob("pytorch_model*.bin"))  # in half precision, as published
    return width * (elements or pickled // 2)


def _weight_files(folder: Path, variant: str | None) -> Iterator[Path]:
    """The safetensors files of a model, or of each component of a pipeline; only those of `variant` where it exists."""
    for part in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        files = sorted(part.glob("*.safetensors"))
        chosen = [path for path in files if variant and f".{variant}." in path.name]
        yield from chosen or [path for path in files if path.name.count(".") == 1]


def _elements(path: Path) -> int:
    """How many numbers a safetensors file holds."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: Mapping[str, Mapping[str, list[int]]] = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
