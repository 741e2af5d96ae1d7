"""What a start removes from the picture folder, and what it must not."""

import os
from pathlib import Path

from imgdiffd.sweep import folders, sweep

START_NS = 2_000_000_000


def write(path: Path, at_ns: int = START_NS - 1) -> None:
    path.write_bytes(b"x")
    os.utime(path, ns=(at_ns, at_ns))


def test_only_temporary_files_and_unnamed_pictures_of_finished_items_go(tmp_path: Path) -> None:
    folder = tmp_path / "000000"
    folder.mkdir()
    names = {
        ".tmp-77-5-1-1.png": False,  # a write that never finished
        "5-1-1.png": True,  # a row names it
        "6-1-1.png": False,  # its item ended and no row names it
        "7-1-1.png": True,  # its item is still to be done, and will write it again
        "README.txt": True,  # not ours
    }
    for name in names:
        write(folder / name)
    assert sweep(folder, {"000000/5-1-1.png"}, {7}, START_NS) == 2
    assert {path.name for path in folder.iterdir()} == {name for name, stays in names.items() if stays}


def test_what_was_written_since_the_start_stays_whatever_the_rows_said(tmp_path: Path) -> None:
    for name in (".tmp-77-5-1-1.png", "6-1-1.png"):
        write(tmp_path / name, START_NS)
    assert sweep(tmp_path, set(), set(), START_NS) == 0


def test_each_folder_is_looked_at_with_the_items_that_may_be_in_it(tmp_path: Path) -> None:
    for name in ("000002", "000000", "lost+found"):
        (tmp_path / name).mkdir()
    assert folders(tmp_path) == [(tmp_path / "000000", range(1000)), (tmp_path / "000002", range(2000, 3000))]


def test_a_folder_that_does_not_exist_yet_has_no_orphans(tmp_path: Path) -> None:
    assert folders(tmp_path / "pictures") == []
