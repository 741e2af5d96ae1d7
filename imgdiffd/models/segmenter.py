"""The segmenter: boxes of everything that looks like an object, from FastSAM or another Ultralytics checkpoint.

It opens checkpoints safely, and keeps ultralytics away from the network, the home folder and the working directory.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgdiffd.method.messages import Box
from imgdiffd.method.profile_sections import Corners, Locate, Removal

_FULL_IMAGE_IOU = 0.9  # FastSAM: a box that covers the image this well is the image
_MOST_BOXES = 300  # ultralytics' own default


class UnsafeCheckpointError(Exception):
    """The file is not an Ultralytics segmentation checkpoint, or would run code of its own when opened."""


@contextmanager
def quiet_ultralytics() -> Iterator[None]:
    """Import ultralytics inside: it then writes its settings to a folder that is deleted afterwards.

    It reads its switches once, when imported: no network, no installing of packages, no messages. Pillow stays as it
    is: ultralytics would have it look for a package whenever a damaged image is opened.
    """
    switches = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
    with tempfile.TemporaryDirectory(prefix="imgdiffd-") as folder:
        switches["YOLO_CONFIG_DIR"] = folder
        before = {key: os.environ.get(key) for key in switches}
        os.environ.update(switches)
        opened = Image.open
        try:
            yield
        finally:
            Image.open = opened
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value


def open_checkpoint(path: Path) -> torch.nn.Module:
    """The network of an Ultralytics `.pt` file, float32 on the CPU.

    The pickle is read by torch's `weights_only` reader, which builds ultralytics' and torch's own classes only. Raises
    UnsafeCheckpointError with the reason where the file holds anything else or another network, or is damaged.
    """
    with quiet_ultralytics():
        from ultralytics.cfg import DEFAULT_CFG_DICT
        from ultralytics.nn.tasks import SegmentationModel, torch_safe_load

        try:
            checkpoint, _ = torch_safe_load(str(path), safe_only=True)
        except Exception as error:  # any type: damaged bytes lead to nearly all
            raise UnsafeCheckpointError(_reason(error.__cause__ or error)) from error
    found = checkpoint.get("ema") or checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(found, torch.nn.Module):
        raise UnsafeCheckpointError("it holds no network under 'model' or 'ema'")
    if not isinstance(found, SegmentationModel):
        raise UnsafeCheckpointError(f"it holds a {type(found).__name__}, which makes no masks")
    network: Any = found
    network.args = {**DEFAULT_CFG_DICT, **checkpoint.get("train_args", {})}
    network.pt_path, network.task = str(path), "segment"
    for module in network.modules():
        if isinstance(module, torch.nn.Upsample):
            module.recompute_scale_factor = None  # files written by torch before 1.11 lack it
    ready: torch.nn.Module = network.float().eval()
    return ready


def _reason(error: BaseException) -> str:
    """The line of `error` that names what the reader refused, without torch's advice to read the file unsafely."""
    lines = str(error).splitlines() or [type(error).__name__]
    naming = [line.strip() for line in lines if " GLOBAL " in line]
    return (naming or lines)[0].partition(" Please use ")[0][:300]


class Segmenter:
    """An Ultralytics segmentation network, run one image at a time, so that no result depends on batch mates.

    (Its suppression of overlaps also has a time limit per batch, after which later images lose their boxes.)
    """

    def __init__(self, network: torch.nn.Module, device: torch.device, border_px: int) -> None:
        self._border_px = border_px
        self._corners: Corners = "rounded"
        with quiet_ultralytics():
            from ultralytics.models.yolo.segment import SegmentationPredictor
            from ultralytics.nn.autobackend import AutoBackend

        settings = {"task": "segment", "mode": "predict", "max_det": _MOST_BOXES, "rect": True}
        self._predictor = SegmentationPredictor(overrides={**settings, "save": False, "verbose": False})
        # What `setup_model` does, except `select_device`, which would change torch's threads and current device.
        self._predictor.model = AutoBackend(network, device=device, fp16=device.type == "cuda", verbose=False).eval()
        self._predictor.device = device

    def boxes(self, images: Sequence[Tensor], locate: Locate) -> list[list[Box]]:
        """Each image's boxes, the surest first, in whole pixels, clamped to the canvas, none empty.

        Images are uint8 [3, H, W] RGB. As in FastSAM, sides near the border are moved onto it, and boxes that nearly
        cover the image are made to cover it.
        """
        self._set(locate, masks=False)
        return [[box for _, box in self._whole(self._found(image), image)] for image in images]

    def masks(self, images: Sequence[Tensor], removal: Removal) -> list[list[tuple[Box, Tensor]]]:
        """As `boxes`, each with its mask: bool [H, W] on the CPU, true only inside the box and somewhere in it.

        An image in which nothing is found has an empty list.
        """
        self._set(removal, masks=True)
        return [self._masks_of(image) for image in images]

    def _set(self, sizes: Locate | Removal, *, masks: bool) -> None:
        chosen = self._predictor.args
        chosen.imgsz, chosen.conf, chosen.iou = sizes.segment_px, sizes.segment_confidence, sizes.segment_iou
        self._corners = sizes.corners
        chosen.retina_masks = masks  # in the image's own pixels: costly, and boxes do not need it

    def _masks_of(self, image: Tensor) -> list[tuple[Box, Tensor]]:
        found = self._found(image)
        if found.masks is None:
            return []
        whole, masks = found.masks.data.bool().cpu(), []
        for index, (x1, y1, x2, y2) in self._whole(found, image):
            mask = torch.zeros_like(whole[index])
            mask[y1:y2, x1:x2] = whole[index, y1:y2, x1:x2]
            if mask.any():
                masks.append(((x1, y1, x2, y2), mask))
        return masks

    def _found(self, image: Tensor) -> Any:
        """Ultralytics' results for one image."""
        bgr = np.ascontiguousarray(image.flip(0).permute(1, 2, 0).cpu().numpy())
        return self._predictor([bgr])[0]

    def _whole(self, results: Any, image: Tensor) -> list[tuple[int, Box]]:
        """The boxes that are not empty, in whole pixels by FastSAM's rules, each with its index in the results."""
        found = results.boxes.xyxy.float().cpu()
        height, width = image.shape[1:]
        edges = torch.tensor([width, height, width, height], dtype=torch.float32)
        low = found < self._border_px
        high = found > edges - self._border_px
        sides = torch.tensor([True, True, False, False])
        found = torch.where(low & sides, torch.zeros_like(found), found)
        found = torch.where(high & ~sides, edges.expand_as(found), found)
        area = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
        found[area > _FULL_IMAGE_IOU * width * height] = torch.tensor([0.0, 0.0, width, height])
        found = found.round() if self._corners == "rounded" else found.trunc()
        whole = torch.minimum(found.clamp(min=0), edges).int().tolist()
        return [(index, (x1, y1, x2, y2)) for index, (x1, y1, x2, y2) in enumerate(whole) if x2 > x1 and y2 > y1]
