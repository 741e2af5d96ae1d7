"""The segmenter's boxes: BGR in, FastSAM's rules, nothing from batch mates; and no pickle that could run code."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Locate, Removal
from imgdiffd.models.segmenter import Segmenter, UnsafeCheckpointError, open_checkpoint
from tests.tiny import models as tiny_models

FILE = "tiny-seg.pt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmenter")
    tiny_models.save_segmenter(folder, FILE)
    return folder


@pytest.fixture(scope="module")
def locate() -> Locate:
    return load_profile("mini").locate.model_copy(update={"segment_px": 64, "segment_confidence": 0.5})


@pytest.fixture(scope="module")
def removal() -> Removal:
    return load_profile("mini").removal.model_copy(update={"segment_px": 64, "segment_confidence": 0.5})


@pytest.fixture
def images() -> list[Tensor]:
    noise = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 6, 6, generator=noise)
    fine = torch.nn.functional.interpolate(coarse, (64, 64), mode="nearest")
    return [*(fine * 255).to(torch.uint8)]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """The reference, ultralytics' own FastSAM, sets torch's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def segmenter(folder: Path, border_px: int = 2) -> Segmenter:
    return Segmenter(open_checkpoint(folder / FILE), torch.device("cpu"), border_px)


def test_segmenter_gives_fastsam_bgr(folder: Path, locate: Locate, monkeypatch: pytest.MonkeyPatch) -> None:
    """ultralytics takes arrays for BGR and turns them: what reaches the network must be RGB again."""
    from ultralytics.models.yolo.segment import SegmentationPredictor

    arrays: list[Any] = []
    into_network: list[Tensor] = []
    preprocess = SegmentationPredictor.preprocess

    def seen(self: Any, images: Any) -> Any:
        arrays.extend(images)
        into_network.append(preprocess(self, images))
        return into_network[-1]

    monkeypatch.setattr(SegmentationPredictor, "preprocess", seen)
    red = torch.zeros(3, 64, 64, dtype=torch.uint8)
    red[0] = 200
    segmenter(folder).boxes([red], locate)
    assert arrays[0][10, 20].tolist() == [0, 0, 200]
    assert into_network[0][0, :, 10, 20].tolist() == pytest.approx([200 / 255, 0, 0])


def test_boxes_are_those_of_fastsam_itself(folder: Path, locate: Locate, images: list[Tensor]) -> None:
    from ultralytics import FastSAM

    reference = FastSAM(str(folder / FILE))
    for image, boxes in zip(images, segmenter(folder, border_px=20).boxes(images, locate), strict=True):
        bgr = np.ascontiguousarray(image.flip(0).permute(1, 2, 0).numpy())
        found = reference.predict(
            bgr,
            imgsz=64,
            conf=locate.segment_confidence,
            iou=locate.segment_iou,
            device=torch.device("cpu"),
            verbose=False,
            save=False,
        )[0].boxes.xyxy.round()
        expected = [tuple(box) for box in found.int().tolist() if box[2] > box[0] and box[3] > box[1]]
        assert boxes == expected
        assert len(boxes) > 3


