"""Writes object removal in the format in which Img-Diff was published: one JSON list, two images per sample."""

from collections.abc import Iterable
from pathlib import Path

from imgdiffd.export.release import write_jpegs, write_list
from imgdiffd.method.removal import RemovalSample, record

JSON_NAME = "img_diff_object_removal.json"
IMAGE_FOLDER = "object_removal"


def sample_name(sample: RemovalSample) -> str:
    """The sample's `path`: unique by item, image and object, and the same in every export."""
    erasure = sample.erasure
    return f"{IMAGE_FOLDER}/{erasure.item:08d}_{erasure.image}_{erasure.index}"


def export_removals(samples: Iterable[RemovalSample], images: Path, folder: Path) -> int:
    """Write the dataset to `folder` and return the number of samples: `_0.jpg` is the left image, `_1.jpg` the right.

    `images` is the folder that the samples' paths lie in. Images are written first and the list last, each whole or
    not at all; the list has exactly `samples`.
    """
    (folder / IMAGE_FOLDER).mkdir(parents=True, exist_ok=True)
    records = []
    for sample in samples:
        name = sample_name(sample)
        write_jpegs({folder / f"{name}_0.jpg": images / sample.left, folder / f"{name}_1.jpg": images / sample.right})
        records.append(record(sample, name))
    write_list(records, folder / JSON_NAME)
    return len(records)
