"""What is missing or damaged in a model's folder, named by role and file, without reading weights."""

import json
import struct
from pathlib import Path

import pytest

from imgdiffd.bundles.bundle import Bundle, load_bundle
from imgdiffd.hub import presences, problems
from imgdiffd.pipeline import Role
from tests.fakes.hub import safetensors

TABLES = """
[rewriter]
source = "rewriter"
[painter]
source = "painter"
pairs_per_pass = 2
[segmenter]
source = "segmenter"
file = "any.pt"
[clip]
source = "openai/clip-vit-base-patch32"
revision = "abc"
[blip]
source = "/somewhere/blip"
[captioner]
source = "captioner"
"""


def written(folder: Path, text: str = TABLES) -> Path:
    path = folder / "bundle.toml"
    path.write_text(text, "utf-8")
    return path


def problems_of(bundle: Bundle, role: Role) -> tuple[str, ...]:
    (found,) = presences(bundle, [role])
    return found.problems


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def test_missing_files_are_each_named_with_their_role(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    (tmp_path / "captioner").mkdir()
    (tmp_path / "segmenter").mkdir()
    found = problems(bundle)
    expected = [
        ("rewriter", str(tmp_path / "rewriter"), "no such folder"),
        ("painter", str(tmp_path / "painter"), "no such folder"),
        ("segmenter", str(tmp_path / "segmenter" / "any.pt"), "missing"),
        ("clip", "openai/clip-vit-base-patch32@abc", "not in the local cache"),
        ("blip", "/somewhere/blip", "no such folder"),
        ("captioner", str(tmp_path / "captioner" / "config.json"), "missing"),
        ("captioner", str(tmp_path / "captioner"), "no .safetensors file"),
    ]
    assert len(found) == len(expected)
    for line, parts in zip(found, expected, strict=True):
        assert all(part in line for part in parts), line


def test_a_truncated_safetensors_file_is_named(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    weights = tmp_path / "rewriter" / "model.safetensors"
    safetensors(weights)
    assert problems_of(bundle, Role.REWRITER) == ()
    for cut in (1, 16, 30, 80):
        safetensors(weights, cut)
        (found,) = problems_of(bundle, Role.REWRITER)
        assert str(weights) in found
        assert "damaged" in found


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    safetensors(tmp_path / "captioner" / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "captioner" / "model.safetensors.index.json").write_text(json.dumps(index))
    (found,) = problems_of(bundle, Role.CAPTIONER)
    assert str(tmp_path / "captioner" / "model-2.safetensors") in found


HEADERS = (
    "null",
    "[]",
    "[" * 100_000,
    '{"w": null}',
    '{"w": {"data_offsets": [0], "shape": [16]}}',
    '{"w": {"data_offsets": [0, "x"], "shape": [16]}}',
    '{"w": {"data_offsets": [0, 16], "shape": ["x"]}}',
    '{"w": {"data_offsets": [0, 16], "shape": [[16]]}}',
    '{"w": {"data_offsets": [0, 16]}}',
)


@pytest.mark.parametrize("header", HEADERS, ids=lambda text: text[:40])
def test_a_header_of_another_shape_is_damage(header: str, tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    weights = tmp_path / "rewriter" / "model.safetensors"
    safetensors(weights)
    weights.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(16))
    assert problems_of(bundle, Role.REWRITER) == (f"{weights}: damaged: its header cannot be read",)


@pytest.mark.parametrize(
    "index", ["[]", "null", '{"weight_map": 7}', '{"weight_map": {"a": []}}', '{"weight_map": {"a": 7}}']
)
def test_an_index_of_another_shape_is_damage(index: str, tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    safetensors(tmp_path / "captioner" / "model-1.safetensors")
    (tmp_path / "captioner" / "model.safetensors.index.json").write_text(index)
    (found,) = problems_of(bundle, Role.CAPTIONER)
    assert "damaged weight index" in found


@pytest.mark.parametrize(
    "content", ["", '{"temperature": 0.', "\xff", "[" * 100_000], ids=["empty", "cut", "binary", "deep"]
)
def test_json_that_a_library_would_do_without_is_damage(content: str, tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    safetensors(tmp_path / "rewriter" / "model.safetensors")
    (tmp_path / "rewriter" / "generation_config.json").write_text(content, "latin-1")
    (found,) = problems_of(bundle, Role.REWRITER)
    assert f"{tmp_path / 'rewriter' / 'generation_config.json'}: damaged" in found


def test_a_header_longer_than_the_format_allows_is_not_read(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    weights = tmp_path / "rewriter" / "model.safetensors"
    safetensors(weights)
    with weights.open("r+b") as file:  # a flipped bit in the length of a large file
        file.write(struct.pack("<Q", 1 << 32))
        file.truncate(1 << 33)
    (found,) = problems_of(bundle, Role.REWRITER)
    assert "not a safetensors file, or cut off" in found


def test_pickled_weights_do_not_count_as_weights(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    (tmp_path / "rewriter").mkdir()
    (tmp_path / "rewriter" / "config.json").write_text("{}")
    (tmp_path / "rewriter" / "pytorch_model.bin").write_bytes(b"anything")
    (found,) = problems_of(bundle, Role.REWRITER)
    assert "pickled weights are not loaded" in found


def test_each_component_of_a_painter_is_looked_at(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    painter = tmp_path / "painter"
    painter.mkdir()
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": True,
        "image_encoder": [None, None],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    (painter / "model_index.json").write_text(json.dumps(index))
    for name in ("tokenizer", "scheduler"):
        (painter / name).mkdir()
    safetensors(painter / "vae" / "diffusion_pytorch_model.safetensors")
    (found,) = problems_of(bundle, Role.PAINTER)
    assert found == f"{painter / 'unet'}: no such folder"


def test_a_missing_shard_of_allowed_pickles_is_named(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path, TABLES.replace("[rewriter]", "[rewriter]\nallow_pickle = true")))
    folder = tmp_path / "rewriter"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"anything")
    assert problems_of(bundle, Role.REWRITER) == ()
    index = {"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (found,) = problems_of(bundle, Role.REWRITER)
    assert f"{folder / 'pytorch_model-00002-of-00002.bin'}: missing" in found


def test_weights_of_another_variant_do_not_count(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path, TABLES.replace("[rewriter]", '[rewriter]\nvariant = "fp16"')))
    safetensors(tmp_path / "rewriter" / "model.safetensors")
    (found,) = problems_of(bundle, Role.REWRITER)
    assert "no .safetensors file of the variant fp16" in found
    safetensors(tmp_path / "rewriter" / "model.fp16-00001-of-00001.safetensors")
    assert problems_of(bundle, Role.REWRITER) == ()
