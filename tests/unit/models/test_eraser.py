"""The laws of the eraser, on a tiny SDXL with random weights: diffusers' inpainting inside, the original outside."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, StableDiffusionXLInpaintPipeline
from torch import Tensor

from imgdiffd.bundles.bundle import Bundle, load_bundle
from imgdiffd.errors import BundleError, InputError, ProfileError, StageError
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Removal
from imgdiffd.models.eraser import Eraser, Hole, dilated, feathered
from imgdiffd.models.loading import Models, load_models
from imgdiffd.models.painter import Painter, PairPrompt
from imgdiffd.models.sdxl import Sdxl
from imgdiffd.pipeline import Role
from tests.tiny.sdxl import IMAGE_PX, tiny_sdxl, tiny_unet

CPU = torch.device("cpu")
BOX = (8, 10, 18, 22)
V_PREDICTION = DDIMScheduler(
    beta_schedule="squaredcos_cap_v2",
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
    timestep_spacing="trailing",
    clip_sample=False,
)
TURBO = EulerAncestralDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="trailing")


@pytest.fixture(scope="module")
def folder(tiny_bundle: Path) -> Path:
    return tiny_bundle.parent / "painter"


@pytest.fixture(scope="module")
def eraser(folder: Path) -> Eraser:
    return load(folder)


def load(folder: Path, pictures_per_pass: int = 1) -> Eraser:
    return Eraser(Sdxl.load(str(folder), CPU, torch.float32, local_files_only=True), pictures_per_pass)


def numbers(**changes: Any) -> Removal:
    small = {"picture_px": IMAGE_PX, "dilate_px": 2, "feather_px": 2, "prompt": "a ball", "steps": 4}
    return load_profile("default").removal.model_copy(update=small | changes)


def hole(seed: int, box: tuple[int, int, int, int] = BOX) -> Hole:
    noise = torch.Generator().manual_seed(seed % 1000)
    image = torch.randint(0, 256, (3, IMAGE_PX, IMAGE_PX), generator=noise, dtype=torch.uint8)
    mask = torch.zeros(IMAGE_PX, IMAGE_PX, dtype=torch.bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return Hole(image, mask, seed)


HOLES = [hole(7), hole(2**62, (0, 0, 6, 32)), hole(0, (20, 20, 32, 32))]


def changed(made: Tensor, given: Hole) -> Tensor:
    return (made != given.image).any(0)


@pytest.mark.parametrize("dilate_px", [0, 3])
@pytest.mark.parametrize("feather_px", [0, 4])
def test_pixels_outside_the_mask_are_bit_identical(eraser: Eraser, dilate_px: int, feather_px: int) -> None:
    made = eraser.erase(HOLES, numbers(dilate_px=dilate_px, feather_px=feather_px))
    for given, image in zip(HOLES, made, strict=True):
        outside = ~dilated(given.mask, dilate_px + feather_px)
        assert outside.any()
        assert torch.equal(image[:, outside], given.image[:, outside])
        assert changed(image, given)[given.mask].float().mean() > 0.9


def test_the_autoencoder_alone_would_move_nearly_every_pixel(eraser: Eraser) -> None:
    """Without the paste-back: why it is there."""
    whole = eraser._inpaint(HOLES[:1], numbers())[0]
    assert changed(whole, HOLES[0])[~HOLES[0].mask].float().mean() > 0.9


def stock(folder: Path, given: Hole, removal: Removal) -> Tensor:
    """What diffusers' own pipeline makes of the dilated mask, [3, H, W] in 0–1, before any paste-back."""
    pipeline = StableDiffusionXLInpaintPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)

    def mode(image: Tensor, generator: object) -> Tensor:
        latents: Tensor = pipeline.vae.encode(image).latent_dist.mode() * pipeline.vae.config.scaling_factor
        return latents

    pipeline._encode_vae_image = mode
    pixels = pipeline(
        removal.prompt,
        image=given.image[None] / 255,
        mask_image=dilated(given.mask, removal.dilate_px + removal.feather_px).float()[None, None],
        height=IMAGE_PX,
        width=IMAGE_PX,
        strength=removal.strength,
        num_inference_steps=removal.steps,
        guidance_scale=removal.guidance_scale,
        generator=torch.Generator().manual_seed(given.seed),
        output_type="pt",
    ).images[0]
    return torch.as_tensor(pixels)


