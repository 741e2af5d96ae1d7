"""Previews: what a linear map and a small autoencoder show of latents, and a painter that is watched halfway."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, LCMScheduler
from torch import Tensor

from imgdiffd.bundles.bundle import LinearMap
from imgdiffd.errors import BundleError
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Abort, Generate
from imgdiffd.models.painter import Images, Painter, PairPrompt
from imgdiffd.models.preview import fit_linear, load_preview
from tests.benchmarks.counting import preview_counts
from tests.benchmarks.sizes import REAL
from tests.tiny.sdxl import IMAGE_PX, tiny_sdxl

CPU = torch.device("cpu")
PAIRS = [
    PairPrompt("a red ball and a blue house on the grass", "a red star and a blue house on the grass", 7),
    PairPrompt("a green fish", "a big green fish and a cup", 2**62),
    PairPrompt("a yellow moon and a ring on the road", "a moon", 0),
]
GREY = LinearMap(factors=((0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), bias=(0.0, 0.0, 0.0))
STEPS = 6


@pytest.fixture(scope="module")
def folder(tiny_bundle: Path) -> Path:
    return tiny_bundle.parent / "painter"


def painter_of(folder: Path, pairs_per_pass: int = 1, note: Callable[[str], None] = pytest.fail) -> Painter:
    painter = Painter.load(str(folder), CPU, torch.float32, pairs_per_pass, note, local_files_only=True)
    painter.preview = load_preview(GREY, 4, CPU, torch.float32)
    return painter


def numbers(**abort: Any) -> Generate:
    changes = {"picture_px": IMAGE_PX, "steps": STEPS, "abort": Abort(mode="on", **abort)}
    return load_profile("mini").generate.model_copy(update=changes)


class Watch:
    """Gives up the pairs whose captions it is told; `seen` records what it was shown."""

    def __init__(self, *given_up: str) -> None:
        self.given_up, self.seen = given_up, dict[PairPrompt, Images]()

    def __call__(self, pair: PairPrompt, previews: Images) -> bool:
        self.seen[pair] = previews
        return pair.caption1 not in self.given_up


def count_steps(painter: Painter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills with the number of images of every step of the UNet, and a 0 for each image that the VAE decodes."""
    calls: list[int] = []
    unet, decode = painter.sdxl.unet.forward, painter.sdxl.decode

    def forward(rows: Tensor, *given: Any, **options: Any) -> Any:
        calls.append(len(rows))
        return unet(rows, *given, **options)

    def decoded(latents: Tensor) -> Tensor | None:
        calls.append(0)
        return decode(latents)

    monkeypatch.setattr(painter.sdxl.unet, "forward", forward)
    monkeypatch.setattr(painter.sdxl, "decode", decoded)
    return calls


def test_a_linear_map_colours_each_latent() -> None:
    given = LinearMap(factors=((1.0, 0.0, 0.0), (0.0, 0.5, 0.0)), bias=(0.0, 0.0, -1.0))
    preview = load_preview(given, 2, CPU, torch.float32)
    seen = preview(torch.tensor([[[1.0, -1.0]], [[0.0, 1.0]]]))
    assert seen is not None
    assert seen.tolist() == [[[255, 0]], [[128, 191]], [[0, 0]]]
    assert preview(torch.full((2, 1, 1), float("nan"))) is None


def test_a_small_autoencoder_is_shown_as_diffusers_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1), "scaling_factor": 1.0}
    vae = AutoencoderTiny(latent_channels=4, **sizes, **blocks)
    vae.save_pretrained(tmp_path)
    latents = torch.randn(4, 6, 6)
    seen = load_preview(tmp_path, 4, CPU, torch.float32)(latents)
    with torch.inference_mode():
        wanted = (vae.eval().decode(latents[None]).sample[0] / 2 + 0.5).clamp(0, 1) * 255
    assert seen is not None
    assert torch.equal(seen, wanted.round().to(torch.uint8))


def test_a_preview_of_other_latents_is_refused() -> None:
    with pytest.raises(BundleError, match="latents of 4 channels, but the painter's have 8") as told:
        load_preview(GREY, 8, CPU, torch.float32)
    assert "fit-preview" in (told.value.hint or "")


