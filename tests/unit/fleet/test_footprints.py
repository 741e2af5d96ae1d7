"""Where the figure of a model's memory comes from: measured before the bundle's, the bundle's before its files'."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from imgdiffd.bundles.bundle import Bundle, load_bundle
from imgdiffd.errors import BundleError
from imgdiffd.fleet.footprints import Measurements, footprints
from imgdiffd.pipeline import Role, Stage

GB = 1_000_000_000


@pytest.fixture
def measured(tmp_path: Path) -> Measurements:
    return Measurements(tmp_path / "footprints.json")


def test_a_bundles_figures_are_half_precision_and_double_on_cpu(measured: Measurements) -> None:
    bundle = load_bundle("paper")
    on_card = footprints(bundle, [Role.REWRITER], measured, cpu=False)[Role.REWRITER]
    on_cpu = footprints(bundle, [Role.REWRITER], measured, cpu=True)[Role.REWRITER]
    assert (on_card.weights_bytes, on_card.peak_bytes) == (26_030_000_000, 4_500_000_000)
    assert (on_cpu.weights_bytes, on_cpu.peak_bytes) == (52_060_000_000, 9 * GB)


def test_measured_memory_replaces_estimates_also_after_a_restart(measured: Measurements) -> None:
    bundle = load_bundle("paper")
    measured.note_weights(bundle.painter, 7 * GB)
    for peak in (3 * GB, 5 * GB, 4 * GB, 0):
        measured.note_peak(bundle, Stage.GENERATE, peak)
    measured.save()
    found = footprints(bundle, [Role.PAINTER, Role.CLIP], Measurements(measured.path), cpu=False)
    assert (found[Role.PAINTER].weights_bytes, found[Role.PAINTER].peak_bytes) == (7 * GB, round(5 * GB * 1.1))
    assert found[Role.CLIP].weights_bytes == 300_000_000


def test_a_stages_peak_counts_for_its_largest_model(measured: Measurements) -> None:
    bundle = load_bundle("paper")
    measured.note_peak(bundle, Stage.DESCRIBE, 9 * GB)
    assert measured.of(bundle.captioner).peak_bytes == 9 * GB
    assert measured.of(bundle.clip).peak_bytes == 0


def test_models_of_other_pass_sizes_are_measured_apart(measured: Measurements) -> None:
    bundle = load_bundle("paper")
    measured.note_weights(bundle.painter, 7 * GB)
    assert measured.of(bundle.painter.model_copy(update={"pairs_per_pass": 2})).weights_bytes == 0


def test_a_damaged_file_of_measurements_is_as_none(tmp_path: Path) -> None:
    path, paper = tmp_path / "footprints.json", load_bundle("paper")
    figures = '{"%s": {"weights_bytes": %s, "peak_bytes": -5}}'
    clip = f"{paper.clip.label} {paper.clip.precision}"
    for damaged in ('{"a": 1}', "[" * 9999, figures % (clip, "1e999"), figures % (clip, "5")):
        path.write_text(damaged)
        assert footprints(paper, [Role.CLIP], Measurements(path), cpu=False)[Role.CLIP].peak_bytes == GB // 2


def _clip_from(folder: Path, text: str = "") -> Bundle:
    """The miniature bundle with a clip in `folder`, without figures."""
    mini = load_bundle("mini")
    clip = mini.clip.model_copy(update={"source": text or str(folder)})
    return mini.model_copy(update={"clip": clip})


def test_without_figures_the_files_tell_every_tensor_once(tmp_path: Path, measured: Measurements) -> None:
    save_file({"a": torch.zeros(10, 20, dtype=torch.float16), "b": torch.zeros(7)}, tmp_path / "model.safetensors")
    found = footprints(_clip_from(tmp_path), [Role.CLIP], measured, cpu=True)[Role.CLIP]
    assert found.weights_bytes == 4 * 207
    assert footprints(_clip_from(tmp_path), [Role.CLIP], measured, cpu=False)[Role.CLIP].weights_bytes == 2 * 207


def test_a_model_of_unknown_size_is_named(measured: Measurements) -> None:
    bundle = _clip_from(Path(), "nobody/nothing")
    with pytest.raises(BundleError, match="clip: nobody/nothing: its size is not known here"):
        footprints(bundle, [Role.CLIP], measured, cpu=True)


def test_painter_and_eraser_of_the_same_files_share_weights(measured: Measurements) -> None:
    found = footprints(load_bundle("mini"), [Role.PAINTER, Role.ERASER], measured, cpu=True)
    assert found[Role.PAINTER].weights == found[Role.ERASER].weights
    weights = sum(
        path.stat().st_size for path in Path(load_bundle("mini").path.parent, "painter").rglob("*.safetensors")
    )
    assert found[Role.PAINTER].weights_bytes >= weights
