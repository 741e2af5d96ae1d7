"""Questions about an image as tokens: the prefix that holds the image, and what comes after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from imgdiffd.models.chat import adds_marks, chat_text, image_question
from imgdiffd.pipeline import Role

_TEXT_FILL = {"attention_mask": 1, "token_type_ids": 0, "mm_token_type_ids": 0}  # for each token of text
_PER_TOKEN = ("input_ids", *_TEXT_FILL)


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """An image and the questions about it: `inputs` is what the model takes for the image and everything before it.

    `tokens` are each question's ids after that, including its marks and the opening of the answer.
    """

    inputs: dict[str, Tensor]
    tokens: list[list[int]]

    @property
    def prefix(self) -> int:
        """How many tokens the image and everything before it take."""
        return self.inputs["input_ids"].shape[1]


class ImagePrompts:
    """Makes prompts of one image and one question each, for transformers' standard models and processors."""

    def __init__(self, processor: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._processor, self._device, self._dtype = processor, device, dtype

    def cut(self, image: Tensor, questions: Sequence[str], system_prompt: str = "") -> ImagePrompt:
        """The prompts of one `image`, uint8 [3, H, W], and at least one question, cut after the image."""
        texts = [self._text(question, system_prompt) for question in questions]
        behind = [self._behind_image(text) for text in texts]
        inputs = self._inputs(image, texts[0])
        length = inputs["input_ids"].shape[1] - len(behind[0])
        return ImagePrompt(
            {key: value[:, :length] if key in _PER_TOKEN else value for key, value in inputs.items()}, behind
        )

    def whole(self, image: Tensor, question: str, system_prompt: str = "") -> dict[str, Tensor]:
        """The model's inputs for `image`, uint8 [3, H, W], and `question` together."""
        return self._inputs(image, self._text(question, system_prompt))

    def longer(self, inputs: dict[str, Tensor], token: int) -> dict[str, Tensor]:
        """`inputs`, as `whole` makes them, with one more `token` of text at their end."""
        added = {"input_ids": token, **_TEXT_FILL}
        return {
            key: torch.cat([value, value.new_full((1, 1), added[key])], dim=1) if key in added else value
            for key, value in inputs.items()
        }

    def read(self, tokens: Sequence[int]) -> str:
        """An answer's text, without special tokens and without leading and trailing white space."""
        text: str = self._processor.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()

    def _text(self, question: str, system_prompt: str) -> str:
        return chat_text(self._processor, image_question(question), system_prompt, Role.CAPTIONER)

    def _inputs(self, image: Tensor, text: str) -> dict[str, Tensor]:
        """The model's inputs for an image and a prompt, from the model's own processor, on the model's device."""
        made = self._processor(
            images=[image.cpu()],
            text=[text],
            return_tensors="pt",
            add_special_tokens=adds_marks(self._processor.tokenizer, text),
        )
        moved = {key: value.to(self._device) for key, value in made.items()}
        return {key: value.to(self._dtype) if value.is_floating_point() else value for key, value in moved.items()}

    def _behind_image(self, text: str) -> list[int]:
        """The ids after the prompt's image mark, a special token: the text after it is tokenized on its own."""
        tokens: list[int] = self._processor.tokenizer(
            text, add_special_tokens=adds_marks(self._processor.tokenizer, text)
        )["input_ids"]
        mark = self._processor.tokenizer.convert_tokens_to_ids(self._processor.image_token)
        return tokens[len(tokens) - tokens[::-1].index(mark) :]
