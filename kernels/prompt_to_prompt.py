"""Prompt-to-Prompt (arXiv 2208.01626) on fused attention: exact, and no attention map is ever stored.

A pass holds n pairs. Its batch is [unguided sources, unguided targets, sources, targets], n each; without guidance the
first half is missing. Only the second half is edited, as in the reference. Injection is linear in the values:

    cross  out_target = attention(q_source, k_source, carried · v_target)
                      + attention(q_target, k_target, kept · v_target)
    self   out_target = attention(q_source, k_source, v_target)

so the source's softmax serves its own values and the target's, joined along the head dimension, in one call. Where
nothing is kept in any pair, the second call is left out.

In the words of the paper and its code: `PairController` is the AttentionControl, `carried` and `kept` are what mapper,
alphas and equalizer amount to, and the steps of an injection are cross_replace_steps and self_replace_steps. LocalBlend
is left out. It confines an edit to a mask made of the attention maps of chosen words, averaged over the steps, which
fused attention never forms; nor is it needed here, where the locate stage finds what has changed wherever it is.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from imgdiffd.kernels.attention import attention
from imgdiffd.kernels.edits import Injection, injected_steps


@dataclass(frozen=True, eq=False)
class _LayerText:
    """One cross-attention layer's keys and values of the captions: the same in all steps, so computed once a pass."""

    key: Tensor  # [2n, heads, tokens, dim]
    value: Tensor
    # The empty prompt's key and value, [1, heads, tokens, dim] each; or, where that prompt is all zeros, the layer's
    # output at every position, [channels].
    unguided: tuple[Tensor, Tensor] | Tensor


@dataclass(eq=False)
class _Pass:
    """The plan that the processors follow; `injected` and `self_max_tokens` are those of the current step."""

    pairs: int
    unguided: int  # leading rows of the batch that are never edited
    text: list[_LayerText]
    # For each cross-attention layer, while injecting: the sources' values joined with the targets' values moved onto
    # source tokens, [n, heads, tokens, 2·dim]; and what the targets keep of theirs, [n, heads, tokens, dim] or None.
    injected: list[tuple[Tensor, Tensor | None]] | None = None
    opened: tuple[bool, ...] = ()  # the spans that `injected` was made for
    self_max_tokens: int = 0


class PairController:
    """The paper's AttentionControl: a UNet's processors, which outside `painting` attend as the stock ones do."""

    def __init__(self, unet: nn.Module) -> None:
        """Raises ValueError naming a layer of a kind that SDXL does not have."""
        self._cross: list[Any] = []
        self._stock: list[tuple[Any, object]] = []
        self._injection: Injection | None = None
        self._steps = 0
        self.current: _Pass | None = None
        layers = [(name, layer) for name, layer in unet.named_modules() if hasattr(layer, "set_processor")]
        for name, layer in layers:
            _refuse_unknown(name, layer)
        for _, layer in layers:
            self._stock.append((layer, layer.processor))
            if layer.is_cross_attention:
                layer.set_processor(_TextAttention(self, len(self._cross)))
                self._cross.append(layer)
            else:
                layer.set_processor(_ImageAttention(self))

    @property
    def phase(self) -> Hashable | None:
        """Equal for two steps that run the same kernels on the same tensors; None outside `painting`."""
        current = self.current
        return None if current is None else (current, current.opened, current.self_max_tokens)

    def remove(self) -> None:
        """Restores the processors that the UNet had before."""
        for layer, processor in self._stock:
            layer.set_processor(processor)

    @contextmanager
    def painting(
        self,
        text: Tensor,
        unguided_text: Tensor | None,
        *,
        guided: bool,
        injection: Injection | None,
        steps: int,
    ) -> Iterator[None]:
        """One pass: every UNet call inside belongs to it.

        `text` [2n, tokens, width] holds the n sources, then the n targets. `unguided_text` [1, tokens, width] is the
        encoded empty prompt, None where it is all zeros (SDXL); it is read only if `guided`. Without an injection the
        images of a pair share no attention.
        """
        pairs = len(text) // 2
        layers = [_layer_text(layer, text, unguided_text) for layer in self._cross]
        self.current = _Pass(pairs, 2 * pairs if guided else 0, layers)
        self._injection, self._steps = injection, steps
        try:
            yield
        finally:
            self.current = self._injection = None

    def enter_step(self, step: int) -> None:
        """The UNet calls from here on belong to `step`, counted from 0. Raises RuntimeError outside `painting`."""
        if self.current is None:
            raise RuntimeError("enter_step was called outside painting(): call it inside that block")
        if self._injection is not None:
            plan = self._injection
            opened = plan.open_spans(step, self._steps)
            if opened != self.current.opened:  # else the values of the step before still hold
                self.current.opened = opened
                self.current.injected = _injected(plan, opened, self.current.text) if any(opened) else None
            in_self = step < injected_steps(plan.self_fraction, self._steps)
            self.current.self_max_tokens = plan.self_max_tokens if in_self else 0


