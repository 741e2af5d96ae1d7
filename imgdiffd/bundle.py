"""Bundles: which model plays which role, as frozen data read from a `bundle.toml`.

It owns where a model's files are and which formats are allowed; it does not know torch or what a model computes.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from imgdiffd.errors import BundleError
from imgdiffd.pipeline import OPTIONAL_ROLES, Role

MINI = "mini"
SHIPPED = ("paper", "small")  # bundles of models that are not part of imgdiffd
BUILT_IN = (MINI, *SHIPPED)

_PACKAGE = Path(__file__).parent
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
Rows = Annotated[int, Field(ge=1, le=4096)]
Gigabytes = Annotated[float, Field(ge=0, le=100_000)]  # of 10⁹ bytes
Precision = Literal["auto", "fp16", "bf16", "fp32"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(_Frozen):
    """One role's model: `source` is a folder (relative to the bundle file, or absolute) or a hub id `owner/name`.

    `revision` and `variant` are the hub's; `licence` is shown to people. `precision` auto is fp16 on a GPU, fp32 on a
    CPU. `weights_gb` is what the resident weights take in half precision, `peak_gb` what one pass takes beside them (an
    estimate until a run has measured it). `allow_pickle` reads a checkpoint that exists only as pickles, with
    torch's `weights_only` reader.
    """

    source: str
    revision: str | None = None
    variant: str | None = None
    licence: str | None = None
    precision: Precision = "auto"
    weights_gb: Gigabytes | None = None
    peak_gb: Gigabytes | None = None
    allow_pickle: bool = False

    @field_validator("source")
    @classmethod
    def _source_is_named(cls, source: str) -> str:
        if not source.strip():
            raise ValueError("source must not be empty")
        return source

    @property
    def label(self) -> str:
        """What provenance records: the source, and its revision where one is pinned."""
        return f"{self.source}@{self.revision}" if self.revision else self.source


class Rewriter(Model):
    """A chat LLM. `rows_per_pass` prompts run at once, always exactly that many, so no result depends on its mates.

    `chat_template` is Jinja for tokenizers that bring none.
    """

    rows_per_pass: Rows = 16
    chat_template: str | None = None


class Sdxl(Model):
    """A Stable Diffusion XL pipeline folder. `vae` replaces its VAE, for one that does not overflow in fp16."""

    vae: str | None = None


class Painter(Sdxl):
    """Paints pairs. `pairs_per_pass` run at once, always exactly that many."""

    pairs_per_pass: Rows = 1


class Eraser(Sdxl):
    """Inpaints, with a UNet that reads plain latents. `pictures_per_pass` run at once, always exactly that many."""

    pictures_per_pass: Rows = 1


class Segmenter(Model):
    """An Ultralytics segmentation checkpoint, `file` in `source`.

    A box's sides that are within `border_px` of the picture's border are moved onto it.
    """

    file: str
    border_px: Annotated[int, Field(ge=0, le=4096)] = 20  # FastSAM's own constant

    @field_validator("file")
    @classmethod
    def _file_is_a_checkpoint(cls, file: str) -> str:
        if Path(file).name != file or Path(file).suffix != ".pt":
            raise ValueError("file must be the bare name of a .pt checkpoint")
        return file


class Captioner(Model):
    """An image-text-to-text model. `rows_per_pass` questions are answered at once, always exactly that many."""

    rows_per_pass: Rows = 10
    chat_template: str | None = None


class Judge(Captioner):
    """An image-text-to-text model that says whether a pair looks natural. `rows_per_pass` pairs are shown at once."""

    rows_per_pass: Rows = 4


class Bundle(_Frozen):
    """A model for each role, and the profile that fits them. `path` is the file it was read from.

    A bundle may lack `eraser`, which only object removal needs, and `judge`, which only profiles with the natural-image
    filter need:

        [judge]
        source = "OpenGVLab/InternVL3-8B-hf"
        rows_per_pass = 4
    """

    name: str
    path: Path
    profile: str = "default"
    rewriter: Rewriter
    painter: Painter
    segmenter: Segmenter
    clip: Model
    blip: Model
    captioner: Captioner
    eraser: Eraser | None = None
    judge: Judge | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that this bundle has a model for, in order."""
        return tuple(role for role in Role if getattr(self, role.value) is not None)

    def model(self, role: Role) -> Model:
        """What plays `role`. Raises BundleError where that is one of OPTIONAL_ROLES which this bundle lacks."""
        found: Model | None = getattr(self, role.value)
        if found is None:
            raise BundleError(f"bundle {self.name}: it has no {role}", hint=f"add [{role}] to {self.path}")
        return found

    def folder(self, source: str) -> Path | None:
        """The local folder that `source` names, whether it exists or not; None where it is a hub id."""
        local = (self.path.parent / source).resolve()
        return None if _HUB_ID.fullmatch(source) and not local.is_dir() else local


