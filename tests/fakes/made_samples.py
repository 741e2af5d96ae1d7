"""A state folder with made-up samples of both products and their images, as exports read it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from PIL import Image

from imgdiffd.images.files import erased_path, removal_paths
from imgdiffd.method.removal import RemovalSample, Side
from imgdiffd.method.removal_messages import Erasure
from imgdiffd.store import RejectedRow, RemovalRow, SampleRow

SAMPLE = SampleRow(
    id=7, key="ab" * 16, item=12, job=1, job_name="captions.txt", profile="default", group="1", source="captions.txt",
    source_id="", line=1, attempt=1, caption1="a cat on a mat", caption2="a dog on a mat", nouns1=("cat",),
    nouns2=("dog",), image1="000000/12-1-1.png", image2="000000/12-1-2.png", width=200, height=100, rewrite_seed=1,
    generate_seed=2, pair_scores={"clip_image_cosine": 0.9}, region=0, image=1, box=(172, 41, 196, 54),
    scores={"clip_image_cosine": 0.5, "clip_text_cosine": 0.7}, text1="a grey cat", text2="a brown dog", left=1,
    difference="Left shows a cat, right a dog.", left_image="000000/12-1-r0-left.png",
    right_image="000000/12-1-r0-right.png", bar_px=20, created_at=0.0,
)  # fmt: skip
_REMOVAL_PX = 512


def removal_row(holder: Side = "left", item: int = 12, index: int = 0) -> RemovalRow:
    """A removal sample whose `holder` side still has the grey cat."""
    source = f"000000/{item}-1-1.png"
    erased = erased_path(source, index)
    erasure = Erasure(item, 1, index, (320, 180, 396, 224), _REMOVAL_PX, 0.4, source, erased, 1)
    made = RemovalSample(erasure, "a grey cat", holder, *removal_paths(source, index), f"{item:016x}{index:016x}")
    return RemovalRow(
        1, "default", SAMPLE.caption1, SAMPLE.caption2, ("cat",), ("dog",), {"clip_image_cosine": 0.9},
        {"blip_itc_cosine.original": 0.4}, 20, made,
    )  # fmt: skip


class MadeSamples:
    """Samples of these items, whose images have the colours `left` and `right`."""

    def __init__(self, folder: Path, items: Sequence[int], left: str = "red", right: str = "blue") -> None:
        self.images = folder / "pictures"
        (self.images / "000000").mkdir(parents=True, exist_ok=True)
        self.rows = [self._row(item) for item in items]
        self.removals: list[RemovalRow] = []
        self.rejected: list[RejectedRow] = []
        for row in self.rows:
            for name, colour in ((row.left_image, left), (row.right_image, right)):
                Image.new("RGB", (SAMPLE.width, SAMPLE.height), colour).save(self.images / name)

    def _row(self, item: int) -> SampleRow:
        left, right = (f"000000/{item}-1-r0-{side}.png" for side in ("left", "right"))
        text, key = f"ä\u2028\n{item}", f"{item:032x}"
        row = replace(SAMPLE, id=100 - item, key=key, item=item, difference=text)
        return replace(row, left_image=left, right_image=right, image1=left, image2=right)

    def with_removal(self, holder: Side = "left") -> Self:
        """With a removal sample whose red image still holds the object."""
        row = removal_row(holder)
        for name, colour in ((row.sample.original, "red"), (row.sample.erased, "blue")):
            Image.new("RGB", (16, 16), colour).save(self.images / name)
        self.removals = [row]
        return self

    def samples(self, jobs: object = None) -> Iterable[SampleRow]:
        """All of them, whichever jobs are asked for."""
        return self.rows

    def removal_samples(self, jobs: object = None) -> list[RemovalRow]:
        """All of them, whichever jobs are asked for."""
        return self.removals

    def rejected_regions(self, jobs: object = None) -> list[RejectedRow]:
        """All of them, whichever jobs are asked for."""
        return self.rejected
