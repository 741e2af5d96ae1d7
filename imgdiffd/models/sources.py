"""Where a role's files are and how they are read: folders, precision, safetensors unless allowed otherwise, quietly."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from imgdiffd import hub
from imgdiffd.bundles import bundle as bundles
from imgdiffd.bundles.bundle import Bundle
from imgdiffd.errors import BundleError
from imgdiffd.pipeline import Role

T = TypeVar("T")
Net = TypeVar("Net", bound=nn.Module)


def silence() -> None:
    """Turns off the libraries' progress bars, advice and chatter, and the network, which loading does not need.

    A worker's stderr is for errors.
    """
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "true"  # else transformers asks a public service to convert pickles
    import diffusers
    import transformers
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    disable_progress_bars()
    constants.HF_HUB_OFFLINE = True  # the environment is too late: it was read at the first import


def refuse_damaged(bundle: Bundle, roles: Sequence[Role]) -> None:
    """Raises BundleError naming the first file of `roles` that is missing or damaged, and how to restore it."""
    found = [each for each in hub.presences(bundle, roles) if each.problems]
    if found:
        count = sum(len(each.problems) for each in found)
        more = f" (and {count - 1} more)" if count > 1 else ""
        first = found[0]
        text = f"bundle {bundle.name}: {first.role}: {first.problems[0]}{more}"
        raise BundleError(text, hint=hub.remedy(bundle, first.role))


def named(bundle: Bundle, role: Role, load: Callable[[], T]) -> T:
    """`load()`, with its errors about files and models turned into a BundleError of one line.

    A model's own error gives the reason alone; here it gets the names of bundle, role and source.
    """
    whose = f"bundle {bundle.name}: "
    try:
        return load()
    except torch.OutOfMemoryError:
        raise
    except BundleError as error:
        if error.message.startswith(whose):
            raise
        raise BundleError(f"{whose}{role}: {bundle.model(role).source}: {error.message}", hint=error.hint) from error
    except Exception as error:  # the libraries raise nearly any type on a damaged file
        if "trust_remote_code" in str(error):  # the library asks for this permission, which it never gets
            raise BundleError(
                f"{whose}{role}: {bundle.model(role).source}: its classes are code of its own, which is never run",
                hint="name a checkpoint whose classes transformers has itself (for InternVL, one named *-hf)",
            ) from error
        raise BundleError(
            f"{whose}{role}: {bundle.model(role).source}: {one_line(error)}", hint=hub.remedy(bundle, role)
        ) from error


def one_line(error: Exception) -> str:
    """The message of `error` without line breaks, cut after 400 characters; its type where it has no message."""
    return " ".join(str(error).split())[:400] or type(error).__name__


LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}  # for every `from_pretrained`
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def dtype_for(device: torch.device, precision: bundles.Precision = "auto") -> torch.dtype:
    """The precision that a model runs in: fp16 on CUDA and fp32 elsewhere, unless its bundle says otherwise."""
    return _DTYPES.get(precision, torch.float16 if device.type == "cuda" else torch.float32)


def folder_of(bundle: Bundle, role: Role) -> Path:
    """The folder with the files of `role`; a hub id's is in the local cache. Raises BundleError where there is none."""
    model = bundle.model(role)
    folder = hub.folder_of(bundle, model)
    if folder is None:
        text = f"bundle {bundle.name}: {role}: {model.label}: not in the local cache"
        raise BundleError(text, hint=hub.remedy(bundle, role))
    return folder


def weights_of(bundle: Bundle, role: Role, auto: Any, device: torch.device) -> Any:
    """A transformers model of class `auto` in eval mode. Raises BundleError where weights are missing or do not fit."""
    folder = folder_of(bundle, role)
    refuse_other_kinds(bundle, role, auto)
    model, report = auto.from_pretrained(
        folder,
        dtype=dtype_for(device, bundle.model(role).precision),
        use_safetensors=None if bundle.model(role).allow_pickle else True,  # pickles go through torch's weights_only
        variant=bundle.model(role).variant,
        output_loading_info=True,
        **LOCAL,
    )
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise BundleError(
            f"bundle {bundle.name}: {role}: {folder}: its weights lack {len(absent)} tensors, {absent[0]} first",
            hint=hub.remedy(bundle, role),
        )
    return own_weights(model.to(device)).eval().requires_grad_(False)


