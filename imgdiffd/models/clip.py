"""CLIP or SigLIP: images, crops and texts as unit vectors whose dot products are the cosines of the filters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from imgdiffd.errors import BundleError
from imgdiffd.kernels.compile import attending_layers
from imgdiffd.kernels.crop import CropPlan, crop
from imgdiffd.method.messages import Box

_CROPS_PER_PASS = 64
_TEXTS_PER_PASS = 16


class Clip:
    """A contrastive image and text model. Results are [n, d], float32, of length 1, and do not depend on batch mates.

    CLIP, SigLIP and SigLIP 2 of fixed resolution all give cosines, but each on a scale of its own: a SigLIP's cosines
    are lower and closer together, so thresholds set with one model do not carry over to another.

    Texts longer than the model's context are cut to it, as the model's own processor does on request: region
    descriptions may exceed CLIP's 77 tokens.
    """

    def __init__(self, model: Any, tokenizer: Any, plan: CropPlan) -> None:
        """`model` is one that `refuse_unfit` accepts."""
        self._model, self._tokenizer, self._plan = model, tokenizer, plan
        # SigLIP was trained on lower-case texts padded to full length, with the padding unmasked; not every saved
        # tokenizer does that.
        self._is_siglip = model.config.model_type == "siglip"
        text = model.config.text_config
        self._text_tokens = int(text.max_position_embeddings)
        self._width = int(text.projection_size if self._is_siglip else model.config.projection_dim)

    def repeated_blocks(self) -> list[nn.Module]:
        """The layers of both towers, which are worth compiling."""
        return attending_layers(self._model)

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Tensor]) -> Tensor:
        """The vectors of whole images, uint8 [3, H, W]; one pass per image, so that mates and sizes do not matter."""
        whole = [self._embed(crop(p, [(0, 0, p.shape[2], p.shape[1])], self._plan)) for p in images]
        return torch.cat(whole) if whole else self._none()

    @torch.inference_mode()
    def embed_crops(self, image: Tensor, boxes: Sequence[Box]) -> Tensor:
        """The vectors of the boxes of one image, uint8 [3, H, W]. Raises ValueError for a box outside of it."""
        parts = [
            self._embed(crop(image, boxes[start : start + _CROPS_PER_PASS], self._plan))
            for start in range(0, len(boxes), _CROPS_PER_PASS)
        ]
        return torch.cat(parts) if parts else self._none()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """The vectors of texts, computed in passes of a fixed shape."""
        parts = []
        for start in range(0, len(texts), _TEXTS_PER_PASS):
            chosen = list(texts[start : start + _TEXTS_PER_PASS])
            filled = chosen + chosen[:1] * (_TEXTS_PER_PASS - len(chosen))
            features = self._model.get_text_features(**self._tokens(filled)).pooler_output[: len(chosen)]
            parts.append(functional.normalize(features.float(), dim=-1))
        return torch.cat(parts) if parts else self._none()

    def _tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The texts as ids [texts, context]; without a mask for a SigLIP, which reads its padding too."""
        said = [text.lower() for text in texts] if self._is_siglip else list(texts)
        tokens = self._tokenizer(
            said, padding="max_length", truncation=True, max_length=self._text_tokens, return_tensors="pt"
        ).to(self._model.device)
        wanted = ("input_ids",) if self._is_siglip else ("input_ids", "attention_mask")
        return {key: tokens[key] for key in wanted}

    def _embed(self, pixels: Tensor) -> Tensor:
        features = self._model.get_image_features(pixel_values=pixels.to(self._model.dtype)).pooler_output
        return functional.normalize(features.float(), dim=-1)

    def _none(self) -> Tensor:
        return torch.zeros(0, self._width, device=self._model.device)


def refuse_unfit(model: Any) -> None:
    """Raises BundleError where `model` does not embed images of one shape, and texts."""
    hint = "name a CLIP, a SigLIP or a SigLIP 2 of fixed resolution"
    if model.config.model_type == "siglip2":
        raise BundleError("it takes images of any shape in patches, but crops are resized to one shape", hint=hint)
    if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
        raise BundleError(f"a {type(model).__name__} does not embed images and texts", hint=hint)
