"""Which files of the image folder may be deleted, and which must not."""

import os
from pathlib import Path

from imgdiffd.images.retention import ItemImages
from imgdiffd.images.sweep import delete, folders, missing, superfluous
from imgdiffd.job import ItemState

START_NS = 2_000_000_000


def write(path: Path, at_ns: int = START_NS - 1) -> None:
    path.write_bytes(b"x")
    os.utime(path, ns=(at_ns, at_ns))


def item(number: int, state: ItemState, pair: tuple[str, ...] = ()) -> tuple[int, ItemImages]:
    return number, ItemImages(number, state, True, None, False, pair, (), ())


def test_the_sweep_deletes_only_leftovers_and_unwanted_images(tmp_path: Path) -> None:
    folder = tmp_path / "000000"
    folder.mkdir()
    names = {
        ".tmp-77-5-1-1.png": False,  # a write that never finished
        "5-1-1.png": True,  # a row names it
        "6-1-1.png": False,  # its item ended and no row names it
        "7-1-1.png": True,  # its item is still to be done, and will write it again
        "8-1-1.png": False,  # nobody knows the item
        "README.txt": True,  # not ours
    }
    for name in names:
        write(folder / name)
    items = dict([item(5, ItemState.REJECTED, ("000000/5-1-1.png",)), item(6, ItemState.REJECTED)])
    items |= dict([item(7, ItemState.READY)])
    doomed = superfluous(folder, items, "all", asked_ns=START_NS, started_ns=START_NS)
    assert {path.name: path not in doomed for path in folder.iterdir()} == names
    also = superfluous(folder, items, "samples", asked_ns=START_NS, started_ns=START_NS)
    assert set(also) - set(doomed) == {folder / "5-1-1.png"}
    delete([*doomed, *also])
    assert {path.name for path in folder.iterdir()} == {"7-1-1.png", "README.txt"}


def test_an_unnamed_file_newer_than_the_query_stays(tmp_path: Path) -> None:
    folder = tmp_path / "000000"
    folder.mkdir()
    for name in (".tmp-77-5-1-1.png", "6-1-1.png", "5-1-1.png"):
        write(folder / name, START_NS)
    items = dict([item(5, ItemState.REJECTED, ("000000/5-1-1.png",)), item(6, ItemState.CANCELLED)])
    assert superfluous(folder, items, "all", asked_ns=START_NS, started_ns=START_NS) == []
    doomed = superfluous(folder, items, "samples", asked_ns=START_NS, started_ns=START_NS)
    assert doomed == [folder / "5-1-1.png"], "what is not wanted once never is again"
    later = superfluous(folder, items, "all", asked_ns=START_NS + 1, started_ns=START_NS)
    assert later == [folder / "6-1-1.png"], "a temporary file may be one that is being written"


def test_each_folder_is_swept_with_its_own_items(tmp_path: Path) -> None:
    for name in ("000002", "000000", "lost+found"):
        (tmp_path / name).mkdir()
    assert folders(tmp_path) == [(tmp_path / "000000", range(1000)), (tmp_path / "000002", range(2000, 3000))]


def test_a_folder_that_does_not_exist_yet_has_nothing_to_delete(tmp_path: Path) -> None:
    assert folders(tmp_path / "pictures") == []
    assert superfluous(tmp_path / "000001", {}, "samples", asked_ns=1, started_ns=1) == []


def test_images_that_are_gone_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    assert missing(tmp_path, {"c.png", "b.png", "a.png"}) == ["b.png", "c.png"]
