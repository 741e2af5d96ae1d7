"""Whatever a file holds, its reader gives records that the store takes, or refuses the file."""

import io
import json
import sqlite3
import unicodedata
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgdiffd.captions import Entry, parquet
from imgdiffd.captions.parquet_process import read_rows
from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem, CaptionRecord
from tests.fakes.caption_files import entries, opened

ENDINGS = [".json", ".jsonl", ".csv", ".tsv", ".txt", ".json.gz", ""]
KEYS = st.sampled_from(
    ["caption", "captions", "text", "id", "image", "conversations", "annotations", "a.b", "7", "\ud800"]
)
FIELDS = st.sampled_from(["", "", "caption", "a.b", "2", "\ud800"])


def check(read: list[Entry]) -> None:
    """Fails where a table of the store would refuse a record."""
    with sqlite3.connect(":memory:") as store:
        store.execute("CREATE TABLE records (line INTEGER, code TEXT, text TEXT) STRICT")
        for entry in read:
            if isinstance(entry, CaptionRecord):
                assert entry.text == " ".join(entry.text.split())
                row = (entry.line, entry.source_id, entry.text)
            else:
                assert not {unicodedata.category(letter) for letter in entry.message} & {"Cc", "Cs", "Zl", "Zp"}
                row = (entry.line, entry.code, entry.message)
            store.execute("INSERT INTO records VALUES (?, ?, ?)", row)
            assert "\0" not in row[1] + row[2]
    store.close()


def check_file(content: bytes | str, name: str, field: str = "") -> None:
    try:
        check(entries(content, name, field))
    except InputError as refusal:
        str(refusal).encode("utf-8")


@given(st.binary(max_size=300), st.sampled_from(ENDINGS), FIELDS)
def test_any_bytes_are_read_or_refused(content: bytes, ending: str, field: str) -> None:
    check_file(content, f"a{ending}", field)


@given(st.lists(st.lists(st.text(max_size=9), max_size=4)), st.sampled_from([",", "\t", "|"]), FIELDS)
def test_any_table_is_read_or_refused(rows: list[list[str]], delimiter: str, field: str) -> None:
    content = "\n".join(delimiter.join(row) for row in [["id", "caption"], *rows])
    for name in ("a.csv", "a.tsv", "a.txt"):
        check_file(content.encode("utf-8", "surrogatepass"), name, field)


NUMBERS = st.integers() | st.floats() | st.sampled_from([10**4000, -(2**63) - 1, 1e308])
TEXTS = st.text(max_size=9) | st.sampled_from(["\ud800", "\0", "\x1b[31m\n", "a dog"])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda value: st.lists(value, max_size=4) | st.dictionaries(KEYS | TEXTS, value, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200)
@given(JSON, FIELDS)
def test_any_json_is_read_or_refused(value: object, field: str) -> None:
    text = json.dumps(value)
    for content, name in ((text, "a.json"), (f"{text}\n{text}\n", "a.jsonl"), (f"[{text}, {text}]", "a.json")):
        check_file(content, name, field)


@pytest.mark.parametrize("content", ['{"\\ud800": "a cat"}', '{"caption": "a cat", "id": "\\ud800"}', '["\\ud800"]'])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_half_a_surrogate_pair_spoils_one_record(content: str, name: str) -> None:
    check_file(content, name)


@pytest.mark.parametrize("digits", [4000, 5000, 100_000])
def test_a_number_of_any_length_spoils_no_more_than_its_file(digits: int) -> None:
    check_file(f'[{{"caption": "a dog", "id": {"9" * digits}}}]', "a.json")
    check_file(f'{{"caption": "a dog", "id": {"9" * digits}}}\n"a cat"\n', "a.jsonl")


# Parquet, read in this process to be quick


def parquet_file(names: list[Any], arrays: list[Any]) -> io.BytesIO:
    sink = io.BytesIO()
    fields = [pa.field(name, array.type) for name, array in zip(names, arrays, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), sink)
    return sink