def _refuse_unknown(name: str, layer: Any) -> None:
    extras = ("group_norm", "spatial_norm", "norm_cross", "norm_q", "norm_k", "added_kv_proj_dim")
    found = [extra for extra in extras if getattr(layer, extra, None) is not None]
    if layer.residual_connection or layer.rescale_output_factor != 1 or not layer.scale_qk:
        found.append("a rescaled output")
    if found:
        raise ValueError(
            f"attention layer {name} has {', '.join(found)}, which SDXL's layers do not have; use an SDXL UNet"
        )


def _refuse_mask(mask: Tensor | None) -> None:
    if mask is not None:
        raise ValueError("an attention mask was given: Prompt-to-Prompt on SDXL takes none, so leave it out")


def _split(flat: Tensor, heads: int) -> Tensor:
    """[batch, tokens, heads·dim] -> [batch, heads, tokens, dim]."""
    return flat.view(*flat.shape[:-1], heads, -1).transpose(1, 2)


def _project_out(layer: Any, out: Tensor) -> Tensor:
    """[batch, heads, tokens, dim] -> the layer's output [batch, tokens, channels]."""
    projected: Tensor = layer.to_out[0](out.transpose(1, 2).flatten(2))
    return projected


def _attend(layer: Any, hidden: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return _project_out(layer, attention(_split(layer.to_q(hidden), layer.heads), key, value))


def _key_value(layer: Any, context: Tensor) -> tuple[Tensor, Tensor]:
    return _split(layer.to_k(context), layer.heads), _split(layer.to_v(context), layer.heads)


def _injected(
    injection: Injection, opened: tuple[bool, ...], text: list[_LayerText]
) -> list[tuple[Tensor, Tensor | None]]:
    first = text[0].value
    carried, kept = injection.shares(opened)
    carried = carried.to(first)[:, None]
    kept = None if kept is None else kept.to(first)[:, None, :, None]
    values: list[tuple[Tensor, Tensor | None]] = []
    for layer in text:
        source, target = layer.value.chunk(2)
        joined = torch.cat([source, carried @ target], dim=-1)
        values.append((joined, None if kept is None else kept * target))
    return values


def _layer_text(layer: Any, text: Tensor, unguided_text: Tensor | None) -> _LayerText:
    key, value = _key_value(layer, text)
    if unguided_text is not None:
        return _LayerText(key, value, _key_value(layer, unguided_text))
    # All keys are equal and so are all values: whatever the softmax, the output is that value, projected.
    return _LayerText(key, value, layer.to_out[0](layer.to_v(torch.zeros_like(text[0, 0]))))


@dataclass(frozen=True, eq=False)
class _ImageAttention:
    """Self-attention of one layer."""

    control: PairController

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        _refuse_mask(attention_mask)
        current = self.control.current
        if current is None or hidden_states.shape[1] > current.self_max_tokens:
            return _attend(attn, hidden_states, *_key_value(attn, hidden_states))
        unguided, edited = current.unguided, current.unguided + current.pairs
        q, k = (_split(project(hidden_states[:edited]), attn.heads) for project in (attn.to_q, attn.to_k))
        v = _split(attn.to_v(hidden_states), attn.heads)
        joined = torch.cat([v[unguided:edited], v[edited:]], dim=-1)
        out = list(attention(q[unguided:], k[unguided:], joined).chunk(2, dim=-1))
        if unguided:
            out.insert(0, attention(q[:unguided], k[:unguided], v[:unguided]))
        return _project_out(attn, torch.cat(out))


@dataclass(frozen=True, eq=False)
class _TextAttention:
    """Cross-attention of one layer; `layer` counts the UNet's cross-attention layers from 0."""

    control: PairController
    layer: int

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        _refuse_mask(attention_mask)
        current = self.control.current
        if current is None:
            context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            return _attend(attn, hidden_states, *_key_value(attn, context))
        text, unguided = current.text[self.layer], current.unguided
        injected = None if current.injected is None else current.injected[self.layer]
        out = self._guided(attn, hidden_states[unguided:], text, injected)
        if not unguided:
            return out
        rest = hidden_states[:unguided]
        if isinstance(text.unguided, Tensor):
            return torch.cat([text.unguided.expand(*rest.shape[:2], -1), out])
        key, value = (each.expand(unguided, -1, -1, -1) for each in text.unguided)
        return torch.cat([_attend(attn, rest, key, value), out])

    @staticmethod
    def _guided(
        attn: Any, hidden_states: Tensor, text: _LayerText, injected: tuple[Tensor, Tensor | None] | None
    ) -> Tensor:
        if injected is None:
            return _attend(attn, hidden_states, text.key, text.value)
        joined, kept = injected
        # All queries, even where the targets' are not read: a product over fewer rows may round differently, and a
        # pair's images would then depend on what the other pairs of its pass keep.
        q, n = _split(attn.to_q(hidden_states), attn.heads), len(joined)
        source, target = attention(q[:n], text.key[:n], joined).chunk(2, dim=-1)
        if kept is not None:
            target = target + attention(q[n:], text.key[n:], kept)
        return _project_out(attn, torch.cat([source, target]))
