"""The published format to the letter, and the contact sheet."""

import dataclasses
import io
from pathlib import Path

import pytest
from PIL import Image

from imgdiffd.export import contact_sheet
from imgdiffd.export.formats.release import path_of, record
from imgdiffd.export.sample import Choice, Sample, samples
from imgdiffd.store import SampleRow
from tests.fakes.made_samples import SAMPLE, MadeSamples, removal_row


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "000000").mkdir(parents=True)
    for name, colour in ((SAMPLE.left_image, "red"), (SAMPLE.right_image, "blue")):
        Image.new("RGB", (SAMPLE.width, SAMPLE.height), colour).save(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def sample(tmp_path: Path, row: SampleRow = SAMPLE) -> Sample:
    made = MadeSamples(tmp_path, [])
    made.rows = [row]
    return next(samples(made, Choice()))


def test_a_record_is_the_published_one_to_the_letter(tmp_path: Path) -> None:
    assert record(sample(tmp_path)) == {
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


def test_a_removals_record_is_the_published_one_to_the_letter(tmp_path: Path) -> None:
    made = MadeSamples(tmp_path, [])
    row = removal_row("right")
    made.removals = [dataclasses.replace(row, sample=dataclasses.replace(row.sample, caption='a "grey" cat'))]
    (removal,) = samples(made, Choice())
    assert record(removal) == {
        "bbox": [0.62, 0.35, 0.77, 0.44],
        "conversations": [
            {
                "from": "human",
                "value": "Analyse the left image and the right image (separated by the black vertical bar). Which "
                'image has the object related to "a "grey" cat" within the red bounding box?\nA. the left image\n'
                "B. the right image\nAnswer with the option's letter from the given choices directly.",
            },
            {"from": "gpt", "value": "B"},
        ],
        "path": "object_removal/00000012_1_0",
    }


def test_captions1_describes_the_left_image_whichever_that_is(tmp_path: Path) -> None:
    swapped = record(sample(tmp_path, dataclasses.replace(SAMPLE, left=2)))
    assert (swapped["captions1"], swapped["captions2"]) == ("a brown dog", "a grey cat")


def test_two_samples_never_share_a_name(tmp_path: Path) -> None:
    one = sample(tmp_path)
    others = [dataclasses.replace(one, item=item, place=(region,)) for item in (1, 11, 12) for region in (0, 1)]
    assert len({path_of(each) for each in others}) == len(others)


def drawn(images: Path, count: int) -> Image.Image:
    sheet, shown = contact_sheet.ContactSheet(images), sample(images.parent / "made")
    for _ in range(count):
        sheet.note(shown)
    file = io.BytesIO()
    sheet.save(file)
    return Image.open(file)


def test_the_contact_sheet_grows_with_the_samples(images: Path) -> None:
    sizes = [drawn(images, count).size for count in (0, 1, 4)]
    assert sizes[0][1] < sizes[1][1] < sizes[2][1]
    assert sizes[1][0] < sizes[2][0]


def test_a_contact_sheet_of_many_samples_stays_readable(images: Path) -> None:
    most = contact_sheet.MAX_SAMPLES
    assert drawn(images, 40 * most).size[1] <= drawn(images, most).size[1]
