"""BLIP: how well a text fits a crop, as the contrastive cosine (ITC) or the matching head's probability (ITM)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from imgdiffd.kernels.compile import attending_layers
from imgdiffd.kernels.crop import CropPlan, crop
from imgdiffd.method.messages import Box
from imgdiffd.method.profile_sections import ImageTextKind

_CROPS_PER_PASS = 32
_TEXTS_PER_PASS = 64


class Blip:
    """A BlipForImageTextRetrieval. Texts longer than its text encoder's context are cut to that."""

    def __init__(self, model: Any, tokenizer: Any, plan: CropPlan) -> None:
        self._model, self._tokenizer, self._plan = model, tokenizer, plan
        self._text_tokens = int(model.config.text_config.max_position_embeddings)

    def repeated_blocks(self) -> list[nn.Module]:
        """The layers of both towers, which are worth compiling."""
        return attending_layers(self._model)

    @torch.inference_mode()
    def score(self, image: Tensor, boxes: Sequence[Box], texts: Sequence[str], kind: ImageTextKind) -> list[float]:
        """The raw score of each box of `image` (uint8 [3, H, W]) with the text at the same index.

        A box given with several texts is encoded once; for cosines, so is a text given with several boxes. Raises
        ValueError where `boxes` and `texts` differ in number.
        """
        if len(boxes) != len(texts):
            raise ValueError(f"{len(boxes)} boxes but {len(texts)} texts")
        looks = list(dict.fromkeys(boxes))
        place = {box: row for row, box in enumerate(looks)}
        by_box: dict[Box, list[int]] = {}
        for index, box in enumerate(boxes):
            by_box.setdefault(box, []).append(index)
        found: dict[int, float] = {}
        for start in range(0, len(looks), _CROPS_PER_PASS):
            chosen = looks[start : start + _CROPS_PER_PASS]
            pairs = [index for box in chosen for index in by_box[box]]
            rows = torch.tensor([place[boxes[index]] - start for index in pairs], device=self._model.device)
            seen = self._look(crop(image, chosen, self._plan))
            said = [texts[index] for index in pairs]
            values = self._cosines(seen, rows, said) if kind == "blip_itc_cosine" else self._matches(seen, rows, said)
            found.update(zip(pairs, values.tolist(), strict=True))
        return [found[index] for index in range(len(boxes))]

    def _look(self, pixels: Tensor) -> Tensor:
        """The vision tower's last states, [n, patches + 1, d]."""
        states: Tensor = self._model.vision_model(pixel_values=pixels.to(self._model.dtype)).last_hidden_state
        return states

    def _tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._text_tokens, return_tensors="pt"
        ).to(self._model.device)
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    def _cosines(self, seen: Tensor, rows: Tensor, texts: Sequence[str]) -> Tensor:
        unique = list(dict.fromkeys(texts))
        vectors = []
        for start in range(0, len(unique), _TEXTS_PER_PASS):
            tokens = self._tokens(unique[start : start + _TEXTS_PER_PASS])
            first = self._model.text_encoder(**tokens).last_hidden_state[:, 0]
            vectors.append(functional.normalize(self._model.text_proj(first).float(), dim=-1))
        said = torch.cat(vectors)[torch.tensor([unique.index(text) for text in texts], device=rows.device)]
        shown = functional.normalize(self._model.vision_proj(seen[:, 0]).float(), dim=-1)[rows]
        return (shown * said).sum(-1)

    def _matches(self, seen: Tensor, rows: Tensor, texts: Sequence[str]) -> Tensor:
        """The probability of "match", class 1 of the matching head, whose text encoder attends to the crop."""
        parts = []
        for start in range(0, len(texts), _TEXTS_PER_PASS):
            tokens = self._tokens(texts[start : start + _TEXTS_PER_PASS])
            shown = seen[rows[start : start + _TEXTS_PER_PASS]]
            states = self._model.text_encoder(
                **tokens,
                encoder_hidden_states=shown,
                encoder_attention_mask=torch.ones(shown.shape[:2], dtype=torch.long, device=shown.device),
            ).last_hidden_state
            parts.append(self._model.itm_head(states[:, 0]).float().softmax(-1)[:, 1])
        return torch.cat(parts)
