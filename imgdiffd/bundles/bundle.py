"""Bundles: which model plays which role, as frozen data read from a `bundle.toml`."""

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from imgdiffd.bundles.sharing import LEXICON, sharing_roles, written_out
from imgdiffd.errors import BundleError, reason_of, wrong_value
from imgdiffd.pipeline import OPTIONAL_ROLES, Role

MINI = "mini"
SHIPPED = ("paper", "small", "compact")  # bundles of models that are not part of imgdiffd
BUILT_IN = (MINI, *SHIPPED)

_HERE = Path(__file__).parent
_LEXICON_FOLDER = _HERE.parent / "method" / "data"
_ADDRESS = re.compile(r"https://\S+/[^/\s]+")
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_PAINTING = (Role.REWRITER, Role.PAINTER, Role.CLIP)
_SAME_PAIRS = {"licence", "weights_gb", "peak_gb", "allow_pickle", "rows_per_pass", "pairs_per_pass"}
_SAME_RESULTS = {*_SAME_PAIRS, "pictures_per_pass", "preview"}
Rows = Annotated[int, Field(ge=1, le=4096)]
Gigabytes = Annotated[float, Field(ge=0, le=100_000)]  # of 10⁹ bytes
Colour = tuple[float, float, float]  # red, green, blue
Precision = Literal["auto", "fp16", "bf16", "fp32"]


def is_address(source: str) -> bool:
    """Whether `source` is the web address of a file."""
    return _ADDRESS.fullmatch(source) is not None


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(_Frozen):
    """One role's model: `source` is a folder (relative to the bundle file, or absolute) or a hub id `owner/name`.

    `revision` and `variant` are the hub's; `licence` is only shown. `precision` auto is fp16 on a GPU, fp32 on a CPU.
    `weights_gb` is the memory of the resident weights in half precision, `peak_gb` what one pass takes in addition (an
    estimate until a run has measured it). `allow_pickle` allows a checkpoint that exists only as pickles; torch's
    `weights_only` reader reads it.
    """

    _one_file: ClassVar[bool] = False

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
        if is_address(source) and not cls._one_file:
            raise ValueError(
                "source must be a folder or a hub id, not a web address: this role needs more than one file"
            )
        return source

    @property
    def label(self) -> str:
        """The source, with its revision where one is pinned: what a sample's provenance records."""
        return f"{self.source}@{self.revision}" if self.revision else self.source

    @property
    def additions(self) -> tuple[str, ...]:
        """The folders and hub ids of the networks that are read beside `source`."""
        return ()

    @property
    def weights(self) -> str:
        """A name that is the same for models that share their weights when they are loaded together."""
        return " ".join(map(str, (self.label, self.variant, self.precision)))


class RewriterSpec(Model):
    """A chat LLM, or a model that reads images too. Exactly `rows_per_pass` prompts run at once, so that no result
    depends on its batch mates.

    `chat_template` is Jinja, for tokenizers and processors that have none. `rewriter = "lexicon"` takes no model and no
    memory: it replaces names of objects by others of their kind.
    """

    rows_per_pass: Rows = 16
    chat_template: str | None = None

    @property
    def is_lexicon(self) -> bool:
        """Whether there is no model behind it."""
        return self.source == LEXICON

    @model_validator(mode="before")
    @classmethod
    def _lexicon_is_known(cls, data: object) -> object:
        if not isinstance(data, dict) or data.get("source") != LEXICON:
            return data
        if other := set(data) - {"source"}:
            raise ValueError(
                f"{min(other)} is of models, and the lexicon is none; a folder of this name is ./{LEXICON}"
            )
        content = (_LEXICON_FOLDER / "lexicon.txt").read_bytes()
        digest = hashlib.blake2b(content, digest_size=4).hexdigest()
        return {**data, "revision": digest, "licence": "WordNet 3.0", "weights_gb": 0.0, "peak_gb": 0.0}