@pytest.mark.parametrize(
    ("scheduler", "strength", "guidance_scale"),
    [(None, 0.85, 0.0), (V_PREDICTION, 0.85, 4.0), (V_PREDICTION, 1.0, 0.0), (TURBO, 0.85, 0.0), (None, 0.5, 4.0)],
)
def test_inside_the_mask_pixels_are_those_of_diffusers(
    tmp_path: Path, scheduler: Any, strength: float, guidance_scale: float
) -> None:
    folder = tiny_sdxl(tmp_path, scheduler=scheduler)
    removal = numbers(strength=strength, guidance_scale=guidance_scale, steps=6)
    given = hole(7)  # with dilation and feather, its sides lie on whole latents, as diffusers' nearest pixel has them
    wanted = (stock(folder, given, removal) * 255).round().to(torch.uint8)
    made = load(folder)._inpaint([given], removal)[0]
    assert (made.int() - wanted.int()).abs().max() <= 1


def test_a_latent_with_any_masked_pixel_is_repainted(eraser: Eraser) -> None:
    mask = torch.zeros(IMAGE_PX, IMAGE_PX, dtype=torch.bool)
    mask[5, 9] = True
    (found,) = eraser._open_latents(mask).nonzero().tolist()
    assert found == [0, 5 // eraser.sdxl.pixels_per_latent, 9 // eraser.sdxl.pixels_per_latent]


def test_the_mask_fades_evenly_from_its_rim_to_nothing() -> None:
    mask = torch.zeros(9, 12, dtype=torch.bool)
    mask[4, 3] = True
    assert feathered(mask, 3)[4].tolist() == [0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0, 0, 0, 0, 0]
    assert torch.equal(feathered(mask, 0), mask.float())
    assert dilated(mask, 2).sum() == 25
    assert dilated(mask, 2)[2, 1]


@pytest.mark.parametrize("pictures_per_pass", [1, 2, 4])
def test_an_erased_image_does_not_depend_on_its_mates(folder: Path, pictures_per_pass: int) -> None:
    eraser = load(folder, pictures_per_pass)
    together, turned = eraser.erase(HOLES, numbers()), eraser.erase(HOLES[::-1], numbers())[::-1]
    alone = [eraser.erase([each], numbers())[0] for each in HOLES]
    for one, other, third in zip(together, alone, turned, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)


def test_a_mask_does_not_open_its_mates_images(folder: Path) -> None:
    wide, narrow = hole(7, (0, 0, 32, 32)), hole(8)
    made = load(folder, 2).erase([wide, narrow], numbers())[1]
    assert not (changed(made, narrow) & ~dilated(narrow.mask, 4)).any()


def test_passes_share_a_shape_and_steps_follow_the_strength(folder: Path) -> None:
    eraser, rows = load(folder, 2), list[int]()
    eraser.sdxl.unet.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    eraser.erase(HOLES, numbers(steps=4, strength=0.85))
    assert rows == [2] * 3 * 2
    assert eraser.erase([], numbers()) == []


def test_another_seed_fills_the_hole_with_something_else(eraser: Eraser) -> None:
    given = HOLES[0]
    first, again, other = eraser.erase([given, given, Hole(given.image, given.mask, 8)], numbers())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_eraser_sharing_weights_leaves_the_painter_unchanged(folder: Path) -> None:
    painter = Painter.load(str(folder), CPU, torch.float32, 1, local_files_only=True)
    pairs, generate = [PairPrompt("a green fish", "a green cup", 1)], load_profile("mini").generate
    generate = generate.model_copy(update={"picture_px": IMAGE_PX, "steps": 3})
    before = painter.paint_pairs(pairs, generate)[0]
    shared, own = (each.erase(HOLES[:1], numbers())[0] for each in (Eraser(painter.sdxl, 1), load(folder)))
    assert (shared.int() - own.int()).abs().max() <= 1
    after = painter.paint_pairs(pairs, generate)[0]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


# Faults


def test_a_image_or_mask_of_another_size_is_refused(eraser: Eraser) -> None:
    given = HOLES[0]
    for wrong in (Hole(given.image[:, 1:], given.mask, 1), Hole(given.image, given.mask[1:], 1)):
        with pytest.raises(ValueError, match=r"removal.picture_px is 32"):
            eraser.erase([wrong], numbers())
    with pytest.raises(ProfileError, match=r"removal.picture_px is 33.*divide by 2"):
        eraser.erase([given], numbers(picture_px=33))


def test_a_prompt_that_is_too_long_is_an_error(eraser: Eraser) -> None:
    with pytest.raises(InputError, match="has 82 tokens"):
        eraser.erase(HOLES[:1], numbers(prompt="ball " * 80))


def test_a_image_that_is_not_finite_is_an_error(folder: Path) -> None:
    eraser = load(folder)
    eraser.sdxl.vae.decoder.conv_out.bias.data.fill_(torch.inf)
    with pytest.raises(StageError, match="not finite"):
        eraser.erase(HOLES[:1], numbers())


def test_a_unet_that_reads_masks_beside_latents_is_refused(folder: Path) -> None:
    sdxl = load(folder).sdxl
    sdxl.unet = tiny_unet(in_channels=9)
    with pytest.raises(BundleError, match="reads 9 channels, its autoencoder's latents have 4"):
        Eraser(sdxl, 1)


# Bundles


def bundle(folder: Path, tables: Sequence[str] = ('[eraser]\nsource = "painter"\npictures_per_pass = 2\n',)) -> Bundle:
    others = [f'[{role}]\nsource = "{role}"\n' for role in ("rewriter", "painter", "clip", "blip", "captioner")]
    text = "\n".join([*others, '[segmenter]\nsource = "segmenter"\nfile = "any.pt"\n', *tables])
    (folder / "bundle.toml").write_text('name = "tiny"\n' + text, "utf-8")
    return load_bundle(folder)


def loaded(bundle: Bundle, *roles: Role) -> Models:
    return load_models(bundle, roles, CPU, lambda _: None, compile=False)


def test_an_eraser_of_the_painters_weights_shares_its_memory(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "painter")
    both = loaded(bundle(tmp_path), Role.PAINTER, Role.ERASER)
    assert both.need_eraser.sdxl is both.need_painter.sdxl
    assert both.sources == {"painter": "painter", "eraser": "painter"}
    alone = loaded(bundle(tmp_path), Role.ERASER)
    assert alone.painter is None
    assert len(alone.need_eraser.erase(HOLES[:1], numbers())) == 1


def test_a_sharing_eraser_takes_no_memory_of_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "painter")
    resident = list[Sdxl]()
    load_sdxl = Sdxl.load

    def counted(*given: Any, **also: Any) -> Sdxl:
        resident.append(load_sdxl(*given, **also))
        return resident[-1]

    monkeypatch.setattr(Sdxl, "load", counted)
    monkeypatch.setattr("imgdiffd.models.loading._allocated", lambda _: 100 * len(resident))
    held = loaded(bundle(tmp_path), Role.PAINTER, Role.ERASER).weights_bytes
    assert held == {"painter": 100, "eraser": 100}, "a role is told the weights that it shares"
    assert len(resident) == 1
    assert loaded(bundle(tmp_path), Role.ERASER).weights_bytes == {"eraser": 100}


@pytest.mark.parametrize("line", ['source = "other"', 'source = "painter"\nprecision = "bf16"'])
def test_an_eraser_of_other_weights_or_precision_does_not_share(folder: Path, tmp_path: Path, line: str) -> None:
    for name in ("painter", "other"):
        shutil.copytree(folder, tmp_path / name)
    both = loaded(bundle(tmp_path, [f"[eraser]\n{line}\n"]), Role.PAINTER, Role.ERASER)
    assert both.need_eraser.sdxl is not both.need_painter.sdxl


def test_a_missing_or_damaged_eraser_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="bundle tiny: it has no eraser"):
        loaded(bundle(tmp_path, []), Role.ERASER)
    with pytest.raises(BundleError, match=f"bundle tiny: eraser: {tmp_path / 'painter'}: no such folder"):
        loaded(bundle(tmp_path), Role.ERASER)


@pytest.mark.parametrize(("name", "source"), [("mini", "painter"), ("paper", "stabilityai/sdxl-turbo")])
def test_shipped_bundles_name_their_eraser(name: str, source: str) -> None:
    eraser = load_bundle(name).eraser
    assert eraser is not None
    assert (eraser.source, bool(eraser.licence)) == (source, True)
