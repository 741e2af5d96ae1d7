"""The judge: an image-text-to-text model that answers yes or no about an image, with the probability of its yes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from imgdiffd.errors import BundleError, StageError
from imgdiffd.kernels.compile import attending_layers, parts_beside_attention
from imgdiffd.models.chat import adds_marks, chat_text, image_question
from imgdiffd.models.sampling import end_tokens, plain_generation
from imgdiffd.pipeline import Role

_SPELLINGS = ("{}", " {}")  # a tokenizer may have a separate token for a word after a space

Inputs = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Judgement:
    """`answer` is the greedy one, without leading and trailing white space.

    `yes_probability` is P(yes) / (P(yes) + P(no)) of the answer's first token, over all spellings; NaN where the
    model's logits are not numbers.
    """

    answer: str
    yes_probability: float


class Judge:
    """Reads each image in one prefill, whose logits give the probability and the answer's first token.

    Images whose inputs have the same shape run in passes of exactly `rows_per_pass` rows, spare rows repeating the
    first. So every shape that a judgement is computed in depends on its own image and question alone. Raises
    BundleError where the tokenizer has no token that tells yes from no.
    """

    def __init__(self, model: Any, processor: Any, rows_per_pass: int) -> None:
        self._model, self._processor, self._rows = model, processor, rows_per_pass
        tokenizer = processor.tokenizer
        self._ends = end_tokens(model, tokenizer)
        self._pad = next((token for token in (tokenizer.pad_token_id, *sorted(self._ends)) if token is not None), 0)
        self._context = int(model.config.get_text_config().max_position_embeddings)
        yes, no = _first_tokens(tokenizer, "yes"), _first_tokens(tokenizer, "no")
        self._yes, self._no = sorted(yes - no), sorted(no - yes)
        if not self._yes or not self._no:
            raise BundleError("its tokenizer has no token for yes, or none for no", hint="name another judge")

    def repeated_blocks(self) -> list[nn.Module]:
        """What is worth compiling: norms and feed-forwards. A whole layer would write into the cache."""
        return parts_beside_attention(attending_layers(self._model))

    @torch.inference_mode()
    def judge(self, images: Sequence[Tensor], question: str, max_new_tokens: int) -> list[Judgement]:
        """One judgement per image, uint8 [3, H, W]. An answer that has not ended after `max_new_tokens` is cut there.

        Raises StageError where image, question and answer exceed the model's context, and whatever the model raises.
        """
        prompt = self._prompt(question)
        found: dict[int, Judgement] = {}
        waiting: dict[tuple[object, ...], list[tuple[int, Inputs]]] = {}
        for index, image in enumerate(images):
            inputs = self._inputs(image, prompt)
            self._check_fits(inputs["input_ids"].shape[1] + max_new_tokens)
            group = waiting.setdefault(tuple((key, value.shape) for key, value in inputs.items()), [])
            group.append((index, inputs))
            if len(group) == self._rows:  # a full pass runs right away: the next needs its inputs' memory
                found.update(self._pass(group, max_new_tokens))
                group.clear()
        for group in waiting.values():
            if group:
                found.update(self._pass(group, max_new_tokens))
        return [found[index] for index in range(len(images))]

    def _check_fits(self, needed: int) -> None:
        if needed > self._context:
            raise StageError(
                f"the judge reads {self._context} tokens, but image, question and answer need {needed}",
                hint="use smaller images or a judge with a longer context",
            )

    def _prompt(self, question: str) -> str:
        return chat_text(self._processor, image_question(question), "", Role.JUDGE)

    def _inputs(self, image: Tensor, prompt: str) -> Inputs:
        """The model's inputs for an image and the prompt, from the model's own processor, on the model's device."""
        marks = adds_marks(self._processor.tokenizer, prompt)
        made = self._processor(images=[image.cpu()], text=[prompt], return_tensors="pt", add_special_tokens=marks)
        device, dtype = self._model.device, self._model.dtype
        return {key: value.to(device, dtype if value.is_floating_point() else None) for key, value in made.items()}

    def _pass(self, group: Sequence[tuple[int, Inputs]], max_new_tokens: int) -> list[tuple[int, Judgement]]:
        rows = [inputs for _, inputs in group]
        rows += [rows[0]] * (self._rows - len(rows))
        batch = {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
        with plain_generation(self._model):
            made = self._model.generate(
                **batch,
                do_sample=False,
                num_beams=1,
                max_new_tokens=max_new_tokens,
                eos_token_id=sorted(self._ends),
                pad_token_id=self._pad,
                output_logits=True,
                return_dict_in_generate=True,
            )
        logits = made.logits[0].double()
        # The share of the whole vocabulary cancels out: only the two words' own logits matter.
        margin = logits[:, self._yes].logsumexp(1) - logits[:, self._no].logsumexp(1)
        said = made.sequences[:, batch["input_ids"].shape[1] :].tolist()
        judged = zip(group, said, margin.sigmoid().tolist(), strict=False)  # spare rows are dropped
        return [(index, Judgement(self._text(tokens), probability)) for (index, _), tokens, probability in judged]

    def _text(self, tokens: list[int]) -> str:
        end = next((place for place, token in enumerate(tokens) if token in self._ends), len(tokens))
        text: str = self._processor.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        return text.strip()


def _first_tokens(tokenizer: Any, word: str) -> frozenset[int]:
    """The tokens with which the spellings of `word` begin, without the token for anything unknown."""
    found = set()
    for case in (word, word.capitalize(), word.upper()):
        for spelling in _SPELLINGS:
            tokens = tokenizer(spelling.format(case), add_special_tokens=False)["input_ids"]
            found.add(tokens[0])
    return frozenset(found - {tokenizer.unk_token_id})
