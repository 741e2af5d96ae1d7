"""Writes object replacement in the format in which Img-Diff was published: one JSON list, two images per sample.

The format is kept to the letter, because other people's loaders read it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from imgdiffd import durable
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


def write_jpegs(files: Mapping[Path, Path]) -> None:
    """Each target's source image as JPEG, durably; a target that is as new as its source is left alone."""
    durable.write({target: partial(_write_jpeg, source) for target, source in files.items() if _older(target, source)})


def _older(target: Path, source: Path) -> bool:
    return not target.exists() or target.stat().st_mtime_ns < source.stat().st_mtime_ns


def _write_jpeg(source: Path, file: BinaryIO) -> None:
    with Image.open(source) as image:
        image.convert("RGB").save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)


def write_list(records: Sequence[Mapping[str, Any]], target: Path) -> None:
    """The records as one JSON list at `target`, durably."""
    durable.write({target: json.dumps(records, ensure_ascii=False, indent=1) + "\n"})


def export_release(samples: Iterable[SampleRow], images: Path, folder: Path) -> int:
    """Write the dataset to `folder` and return the number of samples.

    `images` is the daemon's image folder. Images are written first and the list last, each whole or not at all, so
    that a reader never sees a record without its images. Another export to the same folder adds only what is new.
    """
    (folder / IMAGE_FOLDER).mkdir(parents=True, exist_ok=True)
    records = []
    for sample in samples:
        name = sample_name(sample)
        write_jpegs(
            {
                folder / f"{name}_0.jpg": images / sample.left_image,
                folder / f"{name}_1.jpg": images / sample.right_image,
            }
        )
        records.append(record(sample))
    write_list(records, folder / JSON_NAME)
    return len(records)
