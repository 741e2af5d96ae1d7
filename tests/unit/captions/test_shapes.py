"""The shapes in which people have captions: compressed, by image, several a record, under a key of their own."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from imgdiffd.captions.parquet_process import read_rows
from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem, CaptionRecord
from tests.fakes.caption_files import entries, texts

DOG, CAT = "a dog on a sofa", "a cat by a tree"


def named(content: bytes | str, name: str, field: str = "") -> list[tuple[str, str]]:
    read = entries(content, name, field)
    return [(entry.source_id, entry.text) for entry in read if isinstance(entry, CaptionRecord)]


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "stdin"])
def test_compressed_files_are_read_whatever_their_name(pack: type, name: str) -> None:
    content = f'{{"caption": "{DOG}"}}\n'.encode()
    assert texts(pack(content) + pack(content), name) == [DOG, DOG]  # several members are one file


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_a_compressed_file_cut_off_is_refused_with_its_reason(pack: type) -> None:
    packed = pack(json.dumps([f"{DOG} {number}" for number in range(1000)]).encode())
    for kept in (len(packed) - 9, 300, 12):
        with pytest.raises(InputError) as caught:
            entries(packed[:kept], "a.json.gz")
        assert caught.value.code == "bad_compression"


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_a_bomb_is_refused_before_it_takes_long(pack: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgdiffd.captions.growth.FREE_BYTES", 1 << 20)
    with pytest.raises(InputError, match="unpacks to more than"):
        entries(pack(b'{"rest": [' + b"0," * (5 << 20)), "a.json")


def test_zstd_that_starts_with_a_frame_to_skip_is_read() -> None:
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0size"  # as pzstd writes it
    assert texts(skipped + zstd.compress(DOG.encode()), "a.txt.zst") == [DOG]


def test_one_stray_carriage_return_costs_no_caption() -> None:
    assert texts(b"a dog\r\r\na\rcat\n", "a.txt") == ["a dog", "a cat"]
    assert texts(b'["a dog",\r"a cat"]\r', "a.json") == ["a dog", "a cat"]
    assert texts(b'caption,id\r\n"a\rdog",1\r\n', "a.csv") == ["a dog"]


def test_blank_lines_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgdiffd.captions.lines.MAX_BLANK_LINES", 1000)
    with pytest.raises(InputError, match="blank lines"):
        entries(b" \n" * 2000 + b"a dog\n", "a.txt")


def test_several_captions_of_an_image_are_all_read_under_its_name() -> None:
    karpathy = {
        "dataset": "coco",
        "images": [
            {"filepath": "val2014", "cocoid": 391895, "sentences": [{"tokens": ["a"], "raw": DOG}, {"raw": CAT}]},
        ],
    }
    assert named(json.dumps(karpathy), "dataset_coco.json") == [("391895", DOG), ("391895", CAT)]
    assert named(json.dumps({"image": "1.jpg", "caption": [DOG, CAT]}), "a.jsonl") == [("1.jpg", DOG), ("1.jpg", CAT)]


@pytest.mark.parametrize(
    "document",
    [
        {"info": {"year": 2017}, "licenses": [{"id": 1, "name": "MIT"}], "images": [{"id": 9}],
         "annotations": [{"id": "7", "caption": DOG}, {"id": "8", "caption": CAT}]},
        {"data": [{"id": "7", "text": DOG}, {"id": "8", "text": CAT}]},
        {"train2017": [{"id": "7", "caption": DOG}], "val2017": [{"id": "8", "caption": CAT}]},
        {"7": DOG, "8": CAT},
        {"version": "1", "7": [DOG], "8": [CAT]},
        {"7": {"caption": DOG}, "8": {"caption": CAT}},
    ],
)  # fmt: skip
def test_objects_of_captions_are_read_with_their_ids(document: object) -> None:
    assert named(json.dumps(document), "a.json") == [("7", DOG), ("8", CAT)]


def test_a_line_of_json_may_hold_far_more_than_its_caption() -> None:
    content = json.dumps({"id": "7", "caption": DOG, "pixels": "x" * 500_000})
    assert named(f"{content}\n{content}\n", "a.jsonl") == [("7", DOG), ("7", DOG)]


def test_a_list_of_lists_and_one_record_alone_are_read() -> None:
    assert named(json.dumps([["1.jpg", DOG], [DOG, CAT]]), "a.json") == [("1.jpg", DOG), ("", DOG), ("", CAT)]
    assert named(json.dumps({"id": 7, "caption": DOG}, indent=1), "a.json") == [("7", DOG)]


def test_flickr_tables_are_read_with_their_images() -> None:
    assert named(f"image,caption\n1.jpg,{DOG}\n", "captions.txt") == [("1.jpg", DOG)]
    assert named(f"1.jpg#0\t{DOG}\n1.jpg#1\t{CAT}\n", "Flickr8k.token.txt") == [("1.jpg#0", DOG), ("1.jpg#1", CAT)]
    assert named(f"image_name| comment_number| comment\n1.jpg| 0| {DOG}\n", "results.csv") == [("1.jpg", DOG)]
    assert texts("a dog, a cat\ncaption\n", "a.txt") == ["a dog, a cat", "caption"]


@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("a.jsonl", json.dumps({"id": "7", "caption": "x", "prompt": DOG}), "prompt"),
        ("a.json", json.dumps([{"id": "7", "meta": {"en": DOG}}]), "meta.en"),
        ("a.json", json.dumps({"questions": [{"id": "7", "q": DOG}], "other": [1]}), "q"),
        ("a.csv", f"id,title,text\n7,{DOG},x\n", "TITLE"),
        ("a.txt", f"id\ttitle\n7\t{DOG}\n", "title"),
    ],
)
def test_a_named_field_is_read_in_place_of_the_usual_ones(name: str, content: str, field: str) -> None:
    assert named(content, name, field) == [("7", DOG)]


def test_a_table_without_header_is_read_by_the_columns_number() -> None:
    assert texts(f"{DOG}\thttp://x/1\n{CAT}\thttp://x/2\n", "Train-GCC.tsv", "1") == [DOG, CAT]
    assert texts(f"id,caption\n1,{DOG}\n", "a.csv", "2") == [DOG]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", '{"caption": "x"}'), ("a.csv", "id,caption\n1,x\n"), ("a.txt", "a dog\n"), ("a.csv", "caption\nx\n")],
)
def test_a_field_that_is_not_there_is_named_in_the_reason(name: str, content: str) -> None:
    with pytest.raises(InputError, match="nowhere"):
        entries(content, name, "nowhere")


def parquet(columns: dict[str, object], field: str = "") -> list[tuple[str, str]]:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    read = read_rows(sink, field)
    return [(entry.source_id, entry.text) for entry in read if isinstance(entry, CaptionRecord)]


def test_parquet_gives_lists_and_conversations_and_a_field() -> None:
    listed = {"image": [{"bytes": b"1", "path": "x"}], "image_id": [7], "caption": [[DOG, CAT]]}
    assert parquet(listed) == [("7", DOG), ("7", CAT)]
    assert parquet({"id": ["7"], "meta": [{"en": DOG, "de": "x"}]}, "meta.en") == [("7", DOG)]
    talk = [{"from": "human", "value": "?"}, {"from": "gpt", "value": DOG}]
    assert parquet({"id": ["7"], "conversations": [talk]}) == [("7", DOG)]
    assert parquet({"key": ["7"], "TEXT": [DOG.encode()]}) == [("7", DOG)]
    assert parquet({"id": ["7"], "text": pa.array([[DOG, CAT]], pa.list_(pa.string(), 2))}) == [("7", DOG), ("7", CAT)]
    assert parquet({"id": ["7"], "text": [[DOG.encode(), b"\xff"]]}) == [("7", DOG)]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "a PNG image"),
        ("captions.txt", b"\xff\xd8\xff\xe0 JFIF", "a JPEG image"),
        ("a.json", b"PK\x03\x04", "a zip archive"),
        ("a.tar", b"x" * 257 + b"ustar\0", "a tar archive"),
        ("a.txt.gz", gzip.compress(gzip.compress(b"a dog", mtime=0), mtime=0), "more than once"),
    ],
)
def test_another_kind_of_file_gets_a_reason_with_an_example(name: str, content: bytes, kind: str) -> None:
    with pytest.raises(InputError, match=kind) as caught:
        entries(content, name)
    assert caught.value.code == "not_captions"
    assert "a dog on a red sofa" in (caught.value.hint or "")


@pytest.mark.parametrize("document", [{"images": [{"id": 3}]}, {"error": "no such page"}, {"a": {"b": {"c": 1}}}, 17])
def test_an_unknown_shape_gets_a_reason_with_an_example(document: object) -> None:
    with pytest.raises(InputError) as caught:
        entries(json.dumps(document), "a.json")
    assert caught.value.code == "unknown_shape"
    assert "a dog on a red sofa" in (caught.value.hint or "")


def test_a_later_list_that_is_no_caption_costs_nothing() -> None:
    content = json.dumps({"annotations": [{"caption": DOG}], "categories": [{"name": "dog"}, 1], "2014": 3})
    assert [type(entry) for entry in entries(content, "a.json")] == [CaptionRecord]
    assert not [entry for entry in entries(content, "a.json") if isinstance(entry, CaptionProblem)]
