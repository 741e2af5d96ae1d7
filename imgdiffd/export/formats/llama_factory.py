"""LLaMA-Factory: its ShareGPT shape, and the description that it looks for beside the data."""

from collections.abc import Mapping, Sequence
from typing import Any

from imgdiffd.export.formats.format import Images
from imgdiffd.export.formats.lists import list_format
from imgdiffd.export.formats.llava import turns
from imgdiffd.export.sample import Sample


def _record(sample: Sample, names: Sequence[str], images: Images) -> Mapping[str, Any]:
    return {"id": sample.key, "conversations": turns(sample, images), "images": list(names)}


def _description(counts: Mapping[str, int]) -> Mapping[str, Any]:
    columns = {"messages": "conversations", "images": "images"}
    return {
        "dataset_info.json": {
            name.removesuffix(".json"): {"file_name": name, "formatting": "sharegpt", "columns": columns}
            for name in counts
        }
    }


FORMAT = list_format(
    "LLaMA-Factory: imgdiff.json and dataset_info.json",
    _record,
    "imgdiff.json",
    images=("joined", "two"),
    extra=_description,
    extra_names=("dataset_info.json",),
)
