"""The filters' scores do not hang on how a crop was made: the kernels' and the models' own processors' agree.

Asked of the trained miniature models: with random weights a score hardly moves with the pixels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.kernels.crop import Box, crop
from imgdiffd.method.profile_sections import ImageTextKind
from imgdiffd.mini.world import draw_pair
from imgdiffd.models import blip as blip_module
from imgdiffd.models import clip as clip_module
from imgdiffd.models.loading import Models, load_models
from imgdiffd.pipeline import Role

LIMIT = 5e-3
TEXTS = ("a red ball", "a fish", "a blue car on the grass", "the moon")
WAYS = pytest.mark.parametrize("products", [True, False], ids=["products", "filters"])


@pytest.fixture(scope="module")
def models() -> Models:
    bundle = load_bundle("mini")
    return load_models(bundle, [Role.CLIP, Role.BLIP], torch.device("cpu"), lambda _: None, compile=False)


@pytest.fixture(scope="module")
def looks() -> list[tuple[Tensor, Tensor, list[Box]]]:
    """Pairs of drawn scenes at four times their size, so that crops shrink, and boxes all over them, tiny ones too."""
    rng = np.random.default_rng(11)
    found = []
    for _ in range(4):
        first, second, _ = draw_pair(rng)
        large = [Image.fromarray(each.image).resize((256, 256), Image.Resampling.BICUBIC) for each in (first, second)]
        one, two = (torch.from_numpy(np.array(each)).permute(2, 0, 1).contiguous() for each in large)
        corners = rng.integers(0, 240, (12, 2))
        sizes = rng.integers(1, 200, (12, 2))
        boxes = [
            (int(x), int(y), int(min(256, x + w)), int(min(256, y + h)))
            for (x, y), (w, h) in zip(corners, sizes, strict=True)
        ]
        found.append((one, two, [*boxes, (0, 0, 256, 256)]))
    return found


def processed(processor: Any, image: Tensor, boxes: list[Box]) -> Tensor:
    whole = Image.fromarray(image.permute(1, 2, 0).numpy())
    return torch.cat(
        [torch.as_tensor(processor(images=whole.crop(box), return_tensors="pt")["pixel_values"]) for box in boxes]
    )


@WAYS
def test_crop_cosines_agree_to_five_thousandths(
    models: Models, looks: list[tuple[Tensor, Tensor, list[Box]]], monkeypatch: pytest.MonkeyPatch, products: bool
) -> None:
    monkeypatch.setattr(clip_module, "crop", partial(crop, products=products))
    clip, folder = models.need_clip, load_bundle("mini").folder("clip")
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    for one, two, boxes in looks:
        ours = (clip.embed_crops(one, boxes) * clip.embed_crops(two, boxes)).sum(-1)
        seen = [
            functional.normalize(
                clip._model.get_image_features(pixel_values=processed(processor, image, boxes)).pooler_output, dim=-1
            )
            for image in (one, two)
        ]
        theirs = (seen[0] * seen[1]).sum(-1)
        assert float((ours - theirs).abs().max()) < LIMIT


@WAYS
@pytest.mark.parametrize("kind", ["blip_itc_cosine", "blip_itm_probability"])
def test_text_to_crop_scores_agree_to_five_thousandths(
    models: Models,
    looks: list[tuple[Tensor, Tensor, list[Box]]],
    monkeypatch: pytest.MonkeyPatch,
    kind: ImageTextKind,
    products: bool,
) -> None:
    blip, folder = models.need_blip, load_bundle("mini").folder("blip")
    processor, tokenizer = BlipImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for one, _, boxes in looks:
        texts = [TEXTS[index % len(TEXTS)] for index in range(len(boxes))]
        monkeypatch.setattr(blip_module, "crop", partial(crop, products=products))
        ours = torch.tensor(blip.score(one, boxes, texts, kind))
        theirs = _blip_reference(blip._model, tokenizer, kind)(processed(processor, one, boxes), texts)
        assert float((ours - theirs).abs().max()) < LIMIT


def _blip_reference(model: Any, tokenizer: Any, kind: ImageTextKind) -> Callable[[Tensor, list[str]], Tensor]:
    def score(pixels: Tensor, texts: list[str]) -> Tensor:
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            found = model(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                pixel_values=pixels,
                use_itm_head=kind == "blip_itm_probability",
            ).itm_score
        return torch.as_tensor(found.softmax(-1)[:, 1] if kind == "blip_itm_probability" else found.diagonal())

    return score
