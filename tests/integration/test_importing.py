"""Published datasets read into a database: whole or not at all, and as good as if the daemon had made them."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imgdiffd.cli.main import main
from imgdiffd.errors import DaemonError, InputError, ProfileError, StoreError
from imgdiffd.importing import release as importing
from imgdiffd.importing.release import Imported, import_release
from imgdiffd.importing.sources import MOST_BYTES, place
from imgdiffd.method.profile import load_profile
from imgdiffd.pipeline import Pipeline
from imgdiffd.store import Reader, Store
from imgdiffd.store.connection import locked
from imgdiffd.store.found import Cursor, Wanted
from imgdiffd.store.refiltering import jobs_with_finished
from tests.fakes.published import pack, publish, removed, replacement
from tests.integration.daemon_process import daemon

TWO = [replacement("object_replacement/00000003_0"), replacement("object_replacement/00000003_2", captions1="a fox")]
THREE = [*TWO, replacement("object_replacement/00000012_1", bbox="[0.00, 0.33, 1.00, 0.34]")]
GONE = [removed("object_removal/00000003_1_0"), removed("object_removal/00000005_2_1", "B", bbox=[0.25, 0.0, 1.0, 0.5])]


REMOVALS = "img_diff_object_removal.json"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command line prints, on a state folder of its own."""
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(tmp_path / "state"))

    def typed(*words: object) -> str:
        main([str(word) for word in words])
        return capsys.readouterr().out

    return typed


