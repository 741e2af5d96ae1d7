"""Warm-up: every compiled role runs once with each kind of shape that its stages will use, before the first batch."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from imgdiffd.errors import first_line
from imgdiffd.kernels.compile import compilations_told
from imgdiffd.method.profile import Profile
from imgdiffd.models.eraser import Hole
from imgdiffd.models.loading import Models
from imgdiffd.models.painter import PairPrompt
from imgdiffd.pipeline import Role
from imgdiffd.stages.drawing import joined

_CAPTIONS = ("a dog", " ".join(["a dog on the grass"] * 8))  # after two lengths, any length runs the same code
_NUMBERS = (1, 2, 3)  # of crops: one, another, and the proof that a third number compiles nothing new
_TOKENS = 2  # the first comes from the pass over the prompt, the second from a step


def warm_up(
    models: Models, profile: Profile, device: torch.device, say: Callable[[str], None], note: Callable[[str], None]
) -> None:
    """Run each role of `models` that has compiled blocks, at the sizes of `profile`.

    `say` is told which role is being warmed up, and of each kernel as its compilation begins. `note` is told of a role
    that fails; if its first batch fails too, that is reported and retried like any other.
    """
    held = [role for role in _PASSES if hasattr(getattr(models, role.value, None), "repeated_blocks")]
    for number, role in enumerate(held, 1):
        at = f"warming up {role} ({number} of {len(held)})"
        say(at)
        with compilations_told(lambda kernel: say(f"{at}, kernel {kernel}")):  # noqa: B023 used within this round of the loop
            try:
                _PASSES[role](models, profile, device)
            except Exception as error:
                note(f"the {role} was not warmed up: {first_line(error)}")


def _image(px: int, device: torch.device) -> torch.Tensor:
    return torch.zeros(3, px, px, dtype=torch.uint8, device=device)


def _boxes(number: int, px: int) -> list[tuple[int, int, int, int]]:
    return [(0, 0, px - place, px) for place in range(number)]


def _rewriter(models: Models, profile: Profile, device: torch.device) -> None:
    rewrite = profile.rewrite.model_copy(update={"max_new_tokens": _TOKENS})
    models.need_rewriter.rewrite(_CAPTIONS, [0] * len(_CAPTIONS), rewrite)


def _painter(models: Models, profile: Profile, device: torch.device) -> None:
    """One step with injection, one without, and the decoding."""
    few = {"steps": 2, "cross_injection": 0.5, "self_injection": 0.5, "word_steps": {}}
    models.need_painter.paint_pairs([PairPrompt("a dog", "a cat", 0)], profile.generate.model_copy(update=few))


def _clip(models: Models, profile: Profile, device: torch.device) -> None:
    px = profile.generate.picture_px
    models.need_clip.embed_texts(_CAPTIONS)
    models.need_clip.embed_images([_image(px, device)])
    for number in _NUMBERS:
        models.need_clip.embed_crops(_image(px, device), _boxes(number, px))


def _blip(models: Models, profile: Profile, device: torch.device) -> None:
    px = profile.generate.picture_px
    texts = ["a dog", *_CAPTIONS[::-1]]
    for kind in sorted({profile.locate.noun_kind, profile.describe.match_kind}):
        for number in _NUMBERS:
            models.need_blip.score(_image(px, device), _boxes(number, px), texts[:number], kind)


def _captioner(models: Models, profile: Profile, device: torch.device) -> None:
    """One question about an image, as many as a pair has regions, and one about a joined pair."""
    alone = _image(profile.generate.picture_px, device)
    captioner = models.need_captioner
    for number in (1, profile.locate.regions):
        captioner.answer([alone], [[profile.describe.prompt] * number], _TOKENS)
    captioner.answer([joined(alone, alone, profile.contrast.bar_px)], [[profile.contrast.prompt]], _TOKENS)


def _eraser(models: Models, profile: Profile, device: torch.device) -> None:
    px = profile.removal.picture_px
    mask = torch.zeros(px, px, dtype=torch.bool, device=device)
    mask[: px // 2] = True
    removal = profile.removal.model_copy(update={"steps": 1, "strength": 1.0})
    models.need_eraser.erase([Hole(_image(px, device), mask, 0)], removal)


def _judge(models: Models, profile: Profile, device: torch.device) -> None:
    alone = _image(profile.generate.picture_px, device)
    shown = joined(alone, alone, profile.contrast.bar_px)
    models.need_judge.judge([shown], profile.natural.prompt, _TOKENS)


_PASSES: Mapping[Role, Callable[[Models, Profile, torch.device], None]] = MappingProxyType(
    {
        Role.REWRITER: _rewriter,
        Role.PAINTER: _painter,
        Role.CLIP: _clip,
        Role.BLIP: _blip,
        Role.CAPTIONER: _captioner,
        Role.ERASER: _eraser,
        Role.JUDGE: _judge,
    }
)
