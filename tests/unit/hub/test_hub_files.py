"""Which files of a repository are fetched: those that the loaders read, and no other format or variant."""

import pytest

from imgdiffd.hub.files import checkpoint_files, component_files, model_files, pipeline_files, weight_files

SIDE = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "merges.txt",
    "chat_template.jinja",
]
CLUTTER = [
    *(
        "README.md",
        ".gitattributes",
        "flax_model.msgpack",
        "tf_model.h5",
        "rust_model.ot",
        "model.onnx",
        "weights.gguf",
    ),
    *("onnx/model.onnx", "onnx/config.json", "openvino/openvino_model.xml", "original/consolidated.00.pth"),
    *("consolidated.safetensors", "adapter_model.safetensors", "modeling_own.py", "picture.png"),
    *("pytorch_model.bin.index.json", "tf_model.h5.index.json", "training/state.json"),
]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
PICKLES = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"]


def test_a_model_is_its_safetensors_and_what_lies_beside_them() -> None:
    names = [*SIDE, *CLUTTER, "model.safetensors", "pytorch_model.bin"]
    assert model_files(names) == sorted([*SIDE, "model.safetensors"])


def test_one_file_is_preferred_and_shards_bring_their_index() -> None:
    assert model_files([*SIDE, *CLUTTER, *SHARDS]) == sorted([*SIDE, *SHARDS])
    assert model_files([*SIDE, *SHARDS, "model.safetensors"]) == sorted([*SIDE, "model.safetensors"])


def test_further_chat_templates_come_too() -> None:
    template = "additional_chat_templates/tools.jinja"
    assert template in model_files(["config.json", "model.safetensors", template, "additional_chat_templates/notes.md"])


def test_plain_weights_are_fetched_only_without_a_variant() -> None:
    names = ["config.json", "model.safetensors", "model.fp16.safetensors", "model.bf16.safetensors"]
    assert model_files(names, variant="fp16") == ["config.json", "model.fp16.safetensors"]
    assert model_files(names) == ["config.json", "model.safetensors"]
    with pytest.raises(ValueError, match="no safetensors weights of the variant fp8"):
        model_files(names, variant="fp8")


@pytest.mark.parametrize(
    "names",
    [
        ["model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json"],
        ["model-00001-of-00001.fp16.safetensors", "model.fp16.safetensors.index.json"],
    ],
)
def test_both_ways_of_naming_the_shards_of_a_variant_are_known(names: list[str]) -> None:
    assert weight_files([*names, *SHARDS], "model", "fp16") == sorted(names)


def test_pickles_are_fetched_only_as_an_allowed_last_resort() -> None:
    with pytest.raises(ValueError, match="it has pickles; allow_pickle = true"):
        model_files([*SIDE, *PICKLES])
    assert model_files([*SIDE, *PICKLES], allow_pickle=True) == sorted([*SIDE, *PICKLES])
    assert model_files([*SIDE, *PICKLES, *SHARDS], allow_pickle=True) == sorted([*SIDE, *SHARDS])
    with pytest.raises(ValueError, match=r"no safetensors weights$"):
        model_files([*SIDE, *CLUTTER], allow_pickle=True)


PARTS = {"unet": True, "vae": True, "text_encoder": True, "tokenizer": False, "scheduler": False}
PIPELINE = [
    *(
        "model_index.json",
        "sd_xl_base_1.0.safetensors",
        "sd_xl_base_1.0_0.9vae.safetensors",
        "README.md",
        "LICENSE.txt",
    ),
    *("unet/config.json", "unet/model.onnx", "unet/diffusion_pytorch_model.safetensors"),
    *("unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_flax_model.msgpack"),
    *("vae/config.json", "vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin"),
    *("text_encoder/config.json", "text_encoder/model.safetensors", "text_encoder/model.fp16.safetensors"),
    *("text_encoder/openvino_model.bin", "tokenizer/vocab.json", "tokenizer/merges.txt", "vae_1_0/config.json"),
    *("scheduler/scheduler_config.json", "vae_encoder/model.onnx"),
]


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_pipeline_is_fetched_as_components_in_one_variant(variant: str | None) -> None:
    of = ".fp16" if variant else ""
    assert set(pipeline_files(PIPELINE, PARTS, variant)) == {
        *("model_index.json", "unet/config.json", f"unet/diffusion_pytorch_model{of}.safetensors"),
        *("vae/config.json", "vae/diffusion_pytorch_model.safetensors"),  # there is no other
        *("text_encoder/config.json", f"text_encoder/model{of}.safetensors"),
        *("tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json"),
    }


def test_a_pipeline_without_a_component_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="names image_encoder, but it has no such folder"):
        pipeline_files(PIPELINE, {**PARTS, "image_encoder": True})
    names = [name for name in PIPELINE if name != "vae/diffusion_pytorch_model.safetensors"]
    with pytest.raises(ValueError, match=r"its vae has no safetensors weights.*pickles"):
        pipeline_files(names, PARTS)


def test_an_autoencoder_is_its_configuration_and_one_file() -> None:
    names = [
        "config.json",
        "sdxl_vae.safetensors",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.safetensors",
    ]
    assert component_files(names) == ["config.json", "diffusion_pytorch_model.safetensors"]
    with pytest.raises(ValueError, match=r"no config\.json with diffusion_pytorch_model\.safetensors"):
        component_files(names[:3])


def test_a_segmenter_is_its_file() -> None:
    assert checkpoint_files(["FastSAM-s.pt", "FastSAM-x.pt"], "FastSAM-x.pt") == ["FastSAM-x.pt"]
    with pytest.raises(ValueError, match=r"no file FastSAM-y\.pt"):
        checkpoint_files(["FastSAM-s.pt"], "FastSAM-y.pt")
