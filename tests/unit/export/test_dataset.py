"""A dataset's folder: what it holds after any export, also one that failed, and which folders are refused."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imgdiffd.errors import ExportError
from imgdiffd.export import release, removal
from imgdiffd.export.dataset import Written, export_dataset
from imgdiffd.export.folder import MARK, ExportFolder, refuse_place
from imgdiffd.export.formats.release import record
from imgdiffd.export.sample import Choice, samples
from imgdiffd.method.removal import Side
from imgdiffd.settings import Settings
from tests.fakes.made_samples import MadeSamples

COLOURS = ("red", "blue")


class Database(MadeSamples):
    """Made-up samples that can be exported."""

    def export(self, folder: Path, **how: Any) -> Written:
        return export_dataset(self, self.images, folder, **how)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def colour(path: Path) -> str:
    with Image.open(path) as image:
        red, _, blue = image.getpixel((5, 5))  # type: ignore[misc]
    return COLOURS[int(blue > red)]


def consistent(folder: Path, left: str) -> bool:
    """Whether the list, if there is one, tells only of images that are there and of its own export."""
    path = folder / release.JSON_NAME
    records = json.loads(path.read_text("utf-8")) if path.exists() else []
    return all(colour(folder / f"{each['path']}_0.jpg") == left for each in records)


def test_image_0_is_the_left_one_and_image_1_the_right_one(tmp_path: Path) -> None:
    assert Database(tmp_path, [12]).export(tmp_path / "out").samples == {"replacement": 1}
    (entry,) = json.loads((tmp_path / "out" / release.JSON_NAME).read_text())
    assert [colour(tmp_path / "out" / f"{entry['path']}{end}") for end in ("_0.jpg", "_1.jpg")] == ["red", "blue"]


@pytest.mark.parametrize(("holder", "letter", "colours"), [("left", "A", COLOURS), ("right", "B", COLOURS[::-1])])
def test_removal_image_0_is_the_left_one_too(
    tmp_path: Path, holder: Side, letter: str, colours: tuple[str, str]
) -> None:
    assert Database(tmp_path, []).with_removal(holder).export(tmp_path / "out").samples == {"removal": 1}
    (entry,) = json.loads((tmp_path / "out" / removal.JSON_NAME).read_text())
    assert set(entry) == {"bbox", "conversations", "path"}
    assert entry["conversations"][1]["value"] == letter
    assert tuple(colour(tmp_path / "out" / f"{entry['path']}{end}") for end in ("_0.jpg", "_1.jpg")) == colours


@pytest.mark.parametrize("count", [0, 1, 40])
def test_the_list_is_written_as_json_dumps_would(tmp_path: Path, count: int) -> None:
    made = Database(tmp_path, range(1, count + 1))
    made.export(tmp_path / "out")
    whole = json.dumps([record(sample) for sample in samples(made, Choice())], ensure_ascii=False, indent=1) + "\n"
    assert (tmp_path / "out" / release.JSON_NAME).read_text("utf-8") == whole


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    first, second = (Database(tmp_path / name, [1, 2, 3]) for name in ("a", "b"))
    second.rows = [replace(row, id=row.item, created_at=9.0) for row in second.rows]
    first.export(tmp_path / "out1")
    second.export(tmp_path / "out2")
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")


def test_a_used_folder_is_left_as_a_new_one_would_be(tmp_path: Path) -> None:
    used, new = tmp_path / "used", tmp_path / "new"
    Database(tmp_path / "a", [1, 2, 3]).with_removal().export(used)
    other = Database(tmp_path / "b", [2, 7], left="blue", right="red")
    assert other.export(used).removed == 6  # images of 1 and 3, and of the removal sample
    other.export(new)
    assert contents(used) == contents(new)


def test_images_of_another_database_do_not_pass_for_this_ones(tmp_path: Path) -> None:
    older, newer = Database(tmp_path / "a", [1]), Database(tmp_path / "b", [1], left="blue", right="red")
    newer.export(tmp_path / "out")
    older.export(tmp_path / "out")  # whose images are older than the JPEGs that are there
    assert colour(tmp_path / "out" / "object_replacement" / "00000001_0_0.jpg") == "red"


def test_an_image_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    made = Database(tmp_path, [1, 2])
    made.export(tmp_path / "out")
    before = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*.jpg")}
    made.export(tmp_path / "out")
    assert len(before) == 4
    assert {path: path.stat().st_ino for path in before} == before


def test_a_users_own_files_stay(tmp_path: Path) -> None:
    Database(tmp_path / "a", [1]).export(tmp_path / "out")
    own = [tmp_path / "out" / "notes.txt", tmp_path / "out" / "object_replacement" / "00000001_0_0.png"]
    for path in own:
        path.touch()
    Database(tmp_path / "b", [2]).export(tmp_path / "out")
    assert all(path.exists() for path in own)


@pytest.mark.parametrize("name", ["notes.txt", release.JSON_NAME, ".git"])
def test_a_folder_of_other_files_is_refused_and_stays_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(ExportError, match=f"holds {name}, which no export wrote"):
        Database(tmp_path, [1]).export(tmp_path / "out")
    assert contents(tmp_path / "out") == {name: b"mine"}


def test_two_exports_at_once_do_not_share_a_folder(tmp_path: Path) -> None:
    with ExportFolder.claimed(tmp_path / "out"), pytest.raises(ExportError, match="another export"):
        Database(tmp_path, [1]).export(tmp_path / "out")


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    made = Database(tmp_path, [1])
    for folder in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(ExportError, match=f"{folder}: a file is in the way"):
            made.export(folder)


@pytest.mark.parametrize("at", range(13))
def test_an_export_that_dies_leaves_no_mixture_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr("imgdiffd.export.dataset._BATCH", 1)
    out = tmp_path / "out"
    Database(tmp_path / "a", [1, 2, 9], left="red").export(out)
    other = Database(tmp_path / "b", [1, 2, 3], left="blue", right="red")
    steps, died = iter(range(100)), False

    def dying(do: object) -> object:
        def step(*given: object, **more: object) -> object:
            if next(steps) >= at:  # and all that follow, as for a process that is gone
                raise KeyboardInterrupt
            return do(*given, **more)  # type: ignore[operator]

        return step

    with monkeypatch.context() as patched:
        for name in ("replace", "unlink"):
            patched.setattr(os, name, dying(getattr(os, name)))
        try:
            other.export(out)
        except KeyboardInterrupt:
            died = True
    assert died == (at < 12), "the points of death cover the whole export"
    assert consistent(out, "red") or consistent(out, "blue")
    other.export(out)
    other.export(tmp_path / "new")
    assert contents(out) == contents(tmp_path / "new")


def test_a_missing_image_is_named_with_its_caption_and_a_way_on(tmp_path: Path) -> None:
    made = Database(tmp_path, [1, 2])
    made.export(tmp_path / "out")
    before = contents(tmp_path / "out")
    (made.images / made.rows[1].left_image).unlink()
    with pytest.raises(ExportError) as caught:
        made.export(tmp_path / "out")
    for part in (f"caption 2, sample {made.rows[1].key}", "2-1-r0-left.png is missing", "--skip-missing"):
        assert part in str(caught.value)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n", b"text"])
def test_a_damaged_image_is_named_or_its_sample_left_out(tmp_path: Path, damage: bytes) -> None:
    made = Database(tmp_path, [1, 2])
    (made.images / made.rows[0].right_image).write_bytes(damage)
    with pytest.raises(ExportError, match=r"1-1-r0-right\.png cannot be read"):
        made.export(tmp_path / "out")
    assert made.export(tmp_path / "out", skip_missing=True) == Written({"replacement": 1}, 0, {"without images": 1})
    assert set(contents(tmp_path / "out")) == {
        MARK,
        "contact-sheet.png",
        release.JSON_NAME,
        "object_replacement/00000002_0_0.jpg",
        "object_replacement/00000002_0_1.jpg",
    }


def test_removal_samples_have_a_list_only_where_there_are_any(tmp_path: Path) -> None:
    made = Database(tmp_path, [1])
    made.export(tmp_path / "out")
    assert not (tmp_path / "out" / removal.JSON_NAME).exists()
    assert made.with_removal().export(tmp_path / "out").samples["removal"] == 1
    assert len(json.loads((tmp_path / "out" / removal.JSON_NAME).read_text())) == 1


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("state", "is the state folder"),
        ("state/", "is the state folder"),
        ("link", "is the state folder"),
        ("", "holds the state folder"),
        ("state/pictures", "is the daemon's images"),
        ("state/pictures/000000", "lies in the daemon's images"),
        ("state/inbox", "is the watch folder"),
        ("state/inbox/done/../deep", "lies in the watch folder"),
        ("state/compile-cache", "is the compile cache"),
    ],
)
def test_the_daemons_own_folders_are_refused(tmp_path: Path, place: str, what: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "link").symlink_to("state")
    with pytest.raises(ExportError, match=what):
        refuse_place(tmp_path / place, Settings(state_folder=tmp_path / "state"))


@pytest.mark.parametrize("place", ["out", "state/dataset", "state-2"])
def test_a_folder_beside_the_daemons_files_is_fine(tmp_path: Path, place: str) -> None:
    refuse_place(tmp_path / place, Settings(state_folder=tmp_path / "state"))
