"""Crop, antialiased resize, rescale and normalise, on the image's device: on a GPU as batched matrix products.

Pixels agree with Pillow's, with which the models' own image processors resize.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels; x2 and y2 are excluded
Mode = Literal["squash", "shortest_edge_center"]
Resample = Literal["bilinear", "bicubic"]

_PILLOW_RESAMPLE: dict[int, Resample] = {2: "bilinear", 3: "bicubic"}  # PIL.Image.Resampling
_BATCH_ELEMENTS = 1 << 26  # floats of windows and weights in flight: 256 MiB


@dataclass(frozen=True, slots=True)
class CropPlan:
    """How a model wants its images: [3, height, width], (pixel · rescale - mean) / std.

    "squash" resizes both sides to the target; "shortest_edge_center" resizes the shorter side to `edge`, keeping the
    aspect, and cuts the target out of the middle.
    """

    height: int
    width: int
    mode: Mode
    resample: Resample
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    edge: int = 0

    @classmethod
    def from_image_processor(cls, processor: Any) -> "CropPlan":
        """Reads a Hugging Face image processor, or its preprocessor config as a dict.

        Raises ValueError naming a setting that a plan cannot express.
        """
        config: Mapping[str, Any] = processor if isinstance(processor, Mapping) else processor.to_dict()
        size, resample = config["size"], int(config["resample"])
        if not config.get("do_resize", True) or resample not in _PILLOW_RESAMPLE:
            raise ValueError(f"resample {resample}: only bilinear (2) and bicubic (3) resizing are supported")
        rescale = float(config["rescale_factor"]) if config.get("do_rescale", True) else 1.0
        mean, std = config["image_mean"], config["image_std"]
        if not config.get("do_normalize", True):
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        edge = size.get("shortest_edge") or 0
        target = config["crop_size"] if config.get("do_center_crop", False) else size
        if target.get("height") is None or target.get("width") is None:
            raise ValueError(f"size {dict(size)} gives crops of different shapes")
        if (edge or size["height"]) < target["height"] or (edge or size["width"]) < target["width"]:
            raise ValueError(f"crop_size {dict(target)} is larger than size {dict(size)}")
        if not edge and (size["height"], size["width"]) != (target["height"], target["width"]):
            raise ValueError(f"crop_size {dict(target)} differs from size {dict(size)}, which no known model asks for")
        return cls(
            target["height"],
            target["width"],
            "shortest_edge_center" if edge else "squash",
            _PILLOW_RESAMPLE[resample],
            rescale,
            _three(mean),
            _three(std),
            edge,
        )

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a `height` × `width` crop after resizing, before the middle is cut out."""
        if self.mode == "squash":
            return self.height, self.width
        if height <= width:
            return self.edge, int(self.edge * width / height)
        return int(self.edge * height / width), self.edge

    def rows_first(self, height: int, width: int) -> bool:
        """Whether Pillow 13 resizes the height before the width; the order shows where bytes are clamped in between."""
        tall, wide = self.resized(height, width)
        return height > tall and height - tall > 2 * (width - wide)


def _three(values: Sequence[float] | float) -> tuple[float, float, float]:
    if isinstance(values, (int, float)):
        return (values, values, values)
    red, green, blue = (float(value) for value in values)
    return (red, green, blue)


def crop(image: Tensor, boxes: Sequence[Box], plan: CropPlan, *, products: bool | None = None) -> Tensor:
    """The boxes of `image` [3, H, W] uint8 as the model wants them: [boxes, 3, height, width], fp32, on its device.

    Before normalising, pixel values are Pillow's to within two of 255 levels: resized in one direction, then in the
    other, each time rounded and clamped to bytes. With `products`, batches of boxes are multiplied by weight matrices,
    which suits a GPU; without, torch's filters resize box by box in integers; None chooses by device. A box that
    reaches beyond the image is cut at its border. Raises ValueError naming a box with no pixel inside the image.
    """
    height, width = image.shape[-2:]
    inside = [_inside(box, height, width) for box in boxes]
    out = torch.empty(len(boxes), 3, plan.height, plan.width, device=image.device)
    if image.device.type != "cpu" if products is None else products:
        for rows_first, chosen in _batches(inside, plan):
            out[chosen] = _multiplied(image, [inside[each] for each in chosen], plan, rows_first)
    else:
        interleaved = image[None].contiguous(
            memory_format=torch.channels_last
        )  # the layout that those filters read fastest
        for index, box in enumerate(inside):
            out[index] = _filtered(interleaved, box, plan)
    mean, std = (torch.tensor(each, device=image.device).view(3, 1, 1) for each in (plan.mean, plan.std))
    return out.mul_(plan.rescale).sub_(mean).div_(std)


def _inside(box: Box, height: int, width: int) -> Box:
    x1, y1, x2, y2 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if x1 >= x2 or y1 >= y2:
        raise ValueError(f"box {tuple(box)} has no pixel inside an image of {width}×{height}")
    return x1, y1, x2, y2


