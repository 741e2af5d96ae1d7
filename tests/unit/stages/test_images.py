from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from imgdiffd.errors import StageError
from imgdiffd.stages.images import Images
from imgdiffd.testing.models import canvas

CPU = torch.device("cpu")


def test_image_comes_back_from_disk_as_it_was_written(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    Images(tmp_path, CPU).write({"a/b.png": image})
    assert torch.equal(Images(tmp_path, CPU).read("a/b.png"), image)


def test_recent_image_is_not_read_again(tmp_path: Path) -> None:
    images = Images(tmp_path, CPU)
    images.write({"a.png": canvas("red", 8, 8)})
    (tmp_path / "a.png").unlink()
    assert torch.equal(images.read("a.png"), canvas("red", 8, 8))
    images.forget()
    with pytest.raises(StageError, match=r"a\.png"):
        images.read("a.png")


def test_with_an_encoder_images_are_written_when_it_is_told(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as encoder:
        images = Images(tmp_path, CPU, encoder=encoder)
        red = canvas("red", 8, 8)
        images.write({"a/1.png": red})
        images.write({"a/2.png": red}, keep=False)
        write, nothing = images.take_unwritten(), images.take_unwritten()
        assert not list(tmp_path.iterdir())
        assert torch.equal(images.read("a/1.png"), red)  # at hand already
        red.zero_()  # what becomes of the tensor afterwards does not matter
        nothing()
        assert not list(tmp_path.iterdir())  # what was taken belongs to whoever took it
        write()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["1.png", "2.png"]
    assert torch.equal(Images(tmp_path, CPU).read("a/2.png"), canvas("red", 8, 8))


@pytest.mark.parametrize("limits", [{"kept_images": 2}, {"kept_bytes": 2 * 3 * 64}], ids=["count", "bytes"])
def test_least_recently_used_image_is_dropped_first(tmp_path: Path, limits: dict[str, Any]) -> None:
    images = Images(tmp_path, CPU, **limits)
    for name in ("a.png", "b.png"):
        images.write({name: canvas("red", 8, 8)})
    images.read("a.png")
    images.write({"c.png": canvas("blue", 8, 8)})
    for path in tmp_path.iterdir():
        path.unlink()
    images.read("a.png")
    images.read("c.png")
    with pytest.raises(StageError):
        images.read("b.png")


def test_rewritten_image_counts_once(tmp_path: Path) -> None:
    images = Images(tmp_path, CPU, kept_bytes=2 * 3 * 64)
    for colour in ("red", "blue", "green"):
        images.write({"a.png": canvas(colour, 8, 8)})
    images.write({"b.png": canvas("red", 8, 8)})
    (tmp_path / "a.png").unlink()
    assert torch.equal(images.read("a.png"), canvas("green", 8, 8))


def test_damaged_image_is_an_error_that_names_it(tmp_path: Path) -> None:
    Images(tmp_path, CPU).write({"a.png": canvas("red", 64, 64)})
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StageError, match=r"image a\.png"):
        Images(tmp_path, CPU).read("a.png")


@pytest.mark.parametrize("path", ["/etc/hostname", "../a.png", "b/../../a.png", ""])
def test_nothing_outside_the_image_folder_is_read_or_written(tmp_path: Path, path: str) -> None:
    images = Images(tmp_path / "inner", CPU)
    with pytest.raises(StageError):
        images.read(path)
    with pytest.raises(ValueError, match="inside"):
        images.write({path: canvas("red", 8, 8)})
