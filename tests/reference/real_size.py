"""The real architectures of the bundles, as their published configurations have them, with random weights or none."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BlipConfig,
    BlipForImageTextRetrieval,
    CLIPConfig,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    LlamaConfig,
    LlavaNextConfig,
    Qwen3VLConfig,
)

from imgdiffd.models.segmenter import quiet_ultralytics

Config = dict[str, Any]

# stabilityai/stable-diffusion-xl-base-1.0; stabilityai/sdxl-turbo is of the same sizes
UNET: Config = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),  # diffusers' name for the number of heads
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TEXT_ENCODER: Config = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
TEXT_ENCODER_2: Config = {
    "vocab_size": 49408,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
# madebyollin/sdxl-vae-fp16-fix
VAE: Config = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "force_upcast": False,
}
# lmsys/vicuna-7b-v1.5 and -13b-v1.5
VICUNA_7B: Config = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
}
VICUNA_13B: Config = VICUNA_7B | {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
}
# openai/clip-vit-large-patch14-336, as LLaVA-NeXT's configuration repeats it
_TOWER: Config = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
# llava-hf/llava-v1.6-vicuna-7b-hf and -13b-hf
LLAVA_NEXT_7B: Config = {
    "vision_config": _TOWER,
    "text_config": VICUNA_7B | {"model_type": "llama", "vocab_size": 32064},
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    "image_token_index": 32000,
    "image_seq_length": 576,
}
LLAVA_NEXT_13B: Config = LLAVA_NEXT_7B | {
    "text_config": VICUNA_13B | {"model_type": "llama", "vocab_size": 32064},
}
# Qwen/Qwen3-VL-2B-Instruct
QWEN3_VL_2B: Config = {
    "text_config": {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
    },
    "vision_config": {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "patch_size": 16,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
    },
    "tie_word_embeddings": True,
}
# openai/clip-vit-base-patch32
CLIP: Config = {
    "text_config": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "vocab_size": 49408,
    },
    "vision_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
    },
    "projection_dim": 512,
}
# Salesforce/blip-itm-large-coco
BLIP: Config = {
    "text_config": {
        "encoder_hidden_size": 1024,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 30524,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 16,
    },
    "image_text_hidden_size": 256,
}
FASTSAM = "yolov8x-seg.yaml"  # ultralytics' own; FastSAM-x is that network with one class


def language_model(config: Config) -> Any:
    """A Llama, as the rewriter's class finds it."""
    return AutoModelForCausalLM.from_config(LlamaConfig(**config))


def sdxl_parts(unet: Config, vae: Config, text_encoder: Config, text_encoder_2: Config) -> dict[str, Any]:
    """What a `StableDiffusionXLPipeline` takes beside tokenizers and scheduler."""
    return {
        "unet": UNet2DConditionModel(**unet),
        "vae": AutoencoderKL(**vae),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**text_encoder)),
        "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**text_encoder_2)),
    }


def image_text_to_text_model(config: Config, kind: type = LlavaNextConfig) -> Any:
    """A LLaVA-NeXT, or a model of another `kind` of configuration, as the captioner's class finds it."""
    return AutoModelForImageTextToText.from_config(kind(**config))


def clip_model(config: Config) -> Any:
    """A CLIP with both of its towers."""
    return AutoModel.from_config(CLIPConfig(**config))


def blip_model(config: Config) -> Any:
    """A BLIP with its matching head."""
    return BlipForImageTextRetrieval(BlipConfig(**config))


def segmentation_model(architecture: str | Config) -> Any:
    """An Ultralytics segmentation network of one class, on the CPU: it runs once to learn its own strides."""
    with quiet_ultralytics():
        from ultralytics.nn.tasks import SegmentationModel
    with torch.device("cpu"):
        return SegmentationModel(architecture, nc=1, verbose=False)


def _sdxl() -> dict[str, nn.Module]:
    return sdxl_parts(UNET, VAE, TEXT_ENCODER, TEXT_ENCODER_2)


FASTSAM_ADDRESS = "https://github.com/ultralytics/assets/releases/download/v8.4.0/FastSAM-x.pt"
# What each source that a bundle names consists of.
SOURCES: Mapping[str, Callable[[], dict[str, nn.Module]]] = {
    "lmsys/vicuna-7b-v1.5": lambda: {"model": language_model(VICUNA_7B)},
    "lmsys/vicuna-13b-v1.5": lambda: {"model": language_model(VICUNA_13B)},
    "stabilityai/stable-diffusion-xl-base-1.0": _sdxl,
    "stabilityai/sdxl-turbo": _sdxl,
    FASTSAM_ADDRESS: lambda: {"model": segmentation_model(FASTSAM)},
    "openai/clip-vit-base-patch32": lambda: {"model": clip_model(CLIP)},
    "Salesforce/blip-itm-large-coco": lambda: {"model": blip_model(BLIP)},
    "llava-hf/llava-v1.6-vicuna-7b-hf": lambda: {"model": image_text_to_text_model(LLAVA_NEXT_7B)},
    "llava-hf/llava-v1.6-vicuna-13b-hf": lambda: {"model": image_text_to_text_model(LLAVA_NEXT_13B)},
    "Qwen/Qwen3-VL-2B-Instruct": lambda: {"model": image_text_to_text_model(QWEN3_VL_2B, Qwen3VLConfig)},
}
