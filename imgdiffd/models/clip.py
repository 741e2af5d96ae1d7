"""CLIP: pictures, crops and texts as unit vectors whose dot products are the cosines of the filters.

It owns passes and normalisation; preprocessing is `kernels.crop`, thresholds are the profile's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from imgdiffd.kernels.crop import CropPlan, crop
from imgdiffd.message import Box

_CROPS_PER_PASS = 64
_TEXTS_PER_PASS = 16


class Clip:
    """A contrastive picture and text model. Every result is [n, d], float32, of length 1, whatever its batch mates.

    Texts longer than the model's context are cut to it, as the model's own processor does on request: region
    descriptions may exceed CLIP's 77 tokens.
    """

    def __init__(self, model: Any, tokenizer: Any, plan: CropPlan) -> None:
        self._model, self._tokenizer, self._plan = model, tokenizer, plan
        self._text_tokens = int(model.config.text_config.max_position_embeddings)

    @torch.inference_mode()
    def embed_pictures(self, pictures: Sequence[Tensor]) -> Tensor:
        """Whole pictures, uint8 [3, H, W] each; one pass a picture, so that mates and sizes do not matter."""
        whole = [self._embed(crop(p, [(0, 0, p.shape[2], p.shape[1])], self._plan)) for p in pictures]
        return torch.cat(whole) if whole else self._none()

    @torch.inference_mode()
    def embed_crops(self, picture: Tensor, boxes: Sequence[Box]) -> Tensor:
        """The boxes of one picture."""
        parts = [
            self._embed(crop(picture, boxes[start : start + _CROPS_PER_PASS], self._plan))
            for start in range(0, len(boxes), _CROPS_PER_PASS)
        ]
        return torch.cat(parts) if parts else self._none()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts, in passes of a fixed shape."""
        parts = []
        for start in range(0, len(texts), _TEXTS_PER_PASS):
            chosen = list(texts[start : start + _TEXTS_PER_PASS])
            filled = chosen + chosen[:1] * (_TEXTS_PER_PASS - len(chosen))
            tokens = self._tokenizer(
                filled, padding="max_length", truncation=True, max_length=self._text_tokens, return_tensors="pt"
            ).to(self._model.device)
            features = self._model.get_text_features(**tokens).pooler_output[: len(chosen)]
            parts.append(functional.normalize(features.float(), dim=-1))
        return torch.cat(parts) if parts else self._none()

    def _embed(self, pixels: Tensor) -> Tensor:
        features = self._model.get_image_features(pixel_values=pixels.to(self._model.dtype)).pooler_output
        return functional.normalize(features.float(), dim=-1)

    def _none(self) -> Tensor:
        return torch.zeros(0, self._model.config.projection_dim, device=self._model.device)
