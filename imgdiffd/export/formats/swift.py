"""ms-swift: messages and images, one record a line. Its paths are seen from where the trainer runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from imgdiffd.export.formats.format import Images, question_of
from imgdiffd.export.formats.lists import list_format
from imgdiffd.export.sample import Sample


def _record(sample: Sample, names: Sequence[str], images: Images) -> Mapping[str, Any]:
    return {
        "id": sample.key,
        "messages": [
            {"role": "user", "content": "<image>" * len(names) + question_of(sample, images)},
            {"role": "assistant", "content": sample.answer},
        ],
        "images": list(names),
    }


FORMAT = list_format("ms-swift: swift.jsonl", _record, "swift.jsonl", images=("joined", "two"))