def contents(folder: Path) -> dict[str, bytes]:
    wanted = (*folder.rglob("*.jpg"), *folder.glob("img_diff_*.json"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in wanted}


def taken(folder: Path, state: Path, **options: Any) -> Imported:
    return import_release(folder, state / "state.db", state / "pictures", **options)


def test_import_and_export_give_the_same_json_and_images(tmp_path: Path, shell: Callable[..., str]) -> None:
    folder = publish(tmp_path / "published", THREE, GONE)
    assert "job 1, 3 samples and 2 removal samples" in shell("import", folder, "--name", "theirs")
    shell("export", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Profile `imported`: Samples were imported" in card
    assert "generate.steps" not in card
    assert "an older version" not in card
    assert shell("import", folder) == f"{folder}: the same content as job 1; nothing to do\n"


def test_what_was_imported_can_be_looked_at(tmp_path: Path, shell: Callable[..., str]) -> None:
    shell("import", publish(tmp_path / "published", THREE, GONE))
    status = shell("status", 1)
    assert "published: done" in status
    assert "rewrite" not in status
    listed = json.loads(shell("samples", "--json", "--order", "oldest"))["samples"]
    assert [(each["kind"], each["item"], each["number"]) for each in listed] == [
        *(("replacement", item, number) for item, number in ((3, 0), (3, 2), (12, 1))),
        *(("removal", item, number) for item, number in ((3, 0), (5, 1))),
    ]
    assert [(each["left_text"], each["right_text"]) for each in listed[-2:]] == [("a cup", ""), ("", "a cup")]
    assert all((each["caption"], each["nouns1"], each["scores"]) == ("", [], {}) for each in listed)
    assert len({each["key"] for each in listed}) == 5
    assert "no caption (00000005)" in shell("items", "--state", "rejected", "--reason", "not_released")
    story = json.loads(shell("explain", 3, "--json"))
    assert (story["profile"], story["sampling"], story["pictures_gone"]) == (None, {}, {})
    assert (story["samples"][0]["generate_seed"], story["samples"][0]["rewrite_seed"]) == (None, None)
    told = shell("explain", 3)
    assert told.startswith("imported: its captions, seeds and scores are not known\n")
    assert "profile imported" in told
    assert "a fox" in told


@pytest.mark.parametrize("flat", [True, False])
def test_images_come_out_of_zip_archives(tmp_path: Path, flat: bool) -> None:
    folder = publish(tmp_path / "published", THREE)
    whole = contents(folder)
    pack(folder, flat=flat)
    assert taken(folder, tmp_path).samples == 3
    for name, data in whole.items():
        if name.endswith("00000012_1_0.jpg"):
            assert (tmp_path / "pictures/000000/12-1-r1-left.jpg").read_bytes() == data


def test_names_of_others_are_numbered_behind_what_is_there(tmp_path: Path) -> None:
    taken(publish(tmp_path / "ours", THREE, GONE), tmp_path)
    paths = ["object_replacement/a", "object_replacement/b/00000003_0"]
    done = taken(
        publish(tmp_path / "theirs", [replacement(path) for path in paths], [removed("object_removal/c")]), tmp_path
    )
    assert (done.job, done.samples, done.removals, done.left_out) == (2, 2, 1, {})
    with Reader.open(tmp_path / "state.db") as reader:
        found = reader.item_page(Wanted(job=2), 10, Cursor(), "oldest").items
        assert [(each.kind, each.source_id) for each in found] == [
            (Pipeline.REPLACEMENT, paths[0]), (Pipeline.REPLACEMENT, paths[1]),
            (Pipeline.REPLACEMENT, "object_removal/c"), (Pipeline.REMOVAL, "object_removal/c"),
        ]  # fmt: skip
        assert len({each.item for each in reader.item_page(Wanted(), 100, Cursor(), "oldest").items}) == 9


BROKEN: list[tuple[object, str]] = [
    ("no object", "record_malformed"),
    (replacement("object_replacement/1", captions1=7), "record_malformed"),
    (replacement("object_replacement/3", conversations=[]), "record_malformed"),
    (replacement("object_replacement/4", bbox="[0.1, 0.2, 0.3"), "bbox_malformed"),
    (replacement("object_replacement/5", bbox="[0.1, 0.2, 0.3, NaN]"), "bbox_malformed"),
    (replacement("object_replacement/6", bbox="[0.1, 0.2, 3, 0.4]"), "bbox_malformed"),
    (replacement("object_replacement/7", bbox="[0.5, 0.2, 0.3, 0.4]"), "bbox_malformed"),
    (replacement("object_replacement/8", bbox="[" * 100_000), "bbox_malformed"),
    (replacement("../secret"), "path_odd"),
    (replacement("/etc/passwd"), "path_odd"),
    (replacement("object_replacement/a\\b"), "path_odd"),
    (replacement("object_replacement/" + "x" * 300), "path_odd"),
    (replacement("object_replacement/00000003_0"), "path_twice"),
    (replacement("nowhere/9"), "image_missing"),
]


def test_a_broken_record_costs_itself_alone_with_its_reason(tmp_path: Path, shell: Callable[..., str]) -> None:
    records = [*THREE, *(record for record, _ in BROKEN)]
    folder = publish(tmp_path / "published", THREE)
    (folder / "img_diff_object_replacement.json").write_text(json.dumps(records))
    done = json.loads(shell("import", folder, "--json"))
    expected = [code for _, code in BROKEN]
    assert done["left_out"] == {code: expected.count(code) for code in dict.fromkeys(expected)}
    assert done["samples"] == 3
    told = shell("problems", 1).splitlines()
    assert len(told) == len(BROKEN)
    assert "img_diff_object_replacement.json, record 4: not an object: 'no object' (record_malformed)" in told[0]


def test_two_names_of_one_region_are_one_sample(tmp_path: Path) -> None:
    folder = publish(tmp_path / "published", [*THREE, replacement("object_replacement/000000003_00"), {"path": "../x"}])
    done = taken(folder, tmp_path)
    assert (done.samples, done.left_out) == (3, {"path_twice": 1, "path_odd": 1})


def test_removals_that_do_not_say_what_they_ask_are_left_out(tmp_path: Path) -> None:
    wrong = [
        removed("object_removal/a", "C"),
        removed("object_removal/b", conversations=[{"from": "human", "value": "?"}, {"from": "gpt", "value": "A"}]),
        removed("object_removal/c", " B. "),
    ]
    assert taken(publish(tmp_path / "p", (), wrong), tmp_path).left_out == {"answer_unknown": 1, "question_unknown": 1}


def test_missing_and_damaged_images_are_counted(tmp_path: Path) -> None:
    folder = publish(tmp_path / "published", [replacement(f"object_replacement/{n}") for n in range(7)])
    images = folder / "object_replacement"
    (images / "0_1.jpg").unlink()
    (images / "1_0.jpg").write_bytes(b"no image")
    (images / "2_0.jpg").write_bytes((images / "2_0.jpg").read_bytes()[:-20])
    Image.new("RGB", (32, 128)).save(images / "3_0.jpg")
    (images / "4_0.jpg").unlink()
    os.mkfifo(images / "4_0.jpg")
    (images / "5_0.jpg").write_bytes((images / "5_0.jpg").read_bytes() + bytes(20_000_000))
    assert taken(folder, tmp_path).left_out == {"image_missing": 2, "image_damaged": 3, "sizes_differ": 1}


def test_a_hostile_archive_gets_no_file_and_no_room_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = publish(tmp_path / "published", [*THREE, replacement("bomb"), replacement("a/../../evil")])
    whole = pack(folder)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil_0.jpg", b"x")
        archive.writestr("bomb_0.jpg", bytes(200_000_000))
        archive.writestr("bomb_1.jpg", b"")
    asked: list[int] = []
    read = zipfile.ZipExtFile.read

    def noted(member: zipfile.ZipExtFile, size: int | None = -1) -> bytes:
        asked.append(-1 if size is None else size)
        return read(member, size)

    monkeypatch.setattr(zipfile.ZipExtFile, "read", noted)
    assert taken(folder, tmp_path).left_out == {"path_odd": 1, "image_damaged": 1}
    assert not list(tmp_path.rglob("*evil*"))
    assert len(asked) == 7
    assert all(0 < size <= MOST_BYTES + 1 for size in asked)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: None, "no published dataset (it holds img_diff_object_replacement.json or"),
        (lambda folder: publish(folder, [replacement("nowhere/1")]), "no record can be used: img_diff_object_replace"),
        (lambda folder: (folder / REMOVALS).write_text('{"a": 1}'), "not a JSON list"),
        (lambda folder: (folder / REMOVALS).write_text('[{"a": 1},'), "broken or cut-off JSON"),
        (
            lambda folder: (publish(folder, THREE), (folder / "object_removal.zip").write_bytes(b"PK")),
            "not a ZIP archi",
        ),
    ],
)
def test_what_is_no_dataset_is_refused_and_leaves_nothing(
    tmp_path: Path, make: Callable[[Path], object], told: str
) -> None:
    (folder := tmp_path / "given").mkdir()
    make(folder)
    with pytest.raises(InputError) as refused:
        taken(folder, tmp_path)
    assert told in str(refused.value)
    assert not list(tmp_path.rglob("*left.jpg"))
    if (tmp_path / "state.db").exists():
        with Reader.open(tmp_path / "state.db") as reader:
            assert reader.jobs() == []


