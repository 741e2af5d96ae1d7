"""The real architectures on the meta device: the memory that a bundle states, the classes that the roles work on."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from torch import nn

from imgdiffd.bundles.bundle import SHIPPED, Model, load_bundle
from imgdiffd.kernels.edits import edit_pairs
from imgdiffd.kernels.prompt_to_prompt import PairController
from imgdiffd.mini.tokenizer import build_tokenizer
from imgdiffd.models.eraser import Eraser
from imgdiffd.models.painter import Painter
from imgdiffd.models.sdxl import Sdxl
from imgdiffd.pipeline import Role
from tests.reference.real_size import SOURCES

pytestmark = pytest.mark.long

CLASSES = {
    Role.SEGMENTER: {"model": "SegmentationModel"},
    Role.CLIP: {"model": "CLIPModel"},
    Role.BLIP: {"model": "BlipForImageTextRetrieval"},
}
READERS = {  # of captions or images, by where the names of their checkpoints begin
    "lmsys/vicuna": {"model": "LlamaForCausalLM"},
    "llava-hf/": {"model": "LlavaNextForConditionalGeneration"},
    "Qwen/Qwen3-VL": {"model": "Qwen3VLForConditionalGeneration"},
}
PUBLISHED_PARAMETERS = {  # as the checkpoints' own pages and files state them
    "lmsys/vicuna-7b-v1.5": 6_738_415_616,
    "lmsys/vicuna-13b-v1.5": 13_015_864_320,
    "openai/clip-vit-base-patch32": 151_277_313,
    "Qwen/Qwen3-VL-2B-Instruct": 2_127_532_032,
    "stabilityai/stable-diffusion-xl-base-1.0": 2_567_463_684 + 83_653_863 + 123_060_480 + 694_659_840,
}

Parts = dict[str, nn.Module]


@pytest.fixture(scope="module")
def built() -> dict[str, Parts]:
    """Every source's parts, without a byte of weights."""
    with torch.device("meta"):
        return {source: build() for source, build in SOURCES.items()}


def models() -> Iterator[tuple[str, Role, Model]]:
    for name in SHIPPED:
        bundle = load_bundle(name)
        for role in bundle.roles:
            yield name, role, bundle.model(role)


ALL = list(models())
EACH = pytest.mark.parametrize(("role", "model"), [each[1:] for each in ALL], ids=[f"{a}-{b}" for a, b, _ in ALL])


def half_bytes(part: nn.Module) -> int:
    """Weights and buffers, those with a fraction in half precision."""
    tensors = [*part.parameters(), *part.buffers()]
    return sum(each.numel() * (2 if each.is_floating_point() else each.element_size()) for each in tensors)


@EACH
def test_a_bundles_memory_is_within_three_percent_of_real(role: Role, model: Model, built: dict[str, Parts]) -> None:
    gigabytes = sum(map(half_bytes, built[model.source].values())) / 1e9
    assert model.weights_gb == pytest.approx(gigabytes, rel=0.03)


@pytest.mark.parametrize("source", PUBLISHED_PARAMETERS)
def test_configurations_have_the_published_number_of_parameters(source: str, built: dict[str, Parts]) -> None:
    found = sum(each.numel() for part in built[source].values() for each in part.parameters())
    assert found == PUBLISHED_PARAMETERS[source]


@EACH
def test_every_part_is_of_the_class_that_its_role_works_on(role: Role, model: Model, built: dict[str, Parts]) -> None:
    readers = (classes for begin, classes in READERS.items() if model.source.startswith(begin))
    if (expected := CLASSES.get(role) or next(readers, None)) is not None:
        assert {name: type(part).__name__ for name, part in built[model.source].items()} == expected
        return
    pipeline = assembled(built[model.source])  # diffusers refuses parts of other names
    assert {name: type(part).__name__ for name, part in pipeline.components.items() if name in built[model.source]} == {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
    }


def assembled(parts: Parts) -> Any:
    tokenizer = build_tokenizer()
    return StableDiffusionXLPipeline(
        **parts,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    )


def test_painter_and_eraser_take_the_real_sdxl(built: dict[str, Parts]) -> None:
    sdxl = Sdxl(assembled(built["stabilityai/sdxl-turbo"]), torch.device("meta"))
    painter = Painter(sdxl, pairs_per_pass=1)
    assert sdxl.pixels_per_latent == 8
    kinds = Counter(type(block).__name__ for block in painter.repeated_blocks())
    assert kinds == {"BasicTransformerBlock": 70, "ResnetBlock2D": 17 + 24, "CLIPEncoderLayer": 12 + 32}
    sdxl.check_size("generate.picture_px", 1024)
    Eraser(sdxl, pictures_per_pass=1)


def test_a_real_size_step_is_injected_without_an_attention_map(built: dict[str, Parts]) -> None:
    unet: Any = built["stabilityai/stable-diffusion-xl-base-1.0"]["unet"]
    control = PairController(unet)
    plan = edit_pairs(
        [("a dog lies", "a cat lies")],
        lambda caption: [1, *(2 + len(word) for word in caption.split()), 0],
        77,
        edit="refine",
        cross_fraction=1.0,
        self_fraction=0.4,
        self_max_tokens=1024,
    )
    text = torch.empty(2, 77, 2048, device="meta")
    added = {"text_embeds": torch.empty(4, 1280, device="meta"), "time_ids": torch.empty(4, 6, device="meta")}
    try:
        with torch.inference_mode(), control.painting(text, None, guided=True, injection=plan, steps=50):
            control.enter_step(0)
            noise = unet(
                torch.empty(4, 4, 128, 128, device="meta"),
                torch.empty((), device="meta"),
                encoder_hidden_states=torch.empty(4, 77, 2048, device="meta"),
                added_cond_kwargs=added,
                return_dict=False,
            )[0]
    finally:
        control.remove()
    assert noise.shape == (4, 4, 128, 128)
