"""CLIP's vectors: those of the model behind its own processor, of length 1, whatever the batch mates."""

from typing import Any

import pytest
import torch
from torch import Tensor

from imgdiffd.kernels.crop import CropPlan
from imgdiffd.models.clip import Clip
from tests.tiny import models as tiny_models

TEXTS = ["a red ball", "a cat on the grass", "the dog " * 30]
BOXES = [(0, 0, 60, 40), (5, 6, 30, 38), (59, 39, 60, 40), (0, 0, 8, 40)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    from transformers import AutoModel, AutoTokenizer, CLIPImageProcessor

    folder = tmp_path_factory.mktemp("clip")
    tiny_models.save_clip(folder)
    model = AutoModel.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder), CLIPImageProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def clip(parts: tuple[Any, Any, Any]) -> Clip:
    return Clip(parts[0], parts[1], CropPlan.from_image_processor(parts[2]))


@pytest.fixture(scope="module")
def image() -> Tensor:
    coarse = torch.rand(1, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, (40, 60), mode="bicubic")[0]
    return (fine.clamp(0, 1) * 255).to(torch.uint8)


def reference(parts: Any, image: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    x1, y1, x2, y2 = box
    with torch.inference_mode():
        pixels = parts[2](images=[image[:, y1:y2, x1:x2]], return_tensors="pt")["pixel_values"]
        found: Tensor = torch.nn.functional.normalize(parts[0].get_image_features(pixels).pooler_output, dim=-1)
    return found[0]


def test_crops_are_embedded_as_the_models_own_processor_would(clip: Clip, parts: Any, image: Tensor) -> None:
    vectors = clip.embed_crops(image, BOXES)
    assert vectors.shape == (4, 16)
    assert vectors.dtype == torch.float32
    for vector, box in zip(vectors, BOXES, strict=True):
        assert float(vector @ reference(parts, image, box)) > 1 - 5e-3
        assert float(vector.norm()) == pytest.approx(1, abs=1e-5)


def test_a_image_is_the_crop_of_all_of_it(clip: Clip, image: Tensor) -> None:
    assert torch.equal(clip.embed_images([image]), clip.embed_crops(image, BOXES[:1]))


def test_an_images_vector_does_not_depend_on_its_batch_mates(clip: Clip, image: Tensor) -> None:
    mates = clip.embed_images([image.flip(2), image, image[:, :30]])
    assert torch.equal(mates[1], clip.embed_images([image])[0])


def test_many_boxes_are_embedded_in_several_passes(clip: Clip, image: Tensor) -> None:
    boxes = [(x, y, x + 9, y + 7) for x in range(0, 50, 5) for y in range(0, 30, 3)]
    vectors = clip.embed_crops(image, boxes)
    assert len(vectors) == 100
    assert torch.allclose(vectors[77], clip.embed_crops(image, boxes[77:78])[0], atol=1e-5)


def test_texts_are_embedded_like_the_model_and_cut_to_context(clip: Clip, parts: Any) -> None:
    vectors = clip.embed_texts(TEXTS)
    for vector, text in zip(vectors, TEXTS, strict=True):
        tokens = parts[1](text, truncation=True, max_length=20, return_tensors="pt")
        with torch.inference_mode():
            found = (
                parts[0]
                .get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
                .pooler_output[0]
            )
        assert float(torch.nn.functional.cosine_similarity(vector, found, dim=0)) == pytest.approx(1, abs=1e-5)
    assert torch.equal(clip.embed_texts(["the dog " * 30]), clip.embed_texts(["the dog " * 40]))


def test_a_texts_vector_does_not_depend_on_its_batch_mates(clip: Clip) -> None:
    many = clip.embed_texts(TEXTS * 7)
    assert torch.equal(many[20], clip.embed_texts(TEXTS[2:])[0])
    assert torch.equal(many[0], many[18])


def test_nothing_gives_no_rows(clip: Clip, image: Tensor) -> None:
    assert clip.embed_images([]).shape == (0, 16)
    assert clip.embed_crops(image, []).shape == (0, 16)
    assert clip.embed_texts([]).shape == (0, 16)
