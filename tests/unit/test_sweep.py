"""What a start removes from the picture folder, and what it must not."""

from pathlib import Path

from imgdiffd.sweep import sweep


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
        (folder / name).write_bytes(b"x")
    assert sweep(tmp_path, {"000000/5-1-1.png"}, {7}) == 2
    assert {path.name for path in folder.iterdir()} == {name for name, stays in names.items() if stays}


def test_a_folder_that_does_not_exist_yet_has_no_orphans(tmp_path: Path) -> None:
    assert sweep(tmp_path / "pictures", set(), set()) == 0
