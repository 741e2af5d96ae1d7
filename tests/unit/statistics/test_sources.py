"""Statistics read what exports write and what was published, and name the record that is neither."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from imgdiffd.errors import InputError
from imgdiffd.export import release, removal
from imgdiffd.statistics.sources import database_samples, is_release, release_samples
from tests.unit.export.test_dataset import Database

RECORD = {"captions1": "a cat", "captions2": "a dog", "path": "object_replacement/1_0", "bbox": "[]"}


def test_export_is_read_with_both_its_products(tmp_path: Path) -> None:
    Database(tmp_path, [12]).with_removal().export(tmp_path / "out")
    assert is_release(tmp_path / "out")
    (first, replaced), (second, removed) = release_samples(tmp_path / "out")
    assert (first, second) == ("replacement", "removal")
    assert all(path.is_file() for path in (*replaced.images, *removed.images))
    assert len(replaced.texts) == 2
    assert len(removed.texts) == 1
    assert "related to" not in removed.texts[0]


@pytest.mark.parametrize("left", [1, 2])
def test_database_tells_the_replaced_object_first(left: int, tmp_path: Path) -> None:
    database = Database(tmp_path, [12])
    database.rows = [replace(row, text1="a cat", text2="a dog", left=left) for row in database.rows]
    ((kind, sample),) = database_samples(database, tmp_path, None)  # type: ignore[arg-type]
    assert (kind, sample.texts) == ("replacement", ("a cat", "a dog"))
    assert sample.caption == database.rows[0].caption1
    assert any(name.startswith("pair.") for name in sample.scores)


def test_regions_of_one_pair_are_one_pair(tmp_path: Path) -> None:
    records = [{**RECORD, "path": f"object_replacement/00000007_{region}"} for region in range(2)]
    (tmp_path / release.JSON_NAME).write_text(json.dumps(records))
    assert len({sample.pair for _, sample in release_samples(tmp_path)}) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps([RECORD, {"captions1": "a cat", "path": "x"}]), "record 2: 'captions2'"),
        (json.dumps([7]), "record 1: "),
        (json.dumps([RECORD])[:-5], "cut-off JSON"),
        ("", "cut-off JSON"),
    ],
)
def test_what_is_not_in_the_published_format_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / release.JSON_NAME).write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        list(release_samples(tmp_path))
    assert str(tmp_path / release.JSON_NAME) in str(caught.value)


def test_removal_question_of_another_form_is_read_whole(tmp_path: Path) -> None:
    record = {"path": "object_removal/1", "conversations": [{"from": "human", "value": "Which side has the cat?"}]}
    (tmp_path / removal.JSON_NAME).write_text(json.dumps([record]))
    ((_, sample),) = release_samples(tmp_path)
    assert sample.texts == ("Which side has the cat?",)


def test_folder_without_a_dataset_is_not_a_release(tmp_path: Path) -> None:
    assert not is_release(tmp_path)