def test_a_cut_off_list_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = publish(tmp_path / "published", THREE, GONE)
    survey = importing._survey

    def cut(release: Path) -> object:
        found = survey(release)
        file = folder / REMOVALS
        file.write_text(file.read_text()[:-40])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "_survey", cut)
        with pytest.raises(InputError, match="broken or cut-off JSON"):
            taken(folder, tmp_path)
    assert not list((tmp_path / "pictures").rglob("*.jpg"))
    with Reader.open(tmp_path / "state.db") as reader:
        assert (reader.jobs(), list(reader.samples())) == ([], [])


KILLED = """
import os, signal, sys
from pathlib import Path
from imgdiffd.importing import release
folder, state, left = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
place = release.place
def placed(images):
    global left
    place(images)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
release.place = placed
release._AT_ONCE = 1
release.import_release(folder, state / "state.db", state / "pictures")
"""


@pytest.mark.parametrize("after", [1, 5])
def test_killed_midway_nothing_is_there_and_the_next_is_whole(tmp_path: Path, after: int) -> None:
    folder = publish(tmp_path / "published", THREE, GONE)
    done = subprocess.run([sys.executable, "-c", KILLED, folder, tmp_path, str(after)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list((tmp_path / "pictures").rglob("*.jpg"))
    with Reader.open(tmp_path / "state.db") as reader:
        assert (reader.jobs(), list(reader.samples()), reader.made()) == ([], [], [])
    assert taken(folder, tmp_path).samples == 3
    assert len(list((tmp_path / "pictures").rglob("*.jpg"))) == 10


def test_while_a_daemon_runs_it_is_refused(tmp_path: Path) -> None:
    folder = publish(tmp_path / "published", THREE)
    with locked(tmp_path / "state.db"), pytest.raises(StoreError, match=r"in use by another daemon .*stop that daemon"):
        taken(folder, tmp_path)


def test_other_thresholds_say_nothing_of_what_was_imported(tmp_path: Path, shell: Callable[..., str]) -> None:
    shell("import", publish(tmp_path / "published", THREE, GONE))
    assert "captions" in shell("refilter", "--profile", "paper", "--dry-run")
    assert "there are no scores yet" in shell("thresholds")
    with closing(sqlite3.connect(tmp_path / "state" / "state.db")) as connection:
        assert jobs_with_finished(connection, [], None) == []


@pytest.mark.anyio
async def test_a_daemon_does_nothing_more_with_what_was_imported(tmp_path: Path) -> None:
    taken(publish(tmp_path / "published", THREE, GONE), tmp_path)
    async with Store.open(tmp_path / "state.db", removal=True) as store:
        await store.drop_unread_jobs()
        assert await store.repaint_missing(lambda names: names) == 0
        await store.backfill_pairs()
        assert await store.ready_tasks(10, ()) == []
        images = await store.images(range(1, 100))
        assert [each.item for each in images.values() if each.backfillable] == []


def test_nobody_can_submit_with_the_profile_of_imports(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="profile imported: unknown"):
        load_profile("imported")
    (tmp_path / "imported.toml").write_text('extends = "default"\n')
    with pytest.raises(ProfileError, match="imported samples are listed under 'imported'"):
        load_profile(str(tmp_path / "imported.toml"))


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = publish(tmp_path / "published", THREE, GONE)
    calls = []

    def full(images: Any) -> None:
        place(images)
        calls.append(images)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(importing, "place", full)
    monkeypatch.setattr(importing, "_AT_ONCE", 1)
    with pytest.raises(OSError, match="No space left"):
        taken(folder, tmp_path)
    assert not list((tmp_path / "pictures").rglob("*.jpg"))
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (0,)


def test_a_daemon_shows_keeps_and_deletes_what_was_imported(tmp_path: Path) -> None:
    folder = publish(tmp_path / "published", THREE, GONE)
    taken(folder, tmp_path)
    with daemon(tmp_path, IMGDIFFD_KEEP_PICTURES="samples", IMGDIFFD_REMOVAL="true") as running:
        client = running.client
        status = running.wait(lambda status: status.ready, "the device")
        assert [(job.name, job.state, job.samples, job.removal.samples) for job in status.jobs] == [
            ("published", "done", 3, 2)
        ]
        with pytest.raises(DaemonError, match="profile imported: unknown"):
            client.submit(folder / REMOVALS, profile="imported")
        found = client.samples().samples
        assert len(found) == 5
        for each in found:
            assert client.image(each.left_image).startswith(b"\xff\xd8")
        with pytest.raises(StoreError, match="stop that daemon"):
            taken(folder, tmp_path)
        assert client.delete(1).captions == 3
        running.wait(lambda _: not list((tmp_path / "pictures").rglob("*.jpg")), "the end of the images")
    assert len(list(folder.rglob("*.jpg"))) == 10
