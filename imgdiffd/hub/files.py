"""Picks by name the files of a hub repository that the loaders read, so that nothing else is fetched."""

import re
from collections.abc import Collection, Mapping
from typing import Literal

# Configurations, tokenizers, processors and chat templates.
_SIDE_FILES = (".json", ".txt", ".jinja", ".model", ".tiktoken")
_INDEX = re.compile(r"\.index(\.[\w-]+)?\.json$")
Stem = Literal["model", "diffusion_pytorch_model", "pytorch_model"]


def checkpoint_files(names: Collection[str], file: str) -> list[str]:
    """The one file of an Ultralytics repository. Raises ValueError where it is not among `names`."""
    if file not in names:
        raise ValueError(f"it has no file {file}")
    return [file]


def model_files(names: Collection[str], *, variant: str | None = None, allow_pickle: bool = False) -> list[str]:
    """The files of a transformers model: weights of `variant`, configuration, tokenizer, processor, chat templates.

    Pickles only with `allow_pickle`, and only where there is no safetensors file. Raises ValueError with the reason
    where there are no weights that may be read.
    """
    weights = weight_files(names, "model", variant)
    pickles = [] if weights else weight_files(names, "pytorch_model", variant)
    if not weights and not (allow_pickle and pickles):
        raise ValueError(_no_weights("it", variant, bool(pickles)))
    templates = [name for name in names if re.fullmatch(r"additional_chat_templates/[^/]+\.jinja", name)]
    return sorted([*_side_files(names), *templates, *(weights or pickles)])


def pipeline_files(names: Collection[str], parts: Mapping[str, bool], variant: str | None = None) -> list[str]:
    """The files of a diffusers pipeline: `model_index.json` and those of its `parts`, True for a part with weights.

    As in diffusers, plain weights are taken for a part that has none of `variant`. Raises ValueError naming the part
    that is missing or has no weights.
    """
    picked = ["model_index.json"]
    for part, has_weights in parts.items():
        inside = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
        if not inside:
            raise ValueError(f"its model_index.json names {part}, but it has no such folder")
        found = _side_files(inside)
        if has_weights:
            found += _part_weights(inside, part, variant)
        picked += [f"{part}/{name}" for name in found]
    return sorted(picked)


def component_files(names: Collection[str]) -> list[str]:
    """The files of one diffusers network at the top of its repository. Raises ValueError where it has no weights."""
    weights = weight_files(names, "diffusion_pytorch_model")
    if "config.json" not in names or not weights:
        raise ValueError("it has no config.json with diffusion_pytorch_model.safetensors")
    return sorted(["config.json", *weights])


def weight_files(names: Collection[str], stem: Stem, variant: str | None = None) -> list[str]:
    """The weights called `stem` of exactly this variant: one file, or the shards with their index; [] without any."""
    ending = "bin" if stem == "pytorch_model" else "safetensors"
    of = "" if variant is None else rf"\.{re.escape(variant)}"
    single = f"{stem}{'' if variant is None else f'.{variant}'}.{ending}"
    if single in names:
        return [single]
    number = r"-\d{5}-of-\d{5}"
    shard = re.compile(rf"{stem}({of}{number}|{number}{of})\.{ending}")
    index = re.compile(rf"{stem}(\.{ending}\.index{of}|{of}\.{ending}\.index)\.json")
    shards = [name for name in names if shard.fullmatch(name)]
    return sorted([*shards, *(name for name in names if index.fullmatch(name))]) if shards else []


def _part_weights(names: Collection[str], part: str, variant: str | None) -> list[str]:
    stems: tuple[Stem, ...] = ("diffusion_pytorch_model", "model")
    for wanted in dict.fromkeys((variant, None)):
        for stem in stems:
            if found := weight_files(names, stem, wanted):
                return found
    raise ValueError(_no_weights(f"its {part}", variant, any(name.endswith(".bin") for name in names)))


def _side_files(names: Collection[str]) -> list[str]:
    """The side files at the top of `names`, without the indexes of weights."""
    return [name for name in names if "/" not in name and name.endswith(_SIDE_FILES) and not _INDEX.search(name)]


def _no_weights(what: str, variant: str | None, has_pickles: bool) -> str:
    of = "" if variant is None else f" of the variant {variant}"
    pickles = " (it has pickles; allow_pickle = true in the bundle allows them)" if has_pickles else ""
    return f"{what} has no safetensors weights{of}{pickles}"