class SdxlSpec(Model):
    """A Stable Diffusion XL pipeline. `vae`, a folder or hub id, replaces a VAE that overflows in fp16."""

    vae: str | None = None

    @property
    def additions(self) -> tuple[str, ...]:
        """Its other autoencoder."""
        return () if self.vae is None else (self.vae,)

    @property
    def weights(self) -> str:
        """With its autoencoder."""
        return f"{super().weights} {self.vae}"


class LinearMap(_Frozen):
    """A pixel from a latent: its channels times `factors`, one row of red, green and blue for each, plus `bias`.

    Colours go from -1 to 1.
    """

    factors: Annotated[tuple[Colour, ...], Field(min_length=1)]
    bias: Colour

    def as_toml(self) -> str:
        """The table by which a bundle gives it to its painter."""
        rows = "".join(f"    {list(row)},\n" for row in self.factors)
        return f"[painter.preview]\nfactors = [\n{rows}]\nbias = {list(self.bias)}\n"


class PainterSpec(SdxlSpec):
    """Paints pairs of images, exactly `pairs_per_pass` at once.

    `preview` decodes half-painted images cheaply: a linear map, or the folder or hub id of a small autoencoder, a
    diffusers AutoencoderTiny of the same latents. Without one, no pair is given up early.
    """

    pairs_per_pass: Rows = 1
    preview: LinearMap | Annotated[str, Field(min_length=1)] | None = None

    @property
    def additions(self) -> tuple[str, ...]:
        """Its other autoencoder and the one for previews."""
        return (*super().additions, self.preview) if isinstance(self.preview, str) else super().additions


class EraserSpec(SdxlSpec):
    """Inpaints with a UNet that takes plain latents, exactly `pictures_per_pass` images at once."""

    pictures_per_pass: Rows = 1


class SegmenterSpec(Model):
    """An Ultralytics segmentation checkpoint, `file` in `source`; or `source` is the file's own web address (https).

    Sides of a box within `border_px` of the image's border are moved onto it.
    """

    _one_file: ClassVar[bool] = True

    file: str
    border_px: Annotated[int, Field(ge=0, le=4096)] = 20  # FastSAM's own constant

    @model_validator(mode="before")
    @classmethod
    def _address_names_the_file(cls, data: object) -> object:
        source = data.get("source") if isinstance(data, dict) else None
        if isinstance(data, dict) and isinstance(source, str) and is_address(source):
            return {"file": source.rpartition("/")[2], **data}
        return data

    @field_validator("file")
    @classmethod
    def _file_is_a_checkpoint(cls, file: str) -> str:
        if Path(file).name != file or Path(file).suffix != ".pt":
            raise ValueError("file must be the bare name of a .pt checkpoint")
        return file


class CaptionerSpec(Model):
    """An image-text-to-text model that is asked about exactly `rows_per_pass` images at once.

    Up to five questions about an image share it, and take memory for their own tokens only.
    """

    rows_per_pass: Rows = 2
    chat_template: str | None = None


class JudgeSpec(CaptionerSpec):
    """An image-text-to-text model that judges whether pairs look natural, exactly `rows_per_pass` at once."""

    rows_per_pass: Rows = 4


