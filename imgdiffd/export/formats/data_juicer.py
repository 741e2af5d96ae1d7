"""Data-Juicer: text with a mark for each image and for the end of a chunk, as its own converter from LLaVA writes."""

from collections.abc import Mapping, Sequence
from typing import Any

from imgdiffd.export.formats.format import Images, question_of
from imgdiffd.export.formats.lists import list_format
from imgdiffd.export.sample import Sample

IMAGE, END = "<__dj__image>", "<|__dj__eoc|>"


def _record(sample: Sample, names: Sequence[str], images: Images) -> Mapping[str, Any]:
    marks = f"{IMAGE}\n" * len(names)
    text = f"[[human]]: {marks}{question_of(sample, images)}\n[[gpt]]: {sample.answer} {END}"
    return {"id": sample.key, "text": text, "images": list(names)}


FORMAT = list_format("Data-Juicer: data-juicer.jsonl", _record, "data-juicer.jsonl", images=("joined", "two"))
