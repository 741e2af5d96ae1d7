"""BLIP's scores: those of the model's own forward pass, with each crop looked at once."""

from typing import Any

import pytest
import torch
from torch import Tensor

from imgdiffd.kernels.crop import CropPlan
from imgdiffd.method.profile_sections import ImageTextKind
from imgdiffd.models.blip import Blip
from tests.tiny import models as tiny_models

BOXES = [(0, 0, 60, 40), (5, 6, 30, 38), (0, 0, 60, 40), (50, 30, 51, 31), (5, 6, 30, 38)]
TEXTS = ["a red ball", "cat", "dog", "a cat on the grass", "the dog " * 30]
KINDS: tuple[ImageTextKind, ...] = ("blip_itc_cosine", "blip_itm_probability")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    from transformers import AutoTokenizer, BlipForImageTextRetrieval, BlipImageProcessor

    folder = tmp_path_factory.mktemp("blip")
    tiny_models.save_blip(folder)
    model = BlipForImageTextRetrieval.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder), BlipImageProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def blip(parts: tuple[Any, Any, Any]) -> Blip:
    return Blip(parts[0], parts[1], CropPlan.from_image_processor(parts[2]))


@pytest.fixture(scope="module")
def image() -> Tensor:
    coarse = torch.rand(1, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, (40, 60), mode="bicubic")[0]
    return (fine.clamp(0, 1) * 255).to(torch.uint8)


def reference(parts: Any, image: Tensor, box: tuple[int, int, int, int], text: str, kind: ImageTextKind) -> float:
    model, tokenizer, processor = parts
    x1, y1, x2, y2 = box
    pixels = processor(images=[image[:, y1:y2, x1:x2]], return_tensors="pt")["pixel_values"]
    tokens = tokenizer(text, truncation=True, max_length=24, return_tensors="pt")
    with torch.inference_mode():
        score = model(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=pixels,
            use_itm_head=kind == "blip_itm_probability",
        ).itm_score
    return float(score[0].softmax(-1)[1] if kind == "blip_itm_probability" else score[0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_each_box_is_scored_with_the_text_of_its_place(
    blip: Blip, parts: Any, image: Tensor, kind: ImageTextKind
) -> None:
    scores = blip.score(image, BOXES, TEXTS, kind)
    expected = [reference(parts, image, box, text, kind) for box, text in zip(BOXES, TEXTS, strict=True)]
    assert scores == pytest.approx(expected, abs=5e-3)
    assert len({round(score, 3) for score in scores}) == len(scores)


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_with_several_texts_is_looked_at_once(
    blip: Blip, parts: Any, image: Tensor, kind: ImageTextKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    forward = parts[0].vision_model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal looked
        looked += len(kwargs["pixel_values"])
        return forward(*args, **kwargs)

    monkeypatch.setattr(parts[0].vision_model, "forward", counted)
    blip.score(image, BOXES, TEXTS, kind)
    assert looked == 3


@pytest.mark.parametrize("kind", KINDS)
def test_many_pairs_are_scored_in_several_passes(blip: Blip, image: Tensor, kind: ImageTextKind) -> None:
    boxes = [(x, y, x + 9, y + 7) for x in range(0, 50, 5) for y in range(0, 30, 3)]
    texts = [TEXTS[index % 4] for index in range(len(boxes))]
    scores = blip.score(image, boxes, texts, kind)
    assert len(scores) == 100
    assert scores[77] == pytest.approx(blip.score(image, boxes[77:78], texts[77:78], kind)[0], abs=1e-5)


def test_boxes_and_texts_of_unequal_number_are_refused(blip: Blip, image: Tensor) -> None:
    with pytest.raises(ValueError, match="5 boxes but 1 texts"):
        blip.score(image, BOXES, TEXTS[:1], "blip_itc_cosine")


def test_no_boxes_have_no_scores(blip: Blip, image: Tensor) -> None:
    assert blip.score(image, [], [], "blip_itc_cosine") == []
