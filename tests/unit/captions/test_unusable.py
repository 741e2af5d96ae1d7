"""Files that cannot be read as captions are refused with a reason, in constant memory, whatever they contain."""

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgdiffd.captions import Entry, documents, read_open
from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem, CaptionRecord
from tests.fakes.caption_files import Endless, entries


def refusal(content: bytes | str, name: str) -> str:
    with pytest.raises(InputError) as caught:
        entries(content, name)
    return caught.value.code


def refused_within(memory_bytes: int, stream: Iterator[Entry]) -> str:
    """The code with which the stream is refused; fails where reading it took more memory than that."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            for _ in stream:
                pass
        assert tracemalloc.get_traced_memory()[1] < memory_bytes
    finally:
        tracemalloc.stop()
    return caught.value.code


@pytest.mark.parametrize(
    ("content", "name", "code"),
    [
        (b"", "a.txt", "empty_file"),
        (b"\xef\xbb\xbf \n\n", "a.json", "empty_file"),
        (b"a dog\na \xff cat\n", "a.txt", "not_utf8"),
        (b'{"caption": "\xff"}\n', "a.jsonl", "not_utf8"),
        (b'[{"caption": "\xff"}]', "a.json", "not_utf8"),
        (b"caption\n\xff\n", "a.csv", "not_utf8"),
        ("a dog".encode("utf-16"), "a.txt", "not_utf8"),
        (b"a dog\na\0cat\n", "a.txt", "nul_bytes"),
        (b'["a dog", "a\0cat"]', "a.json", "nul_bytes"),
        (b"MZ\x90\0\x03\0", "program", "nul_bytes"),
        (b'[{"caption": "a dog"}, {"capt', "a.json", "bad_json"),
        (b'["a dog"] and more', "a.json", "bad_json"),
        (b"hello", "a.json", "bad_json"),
        (b'{"images": [{"id": 3}]}', "a.json", "unknown_shape"),
        (b"17", "a.json", "unknown_shape"),
        (b"[" * 1000 + b"]" * 1000, "a.json", "unknown_shape"),
        (b'{"x": ' + b"[" * 1000 + b"]" * 1000 + b"}", "a.json", "unknown_shape"),
        (b"name,size\ndog,3\n", "a.csv", "unknown_columns"),
        (b'caption\n"a dog\n' + b"a cat\n" * 100_000, "a.csv", "bad_csv"),
        (b'id,caption\n1,a dog\n2,"a cat\n3,a hen\n', "a.csv", "bad_csv"),
        (b"caption,id,caption\na dog,1,a cat\n", "a.csv", "unknown_columns"),
        (b"a dog\ra cat\r", "a.txt", "bad_line_ends"),
        (b"id,caption\r1,a dog\r", "a.csv", "bad_line_ends"),
        (b'{"caption": "a dog"}\r{"caption": "a cat"}\r', "a.jsonl", "bad_line_ends"),
        (b'["a dog", "a \\udc00 cat"]', "a.json", "bad_unicode"),
        (b"PAR1 but no more", "a.parquet", "bad_parquet"),
        (b"a,b\n", "a.parquet", "bad_parquet"),
        (b"[]", "a.json", "no_captions"),
        (b'{"annotations": []}', "a.json", "no_captions"),
        (b"caption,id\n", "a.csv", "no_captions"),
        (b'{"a": 1}\n' * 5, "a.jsonl", "no_captions"),
        (b'{"a": 1}\n' * 5000, "a.jsonl", "mostly_unusable"),
    ],
)  # fmt: skip
def test_useless_file_is_refused_with_its_reason(content: bytes, name: str, code: str) -> None:
    assert refusal(content, name) == code


def test_a_carriage_return_in_a_row_is_not_called_a_quote() -> None:
    with pytest.raises(InputError, match="line 2: a carriage return") as caught:
        entries(b"id,caption\n1,a dog\r2,a cat\n", "a.csv")
    assert "quote" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_encoding_is_called_by_its_name(encoding: str) -> None:
    with pytest.raises(InputError, match=f"the file is {encoding.upper()}, not UTF-8"):
        entries("a dog".encode(encoding), "a.txt")


def test_parquet_without_a_caption_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"name": ["a dog"]}), path)
    assert refusal(path.read_bytes(), path.name) == "unknown_columns"


def test_captions_before_a_cut_are_yielded() -> None:
    stream = read_open(io.BytesIO(b'["a dog", "a cat", "a h'), "a.json")
    assert isinstance(next(stream), CaptionRecord)
    assert isinstance(next(stream), CaptionRecord)
    with pytest.raises(InputError):
        next(stream)


def test_line_of_ten_megabytes_is_skipped_and_the_next_is_read() -> None:
    read = entries(b"a dog\n" + b"x" * (10 << 20) + b"\na cat\n", "a.txt")
    assert read[0] == CaptionRecord("a dog", "", 1)
    assert isinstance(read[1], CaptionProblem)
    assert (read[1].line, read[1].code) == (2, "too_long")
    assert read[2] == CaptionRecord("a cat", "", 3)


@pytest.mark.parametrize(
    ("name", "code"),
    [("a.txt", "no_captions"), ("a.jsonl", "no_captions"), ("a.csv", "no_captions"), ("a.json", "too_long")],
)
def test_endless_line_costs_no_memory(name: str, code: str) -> None:
    file = io.BufferedReader(Endless(b'["', b"x", 24 << 20, b'"]'))
    assert refused_within(8 << 20, read_open(file, name)) == code


@pytest.mark.parametrize("filler", [b'"a", ', b"[],", b'{"k": 1},'])
def test_big_record_costs_no_memory(filler: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_RECORD_BYTES", 100_000)
    head, tail = b'[{"caption": "a", "rest": [', b"0]}]"
    size = len(head) + len(tail) + (1 << 20) // len(filler) * len(filler)
    file = io.BufferedReader(Endless(head, filler, size, tail))
    assert refused_within(4 << 20, read_open(file, "a.json")) == "no_captions"
