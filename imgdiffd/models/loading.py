"""Loads a bundle's models onto one device, quietly, from safetensors only.

It owns formats, precision and what a missing or damaged file is called; it does not know what the models compute.
"""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from imgdiffd import bundle as bundles
from imgdiffd.bundle import Bundle
from imgdiffd.errors import BundleError, StageError
from imgdiffd.kernels.crop import CropPlan
from imgdiffd.models.blip import Blip
from imgdiffd.models.captioner import Captioner
from imgdiffd.models.clip import Clip
from imgdiffd.models.compiling import compile_blocks
from imgdiffd.models.eraser import Eraser
from imgdiffd.models.painter import Painter
from imgdiffd.models.rewriter import Rewriter
from imgdiffd.models.sdxl import Sdxl
from imgdiffd.models.segmenter import Segmenter, UnsafeCheckpointError, open_checkpoint
from imgdiffd.pipeline import Role

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Models:
    """What one worker holds. `tokenizer` is the painter's CLIP tokenizer, there whatever was loaded.

    `sources` maps each loaded role to its source and revision, for provenance; `weights_bytes` to the memory that its
    weights take, 0 where the device does not tell.
    """

    tokenizer: Any
    rewriter: Rewriter | None = None
    painter: Painter | None = None
    segmenter: Segmenter | None = None
    clip: Clip | None = None
    blip: Blip | None = None
    captioner: Captioner | None = None
    eraser: Eraser | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    weights_bytes: Mapping[str, int] = field(default_factory=dict)

    def repeated_decodes(self) -> int:
        """How many pictures were decoded twice because the first overflowed."""
        held = {id(each.sdxl): each.sdxl for each in (self.painter, self.eraser) if each is not None}
        return sum(sdxl.decodes_repeated for sdxl in held.values())

    @property
    def need_rewriter(self) -> Rewriter:
        """The rewriter. Raises StageError where this worker does not hold it; so do the others."""
        return _held(self.rewriter, Role.REWRITER)

    @property
    def need_painter(self) -> Painter:
        """The painter."""
        return _held(self.painter, Role.PAINTER)

    @property
    def need_segmenter(self) -> Segmenter:
        """The segmenter."""
        return _held(self.segmenter, Role.SEGMENTER)

    @property
    def need_clip(self) -> Clip:
        """The CLIP."""
        return _held(self.clip, Role.CLIP)

    @property
    def need_blip(self) -> Blip:
        """The BLIP."""
        return _held(self.blip, Role.BLIP)

    @property
    def need_captioner(self) -> Captioner:
        """The captioner."""
        return _held(self.captioner, Role.CAPTIONER)

    @property
    def need_eraser(self) -> Eraser:
        """The eraser, which `load_eraser` loads: no stage of the pipeline needs it."""
        return _held(self.eraser, "eraser")


def _held(model: T | None, role: str) -> T:
    if model is None:
        raise StageError(f"the {role} is not loaded on this worker", hint=f"start it with the role {role}")
    return model


def load_models(
    bundle: Bundle,
    roles: Collection[Role],
    device: torch.device,
    say: Say,
    compile: bool,
    note: Say = lambda _: None,
) -> Models:
    """`roles` of `bundle`, ready on `device`. `say` is told each role as it begins.

    `compile` compiles the painter's repeated blocks, on CUDA only; `note` hears if that fails, now or later. Raises
    BundleError naming role, source, file and what to do; torch's OutOfMemoryError passes through.
    """
    silence()
    wanted = [role for role in Role if role in roles]
    found = bundles.problems(bundle, wanted)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise BundleError(f"bundle {bundle.name}: {found[0]}{more}", hint=_repair(bundle))
    loaders: dict[Role, Callable[[Bundle, torch.device], Any]] = {
        Role.REWRITER: _rewriter,
        Role.PAINTER: _painter,
        Role.SEGMENTER: _segmenter,
        Role.CLIP: _clip,
        Role.BLIP: _blip,
        Role.CAPTIONER: _captioner,
    }
    tokenizer = _named(bundle, Role.PAINTER, lambda: _painter_tokenizer(bundle))
    loaded: dict[str, Any] = {}
    taken: dict[str, int] = {}
    for role in wanted:
        say(f"{role}: {bundle.model(role).label}")
        before = _allocated(device)
        loaded[role.value] = _named(bundle, role, lambda: loaders[role](bundle, device))  # noqa: B023 called at once
        taken[role.value] = _allocated(device) - before
    if compile and device.type == "cuda" and Role.PAINTER in roles:
        compile_blocks("the painter", loaded[Role.PAINTER.value].repeated_blocks(), note)
    return Models(
        tokenizer,
        **loaded,
        sources={role.value: bundle.model(role).label for role in wanted},
        weights_bytes=taken,
    )


