"""Every format of caption files is read as a stream, and a bad record does not stop it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgdiffd.captions import Entry, read_open
from imgdiffd.captions.records import MAX_CAPTION_BYTES
from imgdiffd.job import CaptionProblem, CaptionRecord
from tests.fakes.caption_files import entries, texts

COCO = Path(__file__).parents[2] / "data" / "coco_captions_6.json"
COCO_2000 = Path(__file__).parents[4] / "shared" / "data" / "coco_captions_2000.json"


def read_file(path: Path) -> list[Entry]:
    with path.open("rb") as file:
        return list(read_open(file, path.name))


def test_coco_annotations_keep_their_ids_and_order() -> None:
    records = read_file(COCO)
    expected = [(a["caption"].strip(), str(a["id"])) for a in json.loads(COCO.read_text())["annotations"]]
    assert [(r.text, r.source_id) for r in records if isinstance(r, CaptionRecord)] == expected
    assert [r.line for r in records] == [1, 2, 3, 4, 5, 6]


@pytest.mark.skipif(not COCO_2000.exists(), reason="the 2,000 real captions are not beside the repository")
def test_two_thousand_real_captions_are_all_read() -> None:
    records = read_file(COCO_2000)
    assert len(records) == 2000
    assert all(isinstance(record, CaptionRecord) for record in records)


def test_llava_record_gives_the_answer_not_the_question() -> None:
    record = {
        "id": "004539375",
        "image": "00453/004539375.jpg",
        "conversations": [
            {"from": "human", "value": "Render a clear summary of the photo.\n<image>"},
            {"from": "gpt", "value": "select luxury furniture 3 - inch gel\nmemory foam mattress topper"},
        ],
    }
    caption = CaptionRecord("select luxury furniture 3 - inch gel memory foam mattress topper", "004539375", 1)
    assert entries(json.dumps([record]), "blip_laion_cc_sbu.json") == [caption]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a", "a.jsonl.unknown"])
def test_json_lines_are_recognised_by_ending_or_content(name: str) -> None:
    content = '{"caption": "a dog", "id": 7}\n\n{"text": "a cat"}\n'
    assert entries(content, name) == [CaptionRecord("a dog", "7", 1), CaptionRecord("a cat", "", 3)]


@pytest.mark.parametrize("name", ["a.json", "a", "A.JSON"])
def test_json_list_may_hold_strings_and_objects(name: str) -> None:
    assert texts('["a dog", {"caption": "a cat"}]', name) == ["a dog", "a cat"]


def test_csv_column_is_found_by_its_header_in_any_place_and_case() -> None:
    content = 'image_id,Caption,split\n17,"A dog, asleep",val\n18,"a ""cat""\nby night",val\n'
    assert entries(content, "a.csv") == [
        CaptionRecord("A dog, asleep", "17", 2),
        CaptionRecord('a "cat" by night', "18", 4),
    ]


def test_csv_with_semicolons_is_recognised_by_its_header() -> None:
    assert texts("id;caption\n1;a dog, a cat\n", "a.csv") == ["a dog, a cat"]


def test_single_column_without_header_is_all_captions() -> None:
    assert texts("a dog\na cat\n", "a.csv") == ["a dog", "a cat"]


def test_single_column_header_is_no_caption() -> None:
    assert texts("caption\na dog\n", "a.tsv") == ["a dog"]


def test_a_row_that_does_not_fit_its_header_is_one_problem() -> None:
    read = entries("id,caption\n1\n2,a dog, and more\n3,a cat\n", "a.csv")
    assert [entry.code for entry in read if isinstance(entry, CaptionProblem)] == ["bad_columns", "bad_columns"]
    assert [entry.text for entry in read if isinstance(entry, CaptionRecord)] == ["a cat"]


def test_quote_that_never_closes_costs_nothing_in_tsv() -> None:
    assert texts('caption\tid\n"a dog\t1\n"a ""cat"""\t2\n', "a.tsv") == ['"a dog', 'a "cat"']


def test_parquet_is_read_by_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = {"image": ["x", "y"], "caption": ["a dog", None], "pixels": [b"1", b"2"]}
    pq.write_table(pa.table(table), path)
    read = read_file(path)
    assert read[0] == CaptionRecord("a dog", "x", 1)
    assert isinstance(read[1], CaptionProblem)
    assert (read[1].line, read[1].code) == (2, "no_caption")
    assert texts(path.read_bytes(), "without-ending") == ["a dog"]


def test_plain_text_is_one_caption_per_line_without_blanks() -> None:
    read = entries("\ufeffa dog\r\n\n   \na cat", "captions")
    assert read == [CaptionRecord("a dog", "", 1), CaptionRecord("a cat", "", 4)]


def test_captions_are_in_nfc_with_single_spaces() -> None:
    assert texts("  a\tcafe\u0301 \u00a0 table\x07\n", "a.txt") == ["a caf\u00e9 table"]


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ('{"caption": ""}', "empty"),
        ('{"caption": " \\n "}', "empty"),
        ('{"caption": null}', "no_caption"),
        ('{"caption": [["a"]]}', "no_caption"),
        ('{"caption": []}', "no_caption"),
        ('{"title": "a dog"}', "no_caption"),
        ('{"conversations": [{"from": "human", "value": "?"}]}', "no_caption"),
        ("17", "no_caption"),
        ('{"caption": "a', "bad_json"),
        ("[" * 30_000, "bad_json"),
        ('{"caption": "a\\u0000b"}', "nul"),
        ('{"caption": "a \\ud800 b"}', "bad_unicode"),
        ('{"caption": "' + "x" * (MAX_CAPTION_BYTES + 1) + '"}', "too_long"),
    ],
)
def test_bad_record_is_a_problem_and_the_rest_goes_on(record: str, code: str) -> None:
    before, problem, after = entries(f'{{"caption": "a dog"}}\n{record}\n"a cat"\n', "a.jsonl")
    assert isinstance(before, CaptionRecord)
    assert isinstance(after, CaptionRecord)
    assert isinstance(problem, CaptionProblem)
    assert (problem.line, problem.code) == (2, code)
    assert len(problem.message) < 500
