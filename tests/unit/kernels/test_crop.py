"""The laws of crops: the same pixels as the Hugging Face processors', one preprocessing per model."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from imgdiffd.kernels import crop as module
from imgdiffd.kernels.crop import Box, CropPlan, crop

CLIP = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
BLIP = BlipImageProcessorPil(size={"height": 40, "width": 40})
SIGLIP = SiglipImageProcessorPil(size={"height": 36, "width": 36})
PROCESSORS = {"clip": CLIP, "blip": BLIP, "siglip": SIGLIP}
WAYS = pytest.mark.parametrize("products", [True, False], ids=["products", "filters"])
WIDTH, HEIGHT = 120, 90
BORDERS = (0, 0, WIDTH, HEIGHT)


def draw_image(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """Noise beside flat black and white: the sharp edges on which bicubic weights overshoot."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[: height // 3] = 255
    image[height // 3 : height // 2, : width // 2] = 0
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def processed(processor: object, pixels: Tensor, box: Box) -> Tensor:
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).crop(box)
    return torch.as_tensor(processor(images=image, return_tensors="pt")["pixel_values"][0])  # type: ignore[operator]


def pixels_apart(one: Tensor, other: Tensor, plan: CropPlan) -> float:
    std = torch.tensor(plan.std).view(3, 1, 1)
    return float(((one - other) * std * 255).abs().max())


@WAYS
@pytest.mark.parametrize("name", PROCESSORS)
def test_crops_are_within_two_of_255_of_the_processors(name: str, products: bool) -> None:
    boxes: list[Box] = [
        (0, 0, WIDTH, HEIGHT),
        (0, 0, 1, 1),
        (WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT),
        (40, 20, 41, 80),
        (3, 50, 110, 51),
        (10, 10, 58, 58),
        (7, 25, 60, 46),
        (100, 60, WIDTH, HEIGHT),
        (0, 0, 2, 88),
        (0, 0, 110, 49),
    ]
    image, plan = draw_image(0), CropPlan.from_image_processor(PROCESSORS[name])
    crops = crop(image, boxes, plan, products=products)
    assert crops.shape == (len(boxes), 3, plan.height, plan.width)
    for box, got in zip(boxes, crops, strict=True):
        assert pixels_apart(got, processed(PROCESSORS[name], image, box), plan) <= 2.01, box


@given(st.data(), st.sampled_from(sorted(PROCESSORS)), st.integers(0, 5), st.booleans())
def test_any_box_is_at_most_two_of_255_from_the_processors(
    data: st.DataObject, name: str, seed: int, products: bool
) -> None:
    x1, y1 = data.draw(st.integers(0, WIDTH - 1)), data.draw(st.integers(0, HEIGHT - 1))
    box = (x1, y1, data.draw(st.integers(x1 + 1, WIDTH)), data.draw(st.integers(y1 + 1, HEIGHT)))
    # Where a side is the border's, any number of pixels beyond it are cut off.
    past = [data.draw(st.integers(0, 40)) * (side == limit) for side, limit in zip(box, BORDERS, strict=True)]
    beyond = (box[0] - past[0], box[1] - past[1], box[2] + past[2], box[3] + past[3])
    image, plan = draw_image(seed), CropPlan.from_image_processor(PROCESSORS[name])
    found = crop(image, [beyond], plan, products=products)[0]
    assert pixels_apart(found, processed(PROCESSORS[name], image, box), plan) <= 2.01


def test_a_cpu_takes_the_filters_unless_told_otherwise() -> None:
    image, plan = draw_image(6), CropPlan.from_image_processor(CLIP)
    boxes: list[Box] = [(3, 4, 90, 77)]
    assert torch.equal(crop(image, boxes, plan), crop(image, boxes, plan, products=False))
    assert not torch.equal(crop(image, boxes, plan), crop(image, boxes, plan, products=True))


@WAYS
def test_bilinear_plans_match_their_processor_too(products: bool) -> None:
    processor = BlipImageProcessorPil(size={"height": 20, "width": 30}, resample=2)
    image, plan = draw_image(1), CropPlan.from_image_processor(processor)
    for box in [(0, 0, WIDTH, HEIGHT), (5, 5, 9, 80), (30, 30, 37, 39)]:
        found = crop(image, [box], plan, products=products)[0]
        assert pixels_apart(found, processed(processor, image, box), plan) <= 2.01


def test_a_crop_plan_is_the_same_from_processor_and_config() -> None:
    for processor in PROCESSORS.values():
        assert CropPlan.from_image_processor(processor) == CropPlan.from_image_processor(processor.to_dict())
    assert CropPlan.from_image_processor(CLIP).mode == "shortest_edge_center"
    assert CropPlan.from_image_processor(BLIP).mode == "squash"


@pytest.mark.parametrize(
    "change",
    [
        {"resample": 1},
        {"do_resize": False},
        {"do_center_crop": False},
        {"crop_size": {"height": 64, "width": 48}},
    ],
)
def test_a_setting_without_an_equal_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"size|resample"):
        CropPlan.from_image_processor({**CLIP.to_dict(), **change})


def test_no_boxes_give_an_empty_tensor() -> None:
    plan = CropPlan.from_image_processor(CLIP)
    assert crop(draw_image(0), [], plan).shape == (0, 3, 48, 48)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 5, 5, 9), (WIDTH, 0, WIDTH + 4, 9), (0, -9, 4, 0)])
def test_a_box_without_a_pixel_is_an_error_that_names_it(box: Box) -> None:
    with pytest.raises(ValueError, match=str(box[0])):
        crop(draw_image(0), [(0, 0, 9, 9), box], CropPlan.from_image_processor(CLIP))


def test_a_box_beyond_the_border_is_cut_there() -> None:
    image, plan = draw_image(0), CropPlan.from_image_processor(BLIP)
    assert torch.equal(crop(image, [(-5, -5, 30, 40)], plan), crop(image, [(0, 0, 30, 40)], plan))


def test_crops_keep_the_order_of_their_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    corners = random.integers(0, (WIDTH - 20, HEIGHT - 20), (40, 2))
    boxes: list[Box] = [
        (int(x), int(y), int(x + w), int(y + h))
        for (x, y), (w, h) in zip(corners, random.integers(1, 21, (40, 2)), strict=True)
    ]
    image, plan = draw_image(2), CropPlan.from_image_processor(CLIP)
    together = crop(image, boxes, plan, products=True)
    alone = torch.cat([crop(image, [box], plan, products=True) for box in boxes])
    assert pixels_apart(together, alone, plan) <= 1.01
    monkeypatch.setattr(module, "_BATCH_ELEMENTS", 100_000)
    assert pixels_apart(crop(image, boxes, plan, products=True), alone, plan) <= 1.01
    filtered = crop(image, boxes, plan, products=False)
    assert torch.equal(filtered, torch.cat([crop(image, [box], plan, products=False) for box in boxes]))