def check_rows(file: io.BytesIO, field: str = "") -> list[Entry]:
    try:
        read = list(read_rows(file, field))
    except InputError as refusal:
        str(refusal).encode("utf-8")
        return []
    check(read)
    return read


NOT_UTF8 = pa.array([b"\xff\xfe", b"a dog"]).view(pa.string())
COLUMNS = [
    pa.array([1, -(2**62)], pa.timestamp("ns")),
    pa.array([1, 2**62], pa.timestamp("us", "nowhere/at-all")),
    pa.array([1, 86_399_999_999_999], pa.time64("ns")),
    pa.array([2**31 - 1, -(2**31)], pa.int32()).view(pa.date32()),
    pa.array([date.max, None]),
    pa.array([1, 2**62], pa.duration("ns")),
    pa.array([timedelta.max, None], pa.duration("s")),
    pa.array([Decimal("1e37"), None], pa.decimal256(60, 3)),
    pa.array([2**64 - 1, None], pa.uint64()),
    pa.array([float("nan"), None]),
    pa.array([1.0, None], pa.float16()) if hasattr(pa, "float16") else pa.array([1.0, None]),
    pa.array([True, None]),
    pa.array([None, None], pa.null()),
    pa.array([b"\xff", b"a dog"]),
    pa.array([b"12", b"34"], pa.binary(2)),
    NOT_UTF8,
    pa.array(["a dog", None]).dictionary_encode(),
    pa.array(["a dog", "x" * 70_000], pa.large_string()),
    pa.array([["a dog"], [None, "a cat"]]),
    pa.ListArray.from_arrays([0, 1, 2], NOT_UTF8),
    pa.array([{"raw": "a dog", "at": 1}, None]),
    pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
]
SOME = st.sampled_from(COLUMNS)
NAMES = st.sampled_from(
    ["caption", "Caption", "text", "id", "image", b"\xff\xfe", "conversations", "", "a.b", "\x1b[31m"]
)


@settings(max_examples=300)
@given(st.lists(st.tuples(NAMES, SOME), min_size=1, max_size=4), FIELDS)
def test_any_parquet_columns_are_read_or_refused(columns: list[tuple[str | bytes, Any]], field: str) -> None:
    check_rows(parquet_file([name for name, _ in columns], [array for _, array in columns]), field)


def test_an_id_of_another_type_is_left_out_and_costs_nothing() -> None:
    for column in COLUMNS:
        read = check_rows(parquet_file(["id", "caption"], [column, pa.array(["a dog", "a cat"])]))
        assert [type(entry) for entry in read] == [CaptionRecord, CaptionRecord]


def test_a_caption_that_is_not_utf8_spoils_its_row_alone() -> None:
    bad, good = check_rows(parquet_file(["caption"], [NOT_UTF8]))
    assert isinstance(bad, CaptionProblem)
    assert (bad.line, bad.code) == (1, "bad_unicode")
    assert good == CaptionRecord("a dog", "", 2)


@pytest.mark.parametrize("names", [["caption", "caption"], [b"\xff", "caption"]])
def test_columns_that_cannot_be_told_apart_are_refused(names: list[str | bytes]) -> None:
    with pytest.raises(InputError, match=r"several columns are called|not UTF-8"):
        list(read_rows(parquet_file(names, [pa.array(["a dog"]), pa.array(["a cat"])]), ""))


@pytest.mark.parametrize(("death", "said"), [("os.abort()", "SIGABRT"), ("sys.exit(7)", "status 7")])
def test_a_reading_process_that_dies_costs_its_file(death: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(parquet, "_PROGRAM", (sys.executable, "-S", "-c", f"import os, sys; {death}"))
    with opened(b"PAR1") as file, pytest.raises(InputError, match=said):
        list(parquet.read_parquet(file, ""))
    monkeypatch.setattr(parquet, "_PROGRAM", (sys.executable, "-S", "-c", "import os; os.kill(os.getpid(), 9)"))
    with opened(b"PAR1") as file, pytest.raises(OSError, match="was killed"):
        list(parquet.read_parquet(file, ""))
