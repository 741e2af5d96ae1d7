"""The one record of a sample: what stands in it for each kind, and which samples a choice takes."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from imgdiffd.errors import ExportError
from imgdiffd.export import release
from imgdiffd.export.sample import Choice, Sample, samples, split_of
from imgdiffd.method.removal import Side
from imgdiffd.store import SampleRow
from tests.fakes.made_samples import SAMPLE, MadeSamples, removal_row


def source(tmp_path: Path, *rows: SampleRow) -> MadeSamples:
    made = MadeSamples(tmp_path, [])
    made.rows = list(rows)
    return made


def only(tmp_path: Path, row: SampleRow) -> Sample:
    (sample,) = samples(source(tmp_path, row), Choice())
    return sample


@pytest.mark.parametrize(("left", "original"), [(1, "left"), (2, "right")])
def test_texts_nouns_and_plain_images_stand_on_their_sides(tmp_path: Path, left: int, original: Side) -> None:
    sample = only(tmp_path, replace(SAMPLE, left=left))
    assert (sample.original, sample.left, sample.right) == (original, SAMPLE.left_image, SAMPLE.right_image)
    sides = [(sample.plain_left, sample.text_left, sample.noun_left)]
    sides += [(sample.plain_right, sample.text_right, sample.noun_right)]
    first = (SAMPLE.image1, "a grey cat", "cat")
    second = (SAMPLE.image2, "a brown dog", "dog")
    assert sides == ([first, second] if left == 1 else [second, first])
    assert (sample.question, sample.answer) == (release.QUESTION, SAMPLE.difference)


@pytest.mark.parametrize(("holder", "letter"), [("left", "A"), ("right", "B")])
def test_a_removal_says_which_side_still_holds_the_object(tmp_path: Path, holder: Side, letter: str) -> None:
    made = source(tmp_path)
    row = removal_row(holder)
    made.removals = [row]
    (sample,) = samples(made, Choice())
    assert (sample.kind, sample.key, sample.place) == ("removal", row.sample.key, (1, 0))
    assert (sample.answer, sample.original, (sample.width, sample.height)) == (letter, holder, (512, 512))
    assert getattr(sample, f"text_{holder}") == "a grey cat"
    assert sorted((sample.text_left, sample.text_right)) == ["", "a grey cat"]
    held = sample.left if holder == "left" else sample.right
    plain = sample.plain_left if holder == "left" else sample.plain_right
    assert (held, plain) == (row.sample.original, row.sample.erasure.source)


def test_scores_of_the_pair_and_of_the_region_have_two_names(tmp_path: Path) -> None:
    assert only(tmp_path, SAMPLE).scores == {
        "pair.clip_image_cosine": 0.9, "clip_image_cosine": 0.5, "clip_text_cosine": 0.7,
    }  # fmt: skip


def test_all_samples_of_a_caption_are_in_one_split() -> None:
    drawn = {caption: split_of(caption, 0.1) for caption in map("a cat and {} dogs".format, range(2000))}
    assert 0.07 < Counter(drawn.values())["validation"] / len(drawn) < 0.13
    assert all(split_of(caption, 0.1) == split for caption, split in drawn.items())
    grown = {caption for caption in drawn if split_of(caption, 0.2) == "validation"}
    assert {caption for caption, split in drawn.items() if split == "validation"} < grown
    assert {split_of(caption, 0.0) for caption in drawn} == {"train"}
    assert {split_of(caption, 1.0) for caption in drawn} == {"validation"}
    assert split_of("a cat on a mat", 0.02) == "train", "as it was on every machine before"


def test_a_limit_takes_the_first_of_each_kind(tmp_path: Path) -> None:
    made = MadeSamples(tmp_path, [1, 2, 3])
    made.removals = [removal_row(item=item) for item in (1, 2, 3)]
    assert [(each.kind, each.item) for each in samples(made, Choice(limit=2))] == [
        ("replacement", 1), ("replacement", 2), ("removal", 1), ("removal", 2),
    ]  # fmt: skip
    assert {each.kind for each in samples(made, Choice(kinds=("removal",)))} == {"removal"}


def test_a_least_score_leaves_out_lower_and_missing_ones(tmp_path: Path) -> None:
    low = replace(SAMPLE, key="cd" * 16, scores={"clip_text_cosine": 0.6999})
    none = replace(SAMPLE, key="ef" * 16, scores={})
    made = source(tmp_path, low, SAMPLE, none)
    made.removals = [removal_row()]
    assert [each.key for each in samples(made, Choice(least={"clip_text_cosine": 0.7}))] == [SAMPLE.key]
    assert len(list(samples(made, Choice(least={"pair.clip_image_cosine": 0.9})))) == 4


def test_a_score_that_no_sample_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no sample has the score 'clip'.*pair\.clip_image_cosine"):
        list(samples(source(tmp_path, SAMPLE), Choice(least={"clip": 0.5})))
    assert list(samples(source(tmp_path / "empty"), Choice(least={"clip": 0.5}))) == []