def load_eraser(bundle: Bundle, device: torch.device, painter: Painter | None = None) -> Eraser:
    """The eraser of `bundle`; one that names the same weights as `painter`, loaded from that bundle, shares them.

    Raises BundleError as `load_models` does, and where the bundle has no eraser.
    """
    silence()
    model = bundle.eraser
    if model is None:
        raise BundleError(f"bundle {bundle.name}: it has no eraser", hint=f"add [eraser] to {bundle.path}")
    if found := bundles.problems(bundle, [Role.ERASER]):
        raise BundleError(f"bundle {bundle.name}: {found[0]}", hint=_repair(bundle))
    weights = {"source", "revision", "variant", "vae"}
    if painter is not None and model.model_dump(include=weights) == bundle.painter.model_dump(include=weights):
        return Eraser(painter.sdxl, model.pictures_per_pass)
    source, options = _sdxl_source(bundle, model)
    return Eraser(
        Sdxl.load("eraser", source, device, dtype_for(device, model.precision), **options), model.pictures_per_pass
    )


def _allocated(device: torch.device) -> int:
    """Bytes of the device's memory in use; 0 off CUDA, where nothing counts them."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def silence() -> None:
    """Turns off the libraries' bars, advice and chatter: a worker's stderr is for what went wrong.

    Also keeps transformers from asking a public service to convert a hub repository that has pickled weights only.
    """
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "true"
    import diffusers
    import transformers
    from huggingface_hub.utils.tqdm import disable_progress_bars

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    disable_progress_bars()


def _repair(bundle: Bundle) -> str:
    if bundle.path == bundles.load_bundle(bundles.MINI).path:
        return "`make mini` rebuilds the miniature bundle"
    return f"put it there again, or change the source in {bundle.path}"


def _named(bundle: Bundle, role: Role, load: Callable[[], T]) -> T:
    """`load()`, its complaints about files turned into a BundleError."""
    try:
        return load()
    except torch.OutOfMemoryError:
        raise
    except BundleError:
        raise
    except Exception as error:  # the libraries raise nearly every type on a damaged file
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise BundleError(
            f"bundle {bundle.name}: {role}: {bundle.model(role).source}: {reason}", hint=_repair(bundle)
        ) from error


_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def dtype_for(device: torch.device, precision: bundles.Precision = "auto") -> torch.dtype:
    """The precision that a model runs in: fp16 on CUDA and fp32 elsewhere, unless its bundle says otherwise."""
    return _DTYPES.get(precision, torch.float16 if device.type == "cuda" else torch.float32)


def _where(bundle: Bundle, role: Role) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes: a folder, or a hub id with its revision; never remote code."""
    model = bundle.model(role)
    folder = bundle.folder(model.source)
    if folder is not None:
        return str(folder), {"local_files_only": True, "trust_remote_code": False}
    return model.source, {"revision": model.revision or "main", "trust_remote_code": False}


def _weights(bundle: Bundle, role: Role, auto: Any, device: torch.device) -> Any:
    """A transformers model of class `auto` in eval mode. Raises BundleError where weights are missing or do not fit."""
    where, options = _where(bundle, role)
    model, report = auto.from_pretrained(
        where,
        dtype=dtype_for(device, bundle.model(role).precision),
        use_safetensors=None if bundle.model(role).allow_pickle else True,  # pickles go through torch's weights_only
        variant=bundle.model(role).variant,
        output_loading_info=True,
        **options,
    )
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise BundleError(
            f"bundle {bundle.name}: {role}: {where}: its weights lack {len(absent)} tensors, {absent[0]} first",
            hint=_repair(bundle),
        )
    return model.to(device).eval().requires_grad_(False)