def own_weights(module: Net) -> Net:
    """The module, with what it has in main memory copied out of the files that it is mapped from.

    Whatever is written over such a file would change its weights, without a word, or end the process.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()
    return module


_KINDS = {
    "AutoModelForCausalLM": "a chat LLM",
    "AutoModel": "a CLIP or a SigLIP",
    "BlipForImageTextRetrieval": "a BLIP for image-text retrieval, base or large",
    "AutoModelForImageTextToText": "an image-text-to-text model, such as a LLaVA, Qwen-VL or InternVL",
}


def refuse_other_kinds(bundle: Bundle, role: Role, auto: Any) -> None:
    """Raises BundleError where the class `auto` does not build models with the configuration of `role`."""
    config = _config(bundle, role)
    if not _builds(auto, config):
        raise BundleError(f"it is of type {config.model_type}", hint=f"name {_KINDS[auto.__name__]}")


def _config(bundle: Bundle, role: Role) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder_of(bundle, role), **LOCAL)


def _builds(auto: Any, config: Any) -> bool:
    kinds = getattr(auto, "_model_mapping", None)  # an auto class builds many kinds, keyed by their configurations
    return isinstance(config, auto.config_class) if kinds is None else type(config) in kinds


def reads_images(bundle: Bundle) -> bool:
    """Whether the rewriter is an image-text-to-text model: one that it shares, or one that is no chat LLM.

    The answer is the same whatever else is loaded, so that captions are rewritten alike on every device.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    weights = bundle.rewriter.weights
    if any(bundle.model(role).weights == weights for role in {Role.CAPTIONER, Role.JUDGE}.intersection(bundle.roles)):
        return True
    config = _config(bundle, Role.REWRITER)
    return not _builds(AutoModelForCausalLM, config) and _builds(AutoModelForImageTextToText, config)


def part_of(bundle: Bundle, role: Role, auto: Any) -> Any:
    """The tokenizer or processor of `role`, built by the class `auto`."""
    return auto.from_pretrained(folder_of(bundle, role), **LOCAL)


def templated(bundle: Bundle, role: Role, auto: Any, content: object) -> Any:
    """The tokenizer or processor of `role`, built by `auto`, with its bundle's chat template where that gives one.

    Raises BundleError where there is no template, or it refuses a user's message of this `content`.
    """
    found, entry = part_of(bundle, role, auto), bundle.model(role)
    assert isinstance(entry, bundles.RewriterSpec | bundles.CaptionerSpec)
    if entry.chat_template is not None:
        found.chat_template = entry.chat_template
    what = "tokenizer" if auto.__name__ == "AutoTokenizer" else "processor"
    hint = f"set chat_template under [{role}] in {bundle.path}"
    if not getattr(found, "chat_template", None):  # a plain tokenizer, where a model has no processor, may have none
        raise BundleError(f"its {what} has no chat template", hint=hint)
    try:
        found.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    except Exception as error:  # templates raise what they like
        raise BundleError(f"its chat template refuses a user's message: {one_line(error)}", hint=hint) from error
    return found


def sdxl_source(bundle: Bundle, role: Role) -> tuple[str, dict[str, Any]]:
    """The folder of a Stable Diffusion XL pipeline, and the other arguments of `Sdxl.load`."""
    model = bundle.model(role)
    assert isinstance(model, bundles.SdxlSpec)
    vae = None if model.vae is None else hub.addition_of(bundle, model.vae)
    options = {"variant": model.variant, "vae": None if vae is None else str(vae), "local_files_only": True}
    return str(folder_of(bundle, role)), options
