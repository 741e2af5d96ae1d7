"""Decoding many questions about an image from one copy of the image's keys and values, in passes of fixed shape."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, Cache
from transformers.cache_utils import CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from imgdiffd.kernels.grouped_attention import grouped_attention

_ATTENTION = "imgdiffd_shared_prefix"
_in_pass = ContextVar("_in_pass", default=False)  # a model's other roles compute as they do where it is not shared
_KEYS_STEP = 16  # the number of keys is a multiple of this: CUDA's fused kernels then take a mask without copying it


@dataclass(frozen=True, slots=True)
class PassShape:
    """`images` rows of `prefix` tokens, each with `slots` questions of `width` tokens and answers of `new_tokens`."""

    images: int
    slots: int
    prefix: int
    width: int
    new_tokens: int

    @property
    def keys(self) -> int:
        """How many keys a row holds: its prefix once, and every slot's question and answer."""
        needed = self.prefix + self.slots * (
            self.width + self.new_tokens - 1
        )  # an answer's last token is not read again
        return -(-needed // _KEYS_STEP) * _KEYS_STEP


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' own fused attention, except that masked calls of a shared pass do not repeat key heads."""
    if (
        not _in_pass.get()
        or attention_mask is None
        or attention_mask.dtype != torch.bool
        or attention_mask.shape[1] != 1
    ):
        plain: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return plain
    out = grouped_attention(query, key, value, attention_mask, options.get("scaling"))
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(_ATTENTION, _attend)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)


