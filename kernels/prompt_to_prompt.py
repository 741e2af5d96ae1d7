"""Prompt-to-Prompt (arXiv 2208.01626) on fused attention: exact, and no attention map is ever stored.

A pass holds n pairs. Its batch is [unguided sources, unguided targets, sources, targets], n each; without guidance the
first half is missing. Only the second half is edited, as in the reference. Injection is linear in the values:

    cross  out_target = attention(q_source, k_source, carried · v_target)
                      + attention(q_target, k_target, kept · v_target)
    self   out_target = attention(q_source, k_source, v_target)

so the fused kernels serve it, with the source's queries and keys in the target's place. A self-injected layer is one
call over all rows, an injected cross-attention one over all rows and a small one more. The rows of an empty prompt that
is all zeros take no part in cross-attention: their output is a constant.

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
from torch.nn import functional

from imgdiffd.kernels.attention import attention
from imgdiffd.kernels.edits import Injection, injected_steps


@dataclass(frozen=True, eq=False)
class _LayerText:
    """One cross-attention layer's keys and values of the captions: the same in all steps, so computed once a pass."""

    key: Tensor  # [rows that attend, heads, tokens, dim]
    value: Tensor
    constant: Tensor  # the layer's output at every position of a row that does not attend, [channels]


@dataclass(eq=False)
class _Pass:
    """The plan that the processors follow; `injected` and `self_max_tokens` are those of the current step."""

    pairs: int
    constant: int  # leading rows of the batch whose text is all zeros
    text: list[_LayerText]
    # For each cross-attention layer, while injecting: the targets' values moved onto source tokens, [n, heads, tokens,
    # dim]; and all rows' values, the targets' being what they keep, or None where none keeps any.
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
                layer.set_processor(_ImageAttention(self, _fused_weight(layer)))

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
        pairs, constant = len(text) // 2, 0
        if guided and unguided_text is None:
            constant = len(text)
        elif guided and unguided_text is not None:
            text = torch.cat([unguided_text.expand_as(text), text])
        self.current = _Pass(pairs, constant, [_layer_text(layer, text) for layer in self._cross])
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
                self.current.injected = _injected(plan, opened, self.current) if any(opened) else None
            in_self = step < injected_steps(plan.self_fraction, self._steps)
            self.current.self_max_tokens = plan.self_max_tokens if in_self else 0


def _refuse_unknown(name: str, layer: Any) -> None:
    extras = ("group_norm", "spatial_norm", "norm_cross", "norm_q", "norm_k", "added_kv_proj_dim")
    found = [extra for extra in extras if getattr(layer, extra, None) is not None]
    found += [f"a bias in {name}" for name in ("to_q", "to_k", "to_v") if getattr(layer, name).bias is not None]
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


def _key_value(layer: Any, context: Tensor) -> tuple[Tensor, Tensor]:
    return _split(layer.to_k(context), layer.heads), _split(layer.to_v(context), layer.heads)


def _fused_weight(layer: Any) -> Tensor:
    """The weights of queries, keys and values as one, [3·channels, channels], which the layer's own become views of."""
    parts = [layer.to_q.weight, layer.to_k.weight, layer.to_v.weight]
    fused = torch.cat([part.data for part in parts])
    for part, view in zip(parts, fused.chunk(3), strict=True):
        part.data = view
    return fused


def _injected(injection: Injection, opened: tuple[bool, ...], current: _Pass) -> list[tuple[Tensor, Tensor | None]]:
    first = current.text[0].value
    carried, kept = injection.shares(opened)
    carried = carried.to(first)[:, None]
    kept = None if kept is None else kept.to(first)[:, None, :, None]
    values: list[tuple[Tensor, Tensor | None]] = []
    for layer in current.text:
        others, target = layer.value[: -current.pairs], layer.value[-current.pairs :]
        values.append((carried @ target, None if kept is None else torch.cat([others, kept * target])))
    return values


def _layer_text(layer: Any, text: Tensor) -> _LayerText:
    # Where a text is all zeros, all values are equal: whatever the softmax, the output is that value, projected.
    constant = layer.to_out[0](layer.to_v(torch.zeros_like(text[0, 0])))
    return _LayerText(*_key_value(layer, text), constant)


@dataclass(frozen=True, eq=False)
class _ImageAttention:
    """Self-attention of one layer; `weight` is as `_fused_weight` makes it."""

    control: PairController
    weight: Tensor

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
            flat = functional.linear(hidden_states, self.weight)
        else:
            flat = self._injected(hidden_states, current.pairs)
        q, k, v = flat.view(*flat.shape[:2], 3, attn.heads, -1).permute(2, 0, 3, 1, 4)
        return _project_out(attn, attention(q, k, v))

    def _injected(self, hidden: Tensor, pairs: int) -> Tensor:
        """Queries, keys and values, [batch, tokens, 3·channels]; the targets' queries and keys are the sources'."""
        channels = hidden.shape[-1]
        flat = hidden.new_empty(*hidden.shape[:2], 3 * channels)
        others, targets = flat[:-pairs], flat[-pairs:]
        torch.mm(hidden[:-pairs].flatten(0, 1), self.weight.T, out=others.flatten(0, 1))
        values = targets.flatten(0, 1)[:, 2 * channels :]
        torch.mm(hidden[-pairs:].flatten(0, 1), self.weight[2 * channels :].T, out=values)
        targets[..., : 2 * channels] = others[-pairs:, :, : 2 * channels]
        return flat


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
            q = _split(attn.to_q(hidden_states), attn.heads)
            return _project_out(attn, attention(q, *_key_value(attn, context)))
        text, constant = current.text[self.layer], current.constant
        injected = None if current.injected is None else current.injected[self.layer]
        out = self._attended(attn, hidden_states[constant:], text, injected)
        if not constant:
            return _project_out(attn, out)
        # Written where it belongs: half of what joining the two would move.
        whole = torch.empty_like(hidden_states)
        whole[:constant] = text.constant
        to_out = attn.to_out[0]
        rows = out.transpose(1, 2).flatten(2).flatten(0, 1)
        torch.addmm(to_out.bias, rows, to_out.weight.T, out=whole[constant:].flatten(0, 1))
        return whole

    @staticmethod
    def _attended(
        attn: Any, hidden_states: Tensor, text: _LayerText, injected: tuple[Tensor, Tensor | None] | None
    ) -> Tensor:
        # All queries, even where the targets' are not read: a product over fewer rows may round differently, and a
        # pair's images would then depend on what the other pairs of its pass keep.
        q = _split(attn.to_q(hidden_states), attn.heads)
        if injected is None:
            return attention(q, text.key, text.value)
        carried, kept = injected
        n = len(carried)
        source = slice(len(q) - 2 * n, len(q) - n)
        target = attention(q[source], text.key[source], carried)
        if kept is None:
            others = attention(q[:-n], text.key[:-n], text.value[:-n])
            return torch.cat([others.transpose(1, 2), target.transpose(1, 2)]).transpose(1, 2)
        out = attention(q, text.key, kept)
        out[-n:].add_(target)
        return out
