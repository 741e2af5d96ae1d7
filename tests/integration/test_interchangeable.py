"""Models are interchangeable: one line of the bundle file swaps one, and the stages give what its own library would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    BlipForImageTextRetrieval,
)

from imgdiffd.errors import BundleError
from imgdiffd.method.messages import (
    CompareInput,
    GenerateInput,
    LocateInput,
)
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Abort
from imgdiffd.pipeline import Role, Stage, seed_of
from imgdiffd.stages.images import Images
from tests.tiny import other_models
from tests.tiny.sdxl import IMAGE_PX
from tests.tiny.swapped import changed, loaded, ran, save_images, swapped, with_source

CPU = torch.device("cpu")
CAPTIONS = ("a red ball and a blue house on the grass", "a red star and a blue house on the grass")
NOUNS = ("ball", "cat")


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return save_images(tmp_path)


# Painters.

SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PAINTERS: dict[str, dict[str, Any]] = {
    "euler, v-prediction": {
        "scheduler": EulerDiscreteScheduler(
            **SCALED, prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True
        )
    },
    "DPM++ 2M Karras": {"scheduler": DPMSolverMultistepScheduler(**SCALED, use_karras_sigmas=True)},
    "DPM++ 2M SDE, which adds noise": {
        "scheduler": DPMSolverMultistepScheduler(**SCALED, algorithm_type="sde-dpmsolver++")
    },
    "DDIM": {"scheduler": DDIMScheduler(**SCALED, clip_sample=False, steps_offset=1)},
    "text encoders of other sizes": {"widths": (24, 40)},
}


def painted(bundle: Path, folder: Path, **generate: Any) -> list[Tensor]:
    folder.mkdir(exist_ok=True)
    profile = changed("generate", picture_px=IMAGE_PX, steps=4, abort=Abort(mode="off"), **generate)
    (made,) = ran(bundle, Stage.GENERATE, (Role.PAINTER,), profile, folder, GenerateInput(1, *CAPTIONS, 0))
    return [Images(folder, CPU).read(name).int() for name in (made.image1, made.image2)]


def stock(folder: Path, caption: str, seed: int, **options: Any) -> Tensor:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False, **options)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    side = IMAGE_PX // pipeline.vae_scale_factor
    latents = torch.randn(1, 4, side, side, generator=generator)
    scale = load_profile("mini").generate.guidance_scale
    size = {"height": IMAGE_PX, "width": IMAGE_PX, "num_inference_steps": 4, "guidance_scale": scale}
    made = pipeline(caption, latents=latents, generator=generator, output_type="np", **size).images[0]
    return torch.from_numpy((made * 255).round().astype(np.int32)).permute(2, 0, 1)


@pytest.mark.parametrize("painter", PAINTERS)
def test_another_sdxl_paints_as_diffusers_does_and_edits(base: Path, tmp_path: Path, painter: str) -> None:
    folder = other_models.save_sdxl(base / "sdxl", **PAINTERS[painter])
    bundle = with_source(base, "painter", "sdxl")
    free, edited = (painted(bundle, tmp_path / edit, edit=edit) for edit in ("none", "refine"))
    seed = seed_of(load_profile("mini").seed, CAPTIONS[0], 0, Stage.GENERATE)
    for caption, image in zip(CAPTIONS, free, strict=True):
        assert (image - stock(folder, caption, seed)).abs().max() <= 1
    assert (edited[0] - free[0]).abs().max() <= 1
    assert (edited[1] - free[1]).abs().max() > 1


def test_another_autoencoder_is_one_line_of_the_bundle(base: Path, tmp_path: Path) -> None:
    white = other_models.vae()
    white.decoder.conv_out.bias.data.fill_(9)
    white.save_pretrained(base / "white")
    bundle = swapped(base, "painter", 'source = "painter"', 'source = "painter"\nvae = "white"')
    assert min(image.min() for image in painted(bundle, tmp_path)) == 255


def test_files_in_half_precision_are_a_line(base: Path, tmp_path: Path) -> None:
    other_models.save_sdxl(base / "half", variant="fp16")
    bundle = swapped(base, "painter", 'source = "painter"', 'source = "half"\nvariant = "fp16"')
    assert painted(bundle, tmp_path)[0].float().std() > 1
    with pytest.raises(BundleError, match=r"bundle tiny: painter: half: .*variant"):
        loaded(with_source(base, "painter", "half"), Role.PAINTER)


# Contrastive models.

CONTRASTIVE: dict[str, Callable[[Path], Path]] = {
    "clip-small": lambda folder: other_models.save_clip(folder, 24, 24, 8),
    "clip-large": lambda folder: other_models.save_clip(folder, 48, 40, 10),
    "siglip": other_models.save_siglip,
    "siglip2": other_models.save_siglip2,
}


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_another_clip_gives_the_cosines_of_its_own_processor(
    base: Path, images: Images, tmp_path: Path, name: str
) -> None:
    folder = CONTRASTIVE[name](base / name)
    bundle = with_source(base, "clip", name)
    asked = CompareInput(1, "1.png", "2.png")
    (compared,) = ran(bundle, Stage.COMPARE, (Role.CLIP,), load_profile("mini"), tmp_path, asked)
    model, processor = AutoModel.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(images=[images.read(each) for each in ("1.png", "2.png")], return_tensors="pt")
    with torch.inference_mode():
        seen = functional.normalize(model.get_image_features(**pixels).pooler_output, dim=-1)
    cosine = compared.scores["clip_image_cosine"]
    assert cosine == pytest.approx(float(seen[0] @ seen[1]), abs=5e-3)
    assert -1 <= cosine < 0.999
    texts = ["A Red Ball", "a cat. On the grass!", "the dog " * 30]
    tokens = AutoTokenizer.from_pretrained(folder)(
        [text.lower() for text in texts],
        padding="max_length",
        truncation=True,
        return_tensors="pt",
        max_length=model.config.text_config.max_position_embeddings,
    )
    if "siglip" in name:
        tokens.pop("attention_mask", None)  # trained on padding that nothing masks
    with torch.inference_mode():
        said = functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    clip = loaded(bundle, Role.CLIP).need_clip
    torch.testing.assert_close(clip.embed_texts(texts), said, atol=1e-5, rtol=0)
    assert (said @ said.T).min() < 0.99
    assert clip.embed_texts([]).shape == clip.embed_images([]).shape == (0, said.shape[1])


def located(bundle: Path, folder: Path, **changes: Any) -> Any:
    """The candidates of 1.png and 2.png."""
    profile = changed("locate", segment_px=64, segment_confidence=0.5, **changes)
    roles = (Role.SEGMENTER, Role.CLIP, Role.BLIP)
    asked = LocateInput(1, "1.png", "2.png", NOUNS[:1], NOUNS[1:])
    return ran(bundle, Stage.LOCATE, roles, profile, folder, asked)[0].candidates


@pytest.mark.parametrize(("size", "vision", "text", "image"), [("base", 24, 24, 32), ("large", 48, 32, 40)])
@pytest.mark.parametrize("kind", ["blip_itc_cosine", "blip_itm_probability"])
def test_another_blip_scores_crops_as_its_own_library_does(
    base: Path, images: Images, tmp_path: Path, size: str, vision: int, text: int, image: int, kind: Any
) -> None:
    folder = other_models.save_blip(base / f"blip-{size}", vision, text, image)
    bundle = with_source(base, "blip", folder.name)
    scored = [each for each in located(bundle, tmp_path, noun_kind=kind) if f"{kind}.noun1" in each.scores][:3]
    assert scored
    tokenizer, processor = (
        AutoTokenizer.from_pretrained(folder),
        AutoImageProcessor.from_pretrained(folder, backend="pil"),
    )
    model = BlipForImageTextRetrieval.from_pretrained(folder).eval()
    for candidate in scored:
        x1, y1, x2, y2 = candidate.box
        for side, noun in enumerate(NOUNS, 1):
            pixels = images.read(f"{side}.png")[:, y1:y2, x1:x2]
            pixels = processor(images=[pixels], return_tensors="pt")["pixel_values"]
            tokens = tokenizer([noun], return_tensors="pt")
            wanted = model(tokens["input_ids"], pixels, use_itm_head=kind == "blip_itm_probability")[0].detach()
            value = wanted.softmax(-1)[0, 1] if kind == "blip_itm_probability" else wanted[0, 0]
            assert candidate.scores[f"{kind}.noun{side}"] == pytest.approx(float(value), abs=5e-3)


# Segmenters.

SEGMENTERS: dict[str, dict[str, Any]] = {
    "FastSAM-s.pt": {"name": "yolov8s-seg", "classes": 1, "narrower": 4},
    "FastSAM-x.pt": {"name": "yolov8x-seg", "classes": 1, "narrower": 10},
    "yolov8n-seg.pt": {"name": "yolov8n-seg", "narrower": 2},
    "yolo11n-seg.pt": {"name": "yolo11n-seg", "narrower": 2},
    "yolo26n-seg.pt": {"name": "yolo26n-seg", "narrower": 2},
}


@pytest.mark.parametrize("file", SEGMENTERS)
def test_another_segmenter_finds_the_boxes_of_ultralytics(
    base: Path, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    other_models.save_ultralytics(base / "segmenter", file, **SEGMENTERS[file])
    bundle = swapped(base, "segmenter", 'file = "tiny-seg.pt"', f'file = "{file}"')
    candidates = located(bundle, tmp_path)
    from ultralytics import YOLO

    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # the reference would take all cores from now on
    reference = YOLO(base / "segmenter" / file, task="segment")
    for side in (1, 2):
        bgr = np.ascontiguousarray(images.read(f"{side}.png").flip(0).permute(1, 2, 0).numpy())
        found = reference.predict(bgr, imgsz=64, conf=0.5, iou=0.5, device=CPU, verbose=False, save=False)[0]
        x1, y1, x2, y2 = found.boxes.xyxy.unbind(1)
        # FastSAM's rules: sides near the border move onto it, and a box of nearly all is all.
        near = [x1.where(x1 >= 2, 0), y1.where(y1 >= 2, 0), x2.where(x2 <= 62, 64), y2.where(y2 <= 46, 48)]
        wanted = torch.stack(near, 1)
        wanted[(near[2] - near[0]) * (near[3] - near[1]) > 0.9 * 64 * 48] = torch.tensor([0.0, 0, 64, 48])
        boxes = [candidate.box for candidate in candidates if candidate.image == side]
        assert boxes == [tuple(box) for box in wanted.round().int().tolist() if box[2] > box[0] and box[3] > box[1]]
        assert boxes
