"""LLaVA-1.5: one joined image a record, called for by `<image>` in front of the question."""

from collections.abc import Mapping, Sequence
from typing import Any

from imgdiffd.export.formats.format import Images, question_of
from imgdiffd.export.formats.lists import list_format
from imgdiffd.export.sample import Sample


def turns(sample: Sample, images: Images) -> list[dict[str, str]]:
    """The conversation: each image's mark first, then the question, then the answer."""
    marks = "<image>\n" * (1 if images == "joined" else 2)
    return [
        {"from": "human", "value": f"{marks}{question_of(sample, images)}"},
        {"from": "gpt", "value": sample.answer},
    ]


def record(sample: Sample, names: Sequence[str], images: Images) -> Mapping[str, Any]:
    """A record of `LazySupervisedDataset`; its `image` must be a string."""
    (image,) = names
    return {"id": sample.key, "image": image, "conversations": turns(sample, images)}


FORMAT = list_format("LLaVA-1.5: llava.json", record, "llava.json")
