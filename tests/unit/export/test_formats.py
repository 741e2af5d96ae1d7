"""Every format restated: what its reader demands of a record, and what holds for the folder whatever the format."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyarrow import parquet

from imgdiffd.errors import ExportError
from imgdiffd.export import shards
from imgdiffd.export.dataset import Written, export_dataset
from imgdiffd.export.folder import MARK, STAGED
from imgdiffd.export.formats.table import FORMATS
from imgdiffd.export.release import QUESTION
from imgdiffd.export.sample import Choice
from imgdiffd.store import SampleRow
from tests.fakes.made_samples import MadeSamples, removal_row

BAR = " (separated by the black vertical bar)"


class Database(MadeSamples):
    """Samples of items 1, 2, … with a removal sample, whose captions are all different."""

    def __init__(self, folder: Path, count: int = 3, left: str = "red", right: str = "blue") -> None:
        super().__init__(folder, range(1, count + 1), left, right)
        self.rows = [
            replace(row, caption1=f"caption {row.item}", image1=row.left_image, image2=row.right_image)
            for row in self.rows
        ]
        row = removal_row("right", item=9)
        for name, colour in (
            (row.sample.original, "red"),
            (row.sample.erased, "blue"),
            (row.sample.erasure.source, "red"),
        ):
            Image.new("RGB", (16, 16), colour).save(self.images / name)
        self.removals = [row]

    def export(self, folder: Path, layout: str, **how: Any) -> Written:
        return export_dataset(self, self.images, folder, layout=layout, **how)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def records(path: Path) -> list[dict[str, Any]]:
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line]
    loaded: list[dict[str, Any]] = json.loads(text)
    return loaded


def check_llava(record: Mapping[str, Any], root: Path) -> None:
    """What LLaVA's loader takes without a warning and learns the answer of."""
    assert isinstance(record["id"], str)
    assert isinstance(record["image"], str)
    assert (root / record["image"]).is_file()
    human, answer = record["conversations"]
    assert (human["from"], answer["from"]) == ("human", "gpt")
    assert human["value"].startswith("<image>\n")
    assert human["value"].count("<image>") == 1
    assert not any(mark in answer["value"] for mark in ("</s>", "ASSISTANT: ", "<image>"))


@pytest.mark.parametrize("name", ["llava", "mgm"])
def test_llava_and_mgm_records_keep_their_loaders_rules(tmp_path: Path, name: str) -> None:
    assert Database(tmp_path).export(tmp_path / "out", name).samples == {"replacement": 3, "removal": 1}
    made = records(tmp_path / "out" / f"{name}.json")
    assert len({record["id"] for record in made}) == 4
    for record in made:
        check_llava(record, tmp_path / "out")
        assert "ocr" not in record["image"]
        assert "VG_100K" not in record["image"]


def test_a_joined_image_has_the_bar_between_its_two(tmp_path: Path) -> None:
    Database(tmp_path, 1).export(tmp_path / "out", "llava")
    first = records(tmp_path / "out" / "llava.json")[0]
    with Image.open(tmp_path / "out" / first["image"]) as image:
        assert (image.mode, image.size) == ("RGB", (200 + 20 + 200, 100))
        colours = [image.getpixel((x, 50)) for x in (5, 195, 203, 217, 225, 415)]
    plain = ["".join("RGB"[i] for i in range(3) if pixel[i] > 128) for pixel in colours]  # type: ignore[index]
    assert plain == ["R", "R", "", "", "B", "B"]


def test_images_of_two_heights_are_brought_to_one(tmp_path: Path) -> None:
    made = Database(tmp_path, 1)
    Image.new("RGB", (100, 50), "blue").save(made.images / made.rows[0].right_image)
    made.export(tmp_path / "out", "llava")
    first = records(tmp_path / "out" / "llava.json")[0]
    with Image.open(tmp_path / "out" / first["image"]) as image:
        assert image.size == (200 + 20 + 200, 100)


def test_internvl_meta_tells_the_truth(tmp_path: Path) -> None:
    Database(tmp_path).export(tmp_path / "out", "internvl")
    (meta,) = json.loads((tmp_path / "out" / "meta.json").read_text()).values()
    assert meta["annotation"].endswith("jsonl")
    assert (meta["data_augment"], meta["repeat_time"]) == (False, 1)
    made = records(tmp_path / "out" / meta["annotation"])
    assert meta["length"] == len(made) == 4
    for record in made:
        check_llava(record, tmp_path / "out" / meta["root"])


