"""The rewriter: a language model that is asked, in batches, to replace one object of a caption (paper, section 3.1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import StaticCache

from imgdiffd.kernels.compile import attending_layers, parts_beside_attention
from imgdiffd.kernels.step_graph import StepGraph
from imgdiffd.method.profile_sections import Rewrite
from imgdiffd.models.chat import adds_marks, chat_text, text_question
from imgdiffd.models.sampling import Said, draw, end_tokens, uniforms
from imgdiffd.pipeline import Role

_LENGTH_STEP = 32  # prompts are padded to a multiple of this, so that their width does not depend on batch mates
_KEYS_STEP = 16  # the number of keys is a multiple of this: CUDA's fused kernels then take a mask without copying it


@dataclass(frozen=True, slots=True)
class Answer:
    """`text`, without leading and trailing white space, is None where the model's context is too short for the prompt.

    `truncated` says that the answer had not ended after the profile's number of new tokens.
    """

    text: str | None
    truncated: bool


class Rewriter:
    """A causal LLM with a chat template, or a model that reads images too and is shown none.

    Prompts of similar length run in passes of exactly `rows_per_pass` rows, spare rows repeating the first. So every
    shape that a caption's answer is computed in depends on that caption alone, and so does each of its tokens.
    """

    def __init__(self, model: Any, templated: Any, rows_per_pass: int) -> None:
        """`templated` is the model's tokenizer; of a model that reads images, its processor."""
        self._model, self._templated, self._rows = model, templated, rows_per_pass
        self._tokenizer = getattr(templated, "tokenizer", templated)
        self._ends = end_tokens(model, self._tokenizer)
        self._context = int(model.config.get_text_config().max_position_embeddings)
        self._steps = StepGraph("the rewriter", self._logits)

    def repeated_blocks(self) -> list[nn.Module]:
        """What is worth compiling: norms and feed-forwards. A whole layer would write into the cache."""
        return parts_beside_attention(attending_layers(self._model))

    def graph_steps(self, say: Callable[[str], None]) -> None:
        """Captures the steps after each pass's first as CUDA graphs from now on; `say` hears if that fails."""
        self._steps.enable(say)

    def plain_steps(self) -> None:
        """Captures nothing from now on."""
        self._steps.disable()

    def prompt_tokens(self, caption: str, rewrite: Rewrite) -> list[int]:
        """The token ids that ask for `caption`'s rewrite, including the chat template's.

        Templates of models that think aloud are told not to, since thoughts would fill the answer; others ignore that.
        Raises StageError where the template takes no system prompt, but the profile has one.
        """
        asked = rewrite.prompt.replace("{caption}", caption)
        plain = self._templated is self._tokenizer  # a tokenizer's template writes every mark itself
        content = asked if plain else text_question(asked)
        text = chat_text(self._templated, content, rewrite.system_prompt, Role.REWRITER, enable_thinking=False)
        marks = not plain and adds_marks(self._tokenizer, text)
        tokens: list[int] = self._tokenizer(text, add_special_tokens=marks)["input_ids"]
        return tokens

    @torch.inference_mode()
    def rewrite(self, captions: Sequence[str], seeds: Sequence[int], rewrite: Rewrite) -> list[Answer]:
        """One answer per caption, sampled with its own seed; temperature 0 takes the likeliest tokens.

        Raises whatever the model raises, including torch's OutOfMemoryError.
        """
        prompts = [self.prompt_tokens(caption, rewrite) for caption in captions]
        answers = [Answer(None, truncated=False)] * len(prompts)
        by_width: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompts):
            width = -(-len(prompt) // _LENGTH_STEP) * _LENGTH_STEP
            if len(prompt) + rewrite.max_new_tokens <= self._context:
                by_width.setdefault(width, []).append(row)
        for width, rows in sorted(by_width.items()):
            for start in range(0, len(rows), self._rows):
                chosen = rows[start : start + self._rows]
                with self._steps.one_pass():
                    tokens = self._sample(
                        [prompts[row] for row in chosen], [seeds[row] for row in chosen], width, rewrite
                    )
                for row, ids in zip(chosen, tokens, strict=True):
                    answers[row] = self._answer(ids)
        return answers

    def _answer(self, tokens: list[int]) -> Answer:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return Answer(text.strip(), truncated=tokens[-1] not in self._ends)

    def _sample(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], width: int, rewrite: Rewrite
    ) -> list[list[int]]:
        spare = self._rows - len(prompts)
        filled = [*prompts, *[prompts[0]] * spare]
        device, room = self._model.device, -(-(width + rewrite.max_new_tokens) // _KEYS_STEP) * _KEYS_STEP
        tokens = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in filled], device=device)
        # One mask for all steps: it shows tokens yet to come, which are hidden by their positions as in any causal
        # model. Since it shows them, transformers never drops it for another kernel where no row of a pass is padded.
        mask = torch.ones(len(filled), room, dtype=torch.long, device=device)
        for row, prompt in enumerate(filled):
            mask[row, : width - len(prompt)] = 0
        draws = uniforms([*seeds, *[seeds[0]] * spare], rewrite.max_new_tokens).to(device)
        positions = (mask[:, :width].cumsum(1) - 1).clamp(min=0)
        said = Said(filled, rewrite.repetition_penalty, device)
        cache = StaticCache(config=self._model.config, max_cache_len=room)  # allocated once, written in place
        answers = [list[int]() for _ in prompts]
        for step in range(rewrite.max_new_tokens):
            compute = self._steps if step else self._logits
            (logits,) = compute(tokens, positions, mask=mask, cache=cache)
            chosen = draw(said.penalised(logits), draws[:, step], rewrite.temperature, rewrite.top_p, rewrite.top_k)
            said.add(chosen)
            for answer, token in zip(answers, chosen.tolist(), strict=False):
                if not answer or answer[-1] not in self._ends:
                    answer.append(token)
            if all(answer[-1] in self._ends for answer in answers):
                break
            tokens, positions = chosen[:, None], positions[:, -1:] + 1
        return answers

    def _logits(self, tokens: Tensor, positions: Tensor, *, mask: Tensor, cache: StaticCache) -> tuple[Tensor]:
        seen = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return (seen.logits[:, -1],)