def test_corners_are_rounded_or_cut_off_as_the_profile_says(
    folder: Path, locate: Locate, images: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = segmenter(folder)
    fractions = torch.tensor([[10.6, 10.4, 30.5001, 31.9], [12.2, 50.1, 12.9, 60.0]])
    found = type("Found", (), {"boxes": type("Boxes", (), {"xyxy": fractions})})
    monkeypatch.setattr(resident, "_found", lambda image: found)
    truncated = locate.model_copy(update={"corners": "truncated"})
    assert resident.boxes(images[:1], locate) == [[(11, 10, 31, 32), (12, 50, 13, 60)]]
    assert resident.boxes(images[:1], truncated) == [[(10, 10, 30, 31)]]  # the other has no width left


def test_boxes_do_not_depend_on_batch_mates(folder: Path, locate: Locate, images: list[Tensor]) -> None:
    resident = segmenter(folder)
    together = resident.boxes(images, locate)
    assert [resident.boxes([image], locate)[0] for image in images] == together
    assert len({len(boxes) for boxes in together} | {tuple(boxes) for boxes in map(tuple, together)}) > 1


def test_masks_are_those_of_ultralytics_cut_to_their_box(
    folder: Path, removal: Removal, locate: Locate, images: list[Tensor]
) -> None:
    from ultralytics import FastSAM

    reference, resident = FastSAM(str(folder / FILE)), segmenter(folder, border_px=20)
    for image in (images[0], images[1][:, :40]):
        bgr = np.ascontiguousarray(image.flip(0).permute(1, 2, 0).numpy())
        settings = {"imgsz": 64, "conf": removal.segment_confidence, "iou": removal.segment_iou}
        cpu = torch.device("cpu")
        (found,) = reference.predict(bgr, **settings, retina_masks=True, device=cpu, verbose=False, save=False)
        masks = resident.masks([image], removal)[0]
        assert {box for box, _ in masks} <= set(resident.boxes([image], locate)[0])
        assert len(masks) > 3
        expected = iter(zip(found.boxes.xyxy.round().int().tolist(), found.masks.data.bool().cpu(), strict=True))
        for (x1, y1, x2, y2), mask in masks:
            whole = next(each for box, each in expected if box == [x1, y1, x2, y2])
            assert mask.shape == image.shape[1:]
            assert torch.equal(mask[y1:y2, x1:x2], whole[y1:y2, x1:x2])
            assert mask.any()
            assert mask.sum() == mask[y1:y2, x1:x2].sum()


def test_an_image_in_which_nothing_is_found_has_no_masks(folder: Path, removal: Removal, images: list[Tensor]) -> None:
    sure = removal.model_copy(update={"segment_confidence": 1.0})
    resident = segmenter(folder)
    assert resident.masks(images, sure) == [[] for _ in images]
    assert all(resident.masks(images, removal))


def test_boxes_are_whole_pixels_inside_the_canvas_not_empty(folder: Path, locate: Locate, images: list[Tensor]) -> None:
    for image in (*images, images[0][:, :40, :23]):
        height, width = image.shape[1:]
        for x1, y1, x2, y2 in segmenter(folder).boxes([image], locate)[0]:
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height


def test_profiles_thresholds_reach_the_network(folder: Path, locate: Locate, images: list[Tensor]) -> None:
    resident = segmenter(folder)
    many = resident.boxes(images, locate)
    none = resident.boxes(images, locate.model_copy(update={"segment_confidence": 0.999}))
    assert sum(map(len, many)) > 0
    assert none == [[], [], []]
    assert resident.boxes(images, locate) == many


def test_torchs_threads_stay_as_they_were(folder: Path, locate: Locate, images: list[Tensor]) -> None:
    before = torch.get_num_threads()
    segmenter(folder).boxes(images[:1], locate)
    assert torch.get_num_threads() == before


def test_a_checkpoint_with_code_is_refused_without_running_it(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Sly:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(marker),)

    torch.save({"model": Sly(), "ema": None}, tmp_path / "sly.pt")
    with pytest.raises(UnsafeCheckpointError, match="mkdir"):
        open_checkpoint(tmp_path / "sly.pt")
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, folder: Path, content: bytes | None) -> None:
    whole = (folder / FILE).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UnsafeCheckpointError):
        open_checkpoint(tmp_path / "cut.pt")


def test_a_checkpoint_without_a_network_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.zeros(3)}}, tmp_path / "state.pt")
    with pytest.raises(UnsafeCheckpointError, match="no network"):
        open_checkpoint(tmp_path / "state.pt")


def test_ultralytics_writes_nothing_and_says_nothing(folder: Path, tmp_path: Path) -> None:
    home, here, temporary = (tmp_path / name for name in ("home", "here", "tmp"))
    for each in (home, here, temporary):
        each.mkdir()
    code = (
        "import sys, torch; from pathlib import Path; from imgdiffd.models.segmenter import *;"
        "from imgdiffd.method.profile import load_profile; from imgdiffd.models.segmenter import open_checkpoint;"
        "s = Segmenter(open_checkpoint(Path(sys.argv[1])), torch.device('cpu'), 2);"
        "s.boxes([torch.zeros(3, 64, 64, dtype=torch.uint8)], load_profile('mini').locate);"
        "from PIL import Image; assert Image.open.__module__ == 'PIL.Image'"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(folder / FILE)],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    left = [path for each in (home, here, temporary) for path in each.rglob("*") if "torchinductor" not in path.name]
    assert left == []
