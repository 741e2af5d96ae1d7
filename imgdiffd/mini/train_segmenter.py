"""Trains the miniature FastSAM: a YOLOv8-seg of one class and two scales, with ultralytics' loss, saved as its `.pt`.

Everything that is drawn on the ground is an "object".

All objects of held-out scenes are found with IoU ≥ 0.75 and one box each. 0.9 M parameters, trained at twice the
image's size (`imgsz=128`). The checkpoint pickles only classes of torch and ultralytics, so that ultralytics loads
it with `ULTRALYTICS_SAFE_LOAD=1` (torch's `weights_only=True`).
"""

import copy
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from imgdiffd.mini import scenes, training
from imgdiffd.mini.scenes import Scenes
from imgdiffd.mini.train_judge import iou
from imgdiffd.mini.world import IMAGE_PX

INPUT_PX = 128
BATCH = 32
FILE = "FastSAM-mini.pt"
CONFIG: dict[str, Any] = {
    "nc": 1,
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C2f", [32, True]],
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 2, "C2f", [64, True]],
        [-1, 1, "Conv", [112, 3, 2]],
        [-1, 1, "C2f", [112, True]],
        [-1, 1, "SPPF", [112, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 4], 1, "Concat", [1]],
        [-1, 1, "C2f", [64]],
        [-1, 1, "Conv", [64, 3, 2]],
        [[-1, 7], 1, "Concat", [1]],
        [-1, 1, "C2f", [112]],
        [[10, 13], 1, "Segment", ["nc", 16, 48]],
    ],
}
LOSS_GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "overlap_mask": True}


def keep_ultralytics_quiet() -> None:
    """Keeps ultralytics from writing settings into the home folder, installing packages and asking the network."""
    os.environ["YOLO_CONFIG_DIR"] = str((training.BUILD / "ultralytics").resolve())
    os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", YOLO_VERBOSE="false", ULTRALYTICS_SAFE_LOAD="1")
    Path(os.environ["YOLO_CONFIG_DIR"]).mkdir(parents=True, exist_ok=True)


def build() -> torch.nn.Module:
    """An untrained model."""
    from ultralytics.nn.tasks import SegmentationModel

    model = SegmentationModel(copy.deepcopy(CONFIG), ch=3, nc=1, verbose=False)
    model.args, model.names = SimpleNamespace(**LOSS_GAINS), {0: "object"}
    built: torch.nn.Module = model
    return built


def ground_truth(data: Scenes, chosen: np.ndarray[Any, Any]) -> dict[str, torch.Tensor]:
    """The batch's boxes (centre and size, in 0–1) and its masks (the number of the object at each pixel)."""
    rows, slots = np.nonzero(data.nouns[chosen] >= 0)
    boxes = data.boxes[chosen][rows, slots] / IMAGE_PX
    centred = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
    return {
        "batch_idx": torch.from_numpy(rows).float(),
        "cls": torch.zeros(len(rows), 1),
        "bboxes": torch.from_numpy(centred),
        "masks": torch.from_numpy(data.labels[chosen]).float(),
    }


def loss_of(model: Any, data: Scenes, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
    """One batch under ultralytics' segmentation loss."""
    chosen = data.choose(rng, BATCH)
    pixels = scenes.roughened(rng, data.pixels(rng, chosen))
    pixels = F.interpolate(pixels, (INPUT_PX, INPUT_PX), mode="bilinear", align_corners=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raw = model.forward(pixels)
    seen = {key: [v.float() for v in value] if isinstance(value, list) else value.float() for key, value in raw.items()}
    if getattr(model, "criterion", None) is None:
        model.criterion = model.init_criterion()
    parts, figures = model.criterion(seen, ground_truth(data, chosen))
    return parts.sum() / BATCH, {key: float(value) for key, value in figures.items()}


def save(model: Any, folder: Path) -> None:
    """Writes the checkpoint as ultralytics' trainer does: the model in half precision and the arguments it ran with."""
    import ultralytics
    from ultralytics.cfg import DEFAULT_CFG_DICT

    kept = copy.deepcopy(model).half()
    kept.criterion, kept.args = None, dict(LOSS_GAINS)
    train_args = {**DEFAULT_CFG_DICT, "task": "segment", "imgsz": INPUT_PX, "model": FILE}
    state = {"epoch": -1, "model": kept, "ema": None, "train_args": train_args, "version": ultralytics.__version__}
    torch.save(state, folder / FILE)


def measure(path: Path, data: Scenes, conf: float = 0.4) -> dict[str, float]:
    """Through `ultralytics.FastSAM`, BGR in: shares of objects with a box of IoU ≥ 0.5 and ≥ 0.75, boxes per object."""
    from ultralytics import FastSAM
    from ultralytics.models.yolo.segment import SegmentationPredictor

    model = FastSAM(str(path))
    close, closer, boxes, threads = [], [], 0, torch.get_num_threads()
    for index in range(len(data)):
        bgr = np.ascontiguousarray(data.images[index][..., ::-1])
        # FastSAM's own predictor moves every side within 20 px of the border onto it: on 64 px, nearly all of them.
        found = model.predict(
            bgr,
            imgsz=INPUT_PX,
            conf=conf,
            iou=0.5,
            device="cpu",
            verbose=False,
            predictor=SegmentationPredictor,
        )[0]
        torch.set_num_threads(threads)  # ultralytics' first prediction sets it for the whole process
        seen = [tuple(box) for box in found.boxes.xyxy.tolist()]
        boxes += len(seen)
        for slot in range(data.count(index)):
            best = max([iou(box, tuple(data.boxes[index, slot])) for box in seen], default=0.0)
            close.append(best >= 0.5)
            closer.append(best >= 0.75)
    return {"iou_50": float(np.mean(close)), "iou_75": float(np.mean(closer)), "boxes_per_thing": boxes / len(close)}


def main(argv: list[str] | None = None) -> None:
    """Train, export and measure."""
    options = training.arguments(__doc__ or "", steps=700).parse_args(argv)
    training.start(options)
    keep_ultralytics_quiet()
    model, data = build(), scenes.cached()
    training.train("segmenter", model, lambda rng, _: loss_of(model, data, rng), steps=options.steps, lr=2e-3)
    with training.replaced_folder(training.BUNDLE / "segmenter") as folder:
        save(model, folder)
    print("segmenter:", measure(training.BUNDLE / "segmenter" / FILE, scenes.held_out(100)))


if __name__ == "__main__":
    main(sys.argv[1:])