class Bundle(_Frozen):
    """A model for each role, and the profile that fits them. `path` is the file that it was read from.

    `eraser` is needed for object removal only, and `judge` for profiles with the natural-image filter only:

        [judge]
        source = "OpenGVLab/InternVL3-8B-hf"
        rows_per_pass = 4

    A rewriter may do without a model: `rewriter = "lexicon"`. A role may share another role's model:
    `judge = "captioner"`, or `same_as = "captioner"` in a table with its own sizes of passes.
    """

    name: str
    path: Path
    profile: str = "default"
    rewriter: RewriterSpec
    painter: PainterSpec
    segmenter: SegmenterSpec
    clip: Model
    blip: Model
    captioner: CaptionerSpec
    eraser: EraserSpec | None = None
    judge: JudgeSpec | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles for which this bundle has a model, in pipeline order."""
        return tuple(role for role in Role if getattr(self, role.value) is not None)

    @property
    def painting(self) -> str:
        """The bundle's name, and a digest of the models that a pair and its similarity depend on."""
        models = [self.model(role) for role in _PAINTING]
        told = [f"{self.folder(each.source)} {each.model_dump_json(exclude=_SAME_PAIRS)}" for each in models]
        return f"{self.name} {hashlib.blake2b(' '.join(told).encode(), digest_size=4).hexdigest()}"

    @property
    def digests(self) -> dict[Role, str]:
        """By role, a digest of all that decides what its model gives; licence, memory and sizes of passes are not."""
        told = {role: self.model(role) for role in self.roles}
        return {
            role: hashlib.blake2b(
                f"{self.folder(each.source)} {each.model_dump_json(exclude=_SAME_RESULTS)}".encode(), digest_size=8
            ).hexdigest()
            for role, each in told.items()
        }

    def model(self, role: Role) -> Model:
        """The model for `role`. Raises BundleError where the bundle lacks it, which only OPTIONAL_ROLES may."""
        found: Model | None = getattr(self, role.value)
        if found is None:
            raise BundleError(f"bundle {self.name}: it has no {role}", hint=f"add [{role}] to {self.path}")
        return found

    def shared_with(self, role: Role) -> Role | None:
        """The first role, in pipeline order, whose weights `role` shares; None if that is `role` itself."""
        weights = self.model(role).weights
        first = next(each for each in self.roles if self.model(each).weights == weights)
        return None if first is role else first

    def folder(self, source: str) -> Path | None:
        """The local folder that `source` names, even if it does not exist; None for a hub id or a web address."""
        if is_address(source):
            return None
        if source == LEXICON:
            return _LEXICON_FOLDER
        local = (self.path.parent / source).resolve()
        return None if _HUB_ID.fullmatch(source) and not local.is_dir() else local


def load_bundle(name: str | Path) -> Bundle:
    """The built-in bundle called `name`, or the one in that folder or `.toml` file.

    Only the bundle file is opened. Raises BundleError naming the file and the key that is wrong.
    """
    path = _path(str(name))
    where = f"bundle {name if str(name) in BUILT_IN else path}"
    try:
        data: dict[str, object] = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        hint = f"use one of {', '.join(BUILT_IN)}, a folder with bundle.toml, or a .toml file"
        raise BundleError(f"{where}: cannot be read: {reason_of(error)}", hint=hint) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BundleError(f"{where}: {error}", hint="correct the TOML") from error
    data.setdefault("name", path.stem if path.stem != "bundle" else path.parent.name)
    if "path" in data:
        raise BundleError(f"{where}: path: unknown key", hint="remove this key")
    try:
        sharing = sharing_roles(data)
        whole = {**written_out(data, sharing), "path": path}
        # As JSON, in which lists pass for tuples while every other value must be of the kind that is wanted.
        return Bundle.model_validate_json(json.dumps(whole, default=str), strict=True)
    except BundleError as error:
        raise BundleError(f"{where}: {error.message}", hint=error.hint) from error
    except ValidationError as error:
        # What is wrong with a shared model is wrong where it is written, not where it is named.
        first = min(error.errors(), key=lambda each: bool(each["loc"]) and each["loc"][0] in sharing)
        key = ".".join(str(part) for part in first["loc"]) or "bundle"
        optional = " and ".join(sorted(OPTIONAL_ROLES))
        hint = (
            f"every role except {optional} needs a table with source, or the name of a role whose model it shares; "
            f"the roles are {', '.join(Role)}"
        )
        raise BundleError(f"{where}: {key}: {wrong_value(first)}", hint=hint) from error


def _path(name: str) -> Path:
    if name == MINI:
        return _HERE.parent / "mini" / "bundle" / "bundle.toml"
    if name in SHIPPED:
        return _HERE / f"{name}.toml"
    return (Path(name) if name.endswith(".toml") else Path(name) / "bundle.toml").resolve()
