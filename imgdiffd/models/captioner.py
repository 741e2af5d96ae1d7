"""The captioner: an image-text-to-text model that answers questions about pictures (paper, sections 3.3 and 3.4).

It owns prompts, prefill and greedy decoding; it does not know what is asked or why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from imgdiffd.errors import StageError
from imgdiffd.models.sampling import end_tokens

_LENGTH_STEP = 16  # questions are padded to a multiple of this, so that their width hangs on no batch mate

Layers = list[tuple[Tensor, Tensor]]  # keys and values of each layer, [1, heads, tokens, dim]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question: `prefix` holds the picture and what stands before it, `tokens` is what comes after."""

    picture: int
    question: int
    prefix: Layers
    tokens: list[int]


class Captioner:
    """Answers greedily. One prefill a picture serves all its questions.

    Questions of like length run in passes of exactly `rows_per_pass` rows, spare rows repeating the first, so every
    shape that an answer is computed in depends on its own picture and question alone.
    """

    def __init__(self, model: Any, processor: Any, rows_per_pass: int) -> None:
        self._model, self._processor, self._rows = model, processor, rows_per_pass
        self._ends = end_tokens(model, processor.tokenizer)
        self._context = int(model.config.get_text_config().max_position_embeddings)
        # Models with positions in two dimensions count them from the picture; for those, each question is asked whole.
        self._shares_prefix = not hasattr(getattr(model, "model", model), "get_rope_index")

    @torch.inference_mode()
    def answer(
        self, pictures: Sequence[Tensor], questions: Sequence[Sequence[str]], max_new_tokens: int
    ) -> list[list[str]]:
        """Each picture's answers, in the order of its questions, outer white space removed.

        Pictures are uint8 [3, H, W]. An answer that has not ended after `max_new_tokens` is cut there. Raises
        StageError where picture, question and answer exceed the model's context, and whatever the model raises.
        """
        answers = [[""] * len(asked) for asked in questions]
        if not self._shares_prefix:
            for index, (picture, asked) in enumerate(zip(pictures, questions, strict=True)):
                answers[index] = [self._answer_alone(picture, question, max_new_tokens) for question in asked]
            return answers
        waiting: dict[tuple[int, int], list[_Asked]] = {}
        for index, (picture, asked) in enumerate(zip(pictures, questions, strict=True)):
            for entry in self._prefilled(index, picture, asked):
                self._check_fits(entry, max_new_tokens)
                width = -(-len(entry.tokens) // _LENGTH_STEP) * _LENGTH_STEP
                group = waiting.setdefault((entry.prefix[0][0].shape[2], width), [])
                group.append(entry)
                if len(group) == self._rows:  # a full pass runs at once: its prefixes' memory is needed for the next
                    self._finish(group, width, max_new_tokens, answers)
                    group.clear()
        for (_, width), group in waiting.items():
            if group:
                self._finish(group, width, max_new_tokens, answers)
        return answers

    def _check_fits(self, entry: _Asked, max_new_tokens: int) -> None:
        needed = entry.prefix[0][0].shape[2] + len(entry.tokens) + max_new_tokens
        if needed > self._context:
            raise StageError(
                f"the captioner reads {self._context} tokens, picture, question and answer need {needed}",
                hint="use smaller pictures, shorter answers or a captioner with a longer context",
            )

    def _finish(self, group: Sequence[_Asked], width: int, max_new_tokens: int, answers: list[list[str]]) -> None:
        for entry, tokens in zip(group, self._decode(group, width, max_new_tokens), strict=True):
            answers[entry.picture][entry.question] = self._text(tokens)

    def _text(self, tokens: list[int]) -> str:
        text: str = self._processor.tokenizer.decode(tokens, skip_special_tokens=True)
        return text.strip()

    def _prompt(self, question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        asked = [{"role": "user", "content": content}]
        text: str = self._processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        return text

    def _adds_marks(self, prompt: str) -> bool:
        """Whether the tokenizer adds its mark of beginning: where the chat template has not (the processors' rule)."""
        begin = self._processor.tokenizer.bos_token
        return begin is None or not prompt.startswith(begin)

    def _inputs(self, picture: Tensor, prompt: str) -> dict[str, Tensor]:
        """What the model's own processor makes of a picture and a prompt, on the model's device."""
        made = self._processor(
            images=[picture.cpu()], text=[prompt], return_tensors="pt", add_special_tokens=self._adds_marks(prompt)
        )
        moved = {key: value.to(self._model.device) for key, value in made.items()}
        return {
            key: value.to(self._model.dtype) if value.is_floating_point() else value for key, value in moved.items()
        }

    def _after_picture(self, prompt: str) -> list[int]:
        """The ids behind the prompt's picture mark: a special token, so the text behind it is cut on its own."""
        marks = self._adds_marks(prompt)
        tokens: list[int] = self._processor.tokenizer(prompt, add_special_tokens=marks)["input_ids"]
        mark = self._processor.tokenizer.convert_tokens_to_ids(self._processor.image_token)
        return tokens[len(tokens) - tokens[::-1].index(mark) :]

    def _prefilled(self, index: int, picture: Tensor, questions: Sequence[str]) -> list[_Asked]:
        if not questions:
            return []
        prompts = [self._prompt(question) for question in questions]
        behind = [self._after_picture(prompt) for prompt in prompts]
        inputs = self._inputs(picture, prompts[0])
        length = inputs["input_ids"].shape[1] - len(behind[0])
        for key in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"):
            if key in inputs:
                inputs[key] = inputs[key][:, :length]
        cache = self._model(**inputs, past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1).past_key_values
        prefix = [(layer.keys, layer.values) for layer in cache.layers]
        return [_Asked(index, number, prefix, tokens) for number, tokens in enumerate(behind)]

    def _decode(self, group: Sequence[_Asked], width: int, max_new_tokens: int) -> list[list[int]]:
        """The new tokens of up to `rows_per_pass` questions whose prefixes are equally long."""
        filled = [*group, *[group[0]] * (self._rows - len(group))]
        layers = zip(*[entry.prefix for entry in filled], strict=True)
        cache = DynamicCache([(torch.cat([k for k, _ in rows]), torch.cat([v for _, v in rows])) for rows in layers])
        device, start = self._model.device, cache.get_seq_length()
        pads = [width - len(entry.tokens) for entry in filled]
        tokens = torch.tensor(
            [[0] * pad + entry.tokens for pad, entry in zip(pads, filled, strict=True)], device=device
        )
        rows = [[1] * start + [0] * pad + [1] * (width - pad) for pad in pads]
        mask = torch.tensor(rows, device=device)
        positions = mask.cumsum(1)[:, start:] - 1
        answers = [list[int]() for _ in group]
        for _ in range(max_new_tokens):
            seen = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen = seen.logits[:, -1].float().argmax(-1)
            for answer, token in zip(answers, chosen.tolist(), strict=False):
                if not answer or answer[-1] not in self._ends:
                    answer.append(token)
            if all(answer[-1] in self._ends for answer in answers):
                break
            tokens, positions = chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(filled), 1)], dim=1)
        return answers

    def _answer_alone(self, picture: Tensor, question: str, max_new_tokens: int) -> str:
        inputs = self._inputs(picture, self._prompt(question))
        made = self._model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
        return self._text(made[0, inputs["input_ids"].shape[1] :].tolist())