def let_share(model: Any) -> str:
    """Makes `model`'s text layers attend through this module; returns why they cannot share a prefix, or nothing."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = None if getattr(config, "layer_types", None) else getattr(config, "sliding_window", None)
    if kinds != {"full_attention"} or (window is not None and window < config.max_position_embeddings):
        return "its layers do not all attend to the whole context"
    if config is model.config:
        return "its text layers cannot be told from its vision layers"
    if config._attn_implementation not in ("sdpa", _ATTENTION):
        return f"its attention is {config._attn_implementation} instead of torch's fused one"
    model.set_attn_implementation({"text_config": _ATTENTION})
    if config._attn_implementation != _ATTENTION:
        return f"{type(model).__name__} does not let its attention be set"
    return ""


def let_go(model: Any) -> None:
    """Undoes `let_share`."""
    if model.config.get_text_config()._attn_implementation == _ATTENTION:
        model.set_attn_implementation({"text_config": "sdpa"})


@dataclass(slots=True)
class _Place:
    """Where the next keys and values go: into the prefix of row `reading`, or if it is None, to `here` in all rows."""

    shape: PassShape
    reading: int | None
    here: Tensor


class _Layer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
    """One layer's keys and values, [images, key heads, keys, dim], allocated once and written in place."""

    is_sliding = False

    def __init__(self, place: _Place) -> None:
        super().__init__()
        self._place = place

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        shape = self._place.shape
        # Zeros, because a NaN among values that are not written yet would spread in spite of the mask.
        self.keys, self.values = (
            each.new_zeros(shape.images, each.shape[1], shape.keys, each.shape[3])
            for each in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        row, prefix = self._place.reading, self._place.shape.prefix
        if row is not None:
            self.keys[row : row + 1, :, :prefix] = key_states
            self.values[row : row + 1, :, :prefix] = value_states
            return key_states, value_states
        self.keys.index_copy_(2, self._place.here, key_states)
        self.values.index_copy_(2, self._place.here, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (self._place.shape.keys if self._place.reading is None else query_length), 0

    def get_seq_length(self) -> int:
        return self._place.shape.prefix if self._place.reading is None else 0

    def get_max_length(self) -> int:
        return self._place.shape.keys


class SharedPass:
    """Up to `shape.images` images, read one by one, then asked `shape.slots` questions each, side by side.

    An image's row of keys is [its prefix | the slots' questions, one after the other | the slots' first new tokens |
    their second | …]. A slot sees the prefix and its own keys, at positions that continue from the prefix. Every tensor
    of a pass has its full size from the start, so `step` is the same computation on the same tensors each time.
    """

    def __init__(self, model: Any, shape: PassShape) -> None:
        self._model, self._shape = model, shape
        device = model.device
        self._here = torch.zeros(shape.slots, dtype=torch.long, device=device)  # where a step's keys go
        self._place = _Place(shape, None, self._here)
        self.cache = Cache(layer_class_to_replicate=lambda: _Layer(self._place))
        self._next = torch.full((shape.images, 1), shape.prefix, device=device)  # the position after each prefix
        self._positions = torch.zeros(shape.images, shape.slots, dtype=torch.long, device=device)
        self._mask = torch.zeros(shape.images, 1, shape.slots, shape.keys, dtype=torch.bool, device=device)
        self._own = torch.eye(shape.slots, dtype=torch.bool, device=device).expand(shape.images, 1, -1, -1)

    def read(self, row: int, inputs: Mapping[str, Tensor]) -> None:
        """Fills `row` with the prefix `inputs` of `shape.prefix` tokens: the only pass over the image."""
        self._place.reading = row
        self._model(**inputs, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self._place.reading = None
        # Models with two-dimensional positions continue from the image's sides, not from its number of tokens.
        delta = getattr(getattr(self._model, "model", self._model), "rope_deltas", None)
        self._next[row] = self._shape.prefix if delta is None else self._shape.prefix + delta.reshape(-1)[0]

    def begin(self, questions: Sequence[Sequence[list[int]]]) -> Tensor:
        """The logits of each slot's first new token, [images, slots, vocabulary]; forgets earlier questions.

        `questions` are `shape.slots` lists of 1 to `shape.width` token ids for each of `shape.images` rows.
        """
        shape, device = self._shape, self._model.device
        pads = torch.tensor([[shape.width - len(tokens) for tokens in row] for row in questions], device=device)
        ids = [[token for tokens in row for token in [0] * (shape.width - len(tokens)) + tokens] for row in questions]
        order = torch.arange(shape.width, device=device)
        real = order >= pads[..., None]  # [images, slots, width]
        positions = self._next[..., None] + (order - pads[..., None]).clamp(min=0)
        self._place.here = torch.arange(shape.slots * shape.width, device=device) + shape.prefix
        logits = self._forward(
            torch.tensor(ids, device=device),
            positions.flatten(1),
            self._question_mask(real),
            (torch.arange(shape.slots, device=device) + 1) * shape.width - 1,
        )
        asked = shape.prefix + shape.slots * shape.width
        self._mask.zero_()
        self._mask[..., : shape.prefix] = True
        self._mask[..., shape.prefix : asked] = (self._own[..., None] & real[:, None, None]).flatten(-2)
        self._positions.copy_(positions[..., -1] + 1)
        self._here.copy_(torch.arange(shape.slots, device=device) + asked)
        self._place.here = self._here
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        """The logits after `tokens` [images, slots], each slot's newest: [images, slots, vocabulary]."""
        self._mask.index_copy_(3, self._here, self._own)
        logits = self._forward(tokens, self._positions, self._mask, 0)
        self._positions += 1
        self._here += self._shape.slots
        return logits

    def _question_mask(self, real: Tensor) -> Tensor:
        """[images, 1, slots · width, keys]: a token sees the prefix and what comes before it in its own slot."""
        shape, device = self._shape, real.device
        mask = torch.zeros(shape.images, shape.slots, shape.width, shape.keys, dtype=torch.bool, device=device)
        mask[..., : shape.prefix] = True
        causal = torch.ones(shape.width, shape.width, dtype=torch.bool, device=device).tril()
        for slot in range(shape.slots):
            start = shape.prefix + slot * shape.width
            mask[:, slot, :, start : start + shape.width] = causal & real[:, slot, None, :]
        return mask.flatten(1, 2)[:, None]

    def _forward(self, tokens: Tensor, positions: Tensor, mask: Tensor, keep: Tensor | int) -> Tensor:
        entered = _in_pass.set(True)
        try:
            logits: Tensor = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=keep,
            ).logits
        finally:
            _in_pass.reset(entered)
        return logits
