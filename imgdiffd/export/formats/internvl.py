"""InternVL2: records one a line, and the meta file that its scripts are given."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from imgdiffd.export.formats.format import IMAGE_FOLDER, Images
from imgdiffd.export.formats.lists import list_format
from imgdiffd.export.formats.llava import turns
from imgdiffd.export.sample import Sample


def _record(sample: Sample, names: Sequence[str], images: Images) -> Mapping[str, Any]:
    inside = [PurePosixPath(name).name for name in names]  # below the `root` of the meta file
    image = inside[0] if images == "joined" else inside
    return {"id": sample.key, "image": image, "conversations": turns(sample, images)}


def _meta(counts: Mapping[str, int]) -> Mapping[str, Any]:
    # Augmentation would crop boxes away and mirror left and right.
    return {
        "meta.json": {
            name.removesuffix(".jsonl"): {
                "root": f"{IMAGE_FOLDER}/",
                "annotation": name,
                "data_augment": False,
                "repeat_time": 1,
                "length": count,
            }
            for name, count in counts.items()
            if name == "imgdiff.jsonl"
        }
    }


FORMAT = list_format(
    "InternVL2: imgdiff.jsonl and meta.json",
    _record,
    "imgdiff.jsonl",
    images=("joined", "two"),
    extra=_meta,
    extra_names=("meta.json",),
)
