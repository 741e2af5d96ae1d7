"""What an export's check opens, and what it finds wrong."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from imgdiffd.export import checking
from imgdiffd.export.checking import Checked


def check(folder: Path, names: list[str]) -> Checked:
    lists = [name for name in names if not name.endswith(".jpg")]
    return checking.check(folder, lists, [name for name in names if name.endswith(".jpg")])


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "JPEG")
    return file.getvalue()


def llava(question: str = "<image>\nWhich?", answer: str = "A", image: str = "imgdiff/a.jpg") -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "a", "image": image, "conversations": turns}


def written(folder: Path, name: str, *records: dict[str, Any]) -> list[str]:
    """The names of an export with a list and an image."""
    (folder / "imgdiff").mkdir(exist_ok=True)
    (folder / "imgdiff" / "a.jpg").write_bytes(jpeg())
    lines = name.endswith("l")
    text = "".join(f"{json.dumps(each)}\n" for each in records) if lines else json.dumps(records)
    (folder / name).write_text(text, "utf-8")
    return [name, "imgdiff/a.jpg"]


USER, ASSISTANT = {"role": "user", "content": "<image>Which?"}, {"role": "assistant", "content": "A"}


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("llava.json", llava()),
        ("imgdiff.jsonl", llava(image="a.jpg")),
        ("imgdiff.jsonl", llava("<image>\n<image>\nWhich?") | {"image": ["a.jpg", "a.jpg"]}),
        ("swift.jsonl", {"messages": [USER, ASSISTANT], "images": ["imgdiff/a.jpg"]}),
        ("dj.jsonl", {"text": "[[human]]: <__dj__image>\nW?\n[[gpt]]: A <|__dj__eoc|>", "images": ["imgdiff/a.jpg"]}),
    ],
)
def test_what_each_trainer_reads_is_found_right(tmp_path: Path, name: str, record: dict[str, Any]) -> None:
    done = check(tmp_path, written(tmp_path, name, record))
    assert (done.records, done.images, done.problems) == (1, 1, [])


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (llava("Which?"), "record a: it has 0 <image>s for 1 image"),
        (llava("<image><image>"), "record a: it has 2 <image>s for 1 image"),
        (llava(answer="A </s>"), "record a: its answer holds </s>"),
        (llava(answer="ASSISTANT: A"), "record a: its answer holds ASSISTANT:"),
        (llava(answer="the <image>"), "record a: its answer holds <image>"),
        (llava(answer=" "), "record a: its answer is empty"),
        (llava(image="imgdiff/b.jpg"), "record a: its image imgdiff/b.jpg is missing"),
        (llava(image="ocr/a.jpg"), "record a: its path ocr/a.jpg holds ocr"),
        (llava(image="VG_100K/a.jpg"), "record a: its path VG_100K/a.jpg holds VG_100K"),
    ],
)
def test_what_would_harm_a_trainer_is_named(tmp_path: Path, record: dict[str, Any], problem: str) -> None:
    assert problem in check(tmp_path, written(tmp_path, "llava.json", llava(), record)).problems


def test_the_released_layout_has_two_images_and_no_mark(tmp_path: Path) -> None:
    record = llava("Which?")
    del record["image"]
    names = written(tmp_path, "list.json", record | {"path": "imgdiff/b"})
    for name in ("imgdiff/b_0.jpg", "imgdiff/b_1.jpg"):
        assert f"record a: its image {name} is missing" in check(tmp_path, names).problems
        (tmp_path / name).write_bytes(jpeg())
        names.append(name)
    done = check(tmp_path, names)
    assert (done.problems, done.images) == ([], 3)


@pytest.mark.parametrize("data", [b"", b"text", jpeg()[:-200]])
def test_an_image_that_cannot_be_opened_to_its_end_is_named(tmp_path: Path, data: bytes) -> None:
    names = written(tmp_path, "llava.json", llava())
    (tmp_path / "imgdiff" / "a.jpg").write_bytes(data)
    (problem,) = check(tmp_path, names).problems
    assert problem.startswith("imgdiff/a.jpg: cannot be opened: ")


@pytest.mark.parametrize("whole", [True, False])
def test_images_inside_parquet_and_archives_are_opened(tmp_path: Path, whole: bool) -> None:
    data = jpeg() if whole else jpeg()[:-200]
    row = {"id": ["a"], "image": [{"bytes": data, "path": "a.jpg"}], "question": ["W?"], "answer": ["A"]}
    chat = {"images": [[{"bytes": data}]], "prompt": [[{"role": "user", "content": "W?"}]], "completion": [[ASSISTANT]]}
    for name, table in (("train-0.parquet", row), ("trl.parquet", chat)):
        pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / name)
        done = check(tmp_path, [name])
        assert (done.records, done.images, len(done.problems)) == (1, 1, 0 if whole else 1)
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        for end, content in (("left.jpg", data), ("right.jpg", jpeg()), ("json", b'{"question": "W?", "answer": "A"}')):
            member = tarfile.TarInfo(f"a.{end}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    done = check(tmp_path, ["train-0.tar"])
    assert (done.records, done.images, len(done.problems)) == (1, 2, 0 if whole else 1)


def test_what_holds_no_question_is_passed_over(tmp_path: Path) -> None:
    names = written(tmp_path, "llava.json", llava())
    (tmp_path / "meta.json").write_text('{"imgdiff": {"length": 1}}')
    assert check(tmp_path, [*names, "meta.json"]).records == 1