def test_the_fit_finds_the_map_that_made_the_images() -> None:
    factors, bias = torch.tensor([[0.3, 0.1, -0.2], [-0.1, 0.2, 0.3]]), torch.tensor([0.1, 0.0, -0.1])
    samples = []
    for seed in range(3):
        latents = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(seed))
        colours = torch.einsum("chw,ck->khw", latents, factors) + bias[:, None, None]
        image = ((colours / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        samples.append((latents, image.repeat_interleave(4, 1).repeat_interleave(4, 2)))
    found, explained = fit_linear(samples)
    torch.testing.assert_close(torch.tensor(found.factors), factors, atol=0.02, rtol=0)
    torch.testing.assert_close(torch.tensor(found.bias), bias, atol=0.02, rtol=0)
    assert explained > 0.98


def test_survivors_are_those_of_a_run_without(folder: Path) -> None:
    painter = painter_of(folder, pairs_per_pass=2)
    wanted = painter.paint_pairs(PAIRS, numbers())
    watch = Watch(PAIRS[0].caption1)
    found = painter.paint_watched(PAIRS, numbers(), watch)
    assert found[0] is None
    for pair, other in zip(found[1:], wanted[1:], strict=True):
        assert pair is not None
        assert all(torch.equal(one, two) for one, two in zip(pair, other, strict=True))
    assert list(watch.seen) == PAIRS


def test_a_pass_with_nothing_left_ends_undecoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = painter_of(folder, pairs_per_pass=2)
    calls = count_steps(painter, monkeypatch)
    watch = Watch(*(pair.caption1 for pair in PAIRS[:2]))
    found = painter.paint_watched(PAIRS, numbers(at=0.5), watch)
    assert [pair is None for pair in found] == [True, True, False]
    assert calls == [8] * 3 + [8] * STEPS + [0, 0]


@pytest.mark.parametrize(("at", "steps"), [(None, 2), (0.0, 1), (0.5, 3), (1.0, STEPS)])
def test_pairs_are_looked_at_where_the_profile_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at: float | None, steps: int
) -> None:
    painter = painter_of(folder)
    calls = count_steps(painter, monkeypatch)
    assert painter.paint_watched(PAIRS[:1], numbers(at=at), Watch(PAIRS[0].caption1)) == [None]
    assert calls == [4] * steps


def test_previews_depend_on_neither_mates_nor_order(folder: Path) -> None:
    painter, captions = painter_of(folder, 2), [pair.caption1 for pair in PAIRS]
    alone, together, turned = (Watch(*captions) for _ in range(3))
    for pair in PAIRS:
        painter.paint_watched([pair], numbers(), alone)
    painter.paint_watched(PAIRS, numbers(), together)
    painter.paint_watched(PAIRS[::-1], numbers(), turned)
    for pair in PAIRS:
        for other in (together, turned):
            assert all(torch.equal(one, two) for one, two in zip(alone.seen[pair], other.seen[pair], strict=True))


def test_the_last_steps_preview_is_what_the_latents_become(folder: Path) -> None:
    painter, watch = painter_of(folder), Watch()
    shown: list[Tensor] = []

    def preview(latents: Tensor) -> Tensor:
        shown.append(latents)
        return torch.zeros(3, 1, 1, dtype=torch.uint8)

    painter.preview = preview
    [images] = painter.paint_watched(PAIRS[:1], numbers(at=1.0), watch)
    assert images is not None
    for latents, image in zip(shown, images, strict=True):
        decoded = painter.sdxl.decode(latents)
        assert decoded is not None
        assert (decoded.int() - image.int()).abs().max() <= 1


def test_a_scheduler_with_another_name_for_its_estimate_serves(tmp_path: Path) -> None:
    watch = Watch()
    painter_of(tiny_sdxl(tmp_path, scheduler=LCMScheduler())).paint_watched(PAIRS[:1], numbers(), watch)
    assert len(watch.seen) == 1


def test_a_scheduler_without_an_estimate_is_named_once(tmp_path: Path) -> None:
    told: list[str] = []
    painter = painter_of(tiny_sdxl(tmp_path, scheduler=DPMSolverMultistepScheduler()), note=told.append)
    wanted = painter.paint_pairs(PAIRS[:1], numbers())
    for _ in range(2):
        [found] = painter.paint_watched(PAIRS[:1], numbers(), Watch(PAIRS[0].caption1))
        assert found is not None
        assert torch.equal(found[1], wanted[0][1])
    [note] = told
    assert "DPMSolverMultistepScheduler gives no estimate" in note


def test_a_painter_without_a_preview_says_so_once(folder: Path) -> None:
    told: list[str] = []
    painter = painter_of(folder, note=told.append)
    painter.preview = None
    for _ in range(2):
        assert painter.paint_watched(PAIRS[:1], numbers(), Watch(PAIRS[0].caption1)) != [None]
    [note] = told
    assert "has no preview" in note
    assert "fit-preview" in note
    assert painter.paint_pairs(PAIRS[:1], numbers())


def test_a_preview_that_is_not_finite_gives_nothing_up(folder: Path) -> None:
    painter = painter_of(folder)
    painter.preview = lambda latents: None
    assert painter.paint_watched(PAIRS[:1], numbers(), Watch(PAIRS[0].caption1)) != [None]


def test_a_preview_costs_far_less_than_a_hundredth_of_a_pair() -> None:
    pair = 1302e12  # operations of a pair of 1024 px in 50 steps
    compared, decoded = (count.flops for count in preview_counts(REAL))
    assert 1e9 < compared < 1e-4 * pair
    assert 1e9 < decoded < 2e-3 * pair
