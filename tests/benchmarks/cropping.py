"""Crops on the image's device against the Hugging Face processors and torchvision, on the same boxes."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from imgdiffd.kernels.crop import Box, CropPlan, crop
from tests.benchmarks.measuring import Ratio, compare

PROCESSORS = {
    "CLIP": CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}),
    "BLIP": BlipImageProcessorPil(size={"height": 384, "width": 384}),
}


def drawn_boxes(count: int, picture_px: int) -> list[Box]:
    """Boxes of a thousandth to a quarter of the image, as a segmenter finds them."""
    draw = np.random.default_rng(3)
    found = []
    for _ in range(count):
        width, height = (int(side) for side in draw.uniform(picture_px / 25, picture_px / 2, 2))
        x, y = int(draw.integers(0, picture_px - width)), int(draw.integers(0, picture_px - height))
        found.append((x, y, x + width, y + height))
    return found


def drawn_image(picture_px: int, seed: int = 4) -> Tensor:
    """An image of noise, uint8 [3, picture_px, picture_px]."""
    pixels = np.random.default_rng(seed).integers(0, 256, (picture_px, picture_px, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def by_torchvision(image: Tensor, boxes: Sequence[Box], plan: CropPlan) -> Tensor:
    """The same crops, written with torchvision's functions."""
    found = []
    for x1, y1, x2, y2 in boxes:
        size = [plan.edge] if plan.edge else [plan.height, plan.width]
        cut = vision.resized_crop(
            image, y1, x1, y2 - y1, x2 - x1, size, interpolation=InterpolationMode(plan.resample), antialias=True
        )
        found.append(vision.center_crop(cut, [plan.height, plan.width]))
    pixels = torch.stack(found).float() * plan.rescale
    normalised: Tensor = vision.normalize(pixels, list(plan.mean), list(plan.std))
    return normalised


def ratios(
    device: torch.device, *, count: int = 48, picture_px: int = 1024, target: float = 1.0, rounds: int = 7
) -> Iterator[Ratio]:
    """Ours over the processor, for CLIP's and BLIP's preprocessing, with `target`; and over torchvision."""
    here, boxes = drawn_image(picture_px), drawn_boxes(count, picture_px)
    pixels, image = here.to(device), Image.fromarray(here.permute(1, 2, 0).numpy())

    for name, processor in PROCESSORS.items():
        plan = CropPlan.from_image_processor(processor)

        def ours(plan: CropPlan = plan) -> Tensor:
            return crop(pixels, boxes, plan)

        def theirs(processor: object = processor) -> object:
            return processor(images=[image.crop(box) for box in boxes], return_tensors="pt")  # type: ignore[operator]

        def torchvision(plan: CropPlan = plan) -> Tensor:
            return by_torchvision(pixels, boxes, plan)

        what = f"{count} crops for {name}"
        yield compare(f"{what} / its Hugging Face processor", ours, theirs, rounds=rounds, items=count, target=target)
        yield compare(f"{what} / torchvision", ours, torchvision, rounds=rounds, items=count)