def _filtered(images: Tensor, box: Box, plan: CropPlan) -> Tensor:
    """The box of `images` [1, 3, H, W], resized and cut: uint8 [3, height, width]."""
    x1, y1, x2, y2 = box
    tall, wide = plan.resized(y2 - y1, x2 - x1)
    top, left = (tall - plan.height) // 2, (wide - plan.width) // 2

    def down(pixels: Tensor) -> Tensor:
        return _resampled(pixels, (tall, pixels.shape[3]), plan.resample)[:, :, top : top + plan.height]

    def across(pixels: Tensor) -> Tensor:
        return _resampled(pixels, (pixels.shape[2], wide), plan.resample)[..., left : left + plan.width]

    pixels = images[:, :, y1:y2, x1:x2]
    return (across(down(pixels)) if plan.rows_first(y2 - y1, x2 - x1) else down(across(pixels)))[0]


def _resampled(pixels: Tensor, size: tuple[int, int], resample: Resample) -> Tensor:
    return functional.interpolate(pixels, size=size, mode=resample, antialias=True)


def _batches(boxes: Sequence[Box], plan: CropPlan) -> list[tuple[bool, list[int]]]:
    """Indices of boxes to resize together, similar in size: all windows of a batch are as large as the largest."""
    shapes = [(y2 - y1, x2 - x1) for x1, y1, x2, y2 in boxes]
    batches: list[tuple[bool, list[int]]] = []
    tallest = widest = 0
    for rows_first, (height, width), each in sorted(
        (plan.rows_first(*shape), shape, index) for index, shape in enumerate(shapes)
    ):
        tallest, widest = max(tallest, height), max(widest, width)
        elements = 3 * (tallest * widest + tallest * plan.width + plan.height * widest)
        elements += 2 * (plan.height * tallest + plan.width * widest)  # weights, in double precision
        if not batches or batches[-1][0] != rows_first or (len(batches[-1][1]) + 1) * elements > _BATCH_ELEMENTS:
            batches.append((rows_first, []))
            tallest, widest = height, width
        batches[-1][1].append(each)
    return batches


def _multiplied(image: Tensor, boxes: Sequence[Box], plan: CropPlan, rows_first: bool) -> Tensor:
    """The boxes, resized and cut: [boxes, 3, height, width], whole numbers in 0..255."""
    device = image.device
    x1, y1, x2, y2 = torch.tensor(boxes, device=device).unbind(1)
    widths, heights = x2 - x1, y2 - y1
    resized = [plan.resized(bottom - top, right - left) for left, top, right, bottom in boxes]
    tall, wide = (torch.tensor(each, device=device) for each in zip(*resized, strict=True))
    columns = _weights(widths, wide, (wide - plan.width) // 2, plan.width, plan.resample)
    rows = _weights(heights, tall, (tall - plan.height) // 2, plan.height, plan.resample)
    # Windows are as large as the largest box; pixels beyond a window's own box have weight zero.
    at_y = (y1[:, None] + torch.arange(rows.shape[-1], device=device)).clamp(max=image.shape[-2] - 1)
    at_x = (x1[:, None] + torch.arange(columns.shape[-1], device=device)).clamp(max=image.shape[-1] - 1)
    windows = image[:, at_y[:, :, None], at_x[:, None, :]].movedim(0, 1).float()
    down, across = rows[:, None], columns[:, None].mT
    if rows_first:
        return _to_pixels(_to_pixels(down @ windows) @ across)
    return _to_pixels(down @ _to_pixels(windows @ across))


def _to_pixels(values: Tensor) -> Tensor:
    return values.add_(0.5).floor_().clamp_(0, 255)  # Pillow keeps bytes between its two passes, rounding half up


def _weights(sources: Tensor, resized: Tensor, first: Tensor, count: int, resample: Resample) -> Tensor:
    """[boxes, count, largest source]: the weight of each source pixel in `count` resized ones from `first` on.

    `sources` and `resized` are the lengths of a side before and after. The filters are Pillow's, stretched by the scale
    when shrinking, so that no pixel is skipped; the weights of each resized pixel sum to one.
    """
    kernel, device = _FILTERS[resample], sources.device
    scale = (sources.double() / resized.double())[:, None, None]
    centre = (first[:, None] + torch.arange(count, device=device) + 0.5)[:, :, None] * scale
    pixel = torch.arange(int(sources.max()), device=device)
    weight = kernel((pixel + 0.5 - centre) / scale.clamp(min=1))
    weight = torch.where(pixel < sources[:, None, None], weight, 0)
    return (weight / weight.sum(-1, keepdim=True)).float()


def _bilinear(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _bicubic(distance: Tensor) -> Tensor:
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


_FILTERS: dict[Resample, Callable[[Tensor], Tensor]] = {"bilinear": _bilinear, "bicubic": _bicubic}
