"""Tiny checkpoints with random weights in the standard formats, built in a second, for tests of the real code paths."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from imgdiffd.mini.tokenizer import build_tokenizer

TEXT_WIDTH = 32  # of each of the two encoders
IMAGE_PX = 32


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    """An SDXL-shaped UNet: both attentions over 16×16 and 8×8 latents, pooled text and sizes as conditions."""
    torch.manual_seed(11)
    config: dict[str, Any] = {
        "sample_size": IMAGE_PX // 2,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (2, 4),
        "norm_num_groups": 8,
        "cross_attention_dim": 2 * TEXT_WIDTH,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + TEXT_WIDTH,
    }
    unet: UNet2DConditionModel = UNet2DConditionModel(**(config | changes)).eval()
    for name, weight in unet.named_parameters():
        if "to_q" in name or "to_k" in name:  # small random weights attend nearly evenly: an edit would hardly show
            weight.data.mul_(2)
    return unet


def _text_config(eos: int, vocabulary: int, positions: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=positions,
        projection_dim=TEXT_WIDTH,
        eos_token_id=eos,
    )


def tiny_sdxl(folder: Path, *, zero_empty_prompt: bool = True, scheduler: Any = None) -> Path:
    """Saves a whole SDXL pipeline of about 1 M random weights to `folder`, which it returns."""
    tokenizer = build_tokenizer()
    text = _text_config(tokenizer.eos_token_id, len(tokenizer), tokenizer.model_max_length)
    unet = tiny_unet()
    for name, weight in unet.named_parameters():
        if "attn2.to_v" in name:  # and random captions hardly move the image
            weight.data.mul_(8)
    torch.manual_seed(12)
    StableDiffusionXLPipeline(
        vae=AutoencoderKL(
            block_out_channels=(16, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=IMAGE_PX,
        ),
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=scheduler or EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading"),
        force_zeros_for_empty_prompt=zero_empty_prompt,
        add_watermarker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder
