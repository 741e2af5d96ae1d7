"""Where a role's files come from and how they are read: folders, precision, safetensors only, quietly.

It owns formats and what a missing or damaged file is called; it does not know which role needs what.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from imgdiffd import bundle as bundles
from imgdiffd.bundle import Bundle
from imgdiffd.errors import BundleError
from imgdiffd.pipeline import Role

T = TypeVar("T")


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


def repair(bundle: Bundle) -> str:
    """What to do about a file of `bundle` that is missing or damaged."""
    if bundle.path == bundles.load_bundle(bundles.MINI).path:
        return "`make mini` rebuilds the miniature bundle"
    return f"put it there again, or change the source in {bundle.path}"


def named(bundle: Bundle, role: Role, load: Callable[[], T]) -> T:
    """`load()`, its complaints about files and models turned into a BundleError of one line.

    A model refuses what does not fit it with the reason alone; here that gets the names of bundle, role and source.
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
    except Exception as error:  # the libraries raise nearly every type on a damaged file
        raise BundleError(
            f"{whose}{role}: {bundle.model(role).source}: {one_line(error)}", hint=repair(bundle)
        ) from error


def one_line(error: Exception) -> str:
    """What `error` says, its line breaks and the end of a very long text left out."""
    return " ".join(str(error).split())[:400] or type(error).__name__


_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def dtype_for(device: torch.device, precision: bundles.Precision = "auto") -> torch.dtype:
    """The precision that a model runs in: fp16 on CUDA and fp32 elsewhere, unless its bundle says otherwise."""
    return _DTYPES.get(precision, torch.float16 if device.type == "cuda" else torch.float32)


def where_is(bundle: Bundle, role: Role) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes: a folder, or a hub id with its revision; never remote code."""
    model = bundle.model(role)
    folder = bundle.folder(model.source)
    if folder is not None:
        return str(folder), {"local_files_only": True, "trust_remote_code": False}
    return model.source, {"revision": model.revision or "main", "trust_remote_code": False}


def weights_of(bundle: Bundle, role: Role, auto: Any, device: torch.device) -> Any:
    """A transformers model of class `auto` in eval mode. Raises BundleError where weights are missing or do not fit."""
    where, options = where_is(bundle, role)
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
            hint=repair(bundle),
        )
    return model.to(device).eval().requires_grad_(False)


def part_of(bundle: Bundle, role: Role, auto: Any) -> Any:
    """A tokenizer or processor of class `auto`."""
    where, options = where_is(bundle, role)
    return auto.from_pretrained(where, **options)


def sdxl_source(bundle: Bundle, model: bundles.Sdxl) -> tuple[str, dict[str, Any]]:
    """Folder or hub id, and what `Sdxl.load` takes beside it."""
    folder = bundle.folder(model.source)
    vae_folder = None if model.vae is None else bundle.folder(model.vae)
    return str(folder or model.source), {
        "revision": model.revision,
        "variant": model.variant,
        "vae": str(vae_folder) if vae_folder else model.vae,
        "local_files_only": folder is not None,
    }
