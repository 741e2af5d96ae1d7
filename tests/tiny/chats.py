"""Tiny random chat LLMs of the families that may rewrite: configuration, tokenizer and chat template of each.

The templates are the vendors', cut to what a conversation without tools needs.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GemmaTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from tests.tiny.models import SENTENCES

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %}{{ m['content'] }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
TURNS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
HEADERS = (
    "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    " + m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def _bytes_of_gpt2(specials: tuple[str, ...]) -> dict[str, int]:
    pieces = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    return {piece: number for number, piece in enumerate(pieces)}


def bytes_of_sentencepiece(specials: tuple[str, ...]) -> dict[str, int]:
    """A vocabulary that spells everything in bytes, as Llama 2's and Gemma's do what they have no piece for."""
    pieces = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    return {piece: number for number, piece in enumerate(pieces)}


def _qwen_tokenizer() -> Any:
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return Qwen2Tokenizer(
        vocab=_bytes_of_gpt2(specials), merges=[], eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )


def _llama2_tokenizer(*marks: str) -> Callable[[], Any]:
    return lambda: LlamaTokenizer(
        vocab=bytes_of_sentencepiece(("<unk>", "<s>", "</s>", *marks)),
        merges=[],
        additional_special_tokens=list(marks),
    )


def _gemma_tokenizer() -> Any:
    marks = ["<start_of_turn>", "<end_of_turn>"]
    vocabulary = bytes_of_sentencepiece(("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *marks))
    return GemmaTokenizer(vocab=vocabulary, merges=[], additional_special_tokens=marks)


def _llama3_tokenizer() -> Any:
    marks = ["<|start_header_id|>", "<|end_header_id|>"]
    specials = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", *marks)
    core = Tokenizer(models.BPE(_bytes_of_gpt2(specials), []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        additional_special_tokens=marks,
        model_max_length=512,
    )


@dataclass(frozen=True)
class Chat:
    """A family of chat LLMs: its configuration beyond `_SIZES`, tokenizer, template and possible ends."""

    model_type: str
    tokenizer: Callable[[], Any]
    chat_template: str
    ends: tuple[str, ...]
    config: dict[str, Any] = field(default_factory=dict)


_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 280,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,  # wide, so that the likeliest token is clear
    "pad_token_id": 0,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_WINDOWS = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"], "head_dim": 8}
CHATS = {
    "qwen2": Chat("qwen2", _qwen_tokenizer, CHATML, ("<|im_end|>", "<|endoftext|>")),
    "qwen3": Chat("qwen3", _qwen_tokenizer, THINKING, ("<|im_end|>", "<|endoftext|>"), {"head_dim": 8}),
    "mistral": Chat("mistral", _llama2_tokenizer(), INST, ("</s>",), {"sliding_window": 16}),
    "gemma2": Chat("gemma2", _gemma_tokenizer, TURNS, ("<eos>", "<end_of_turn>"), _WINDOWS),
    "gemma3": Chat("gemma3_text", _gemma_tokenizer, TURNS, ("<eos>", "<end_of_turn>"), _WINDOWS),
    "phi3": Chat("phi3", _llama2_tokenizer("<|user|>", "<|assistant|>", "<|end|>"), PHI, ("</s>", "<|end|>")),
    "llama3": Chat(
        "llama", _llama3_tokenizer, HEADERS, ("<|eot_id|>", "<|end_of_text|>"), {"rope_parameters": _LLAMA3_ROPE}
    ),
}


def save_chat(folder: Path, name: str) -> Path:
    """A causal LLM of the family `name` with its tokenizer and template; returns `folder`."""
    chat = CHATS[name]
    tokenizer = chat.tokenizer()
    tokenizer.chat_template = chat.chat_template
    ends = [int(tokenizer.convert_tokens_to_ids(end)) for end in chat.ends]
    marks = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": ends}
    config = AutoConfig.for_model(chat.model_type, **{**_SIZES, **marks, **chat.config})
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = ends
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_vicuna(folder: Path) -> Path:
    """A Llama in Vicuna's layout: the tokenizer is a SentencePiece model alone, and there is no chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([SENTENCES] * 9),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=360,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(**{**_SIZES, "vocab_size": 400})).save_pretrained(folder)
    return folder