@pytest.mark.parametrize("name", ["internvl", "llama-factory", "swift", "data-juicer"])
def test_two_images_have_two_marks_and_no_bar_in_the_question(tmp_path: Path, name: str) -> None:
    Database(tmp_path, 1).export(tmp_path / "out", name, shown="two")
    (path,) = (
        path
        for path in (tmp_path / "out").iterdir()
        if path.stem in ("imgdiff", "swift", "data-juicer") and path.is_file()
    )
    for record in records(path):
        images = record["images"] if "images" in record else record["image"]
        assert len(images) == 2
        root = tmp_path / "out" / ("imgdiff" if name == "internvl" else "")
        assert all((root / image).is_file() for image in images)
        text = json.dumps(record)
        assert max(text.count("<image>"), text.count("<__dj__image>")) == 2
        assert BAR not in text


def test_llama_factory_finds_its_data_by_the_description(tmp_path: Path) -> None:
    Database(tmp_path).export(tmp_path / "out", "llama-factory")
    described = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert set(described) == {"imgdiff"}
    for record in records(tmp_path / "out" / described["imgdiff"]["file_name"]):
        assert record["conversations"][0]["value"].count("<image>") == len(record["images"]) == 1


def test_swift_and_data_juicer_records_are_as_their_readers_want(tmp_path: Path) -> None:
    made = Database(tmp_path, 1)
    made.export(tmp_path / "swift", "swift")
    made.export(tmp_path / "dj", "data-juicer")
    answer = made.rows[0].difference
    (first, _) = records(tmp_path / "swift" / "swift.jsonl")
    assert first["messages"] == [
        {"role": "user", "content": f"<image>{QUESTION}"},
        {"role": "assistant", "content": answer},
    ]
    (first, _) = records(tmp_path / "dj" / "data-juicer.jsonl")
    assert first["text"] == f"[[human]]: <__dj__image>\n{QUESTION}\n[[gpt]]: {answer} <|__dj__eoc|>"


def test_trl_has_prompt_and_completion_without_marks(tmp_path: Path) -> None:
    made = Database(tmp_path, 1)
    made.export(tmp_path / "out", "trl")
    first = parquet.read_table(tmp_path / "out" / "data" / "train-00000.parquet").to_pylist()[0]
    assert first["prompt"] == [{"role": "user", "content": QUESTION}]
    assert first["completion"] == [{"role": "assistant", "content": made.rows[0].difference}]
    assert [Image.open(io.BytesIO(image["bytes"])).size for image in first["images"]] == [(420, 100)]


def test_coco_has_each_image_once_and_each_box_by_its_noun(tmp_path: Path) -> None:
    made = Database(tmp_path, 1)
    second = replace(made.rows[0], region=1, key="cd" * 16, box=(0, 0, 10, 20), left=2)
    made.rows.append(replace(second, left_image=made.rows[0].right_image, right_image=made.rows[0].left_image))
    made.export(tmp_path / "out", "coco")
    coco = json.loads((tmp_path / "out" / "instances_train.json").read_text())
    names = {each["id"]: each["name"] for each in coco["categories"]}
    images = {each["id"]: each for each in coco["images"]}
    assert [len(coco[key]) for key in ("images", "annotations", "categories")] == [3, 5, 3]
    assert len({each["file_name"] for each in coco["images"]}) == 3
    for each in coco["images"]:
        with Image.open(tmp_path / "out" / each["file_name"]) as image:
            assert image.size == (each["width"], each["height"])
    boxes = [(names[each["category_id"]], each["bbox"], each["image_id"]) for each in coco["annotations"]]
    assert boxes[:4] == [
        ("cat", [172, 41, 24, 13], 1), ("dog", [172, 41, 24, 13], 2),
        ("dog", [0, 0, 10, 20], 2), ("cat", [0, 0, 10, 20], 1),
    ]  # fmt: skip
    assert boxes[4][0] == "object"
    assert images[3]["width"] == 512


@pytest.mark.parametrize(
    ("name", "mark"),
    [(name, "<image>") for name, row in FORMATS.items() if row.trains] + [("llava", "</s>"), ("llava", "ASSISTANT: ")],
)
def test_an_answer_with_a_trainers_mark_is_left_out(tmp_path: Path, name: str, mark: str) -> None:
    made = Database(tmp_path)
    made.rows[1] = replace(made.rows[1], difference=f"The left{mark} image")
    written = made.export(tmp_path / "out", name)
    assert written.samples == {"replacement": 2, "removal": 1}
    assert written.left_out == {f"with {mark.strip()} in their text": 1}


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {MARK}


