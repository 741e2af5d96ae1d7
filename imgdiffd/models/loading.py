"""Loads a bundle's models onto one device, with one function per role, and compiles what they repeat."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from imgdiffd import hub
from imgdiffd.bundles import bundle as bundles
from imgdiffd.bundles.bundle import Bundle
from imgdiffd.bundles.sharing import LEXICON
from imgdiffd.errors import BundleError, StageError
from imgdiffd.kernels.compile import TUNED, compile_blocks
from imgdiffd.kernels.crop import CropPlan
from imgdiffd.models.blip import Blip
from imgdiffd.models.captioner import Captioner
from imgdiffd.models.chat import image_question, text_question
from imgdiffd.models.clip import Clip, refuse_unfit
from imgdiffd.models.eraser import Eraser
from imgdiffd.models.judge import Judge
from imgdiffd.models.lexicon_rewriter import LexiconRewriter
from imgdiffd.models.painter import Painter
from imgdiffd.models.preview import load_preview
from imgdiffd.models.rewriter import Rewriter
from imgdiffd.models.sampling import suggestions
from imgdiffd.models.sdxl import Sdxl
from imgdiffd.models.segmenter import Segmenter, UnsafeCheckpointError, open_checkpoint
from imgdiffd.models.sources import (
    LOCAL,
    dtype_for,
    folder_of,
    named,
    part_of,
    reads_images,
    refuse_damaged,
    refuse_other_kinds,
    sdxl_source,
    silence,
    templated,
    weights_of,
)
from imgdiffd.pipeline import Role

Say = Callable[[str], None]
T = TypeVar("T")
Weights = dict[str, Any]  # of models that read images, by `Model.weights`: roles that share a model get the same one
_FIXED_SHAPES = frozenset({Role.PAINTER, Role.ERASER})  # the others' rows or lengths differ from call to call


@dataclass(frozen=True)
class Models:
    """The models that one worker holds. `tokenizer` is the painter's CLIP tokenizer, present whatever was loaded.

    `sources` maps each loaded role to its source and revision, for provenance; `weights_bytes` maps it to the memory
    that its weights take, 0 where the device does not tell. A `need_*` property gives the model of a role, and raises
    StageError where this worker does not hold it.
    """

    tokenizer: Any
    rewriter: Rewriter | None = None
    lexicon: LexiconRewriter | None = None  # in the rewriter's place
    painter: Painter | None = None
    segmenter: Segmenter | None = None
    clip: Clip | None = None
    blip: Blip | None = None
    captioner: Captioner | None = None
    eraser: Eraser | None = None
    judge: Judge | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    weights_bytes: Mapping[str, int] = field(default_factory=dict)

    def repeated_decodes(self) -> int:
        """How many images were decoded twice because the first decoding overflowed."""
        held = {id(each.sdxl): each.sdxl for each in (self.painter, self.eraser) if each is not None}
        return sum(sdxl.decodes_repeated for sdxl in held.values())

    @property
    def need_rewriter(self) -> Rewriter:
        """The rewriter, or StageError."""
        return _held(self.rewriter, Role.REWRITER)

    @property
    def need_painter(self) -> Painter:
        """The painter, or StageError."""
        return _held(self.painter, Role.PAINTER)

    @property
    def need_segmenter(self) -> Segmenter:
        """The segmenter, or StageError."""
        return _held(self.segmenter, Role.SEGMENTER)

    @property
    def need_clip(self) -> Clip:
        """The CLIP, or StageError."""
        return _held(self.clip, Role.CLIP)

    @property
    def need_blip(self) -> Blip:
        """The BLIP, or StageError."""
        return _held(self.blip, Role.BLIP)

    @property
    def need_captioner(self) -> Captioner:
        """The captioner, or StageError."""
        return _held(self.captioner, Role.CAPTIONER)

    @property
    def need_eraser(self) -> Eraser:
        """The eraser, or StageError."""
        return _held(self.eraser, Role.ERASER)

    @property
    def need_judge(self) -> Judge:
        """The judge, or StageError."""
        return _held(self.judge, Role.JUDGE)


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
    tune: bool = False,
) -> Models:
    """The models of `roles` of `bundle`, ready on `device`. `say` hears of each role as its loading begins.

    Roles with the same weights share them where several are wanted: eraser and painter, or rewriter, captioner and
    judge. With `compile`, the blocks that models repeat are compiled, with `tune` as in `compile_models`; `note` hears
    if that fails, now or later. Raises BundleError naming role, source, file and what to do; torch's OutOfMemoryError
    passes through.
    """
    silence()
    wanted = [role for role in Role if role in roles]
    refuse_damaged(bundle, wanted)
    loaded: dict[str, Any] = {}
    lookers: Weights = {}
    loaders: dict[Role, Callable[[Bundle, torch.device], Any]] = {
        Role.REWRITER: lambda bundle, device: _rewriter(bundle, device, lookers, note),
        Role.PAINTER: lambda bundle, device: _painter(bundle, device, note),
        Role.SEGMENTER: _segmenter,
        Role.CLIP: _clip,
        Role.BLIP: _blip,
        Role.CAPTIONER: lambda bundle, device: _captioner(bundle, device, lookers, note),
        Role.ERASER: lambda bundle, device: _eraser(bundle, device, loaded.get(Role.PAINTER)),
        Role.JUDGE: lambda bundle, device: _judge(bundle, device, lookers, note),
    }
    tokenizer = named(bundle, Role.PAINTER, lambda: _painter_tokenizer(bundle))
    taken: dict[str, int] = {}  # by weights: a role that shares them takes next to nothing
    for role in wanted:
        say(f"{role}: {bundle.model(role).label}")
        before = _allocated(device)
        key = LEXICON if role is Role.REWRITER and bundle.rewriter.is_lexicon else role.value
        loaded[key] = named(bundle, role, lambda: loaders[role](bundle, device))  # noqa: B023 called at once
        taken.setdefault(bundle.model(role).weights, _allocated(device) - before)
    if compile:
        compile_models({role: loaded[role.value] for role in wanted if role.value in loaded}, note, tune=tune)
    return Models(
        tokenizer,
        **loaded,
        sources={role.value: bundle.model(role).label for role in wanted},
        weights_bytes={role.value: taken[bundle.model(role).weights] for role in wanted},
    )


def compile_models(models: Mapping[Role, Any], note: Say, *, tune: bool = False) -> None:
    """Has the `repeated_blocks` of every model that has any compiled at their first calls.

    With `tune`, those whose shapes are fixed choose the kernels of their products by timing several. A model whose
    compilation fails, now or later, runs uncompiled, and `note` hears of it once.
    """
    done: set[int] = set()  # an eraser may share its checkpoint with the painter
    for role, model in models.items():
        blocks = model.repeated_blocks() if hasattr(model, "repeated_blocks") else []
        blocks = [block for block in blocks if id(block) not in done]
        done.update(map(id, blocks))
        if blocks:
            fixed = role in _FIXED_SHAPES
            compile_blocks(f"the {role}", blocks, note, fixed_shapes=fixed, options=TUNED if tune and fixed else None)


def _allocated(device: torch.device) -> int:
    """Bytes of the device's memory in use; 0 on other devices than CUDA, where nothing counts them."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _painter_tokenizer(bundle: Bundle) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder_of(bundle, Role.PAINTER), subfolder="tokenizer", **LOCAL)


