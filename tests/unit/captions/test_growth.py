"""A small file that holds far more records or text than anybody packs into one costs its readers little."""

import io
from itertools import product
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from imgdiffd.captions import growth, parquet_process, read_open
from imgdiffd.errors import InputError

FEW = 20_000


def count(content: bytes, name: str) -> int:
    return sum(1 for _ in read_open(io.BytesIO(content), name))


@pytest.mark.parametrize("line", [b"a\n", b'{"caption": "a"}\n', b'{"captions": ["a", "a", "a", "a", "a"]}\n'])
def test_a_small_file_of_endless_copies_is_refused(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "FREE_RECORDS", FEW)
    packed = zstd.compress(line * 10 * FEW, level=19)
    with pytest.raises(InputError, match=r"more than 2\d,\d+ records, too many for a file of \d+ bytes") as refused:
        count(packed, "a.jsonl.zst" if line.startswith(b"{") else "a.txt.zst")
    assert refused.value.code == "too_many"


def test_captions_that_compress_well_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "FREE_RECORDS", 0)
    monkeypatch.setattr(growth, "FREE_BYTES", 0)
    words = ("red", "old", "big", "wet", "new"), ("dog", "cat", "bus", "tree", "sofa"), ("on", "under", "behind")
    captions = [" ".join(("a photo of a", *each, "in the rain")) for each in product(*words, *words[:2], words[0])]
    Random(0).shuffle(captions)
    text = "\n".join(captions).encode()
    packed = zstd.compress(text, level=19)
    assert len(text) > 10 * len(packed)
    assert count(packed, "a.txt.zst") == len(captions)
    assert count(b'["' + b'","'.join([b"a"] * FEW) + b'"]', "a.json") == FEW, "what is not packed has no bound"


def rows_of(table: pa.Table, folder: Path) -> int:
    pq.write_table(table, folder / "a.parquet")
    with (folder / "a.parquet").open("rb") as file:
        return sum(1 for _ in parquet_process.read_rows(file, ""))


def lists(rows: int, values: pa.Array) -> pa.Array:
    each = len(values) // rows
    return pa.ListArray.from_arrays(pa.array(range(0, len(values) + 1, each), pa.int32()), values)


@pytest.mark.parametrize("column", ["rows", "lists", "turns"])
def test_parquet_of_endless_copies_is_refused(column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "FREE_RECORDS", FEW)
    copies = pa.array(["a"] * 10 * FEW)
    match column:
        case "rows":
            table = pa.table({"caption": copies})
        case "lists":
            table = pa.table({"captions": lists(10, copies)})
        case _:
            turns = pa.StructArray.from_arrays([copies, copies], ["from", "value"])
            table = pa.table({"conversations": lists(10, turns)})
    with pytest.raises(InputError, match=r"too many for a file of"):
        rows_of(table, tmp_path)


def test_parquet_of_long_copies_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "FREE_BYTES", 1 << 20)
    pq.write_table(pa.table({"caption": ["a" * 60_000] * 1000}), tmp_path / "a.parquet")
    with (tmp_path / "a.parquet").open("rb") as file, pytest.raises(InputError, match="more than 100 times its size"):
        sum(1 for _ in read_open(file, "a.parquet"))


def test_parquet_of_lists_of_captions_is_read(tmp_path: Path) -> None:
    captions = pa.array([f"a cat and {n} dogs" for n in range(FEW)])
    assert rows_of(pa.table({"captions": lists(FEW // 5, captions)}), tmp_path) == FEW
