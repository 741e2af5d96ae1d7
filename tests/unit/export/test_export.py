"""The published format to the letter, and the contact sheet."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from imgdiffd.export import contact_sheet, release
from imgdiffd.store import SampleRow

SAMPLE = SampleRow(
    id=7, item=12, job=1, job_name="captions.txt", profile="default", group="1", source="captions.txt", source_id="",
    line=1, attempt=1, caption1="a cat on a mat", caption2="a dog on a mat", nouns1=("cat",), nouns2=("dog",),
    image1="000000/12-1-1.png", image2="000000/12-1-2.png", width=200, height=100, rewrite_seed=1, generate_seed=2,
    pair_scores={}, region=0, image=1, box=(172, 41, 196, 54), scores={}, text1="a grey cat", text2="a brown dog",
    left=1, difference="Left shows a cat, right a dog.", left_image="000000/12-1-r0-left.png",
    right_image="000000/12-1-r0-right.png", created_at=0.0,
)  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "000000").mkdir(parents=True)
    for name, colour in ((SAMPLE.left_image, "red"), (SAMPLE.right_image, "blue")):
        Image.new("RGB", (SAMPLE.width, SAMPLE.height), colour).save(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def test_a_record_is_the_published_one_to_the_letter() -> None:
    assert release.record(SAMPLE) == {
        "conversations": [
            {
                "from": "human",
                "value": "Analyse the left image and the right image (separated by the black vertical bar). What is "
                "the difference between the red bounding box area in each image? Answer the question in a few concise "
                "sentences.",
            },
            {"from": "gpt", "value": "Left shows a cat, right a dog."},
        ],
        "bbox": "[0.86, 0.41, 0.98, 0.54]",
        "captions1": "a grey cat",
        "captions2": "a brown dog",
        "path": "object_replacement/00000012_0",
    }


def test_captions1_describes_the_left_image_whichever_that_is() -> None:
    swapped = release.record(dataclasses.replace(SAMPLE, left=2))
    assert (swapped["captions1"], swapped["captions2"]) == ("a brown dog", "a grey cat")


def test_image_0_is_the_left_one_and_image_1_the_right_one(tmp_path: Path, images: Path) -> None:
    assert release.export_release([SAMPLE], images, tmp_path / "out") == 1
    (entry,) = json.loads((tmp_path / "out" / release.JSON_NAME).read_text())
    for suffix, strongest in (("_0.jpg", 0), ("_1.jpg", 2)):
        with Image.open(tmp_path / "out" / f"{entry['path']}{suffix}") as image:
            assert image.size == (SAMPLE.width, SAMPLE.height)
            pixel = image.getpixel((5, 5))
        assert isinstance(pixel, tuple)
        assert pixel.index(max(pixel)) == strongest


def test_an_export_that_fails_midway_leaves_the_old_one_whole(tmp_path: Path, images: Path) -> None:
    release.export_release([SAMPLE], images, tmp_path / "out")
    before = (tmp_path / "out" / release.JSON_NAME).read_text()
    lost = dataclasses.replace(SAMPLE, item=13, left_image="000000/13-1-r0-left.png")
    with pytest.raises(FileNotFoundError):
        release.export_release([SAMPLE, lost], images, tmp_path / "out")
    assert (tmp_path / "out" / release.JSON_NAME).read_text() == before


def test_two_samples_never_share_a_name() -> None:
    others = [dataclasses.replace(SAMPLE, item=item, region=region) for item in (1, 11, 12) for region in (0, 1)]
    assert len({release.sample_name(sample) for sample in others}) == len(others)


def test_the_contact_sheet_grows_with_the_samples(tmp_path: Path, images: Path) -> None:
    sizes = []
    for count in (0, 1, 4):
        contact_sheet.write_contact_sheet([SAMPLE] * count, images, tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            sizes.append(sheet.size)
    assert sizes[0][1] < sizes[1][1] < sizes[2][1]
    assert sizes[1][0] < sizes[2][0]