def _painter(bundle: Bundle, device: torch.device, note: Say) -> Painter:
    spec = bundle.painter
    source, options = sdxl_source(bundle, Role.PAINTER)
    dtype = dtype_for(device, spec.precision)
    painter = Painter.load(source, device, dtype, spec.pairs_per_pass, note, **options)
    given = hub.addition_of(bundle, spec.preview) if isinstance(spec.preview, str) else spec.preview
    if given is not None:
        painter.preview = load_preview(given, painter.sdxl.unet.config.in_channels, device, dtype)
    return painter


def _crop_plan(bundle: Bundle, role: Role) -> CropPlan:
    from transformers import AutoImageProcessor

    return CropPlan.from_image_processor(part_of(bundle, role, AutoImageProcessor))


def _rewriter(bundle: Bundle, device: torch.device, loaded: Weights, note: Say) -> Rewriter | LexiconRewriter:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if bundle.rewriter.is_lexicon:
        return LexiconRewriter()
    if reads_images(bundle):
        model, asked = _looker(bundle, Role.REWRITER, device, loaded, text_question("a cat"))
    else:
        refuse_other_kinds(bundle, Role.REWRITER, AutoModelForCausalLM)
        asked = templated(bundle, Role.REWRITER, AutoTokenizer, "a cat")
        model = weights_of(bundle, Role.REWRITER, AutoModelForCausalLM, device)
    _note_unused(Role.REWRITER, model, note)
    return Rewriter(model, asked, bundle.rewriter.rows_per_pass)