def _processor_part(bundle: Bundle, role: Role, auto: Any) -> Any:
    where, options = _where(bundle, role)
    return auto.from_pretrained(where, **options)


def _painter_tokenizer(bundle: Bundle) -> Any:
    from transformers import CLIPTokenizer

    where, options = _where(bundle, Role.PAINTER)
    return CLIPTokenizer.from_pretrained(where, subfolder="tokenizer", **options)


def _painter(bundle: Bundle, device: torch.device) -> Painter:
    source, options = _sdxl_source(bundle, bundle.painter)
    return Painter.load(
        source, device, dtype_for(device, bundle.painter.precision), bundle.painter.pairs_per_pass, **options
    )


def _sdxl_source(bundle: Bundle, model: bundles.Sdxl) -> tuple[str, dict[str, Any]]:
    """Folder or hub id, and what `Sdxl.load` takes beside it."""
    folder = bundle.folder(model.source)
    vae_folder = None if model.vae is None else bundle.folder(model.vae)
    return str(folder or model.source), {
        "revision": model.revision,
        "variant": model.variant,
        "vae": str(vae_folder) if vae_folder else model.vae,
        "local_files_only": folder is not None,
    }


def _crop_plan(bundle: Bundle, role: Role) -> CropPlan:
    from transformers import AutoImageProcessor

    return CropPlan.from_image_processor(_processor_part(bundle, role, AutoImageProcessor))


def _rewriter(bundle: Bundle, device: torch.device) -> Rewriter:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = _processor_part(bundle, Role.REWRITER, AutoTokenizer)
    if bundle.rewriter.chat_template is not None:
        tokenizer.chat_template = bundle.rewriter.chat_template
    if not tokenizer.chat_template:
        raise BundleError(
            f"bundle {bundle.name}: rewriter: {bundle.rewriter.source}: its tokenizer has no chat template",
            hint=f"set chat_template under [rewriter] in {bundle.path}",
        )
    model = _weights(bundle, Role.REWRITER, AutoModelForCausalLM, device)
    return Rewriter(model, tokenizer, bundle.rewriter.rows_per_pass)


def _segmenter(bundle: Bundle, device: torch.device) -> Segmenter:
    folder = bundle.folder(bundle.segmenter.source)
    if folder is None:
        raise BundleError(
            f"bundle {bundle.name}: segmenter: {bundle.segmenter.source}: no such folder",
            hint=f"put {bundle.segmenter.file} into a folder and name that in {bundle.path}",
        )
    path = folder / bundle.segmenter.file
    try:
        network = open_checkpoint(path)
    except UnsafeCheckpointError as error:
        raise BundleError(
            f"bundle {bundle.name}: segmenter: {path}: refused: {error}",
            hint="use a checkpoint that holds nothing but Ultralytics' and torch's own classes",
        ) from error
    return Segmenter(network, device, bundle.segmenter.border_px)


def _clip(bundle: Bundle, device: torch.device) -> Clip:
    from transformers import AutoModel, AutoTokenizer

    model = _weights(bundle, Role.CLIP, AutoModel, device)
    return Clip(model, _processor_part(bundle, Role.CLIP, AutoTokenizer), _crop_plan(bundle, Role.CLIP))


def _blip(bundle: Bundle, device: torch.device) -> Blip:
    from transformers import AutoTokenizer, BlipForImageTextRetrieval

    model = _weights(bundle, Role.BLIP, BlipForImageTextRetrieval, device)
    return Blip(model, _processor_part(bundle, Role.BLIP, AutoTokenizer), _crop_plan(bundle, Role.BLIP))


def _captioner(bundle: Bundle, device: torch.device) -> Captioner:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = _processor_part(bundle, Role.CAPTIONER, AutoProcessor)
    if bundle.captioner.chat_template is not None:
        processor.chat_template = bundle.captioner.chat_template
    model = _weights(bundle, Role.CAPTIONER, AutoModelForImageTextToText, device)
    return Captioner(model, processor, bundle.captioner.rows_per_pass)