def load_bundle(name: str | Path) -> Bundle:
    """The built-in bundle called `name`, or the one in that folder or `.toml` file.

    Nothing is opened but the bundle file. Raises BundleError naming the file and the key that is wrong.
    """
    path = _path(str(name))
    try:
        data: dict[str, object] = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        hint = f"use one of {', '.join(BUILT_IN)}, a folder with bundle.toml, or a .toml file"
        raise BundleError(f"bundle {name}: cannot read {path}: {error}", hint=hint) from error
    except tomllib.TOMLDecodeError as error:
        raise BundleError(f"bundle {name}: {path}: {error}", hint="correct the TOML") from error
    data.setdefault("name", path.stem if path.stem != "bundle" else path.parent.name)
    if "path" in data:
        raise BundleError(f"bundle {name}: {path}: path: unknown key", hint="remove it")
    try:
        return Bundle.model_validate({**data, "path": path})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "bundle"
        optional = " and ".join(sorted(OPTIONAL_ROLES))
        hint = f"every role needs a table with source, but for {optional}; the roles are {', '.join(Role)}"
        raise BundleError(f"bundle {name}: {path}: {key}: {first['msg']}", hint=hint) from error


def _path(name: str) -> Path:
    if name == MINI:
        return _PACKAGE / "models" / "mini" / "bundle" / "bundle.toml"
    if name in SHIPPED:
        return _PACKAGE / "bundles" / f"{name}.toml"
    return (Path(name) if name.endswith(".toml") else Path(name) / "bundle.toml").resolve()


def problems(bundle: Bundle, roles: Sequence[Role] = ()) -> list[str]:
    """What is missing or damaged in the local folders of `roles`, or of all that it has: a line each, [] if nothing.

    Reads configurations and the headers of safetensors files, never weights; hub ids are not looked at.
    """
    found: list[str] = []
    for role in roles or bundle.roles:
        model = bundle.model(role)
        found += [f"{role}: {text}" for text in _problems_of(bundle, model)]
    return found


def _problems_of(bundle: Bundle, model: Model) -> Iterator[str]:
    folder = bundle.folder(model.source)
    if folder is not None and not folder.is_dir():
        yield f"{folder}: no such folder"
    elif folder is not None and isinstance(model, Segmenter):
        if not (folder / model.file).is_file():
            yield f"{folder / model.file}: missing"
    elif folder is not None and isinstance(model, Sdxl):
        yield from _pipeline_problems(folder)
    elif folder is not None:
        yield from _component_problems(folder, allow_pickle=model.allow_pickle)
    vae = bundle.folder(model.vae) if isinstance(model, Sdxl) and model.vae else None
    if vae is not None:
        yield from _component_problems(vae)


def _pipeline_problems(folder: Path) -> Iterator[str]:
    """A diffusers pipeline: every component that `model_index.json` names, weights where it has any."""
    try:
        index = json.loads((folder / "model_index.json").read_text("utf-8"))
        components = {key: kind for key, kind in index.items() if isinstance(kind, list) and kind[0] is not None}
    except (OSError, ValueError, AttributeError) as error:
        yield f"{folder / 'model_index.json'}: {error}"
        return
    for name, (_, kind) in components.items():
        if not (folder / name).is_dir():
            yield f"{folder / name}: no such folder"
        elif not kind.endswith(("Tokenizer", "Scheduler", "Processor", "Extractor")):
            yield from _component_problems(folder / name)


def _component_problems(folder: Path, *, allow_pickle: bool = False) -> Iterator[str]:
    """One model in the standard format: `config.json` and whole safetensors files, single or sharded.

    `allow_pickle` lets `pytorch_model*.bin` stand in where there is no safetensors file.
    """
    try:
        json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        yield f"{folder / 'config.json'}: {error}"
    files = sorted(folder.glob("*.safetensors"))
    try:
        for index in folder.glob("*.safetensors.index.json"):
            files += [folder / name for name in set(json.loads(index.read_text("utf-8"))["weight_map"].values())]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        yield f"{folder}: damaged weight index: {error!r}"
    pickled = any(folder.glob("pytorch_model*.bin"))
    if not files and not (allow_pickle and pickled):
        advice = "; allow_pickle = true in the bundle reads its pickles" if pickled else ""
        yield f"{folder}: no .safetensors file (pickled weights are not loaded{advice})"
    for path in sorted(set(files)):
        reason = _damage(path)
        if reason:
            yield f"{path}: {reason}"


def _damage(path: Path) -> str | None:
    """Why a safetensors file cannot be whole: the format is a length, a JSON header and exactly the bytes it names."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 0 < length <= size - 8:
                return "damaged: not a safetensors file, or cut off"
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    except OSError as error:
        return error.strerror or str(error)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "damaged: its header cannot be read"
    expected = 8 + length + max(ends, default=0)
    return None if size == expected else f"damaged: {size} bytes where its header announces {expected}"
