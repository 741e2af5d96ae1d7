"""Tiny captioners of every family that a bundle may name, with random weights, saved in the standard formats.

Their answers mean nothing: tests look at how they are computed.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaNextForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from tests.tiny import models as tiny_models
from tests.tiny.models import WORDS

_CHAT = (
    "{%% for m in messages %%}<|im_start|>user\n{%% for part in m['content'] %%}{%% if part['type'] == 'image' %%}"
    "%s{%% else %%}{{ part['text'] }}{%% endif %%}{%% endfor %%}<|im_end|>\n{%% endfor %%}"
    "{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"
)
_GROUPED = {**tiny_models.TEXT, "hidden_size": 64, "num_key_value_heads": 2}  # two query heads a key head


def _tokenizer(marks: Mapping[str, str], chat: str) -> PreTrainedTokenizerFast:
    """A fast tokenizer of whole words; `marks` are special tokens with the names that processors call them by."""
    special = ("<pad>", "<s>", "<|im_end|>", "<unk>", "<|im_start|>", *marks.values())
    vocabulary = {word: number for number, word in enumerate((*special, *WORDS))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>"],
        extra_special_tokens=dict(marks),
        chat_template=_CHAT % chat,
    )


_QWEN_MARKS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
_INTERN_MARKS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def _qwen(folder: Path, config: type, model: type, processor: type, vision: Mapping[str, Any]) -> None:
    words = _tokenizer(_QWEN_MARKS, "<|vision_start|><|image_pad|><|vision_end|>")
    ids = {f"{name}_id": words.convert_tokens_to_ids(mark) for name, mark in _QWEN_MARKS.items()}
    text = {
        **_GROUPED,
        "vocab_size": len(words),
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    }
    model(config(text_config=text, vision_config={**vision, "patch_size": 8}, **ids)).save_pretrained(folder)
    sizes = {"patch_size": 8, "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}}
    processor(
        Qwen2VLImageProcessor(**sizes), words, Qwen2VLVideoProcessor(**sizes), words.chat_template
    ).save_pretrained(folder)


def save_qwen2_vl(folder: Path) -> None:
    torch.manual_seed(6)
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 4, "initializer_range": 0.3}
    _qwen(folder, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor, vision)


def save_qwen2_5_vl(folder: Path) -> None:
    torch.manual_seed(7)
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "num_heads": 4}
    wide = {**vision, "window_size": 32, "fullatt_block_indexes": [1], "initializer_range": 0.3}
    _qwen(folder, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, wide)


def save_internvl(folder: Path) -> None:
    torch.manual_seed(8)
    words = _tokenizer(_INTERN_MARKS, "<IMG_CONTEXT>\n")
    text = {**_GROUPED, "model_type": "qwen2", "vocab_size": len(words)}
    vision = {**tiny_models.VISION, "image_size": [32, 32], "patch_size": [8, 8]}
    mark = words.convert_tokens_to_ids("<IMG_CONTEXT>")
    config = InternVLConfig(text_config=text, vision_config=vision, image_token_id=mark, image_seq_length=4)
    InternVLForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    InternVLProcessor(
        GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=4),
        words,
        InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=words.chat_template,
    ).save_pretrained(folder)


def save_llava_next(folder: Path) -> None:
    """As `tiny_models.save_captioner`, with two query heads a key head."""
    tiny_models.save_captioner(folder)
    config = LlavaNextForConditionalGeneration.from_pretrained(folder).config
    torch.manual_seed(9)
    config.text_config.num_key_value_heads = 2
    LlavaNextForConditionalGeneration(config).save_pretrained(folder)


FAMILIES: Mapping[str, Callable[[Path], None]] = {
    "llava_next": save_llava_next,
    "qwen2_vl": save_qwen2_vl,
    "qwen2_5_vl": save_qwen2_5_vl,
    "internvl": save_internvl,
}
