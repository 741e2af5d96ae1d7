"""Object replacement in the format in which Img-Diff was published, to the letter: other people's loaders read it."""

from typing import Any

from imgdiffd.store import SampleRow

JSON_NAME = "img_diff_object_replacement.json"
IMAGE_FOLDER = "object_replacement"
QUESTION = (
    "Analyse the left image and the right image (separated by the black vertical bar). What is the difference between "
    "the red bounding box area in each image? Answer the question in a few concise sentences."
)


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
