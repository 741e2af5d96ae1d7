"""Crops on the picture's device against the Hugging Face processors, on the same boxes.

It owns the boxes; it does not know the clock.
"""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from transformers import BlipImageProcessorPil, CLIPImageProcessorPil

from imgdiffd.kernels.crop import Box, CropPlan, crop
from tests.benchmarks.measuring import Ratio, compare

PICTURE_PX, BOXES = 1024, 48


def boxes() -> list[Box]:
    """Boxes of a thousandth to a quarter of the picture, as a segmenter finds them."""
    draw = np.random.default_rng(3)
    found = []
    for _ in range(BOXES):
        width, height = (int(side) for side in draw.uniform(40, 512, 2))
        x, y = int(draw.integers(0, PICTURE_PX - width)), int(draw.integers(0, PICTURE_PX - height))
        found.append((x, y, x + width, y + height))
    return found


def ratios() -> Iterator[Ratio]:
    """Ours over the processor, for CLIP's and BLIP's preprocessing."""
    pixels = np.random.default_rng(4).integers(0, 256, (PICTURE_PX, PICTURE_PX, 3), dtype=np.uint8)
    picture, image, chosen = torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), Image.fromarray(pixels), boxes()
    processors = {
        "CLIP": CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}),
        "BLIP": BlipImageProcessorPil(size={"height": 384, "width": 384}),
    }
    for name, processor in processors.items():
        plan = CropPlan.from_image_processor(processor)
        yield compare(
            f"{BOXES} crops for {name} / its Hugging Face processor",
            lambda plan=plan: crop(picture, chosen, plan),  # type: ignore[misc]
            lambda processor=processor: processor(  # type: ignore[misc]
                images=[image.crop(box) for box in chosen], return_tensors="pt"
            ),
            count=False,
        )
