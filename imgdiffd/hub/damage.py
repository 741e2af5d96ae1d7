"""Finds what is missing or damaged in a model's folder by names, configurations and headers, without its weights."""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgdiffd.bundles.bundle import Model, RewriterSpec, SdxlSpec, SegmenterSpec
from imgdiffd.errors import reason_of

_NO_WEIGHTS = (
    "Tokenizer",
    "TokenizerFast",
    "Scheduler",
    "Processor",
    "Extractor",
)  # how the class names of components without weights end
# What reading a damaged file as JSON of a certain shape raises.
_UNREADABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)
_HEADER_BYTES = 100_000_000  # no header of a safetensors file is longer, says the format


def damages(model: Model, folder: Path | None, additions: Iterable[Path] = ()) -> Iterator[str]:
    """A line for each file of `model` in `folder`, and of the networks in `additions`, that is missing or damaged.

    A folder that is None is skipped.
    """
    if folder is not None and not folder.is_dir():
        yield f"{folder}: no such folder"
    elif folder is not None and isinstance(model, SegmenterSpec):
        if not (folder / model.file).is_file():
            yield f"{folder / model.file}: missing"
    elif isinstance(model, RewriterSpec) and model.is_lexicon:
        return
    elif folder is not None and isinstance(model, SdxlSpec):
        yield from _of_pipeline(folder)
    elif folder is not None:
        yield from _of_component(folder, allow_pickle=model.allow_pickle, variant=model.variant)
    for addition in additions:
        yield from _of_component(addition)


def components(index: object) -> dict[str, str]:
    """The parts that a pipeline's `model_index.json` names, each with its class. Raises ValueError otherwise."""
    if not isinstance(index, dict):
        raise ValueError("damaged: not a JSON object that names components")
    return {name: kind[1] for name, kind in index.items() if isinstance(kind, list) and len(kind) == 2 and kind[1]}


def has_weights(kind: str) -> bool:
    """Whether a pipeline's component of this class is a network."""
    return not kind.endswith(_NO_WEIGHTS)


def _of_pipeline(folder: Path) -> Iterator[str]:
    """Problems of a diffusers pipeline: each component that `model_index.json` names, those with weights in detail."""
    try:
        parts = components(json.loads((folder / "model_index.json").read_text("utf-8")))
    except (OSError, *_UNREADABLE) as error:
        yield f"{folder / 'model_index.json'}: {reason_of(error)}"
        return
    for name, kind in parts.items():
        if not (folder / name).is_dir():
            yield f"{folder / name}: no such folder"
        elif has_weights(kind):
            yield from _of_component(folder / name)
        else:
            yield from _of_texts(folder / name)


def _of_component(folder: Path, *, allow_pickle: bool = False, variant: str | None = None) -> Iterator[str]:
    """Problems of one model in the standard format: `config.json` and whole safetensors files, single or sharded.

    `allow_pickle` accepts `pytorch_model*.bin` where there is no safetensors file.
    """
    if not (folder / "config.json").exists():
        yield f"{folder / 'config.json'}: missing"
    yield from _of_texts(folder)
    try:
        files = {*folder.glob("*.safetensors"), *_shards(folder, "*.safetensors.index*.json")}
        pickles = {*folder.glob("pytorch_model*.bin"), *_shards(folder, "pytorch_model.bin.index*.json")}
    except (OSError, *_UNREADABLE) as error:
        yield f"{folder}: damaged weight index: {error!r}"
        return
    if variant is not None:
        files = {path for path in files if variant in path.name.replace("-", ".").split(".")}
    if not files and not (allow_pickle and pickles):
        advice = "; allow_pickle = true in the bundle allows them" if pickles else ""
        of_variant = f" of the variant {variant}" if variant else ""
        yield f"{folder}: no .safetensors file{of_variant} (pickled weights are not loaded{advice})"
    elif not files:
        yield from (f"{path}: missing" for path in sorted(pickles) if not path.is_file())
    for path in sorted(files):
        if reason := damage(path):
            yield f"{path}: {reason}"


def _of_texts(folder: Path) -> Iterator[str]:
    """Problems of the JSON files in `folder`. Some that are damaged the libraries would do without, silently."""
    for path in sorted(folder.glob("*.json")):
        try:
            json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            yield f"{path}: damaged: {error}"


def _shards(folder: Path, pattern: str) -> Iterator[Path]:
    for index in folder.glob(pattern):
        yield from (folder / name for name in set(json.loads(index.read_text("utf-8"))["weight_map"].values()))


def damage(path: Path) -> str | None:
    """Why a safetensors file is damaged, or None: the format is a length, a JSON header and the bytes that it names."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 0 < length <= min(size - 8, _HEADER_BYTES):
                return "damaged: not a safetensors file, or cut off"
            header = json.loads(file.read(length))
        tensors = [entry for key, entry in header.items() if key != "__metadata__"]
        expected = 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors), default=0)
        for entry in tensors:
            math.prod(map(int, entry["shape"]))
    except OSError as error:
        return error.strerror or str(error)
    except _UNREADABLE:
        return "damaged: its header cannot be read"
    return None if size == expected else f"damaged: it has {size} bytes, its header announces {expected}"