@pytest.mark.parametrize("name", FORMATS)
def test_equal_samples_give_equal_bytes_in_any_folder(tmp_path: Path, name: str) -> None:
    Database(tmp_path / "a").export(tmp_path / "one", name)
    made = Database(tmp_path / "b")
    made.rows = [replace(row, id=row.item, job=7, created_at=9.0) for row in made.rows]
    for other in ("parquet" if name != "parquet" else "trl", "llava" if name != "llava" else "coco"):
        made.export(tmp_path / "two", other)
    removed = made.export(tmp_path / "two", name).removed
    assert contents(tmp_path / "one") == contents(tmp_path / "two"), "nothing of another format is left"
    assert removed or name == "coco"


@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.split])
def test_validation_has_its_own_files_and_no_caption_of_train(tmp_path: Path, name: str) -> None:
    made = Database(tmp_path, 12)
    made.export(tmp_path / "all", name, choice=Choice(validation=1.0))
    made.export(tmp_path / "some", name, choice=Choice(validation=0.5))
    files = [path for path in (tmp_path / "some").rglob("*") if "validation" in path.name]
    assert len(files) == 1
    assert any("validation" in path.name for path in (tmp_path / "all").rglob("*"))
    if name == "llava":
        train, validation = (records(tmp_path / "some" / f"llava{end}.json") for end in ("", "_validation"))
        assert train
        assert validation
        assert len(train) + len(validation) == 13
    made.export(tmp_path / "some", name, choice=Choice(validation=0.0))
    assert not [path for path in (tmp_path / "some").rglob("*") if "validation" in path.name]


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_choice_leaves_a_dataset_without_samples(tmp_path: Path, name: str) -> None:
    made = Database(tmp_path)
    made.export(tmp_path / "out", name)
    made.rows, made.removals = [], []
    assert made.export(tmp_path / "out", name).samples == {}
    left = {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not [path for path in left if path.suffix in (".jpg", ".tar", ".parquet")]


@pytest.mark.parametrize("name", ["parquet", "trl", "webdataset"])
def test_shards_are_bounded_and_hold_every_sample_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(shards, "SHARD_SAMPLES", 3)
    Database(tmp_path, 10).export(tmp_path / "out", name, choice=Choice(validation=0.0))
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert [path.stem for path in sorted(folder.iterdir())] == [f"train-{n:05d}" for n in range(4)]
    assert len(ids(folder)) == len(set(ids(folder))) == 11


def ids(folder: Path) -> list[str]:
    found: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                found += [name.partition(".")[0] for name in tar.getnames() if name.endswith(".json")]
        else:
            found += parquet.read_table(path, columns=["id"])["id"].to_pylist()
    return found


def dying(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """From step `at` on, nothing is renamed or removed any more, as for a process that is gone. Counts the steps."""
    count = 0

    def mortal(do: Callable[..., object]) -> Callable[..., object]:
        def step(*given: object, **more: object) -> object:
            nonlocal count
            count += 1
            if count > at:
                raise KeyboardInterrupt
            return do(*given, **more)

        return step

    for name in ("replace", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, mortal(getattr(os, name)))
    return lambda: count


@pytest.mark.parametrize("name", ["webdataset", "llava"])
def test_killed_anywhere_it_leaves_one_dataset_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(shards, "SHARD_SAMPLES", 2)
    older, newer = Database(tmp_path / "a", 5), Database(tmp_path / "b", 4, "blue", "red")
    newer.export(tmp_path / "new", name)
    whole = contents(tmp_path / "new")
    older.export(tmp_path / "old", name)
    wholes = [
        {key: data for key, data in each.items() if key.endswith((".tar", ".json"))}
        for each in (whole, contents(tmp_path / "old"))
    ]
    for at in range(1000):
        out = tmp_path / str(at)
        older.export(out, name)
        with monkeypatch.context() as patched:
            dying(patched, at)
            try:
                newer.export(out, name)
                died = False
            except KeyboardInterrupt:
                died = True
        seen = {key: data for key, data in contents(out).items() if key.endswith((".tar", ".json")) and key[0] != "."}
        assert seen in [*wholes, {}], f"killed at step {at}"
        newer.export(out, name)
        assert contents(out) == whole, f"killed at step {at}"
        if not died:
            break
    assert at > 5


def test_an_interrupted_export_does_not_write_whole_shards_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_SAMPLES", 2)
    made = Database(tmp_path, 40)

    def stop(count: int) -> None:
        if count >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.export(tmp_path / "out", "webdataset", progress=stop)
    staged = {path.name: path.stat().st_ino for path in (tmp_path / "out" / STAGED).glob("*.tar")}
    assert len(staged) >= 7
    told: list[int] = []
    written = made.export(tmp_path / "out", "webdataset", progress=told.append)
    assert written.samples == {"replacement": 40, "removal": 1}
    assert {name: (tmp_path / "out" / "shards" / name).stat().st_ino for name in staged} == staged
    made.export(tmp_path / "new", "webdataset")
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


def test_shards_of_other_samples_are_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SAMPLES", 2)
    made, other = Database(tmp_path / "a", 40), Database(tmp_path / "b", 40, "blue", "red")

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    for name in ("webdataset", "parquet"):
        with pytest.raises(KeyboardInterrupt):
            made.export(tmp_path / "out", name, progress=stop)
        other.export(tmp_path / "out", "webdataset")
        other.export(tmp_path / "new", "webdataset")
        assert contents(tmp_path / "out") == contents(tmp_path / "new")


@pytest.mark.parametrize(
    ("name", "own"), [("parquet", "data/mine.txt"), ("llava", "imgdiff/mine.jpg"), ("llava", "notes")]
)
def test_a_users_own_files_stay_in_every_format(tmp_path: Path, name: str, own: str) -> None:
    made = Database(tmp_path)
    made.export(tmp_path / "out", name)
    (tmp_path / "out" / own).write_text("mine")
    for layout in (name, "swift", name):
        made.export(tmp_path / "out", layout)
        assert (tmp_path / "out" / own).read_text() == "mine"


@pytest.mark.parametrize(("name", "taken"), [("parquet", "data"), ("internvl", "meta.json"), ("llava", "imgdiff")])
def test_a_users_file_of_a_formats_name_is_refused_and_stays(tmp_path: Path, name: str, taken: str) -> None:
    made = Database(tmp_path)
    made.export(tmp_path / "out", "release")
    (tmp_path / "out" / taken).write_text("mine")
    with pytest.raises(ExportError, match=f"holds {taken}"):
        made.export(tmp_path / "out", name)
    assert (tmp_path / "out" / taken).read_text() == "mine"


def test_what_a_format_does_not_have_is_refused(tmp_path: Path) -> None:
    made = Database(tmp_path)
    with pytest.raises(ExportError, match="llava has no images two"):
        made.export(tmp_path / "out", "llava", shown="two")
    with pytest.raises(ExportError, match="release has no place for the kind addition"):
        made.export(tmp_path / "out", "release", choice=Choice(kinds=("addition",)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_samples_are_read_one_batch_ahead_and_no_further(tmp_path: Path, name: str) -> None:
    made, ahead, read, told = Database(tmp_path, 1), [0], [0], [0]

    class Many(MadeSamples):
        images = made.images

        def __init__(self) -> None:
            self.removals = []

        def samples(self, jobs: object = None) -> Iterator[SampleRow]:
            for number in range(40):
                read[0] += 1
                ahead.append(read[0] - told[0])
                yield replace(made.rows[0], item=number + 1, key=f"{number:032x}")

    def tell(count: int) -> None:
        told[0] = count

    many = Many()
    export_dataset(
        many, many.images, tmp_path / "out", layout=name, choice=Choice(kinds=("replacement",)), progress=tell
    )
    assert told == [40]
    assert max(ahead) == 16


def test_samples_added_as_an_export_goes_on_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SAMPLES", 2)
    made = Database(tmp_path, 40)

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.export(tmp_path / "out", "webdataset", progress=stop)
    late = made.rows.pop(3)
    with pytest.raises(KeyboardInterrupt):
        made.export(tmp_path / "out", "webdataset", progress=stop)

    class Growing(Database):
        def __init__(self) -> None:
            self.images, self.rows, self.removals = made.images, made.rows, made.removals

        def samples(self, jobs: object = None) -> list[SampleRow]:
            rows, self.rows = self.rows, sorted([*self.rows, late], key=lambda row: row.item)
            return rows

    with pytest.raises(ExportError, match="samples were added"):
        Growing().export(tmp_path / "out", "webdataset")
    made.rows.insert(3, late)
    made.export(tmp_path / "out", "webdataset")
    made.export(tmp_path / "new", "webdataset")
    assert contents(tmp_path / "out") == contents(tmp_path / "new")
