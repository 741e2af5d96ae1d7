"""Bundle files: what they say, and that every fault is named with its file and key."""

import json
import struct
from pathlib import Path

import pytest

from imgdiffd.bundle import BUILT_IN, SHIPPED, load_bundle, problems
from imgdiffd.errors import BundleError
from imgdiffd.pipeline import Role

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


def safetensors(path: Path, cut: int = 0) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((struct.pack("<Q", len(header)) + header + bytes(16))[: -cut or None])
    (path.parent / "config.json").write_text("{}")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_bundle_loads_and_names_each_role(name: str) -> None:
    bundle = load_bundle(name)
    assert bundle.name == name
    assert all(bundle.model(role).source and bundle.model(role).licence for role in bundle.roles)


def test_a_folder_its_file_and_the_file_itself_are_the_same_bundle(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert load_bundle(tmp_path) == load_bundle(path) == load_bundle(str(path))
    assert load_bundle(path).name == tmp_path.name


def test_local_sources_are_beside_the_bundle_file_and_hub_ids_are_not_folders(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    assert bundle.folder(bundle.rewriter.source) == tmp_path / "rewriter"
    assert bundle.folder(bundle.blip.source) == Path("/somewhere/blip")
    assert bundle.folder(bundle.clip.source) is None
    assert bundle.clip.label == "openai/clip-vit-base-patch32@abc"
    assert bundle.rewriter.label == "rewriter"


def test_a_folder_that_looks_like_a_hub_id_is_a_folder_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "openai" / "clip-vit-base-patch32").mkdir(parents=True)
    bundle = load_bundle(written(tmp_path))
    assert bundle.folder(bundle.clip.source) == tmp_path / "openai" / "clip-vit-base-patch32"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (TABLES.replace('[clip]\nsource = "openai/clip-vit-base-patch32"\nrevision = "abc"', ""), "clip"),
        (TABLES.replace("pairs_per_pass = 2", "pairs_per_pass = 0"), "painter.pairs_per_pass"),
        (TABLES.replace("revision", "revison"), "clip.revison"),
        (TABLES.replace('"any.pt"', '"../any.pt"'), "segmenter.file"),
        (TABLES.replace('"any.pt"', '"any.pkl"'), "segmenter.file"),
        ('path = "elsewhere"\n' + TABLES, "path"),
        ("[clip", "TOML"),
    ],
)
def test_a_wrong_bundle_file_is_named_with_its_key(tmp_path: Path, text: str, key: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BundleError) as caught:
        load_bundle(path)
    assert key in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_an_unknown_bundle_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="mini, paper, small"):
        load_bundle(tmp_path / "none")


def test_missing_folders_and_files_are_each_named_with_their_role(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    (tmp_path / "captioner").mkdir()
    (tmp_path / "segmenter").mkdir()
    found = problems(bundle)
    expected = [
        ("rewriter", str(tmp_path / "rewriter"), "no such folder"),
        ("painter", str(tmp_path / "painter"), "no such folder"),
        ("segmenter", str(tmp_path / "segmenter" / "any.pt"), "missing"),
        ("blip", "/somewhere/blip", "no such folder"),
        ("captioner", str(tmp_path / "captioner" / "config.json"), "No such file"),
        ("captioner", str(tmp_path / "captioner"), "no .safetensors file"),
    ]
    assert len(found) == len(expected)
    for line, parts in zip(found, expected, strict=True):
        assert all(part in line for part in parts), line


def test_a_whole_safetensors_file_is_no_problem_and_a_cut_one_is_named(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    weights = tmp_path / "rewriter" / "model.safetensors"
    safetensors(weights)
    assert problems(bundle, [Role.REWRITER]) == []
    for cut in (1, 16, 30, 80):
        safetensors(weights, cut)
        (found,) = problems(bundle, [Role.REWRITER])
        assert str(weights) in found
        assert "damaged" in found


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    safetensors(tmp_path / "captioner" / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "captioner" / "model.safetensors.index.json").write_text(json.dumps(index))
    (found,) = problems(bundle, [Role.CAPTIONER])
    assert str(tmp_path / "captioner" / "model-2.safetensors") in found


def test_pickled_weights_do_not_count_as_weights(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    (tmp_path / "rewriter").mkdir()
    (tmp_path / "rewriter" / "config.json").write_text("{}")
    (tmp_path / "rewriter" / "pytorch_model.bin").write_bytes(b"anything")
    (found,) = problems(bundle, [Role.REWRITER])
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
    (found,) = problems(bundle, [Role.PAINTER])
    assert found == f"painter: {painter / 'unet'}: no such folder"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_bundle_says_what_memory_each_role_takes(name: str) -> None:
    bundle = load_bundle(name)
    for role in bundle.roles:
        model = bundle.model(role)
        assert model.weights_gb, role
        assert model.peak_gb, role
