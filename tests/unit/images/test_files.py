"""What the files of the image folder are called, and that nothing is written outside it."""

from pathlib import Path

import pytest

from imgdiffd.images.files import pair_paths, sample_paths, write_whole


def test_folders_of_images_are_made_as_they_are_needed(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    write_whole(tmp_path / "pictures", {"000000/1-0-1.png": b"one", "000001/1000-0-1.png": b"two"})
    found = {path.name: path.read_bytes() for path in (tmp_path / "pictures").glob("*/*")}
    assert found == {"1-0-1.png": b"one", "1000-0-1.png": b"two"}


def test_an_image_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the image folder is gone"):
        write_whole(tmp_path / "pictures", {"000000/1-0-1.png": b"one"})
    assert list(tmp_path.iterdir()) == []


def test_one_path_that_leads_out_of_the_folder_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"):
        write_whole(tmp_path / "pictures", {"000000/1-0-1.png": b"one", "../2-0-1.png": b"two"})
    assert list(tmp_path.iterdir()) == []


def test_file_names_tell_item_attempt_and_side() -> None:
    assert pair_paths(12_345, 2) == ("000012/12345-2-1.png", "000012/12345-2-2.png")
    assert sample_paths("000012/12345-2-1.png", 4) == ("000012/12345-2-r4-left.png", "000012/12345-2-r4-right.png")
    with pytest.raises(ValueError, match=r"a\.png"):
        sample_paths("a.png", 0)