def _segmenter(bundle: Bundle, device: torch.device) -> Segmenter:
    path = folder_of(bundle, Role.SEGMENTER) / bundle.segmenter.file
    try:
        network = open_checkpoint(path)
    except UnsafeCheckpointError as error:
        raise BundleError(
            f"bundle {bundle.name}: segmenter: {path}: refused: {error}",
            hint="use a segmentation checkpoint (FastSAM, *-seg.pt) made only of Ultralytics' and torch's classes",
        ) from error
    return Segmenter(network, device, bundle.segmenter.border_px)


def _clip(bundle: Bundle, device: torch.device) -> Clip:
    from transformers import AutoModel, AutoTokenizer

    model = weights_of(bundle, Role.CLIP, AutoModel, device)
    refuse_unfit(model)
    return Clip(model, part_of(bundle, Role.CLIP, AutoTokenizer), _crop_plan(bundle, Role.CLIP))


def _blip(bundle: Bundle, device: torch.device) -> Blip:
    from transformers import AutoTokenizer, BlipForImageTextRetrieval

    model = weights_of(bundle, Role.BLIP, BlipForImageTextRetrieval, device)
    return Blip(model, part_of(bundle, Role.BLIP, AutoTokenizer), _crop_plan(bundle, Role.BLIP))


def _captioner(bundle: Bundle, device: torch.device, loaded: Weights, note: Say) -> Captioner:
    model, processor = _looker(bundle, Role.CAPTIONER, device, loaded, image_question("a cat"))
    _note_unused(Role.CAPTIONER, model, note)
    return Captioner(model, processor, bundle.captioner.rows_per_pass, note)


def _judge(bundle: Bundle, device: torch.device, loaded: Weights, note: Say) -> Judge:
    entry = bundle.model(Role.JUDGE)
    assert isinstance(entry, bundles.JudgeSpec)
    model, processor = _looker(bundle, Role.JUDGE, device, loaded, image_question("a cat"))
    _note_unused(Role.JUDGE, model, note)
    return Judge(model, processor, entry.rows_per_pass)


def _note_unused(role: Role, model: Any, note: Say) -> None:
    if found := suggestions(model):
        told = ", ".join(f"{name} {value:g}" for name, value in found.items())
        note(f"the {role}'s checkpoint suggests {told}: not used, only the profile says how tokens are chosen")


def _looker(
    bundle: Bundle, role: Role, device: torch.device, loaded: Weights, content: list[dict[str, str]]
) -> tuple[Any, Any]:
    """A model that reads images, shared with the role that has `loaded` it, and its processor, asked such `content`."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    refuse_other_kinds(bundle, role, AutoModelForImageTextToText)
    processor = templated(bundle, role, AutoProcessor, content)
    weights = bundle.model(role).weights
    if weights not in loaded:
        loaded[weights] = weights_of(bundle, role, AutoModelForImageTextToText, device)
    return loaded[weights], processor


def _eraser(bundle: Bundle, device: torch.device, painter: Painter | None) -> Eraser:
    """An eraser, which shares the weights of `painter` if it names the same."""
    model = bundle.model(Role.ERASER)
    assert isinstance(model, bundles.EraserSpec)
    if painter is not None and model.weights == bundle.painter.weights:
        return Eraser(painter.sdxl, model.pictures_per_pass)
    source, options = sdxl_source(bundle, Role.ERASER)
    sdxl = Sdxl.load(source, device, dtype_for(device, model.precision), **options)
    return Eraser(sdxl, model.pictures_per_pass)
