"""Two more tiny captioners beside those of `tests.tiny.captioners`: LLaVA 1.5 and Qwen3-VL."""

from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tests.tiny import captioners as tiny_captioners
from tests.tiny.models import IMAGE_CHAT, SPECIAL, TEXT, VISION, tokenizer


def save_llava(folder: Path) -> None:
    """LLaVA 1.5: one square view of the image."""
    torch.manual_seed(4)
    config = LlavaConfig(
        vision_config={**VISION, "image_size": 32, "model_type": "clip_vision_model", "projection_dim": 16},
        text_config={**TEXT, "model_type": "llama"},
        image_token_index=SPECIAL.index("<image>"),
        image_seq_length=16,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer(256),
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=IMAGE_CHAT,
        image_token="<image>",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def save_qwen3_vl(folder: Path) -> None:
    """Qwen3-VL: features of the image are added to the states of several layers of the LLM."""
    tiny_captioners.save_qwen2_vl(folder)  # for its tokenizer and its chat template
    old = Qwen2VLProcessor.from_pretrained(folder)
    marks = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    before = Qwen2VLConfig.from_pretrained(folder)
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "num_heads": 4}
    seen = {"patch_size": 8, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    said = {"num_key_value_heads": 2, "hidden_size": 64, "head_dim": 16, "vocab_size": len(old.tokenizer)}
    torch.manual_seed(6)
    config = Qwen3VLConfig(
        text_config={**TEXT, **said, "rope_parameters": rope},
        vision_config={**vision, **seen, "initializer_range": 0.3},
        **{mark: getattr(before, mark) for mark in marks},
    )
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    sizes = {"patch_size": 8, "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}}
    Qwen3VLProcessor(
        Qwen2VLImageProcessor(**sizes), old.tokenizer, Qwen3VLVideoProcessor(**sizes), old.chat_template
    ).save_pretrained(folder)
