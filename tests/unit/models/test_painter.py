"""The laws of the painter, on a tiny SDXL with random weights in the stock format."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler, StableDiffusionXLPipeline
from torch import Tensor

from imgdiffd.errors import BundleError, InputError, ProfileError, StageError
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Generate
from imgdiffd.models.painter import Painter, PairPrompt
from tests.tiny.sdxl import IMAGE_PX, tiny_sdxl

CPU = torch.device("cpu")
PAIRS = [
    PairPrompt("a red ball and a blue house on the grass", "a red star and a blue house on the grass", 7),
    PairPrompt("a green fish", "a big green fish and a cup", 2**62),
    PairPrompt("a yellow moon and a ring on the road", "a moon", 0),
]


@pytest.fixture(scope="module")
def folder(tiny_bundle: Path) -> Path:
    return tiny_bundle.parent / "painter"


@pytest.fixture(scope="module")
def painter(folder: Path) -> Painter:
    return load(folder)


def load(folder: Path, pairs_per_pass: int = 1) -> Painter:
    return Painter.load(str(folder), CPU, torch.float32, pairs_per_pass, local_files_only=True)


def numbers(**changes: Any) -> Generate:
    return load_profile("mini").generate.model_copy(update={"picture_px": IMAGE_PX, "steps": 6} | changes)


def stock(folder: Path, pair: PairPrompt, caption: str, generate: Generate) -> Tensor:
    """What diffusers' own pipeline paints, [3, H, W] in 0..1."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(pair.seed)
    side = generate.picture_px // pipeline.vae_scale_factor
    latents = torch.randn(1, 4, side, side, generator=generator)
    image = pipeline(
        caption,
        height=generate.picture_px,
        width=generate.picture_px,
        num_inference_steps=generate.steps,
        guidance_scale=generate.guidance_scale,
        latents=latents,
        generator=generator,
        output_type="pt",
    ).images[0]
    return torch.as_tensor(image)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Fills with every image that is decoded, in 0..1, before it is rounded to bytes."""
    seen: list[Tensor] = []
    from diffusers import AutoencoderKL

    decode = AutoencoderKL.decode

    def listen(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = decode(self, *args, **kwargs)
        seen.extend((result[0] / 2 + 0.5).clamp(0, 1))
        return result

    monkeypatch.setattr(AutoencoderKL, "decode", listen)
    return seen


SCHEDULERS = {
    "euler": None,
    "ddim, v-prediction, zero terminal SNR": DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    ),
    "euler ancestral, which adds noise": EulerAncestralDiscreteScheduler(),
    "heun, two calls a step": HeunDiscreteScheduler(),
}


@pytest.mark.parametrize(
    ("scheduler", "zero_empty_prompt", "guidance_scale"),
    [(name, True, 4.0) for name in SCHEDULERS] + [("euler", False, 4.0), ("euler", True, 1.0)],
)
def test_without_an_edit_the_images_are_those_of_diffusers(
    tmp_path: Path, decoded: list[Tensor], scheduler: str, zero_empty_prompt: bool, guidance_scale: float
) -> None:
    folder = tiny_sdxl(tmp_path, zero_empty_prompt=zero_empty_prompt, scheduler=SCHEDULERS[scheduler])
    generate, pair = numbers(edit="none", guidance_scale=guidance_scale), PAIRS[0]
    ours = load(folder).paint_pairs([pair], generate)[0]
    exact = list(decoded)
    for mine, raw, caption in zip(ours, exact, (pair.caption1, pair.caption2), strict=True):
        wanted = stock(folder, pair, caption, generate)
        torch.testing.assert_close(raw, wanted, rtol=0, atol=1e-4)
        assert np.array_equal(mine.numpy(), (raw.numpy() * 255).round().astype(np.uint8))


def test_the_source_is_painted_as_if_alone_and_the_target_is_not(painter: Painter) -> None:
    edited, free = (painter.paint_pairs(PAIRS[:1], numbers(edit=edit))[0] for edit in ("refine", "none"))
    assert (edited[0].int() - free[0].int()).abs().max() <= 1
    assert (edited[1].int() - free[1].int()).abs().max() > 3


def test_an_edit_without_any_step_is_no_edit(painter: Painter) -> None:
    never = painter.paint_pairs(PAIRS[:1], numbers(cross_injection=0.0, self_injection=0.0))[0]
    none = painter.paint_pairs(PAIRS[:1], numbers(edit="none"))[0]
    assert all(torch.equal(one, other) for one, other in zip(never, none, strict=True))


@pytest.mark.parametrize(
    "changes",
    [{"edit": "replace"}, {"reweight": {"star": 5.0}}, {"word_steps": {"blue": (0.0, 0.0)}}],
    ids=["replace", "reweight", "word steps"],
)
def test_an_edit_reaches_the_target_and_leaves_the_source(painter: Painter, changes: dict[str, Any]) -> None:
    refined, changed = (painter.paint_pairs(PAIRS[:1], numbers(**each))[0] for each in ({}, changes))
    assert torch.equal(refined[0], changed[0])
    assert not torch.equal(refined[1], changed[1])


def test_a_word_that_no_caption_has_changes_nothing(painter: Painter) -> None:
    refined, ignored = (
        painter.paint_pairs(PAIRS[:1], numbers(**each))[0] for each in ({}, {"reweight": {"zebra": 5.0}})
    )
    assert torch.equal(refined[1], ignored[1])


def test_captions_that_replace_cannot_align_are_both_named(painter: Painter) -> None:
    with pytest.raises(
        InputError, match=r"'a green fish' has 3 words, but 'a big green fish and a cup' has 7"
    ) as caught:
        painter.paint_pairs([PAIRS[1]], numbers(edit="replace"))
    assert caught.value.code == "captions_not_aligned"


def test_equal_captions_give_equal_images(painter: Painter) -> None:
    same = PairPrompt(PAIRS[0].caption1, PAIRS[0].caption1, 3)
    for edit in ("none", "refine"):
        one, other = painter.paint_pairs([same], numbers(edit=edit))[0]
        assert (one.int() - other.int()).abs().max() <= 1


@pytest.mark.parametrize("pairs_per_pass", [1, 2, 4])
def test_a_pairs_images_do_not_depend_on_its_mates(folder: Path, pairs_per_pass: int) -> None:
    painter = load(folder, pairs_per_pass)
    together = painter.paint_pairs(PAIRS, numbers())
    alone = [painter.paint_pairs([pair], numbers())[0] for pair in PAIRS]
    turned = painter.paint_pairs(PAIRS[::-1], numbers())[::-1]
    for one, other, third in zip(together, alone, turned, strict=True):
        assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(one, other, third, strict=True))


def test_every_pass_has_the_same_shape(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painter, rows = load(folder, 2), []
    painter.sdxl.unet.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    painter.paint_pairs(PAIRS, numbers(steps=1))
    assert rows == [8, 8]


def test_images_have_the_asked_size_and_vary_by_seed(painter: Painter) -> None:
    first, second = painter.paint_pairs([PAIRS[1], PairPrompt(PAIRS[1].caption1, PAIRS[1].caption2, 5)], numbers())
    assert first[0].shape == (3, IMAGE_PX, IMAGE_PX)
    assert first[0].dtype == torch.uint8
    assert not torch.equal(first[0], second[0])
    assert painter.paint_pairs([], numbers()) == []


def test_a_caption_that_is_too_long_is_an_error_and_is_not_cut(painter: Painter) -> None:
    with pytest.raises(InputError, match="has 82 tokens, but the painter reads only 77") as caught:
        painter.paint_pairs([PairPrompt("a ball", "ball " * 80, 1)], numbers())
    assert caught.value.code == "caption_too_long"


def test_an_image_size_beyond_the_autoencoder_is_refused(painter: Painter) -> None:
    with pytest.raises(ProfileError, match=r"picture_px is 33.*divide by 2"):
        painter.paint_pairs(PAIRS[:1], numbers(picture_px=33))


def test_a_non_finite_image_is_an_error_not_a_black_image(folder: Path) -> None:
    painter = load(folder)
    painter.sdxl.vae.decoder.conv_out.bias.data.fill_(torch.inf)
    with pytest.raises(StageError, match="a green fish"):
        painter.paint_pairs([PAIRS[1]], numbers(steps=1))


def test_another_autoencoder_takes_the_place_of_the_checkpoints(folder: Path, tmp_path: Path) -> None:
    other = tiny_sdxl(tmp_path)
    lighter = StableDiffusionXLPipeline.from_pretrained(other, add_watermarker=False).vae
    lighter.decoder.conv_out.bias.data.fill_(9)
    lighter.save_pretrained(tmp_path / "lighter")
    painter = Painter.load(str(folder), CPU, torch.float32, 1, vae=str(tmp_path / "lighter"))
    assert painter.paint_pairs(PAIRS[:1], numbers(steps=1))[0][0].min() == 255


@pytest.mark.parametrize("damage", ["missing", "no unet", "cut off", "another pipeline"])
def test_an_unloadable_checkpoint_is_refused_in_one_line(folder: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    if damage != "missing":
        shutil.copytree(folder, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    if damage == "no unet":
        weights.unlink()
    elif damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "another pipeline":
        shutil.rmtree(copy / "text_encoder_2")
    with pytest.raises(BundleError, match="SDXL checkpoint") as refused:
        load(copy)
    assert "\n" not in str(refused.value)
