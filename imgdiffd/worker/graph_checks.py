"""CUDA graphs of the models' repeating steps, kept where a short run shows that a replay gives the same results."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from imgdiffd.errors import first_line
from imgdiffd.method.profile import Profile
from imgdiffd.models.loading import Models
from imgdiffd.models.painter import PairPrompt
from imgdiffd.pipeline import Role

_CAPTIONS = ("a dog", "a cat on the grass")
_TOKENS = 6  # the first comes from the pass over the prompt, the second from a plain step, the others from replays
_STEPS = 9  # three in each phase of the injection: a plain one, the captured one and one more replay
_LEVELS = 1.0  # of 255, on average: a capture may choose other kernels, which round differently


def graph_steps(
    models: Models, profile: Profile, device: torch.device, say: Callable[[str], None], note: Callable[[str], None]
) -> None:
    """Capture the steps of each role that repeats any, unless replaying them changes its results.

    `say` is told which role is being captured, `note` of each role that goes on without graphs, and why.
    """
    held = [role for role in _RUNS if hasattr(getattr(models, role.value, None), "graph_steps")]
    for number, role in enumerate(held, 1):
        say(f"capturing the steps of the {role} ({number} of {len(held)})")
        model, run = getattr(models, role.value), _RUNS[role]
        try:
            model.plain_steps()
            plain = run(models, profile, device)
            model.graph_steps(note)
            same = _same(run(models, profile, device), plain)
        except Exception as error:
            model.plain_steps()
            note(f"the {role} runs without CUDA graphs: {first_line(error)}")
        else:
            if not same:
                model.plain_steps()
                note(f"the {role} runs without CUDA graphs: a replayed step gave another result than the step itself")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return float((one.float() - other.float()).abs().mean()) <= _LEVELS
    return bool(one == other)


def _rewriter(models: Models, profile: Profile, device: torch.device) -> Any:
    rewrite = profile.rewrite.model_copy(update={"max_new_tokens": _TOKENS})
    return models.need_rewriter.rewrite(_CAPTIONS, range(len(_CAPTIONS)), rewrite)


def _painter(models: Models, profile: Profile, device: torch.device) -> Any:
    few = {"steps": _STEPS, "cross_injection": 0.67, "self_injection": 0.34, "word_steps": {}}
    pairs = models.need_painter.paint_pairs([PairPrompt(*_CAPTIONS, 0)], profile.generate.model_copy(update=few))
    return torch.stack(pairs[0])


def _captioner(models: Models, profile: Profile, device: torch.device) -> Any:
    px = profile.generate.picture_px
    shown = torch.arange(3 * px * px, device=device).remainder(251).to(torch.uint8).view(3, px, px)
    return models.need_captioner.answer([shown], [[profile.describe.prompt] * 2], _TOKENS)


_RUNS: Mapping[Role, Callable[[Models, Profile, torch.device], Any]] = MappingProxyType(
    {Role.REWRITER: _rewriter, Role.PAINTER: _painter, Role.CAPTIONER: _captioner}
)
