"""The benchmarks at toy sizes: every measurement runs, on any device, and what they compare is comparable."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from imgdiffd.kernels.crop import CropPlan, crop
from imgdiffd.kernels.prompt_to_prompt import PairController
from imgdiffd.method.profile import load_profile
from imgdiffd.models.painter import Painter, PairPrompt
from imgdiffd.pipeline import Role
from imgdiffd.schedulers.cost_table import A100, ITEMS_PER_CAPTION, CostTable
from tests.benchmarks import __main__ as program
from tests.benchmarks import counting, cropping, painting
from tests.benchmarks.materialised import StoredMaps
from tests.benchmarks.measuring import Figure, Ratio, flops_of, peak_bytes
from tests.benchmarks.report import Report
from tests.benchmarks.sizes import REAL, TINY
from tests.benchmarks.workshop import Workshop

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def workshop() -> Workshop:
    return Workshop(TINY, CPU)


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@pytest.mark.long
def test_every_measurement_of_the_gpu_runs_at_toy_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], threads: int
) -> None:
    status = program.main(["--gpu", "--tiny", "--threads", "1", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "bench-gpu.json").read_text("utf-8"))
    measured = ("paper", "small")  # the captioner of `compact` is of another family, whose size no part measures
    tables = [CostTable.from_json((tmp_path / f"cost-table-{name}.json").read_text("utf-8")) for name in measured]
    assert "failed" not in capsys.readouterr().out
    missed = [each["what"] for each in (*found["ratios"], *found["figures"]) if each["met"] is False]
    assert status == (1 if missed else 0)
    assert {each["what"].split(",")[0].split(" for ")[0] for each in found["ratios"]} == {
        "Prompt-to-Prompt step",
        "4 crops",
        "captions of 5 boxes in 2 images",
        "4 rewrites",
    }
    assert [each["what"] for each in found["figures"] if each["target"]] == [
        "step at its best, of that rate",
        "peak memory of a pair",
    ]
    ways = {each["what"].partition(", ")[2] for each in found["figures"] if each["unit"] == "s"}
    assert ways == {"eager", "graphed", "compiled", "compiled and graphed"}
    assert {each["what"].split(",")[0] for each in found["figures"]} >= {"decoding an image", "encoding an image"}
    assert all(cost > 0 for table in tables for cost in table.seconds_per_item.values())
    assert tables[0].seconds_per_item["generate"] == tables[1].seconds_per_item["generate"]  # measured once
    assert found["days"]["A100, estimated"] == pytest.approx(3.72, abs=0.005)
    assert found["days"]["the paper"] == 6.5


@pytest.mark.long
def test_every_measurement_of_a_cpu_runs_at_toy_sizes(tmp_path: Path, threads: int) -> None:
    program.main(["--tiny", "--threads", "1", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert found["notes"] == []
    assert found["costs"]["mini"]["source"] == "the miniature bundle"
    assert [each["what"] for each in found["counts"]][-3:] == [
        "decoding an image",
        "comparing a pair's previews",
        "decoding them by TAESDXL",
    ]
    assert all(each["graphs"] for each in found["graphs"])


def test_without_a_gpu_one_line_says_what_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert program.main(["--gpu", "--out", str(tmp_path)]) == 78
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench-gpu needs a CUDA GPU of 80 GB")
    assert not list(tmp_path.iterdir())


def test_a_part_that_fails_is_told_and_does_not_cost_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    sections = program.Sections()

    def breaking() -> Iterator[int]:
        yield 1
        raise RuntimeError("out of luck")

    assert sections.all_of("luck", breaking) == [1]
    assert sections.all_of("the rest", lambda: [2]) == [2]
    report = Report("any", [], [], {}, sections.notes, sections.failed)
    assert report.missed == ["luck"]
    assert report.notes == ["luck failed: RuntimeError: out of luck"]
    assert "out of luck" in capsys.readouterr().err


def test_a_ratio_must_not_exceed_its_target_in_time_or_flops() -> None:
    assert Ratio("a", 0.9, flops=0.9, target=1.0).met is True
    assert Ratio("a", 1.1, flops=0.9, target=1.0).met is False
    assert Ratio("a", 0.9, flops=1.1, target=1.0).met is False
    assert Ratio("a", 2.0).met is None


def test_a_figure_is_held_against_its_target_from_its_own_side() -> None:
    assert Figure("share", 46, "%", target=45).met is True
    assert Figure("share", 44, "%", target=45).met is False
    assert Figure("peak", 15, "GB", target=14, at_most=True).met is False
    assert Figure("share", 44, "%").met is None


@pytest.mark.parametrize("step", [0, 1], ids=["both injections", "cross only"])
@pytest.mark.parametrize("pairs", [1, 2])
def test_the_reference_with_stored_maps_predicts_the_same(workshop: Workshop, pairs: int, step: int) -> None:
    unet, plain, batch = workshop.unet(), workshop.unet(), painting.Batch.drawn(workshop, pairs)
    with batch.painting(PairController(unet), step):
        ours = batch.step(unet)
        unedited = batch.step(plain)
        plain.set_attn_processor(StoredMaps(batch.injection, pairs, step, batch.steps, batch.text))
        theirs = batch.step(plain)
    scale = float(theirs.abs().max())
    assert float((ours - theirs).abs().max()) <= 1e-5 * scale
    assert float((ours - unedited).abs().max()) > 1e-4 * scale


def test_needed_flops_count_products_without_padding(workshop: Workshop) -> None:
    unet, plain, batch = workshop.unet(), workshop.unet(), painting.Batch.drawn(workshop, 2)
    control = PairController(unet)
    with batch.painting(control, 1):
        needed = painting.needed_flops(lambda: batch.step(unet))
        assert needed < flops_of(lambda: batch.step(plain))
        assert needed <= flops_of(lambda: batch.step(unet))


def test_the_peak_of_a_call_counts_what_is_alive_at_once() -> None:
    def two_after_another() -> None:
        for _ in range(2):
            torch.empty(1_000_000, dtype=torch.uint8)

    def two_at_once() -> None:
        _ = [torch.empty(1_000_000, dtype=torch.uint8) for _ in range(2)]

    assert peak_bytes(two_after_another, CPU) == pytest.approx(1e6, rel=0.01)
    assert peak_bytes(two_at_once, CPU) == pytest.approx(2e6, rel=0.01)


@pytest.mark.parametrize("name", cropping.PROCESSORS)
def test_torchvisions_crops_are_the_same_images_as_ours(name: str) -> None:
    plan = CropPlan.from_image_processor(cropping.PROCESSORS[name])
    image, boxes = cropping.drawn_image(128), cropping.drawn_boxes(3, 128)
    apart = (crop(image, boxes, plan) - cropping.by_torchvision(image, boxes, plan)).abs()
    assert float(apart.mean()) < 0.01


def test_a_mean_step_launches_fewer_than_1700_kernels() -> None:
    counts = {each.what: each for each in counting.step_counts(REAL)}
    both, cross, neither = (counts[f"step, {phase}"] for phase in counting.PHASES)
    assert painting.SELF_FRACTION * both.launches + (1 - painting.SELF_FRACTION) * cross.launches < 1700
    assert both.launches <= 1765
    assert neither.launches <= 1505
    assert both.moves <= 186  # a quarter of what joined values took
    assert both.flops < cross.flops < 26e12


def test_counting_sees_pads_joins_and_copies() -> None:
    with counting.fake_cuda():
        row = torch.empty(4, 8, device="cuda", dtype=torch.float16)

        def work() -> None:
            joined = torch.cat([row, row])  # reads 128 bytes, writes 128
            torch.nn.functional.pad(joined[1:].T, (0, 1))[0] = 1.0
            joined.view(-1) @ joined.view(-1)

        found = counting.counted("some", work)
    assert (found.launches, found.moves) == (4, 3)


def test_no_more_models_are_held_than_asked_for(workshop: Workshop) -> None:
    held = workshop.using(frozenset({Role.CLIP}), lambda models: (models.clip is not None, models.blip is None))
    assert held == (True, True)


def test_a_painter_of_random_weights_paints_finite_images(workshop: Workshop) -> None:
    profile = program.at_size(load_profile("default"), TINY)
    ((one, other),) = Painter(workshop.sdxl(), 1).paint_pairs([PairPrompt("a dog", "a cat", 1)], profile.generate)
    assert one.shape == other.shape == (3, TINY.picture_px, TINY.picture_px)


def test_cost_tables_cover_every_stage_of_the_papers_funnel() -> None:
    assert [*A100.seconds_per_item] == [*ITEMS_PER_CAPTION]
    assert all(math.isfinite(cost) for cost in A100.seconds_per_item.values())
