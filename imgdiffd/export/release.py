"""Writes object replacement in the format in which Img-Diff was published: one JSON list, two images per sample.

The format is kept to the letter, because other people's loaders read it.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from imgdiffd.store import SampleRow

JSON_NAME = "img_diff_object_replacement.json"
IMAGE_FOLDER = "object_replacement"
QUESTION = (
    "Analyse the left image and the right image (separated by the black vertical bar). What is the difference between "
    "the red bounding box area in each image? Answer the question in a few concise sentences."
)
_JPEG_QUALITY = 95


def _bbox_text(sample: SampleRow) -> str:
    """The sample's box as the release writes it: `[x1, y1, x2, y2]` in 0–1, two decimals, inside a string."""
    x1, y1, x2, y2 = sample.box
    return f"[{x1 / sample.width:.2f}, {y1 / sample.height:.2f}, {x2 / sample.width:.2f}, {y2 / sample.height:.2f}]"


def sample_name(sample: SampleRow) -> str:
    """The sample's `path`: unique by item and region, and the same in every export."""
    return f"{IMAGE_FOLDER}/{sample.item:08d}_{sample.region}"


def record(sample: SampleRow) -> dict[str, Any]:
    """One entry of the JSON list; `captions1` describes the left image, `captions2` the right one."""
    left, right = (sample.text1, sample.text2) if sample.left == 1 else (sample.text2, sample.text1)
    return {
        "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": sample.difference}],
        "bbox": _bbox_text(sample),
        "captions1": left,
        "captions2": right,
        "path": sample_name(sample),
    }


def write_jpeg(source: Path, target: Path) -> None:
    """Write `source` as JPEG to `target`, whole or not at all; skipped where `target` is not older."""
    if target.exists() and target.stat().st_mtime_ns >= source.stat().st_mtime_ns:
        return
    partial = target.with_name(f".{target.name}.part")
    with Image.open(source) as image:
        image.convert("RGB").save(partial, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    os.replace(partial, target)


def write_list(records: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Write the records to `target` as one JSON list, synced, whole or not at all."""
    partial = target.with_name(f".{target.name}.part")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(records, file, ensure_ascii=False, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, target)


def export_release(samples: Iterable[SampleRow], images: Path, folder: Path) -> int:
    """Write the dataset to `folder` and return the number of samples.

    `images` is the daemon's image folder. Images are written first and the list last, each whole or not at all, so
    that a reader never sees a record without its images. Another export to the same folder adds only what is new.
    """
    (folder / IMAGE_FOLDER).mkdir(parents=True, exist_ok=True)
    records = []
    for sample in samples:
        name = sample_name(sample)
        write_jpeg(images / sample.left_image, folder / f"{name}_0.jpg")
        write_jpeg(images / sample.right_image, folder / f"{name}_1.jpg")
        records.append(record(sample))
    write_list(records, folder / JSON_NAME)
    return len(records)
